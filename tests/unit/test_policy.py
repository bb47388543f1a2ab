"""Rules: which keys and commands get which answer."""

import pytest

from resilient_redis import COUNTERS, Policy, Rule
from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command, Kind
from resilient_redis.core.rules import apply_rules


def ruled(policy: Policy, line: str) -> Command:
    args = tuple(line.encode().split())
    rules = [rule.compiled for rule in policy.rules]
    (found,) = apply_rules(rules, [Command(args, shape_of(args))])
    return found


def kind(policy: Policy, line: str) -> Kind:
    return ruled(policy, line).shape.kind


def test_the_first_rule_that_matches_decides() -> None:
    policy = Policy(
        [Rule("session:public:*", answer="neutral"), Rule("session:*", answer="refuse")]
    )
    assert kind(policy, "GET session:1") is Kind.REFUSED
    assert kind(policy, "GET session:public:1") is Kind.READ
    assert kind(policy, "GET other") is Kind.READ


def test_refuse_matches_if_any_key_does_the_others_only_if_all_do() -> None:
    refuse = Policy([Rule("s:*", answer="refuse")])
    assert kind(refuse, "MGET a s:1") is Kind.REFUSED
    shadow = Policy([Rule("s:*", answer="neutral"), Rule(answer="refuse")])
    assert kind(shadow, "MGET s:1 s:2") is Kind.READ
    assert kind(shadow, "MGET a s:1") is Kind.REFUSED


def test_counters_are_queued_by_one_rule() -> None:
    policy = Policy([Rule("hits:*", COUNTERS, "queue", max_age=5.0)])
    assert kind(policy, "INCR hits:1") is Kind.WRITE
    assert ruled(policy, "INCR hits:1").shape.max_age == 5.0
    assert kind(policy, "INCR other") is Kind.COUNTER


def test_messages_are_queued_by_one_rule() -> None:
    policy = Policy([Rule(commands=["PUBLISH"], answer="queue")])
    shape = ruled(policy, "PUBLISH c m").shape
    assert (shape.kind, shape.receipt, shape.safe_twice) == (Kind.WRITE, True, False)
    assert kind(policy, "SPUBLISH c m") is Kind.PUBLISH
    assert kind(Policy([Rule("c", answer="queue")]), "PUBLISH c m") is Kind.PUBLISH  # it has no key


def test_profiles() -> None:
    assert kind(Policy.cache(), "GET k") is Kind.READ
    assert kind(Policy.store(), "GET k") is Kind.REFUSED
    assert kind(Policy.store(), "LPOP k") is Kind.REFUSED
    assert kind(Policy.store(), "SET k v") is Kind.WRITE


@pytest.mark.parametrize(
    "commands,answer",
    [(["set"], "neutral"), (["GET"], "queue"), (["EVAL"], "queue"), (["EVAL"], "neutral")],
)
def test_an_answer_without_a_form_is_an_error(commands: list[str], answer: str) -> None:
    with pytest.raises(ValueError, match="has no answer of the form"):
        Rule(commands=commands, answer=answer)  # type: ignore[arg-type]  # as a user might


def test_other_mistakes_are_errors() -> None:
    with pytest.raises(ValueError, match="not a command"):
        Rule(commands=["GETT"], answer="refuse")
    with pytest.raises(ValueError, match="answer must be"):
        Rule(answer="maybe")  # type: ignore[arg-type]  # as a user might
    with pytest.raises(ValueError, match="max_age"):
        Rule(answer="refuse", max_age=3.0)
    with pytest.raises(TypeError, match="made of Rule"):
        Policy(["GET"])  # type: ignore[list-item]  # as a user might


def test_the_ready_sets_go_by_what_the_arguments_make_of_a_command() -> None:
    counting = Policy([Rule(commands=COUNTERS, answer="queue")])
    assert kind(counting, "ZADD k INCR 1 m") is Kind.WRITE
    assert kind(Policy.store(), "BITFIELD k GET u8 0") is Kind.REFUSED
    assert kind(Policy.store(), "SORT k STORE d") is Kind.WRITE
    assert (
        kind(Policy([Rule(commands=["SORT"], answer="refuse")]), "SORT k STORE d") is Kind.REFUSED
    )
