"""`Policy` and `Rule`, line by line, through a client."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest

from resilient_redis import (
    COUNTERS,
    READS,
    TAKES,
    WRITES,
    CommandRefused,
    MemoryJournal,
    Policy,
    Rule,
)
from resilient_redis import policy as policy_module
from tests.contract.helpers import outcome, recovered
from tests.support.flavours import Queued, Redis, RedisCircuitBreaker, ResilientConnection
from tests.support.servers import Rig
from tests.surface.helpers import aside, guarded, quick

URL = "redis://127.0.0.1:1/0"


async def answers(policy: Policy | None, *calls: tuple[Any, ...]) -> list[str]:
    """What each call is answered while open: "neutral", "queued" or "refused"."""
    breaker = RedisCircuitBreaker(policy=policy)
    breaker.force_open()
    client = Redis.from_url(URL, connection_class=ResilientConnection, breaker=breaker)
    said = []
    for method, *args in calls:
        before = breaker.snapshot().counters
        result = await outcome(aside(getattr(client, method), *args))
        now = breaker.snapshot().counters
        (changed,) = (name for name in now if now[name] != before.get(name, 0))
        assert isinstance(result, CommandRefused) == (changed == "refused"), result
        said.append(changed)
    assert breaker.pending == said.count("queued")
    breaker.outbox.journal.confirm(10**6)
    await client.aclose()
    await breaker.aclose()
    return said


# -- "`Policy.cache()`, the default", "`Policy.store()`"

EACH = (("get", "k"), ("lpop", "k"), ("set", "k", "v"), ("incr", "k"), ("setnx", "k", "v"))


async def test_the_default_is_the_cache() -> None:
    as_a_cache = ["neutral", "neutral", "queued", "refused", "refused"]
    assert await answers(None, *EACH) == as_a_cache
    assert await answers(Policy.cache(), *EACH) == as_a_cache
    assert await answers(Policy(), *EACH) == as_a_cache
    assert await answers(Policy([]), *EACH) == as_a_cache


async def test_the_store_refuses_reads() -> None:
    as_a_store = ["refused", "refused", "queued", "refused", "refused"]
    assert await answers(Policy.store(), *EACH) == as_a_store


# -- "`Rule(keys=None, commands=None, answer=…, max_age=None)`"


def test_the_fields_of_a_rule_and_their_order() -> None:
    rule = Rule("a:*", ["GET"], "neutral", None)
    assert (rule.keys, list(rule.commands or ()), rule.answer) == ("a:*", ["GET"], "neutral")
    assert Rule() == Rule(keys=None, commands=None, answer="neutral", max_age=None)
    assert set(get_args(policy_module.Answer)) == {"neutral", "queue", "refuse"}
    with pytest.raises(AttributeError):
        rule.answer = "refuse"  # type: ignore[misc]  # that is the point


GLOBS = [
    ("session:*", "session:1", True),
    ("session:*", "xsession:1", False),
    ("session:*", "session", False),
    ("*:lock", "a:b:lock", True),
    ("user:?", "user:7", True),
    ("user:?", "user:77", False),
    ("user:[abc]", "user:b", True),
    ("user:[abc]", "user:d", False),
    ("exact", "exact", True),
    ("exact", "exactly", False),
    ("a.c", "abc", False),
    ("line*", "line\nbreak", True),
    ("schlüssel:*", "schlüssel:1", True),
]


@pytest.mark.parametrize("glob, key, matches", GLOBS)
async def test_globs_on_keys(glob: str, key: str, matches: bool) -> None:
    policy = Policy([Rule(keys=glob, answer="refuse")])
    assert await answers(policy, ("get", key)) == ["refused" if matches else "neutral"]
    assert await answers(policy, ("get", key.encode())) == ["refused" if matches else "neutral"]


async def test_several_globs() -> None:
    policy = Policy([Rule(keys=["a:*", "b:*"], answer="refuse")])
    calls = [("get", "a:1"), ("get", "b:1"), ("get", "c:1")]
    assert await answers(policy, *calls) == ["refused", "refused", "neutral"]


async def test_commands_are_wire_names() -> None:
    """`delete` is DEL, `incr` is sent as INCRBY; any case is taken."""
    policy = Policy([Rule(commands=["DEL", "hget"], answer="refuse")])
    calls = [("delete", "k"), ("unlink", "k"), ("hget", "k", "f"), ("get", "k")]
    assert await answers(policy, *calls) == ["refused", "queued", "refused", "neutral"]


@pytest.mark.parametrize(
    "ready, named, kinds",
    [
        (READS, {"GET", "HGETALL", "MGET"}, ["refused", "neutral", "queued", "refused", "refused"]),
        (TAKES, {"LPOP", "SPOP"}, ["neutral", "refused", "queued", "refused", "refused"]),
        (WRITES, {"SET", "XADD"}, ["neutral", "neutral", "refused", "refused", "refused"]),
        (COUNTERS, {"INCR", "APPEND"}, ["neutral", "neutral", "queued", "refused", "refused"]),
    ],
)
async def test_the_ready_sets(ready: frozenset[str], named: set[str], kinds: list[str]) -> None:
    assert type(ready) is frozenset
    assert named <= ready
    assert all(name == name.upper() for name in ready)
    assert await answers(Policy([Rule(commands=ready, answer="refuse")]), *EACH) == kinds


# -- "first match wins, then the catalog"


async def test_the_first_match_wins_then_the_catalog() -> None:
    policy = Policy(
        [
            Rule("session:public:*", answer="neutral"),
            Rule("session:*", answer="refuse"),
            Rule(commands=COUNTERS, answer="queue"),
        ]
    )
    calls = [
        ("get", "session:public:1"),
        ("get", "session:1"),
        ("incr", "session:1"),
        ("incr", "hits"),
        ("get", "other"),
        ("set", "other", "v"),
    ]
    assert await answers(policy, *calls) == [
        *("neutral", "refused", "refused", "queued", "neutral", "queued"),
    ]
    turned = Policy([Rule("session:*", answer="refuse"), Rule("session:public:*")])
    assert await answers(turned, ("get", "session:public:1")) == ["refused"]


# -- "`refuse` matches if any key matches, the others only if all do"


async def test_refuse_matches_any_key_the_others_only_all() -> None:
    refuse = Policy([Rule("s:*", answer="refuse")])
    mset, some, none = ("mset", {"a": 1, "s:1": 2}), ("mget", "a", "s:1"), ("mget", "a", "b")
    assert await answers(refuse, mset, some, none) == ["refused", "refused", "neutral"]
    neutral = Policy([Rule("s:*", answer="neutral"), Rule(answer="refuse")])
    both = ("mget", "s:1", "s:2")
    assert await answers(neutral, both, some, none) == ["neutral", "refused", "refused"]
    queue = Policy([Rule("s:*", answer="queue"), Rule(answer="refuse")])
    assert await answers(queue, ("delete", "s:1", "s:2"), ("delete", "s:1", "a")) == [
        *("queued", "refused"),
    ]


async def test_a_rule_without_keys_is_for_commands_without_keys_too() -> None:
    assert await answers(Policy([Rule(answer="refuse")]), ("publish", "c", "x")) == ["refused"]
    assert await answers(Policy([Rule("*", answer="refuse")]), ("publish", "c", "x")) == ["neutral"]


# -- "an answer that has no form for a command is a ValueError at construction"


@pytest.mark.parametrize(
    "command, answer",
    [
        *[(name, "neutral") for name in ("SET", "DEL", "INCR", "EVAL", "SETNX", "KEYS")],
        *[(name, "queue") for name in ("GET", "LPOP", "EVAL", "SETNX", "RENAME")],
    ],
)
def test_an_answer_without_a_form_is_a_value_error(command: str, answer: Any) -> None:
    with pytest.raises(ValueError, match=f"{command} has no answer of the form '{answer}'"):
        Rule(commands=[command], answer=answer)
    with pytest.raises(ValueError, match=command):
        Rule(commands=["GET" if answer == "neutral" else "SET", command], answer=answer)


def test_anything_can_be_refused() -> None:
    for name in (*READS, *TAKES, *WRITES, *COUNTERS, "EVAL", "KEYS", "PING"):
        Rule(commands=[name], answer="refuse")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"answer": "maybe"}, "neutral, queue, refuse"),
        ({"commands": ["GETT"], "answer": "refuse"}, "GETT is not a command"),
        ({"max_age": 5.0}, "max_age"),
        ({"max_age": 5.0, "answer": "refuse"}, "max_age"),
        ({"max_age": 0, "answer": "queue"}, "max_age"),
        ({"max_age": -1.0, "answer": "queue"}, "max_age"),
    ],
)
def test_other_mistakes_are_value_errors_too(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**options)


# -- `max_age`


@pytest.mark.server
async def test_a_write_older_than_its_rule_allows_is_set_aside(valkey_rig: Rig) -> None:
    policy = Policy([Rule("live:*", answer="queue", max_age=0.05)])
    async with guarded(valkey_rig, quick(policy=policy)) as (client, breaker):
        breaker.force_open()
        await client.set("live:1", "v")
        await client.set("other", "v")
        await asyncio.sleep(0.07)
        await client.set("live:2", "v")
        breaker.reset()
        await recovered(breaker)
        assert sorted(valkey_rig.admin.keys("*")) == ["live:2", "other"]
        assert [(d.command, d.reason) for d in breaker.dead_letters] == [("SET", "age")]


@pytest.mark.server
async def test_a_rule_may_allow_more_age_than_the_journal(valkey_rig: Rig) -> None:
    policy = Policy([Rule("keep:*", answer="queue", max_age=60.0)])
    breaker = quick(policy=policy, journal=MemoryJournal(max_age=0.03))
    async with guarded(valkey_rig, breaker) as (client, _):
        breaker.force_open()
        await client.set("keep:1", "v")
        await client.set("other", "v")
        await asyncio.sleep(0.05)
        breaker.reset()
        await recovered(breaker)
        assert valkey_rig.admin.keys("*") == ["keep:1"]


@pytest.mark.server
async def test_counters_by_one_rule_are_applied_exactly_once(valkey_rig: Rig) -> None:
    policy = Policy([Rule("views:*", COUNTERS, "queue")])
    async with guarded(valkey_rig, quick(policy=policy)) as (client, breaker):
        assert await client.incr("views:1") == 1
        breaker.force_open()
        for _ in range(10):
            assert isinstance(await client.incr("views:1"), Queued)
        with pytest.raises(CommandRefused):
            await client.incr("quota")
        breaker.reset()
        await recovered(breaker)
        assert await client.incr("views:1") == 12


@pytest.mark.server
async def test_messages_by_one_rule_are_heard_later(valkey_rig: Rig) -> None:
    """Behind the write that they tell of, in one transaction with it or on their own."""
    policy = Policy([Rule(commands=["PUBLISH"], answer="queue")])
    heard = valkey_rig.admin.pubsub(ignore_subscribe_messages=True)
    heard.subscribe("news")
    async with guarded(valkey_rig, quick(policy=policy)) as (client, breaker):
        breaker.force_open()
        alone = await client.publish("news", "1")
        _, together = await client.pipeline().set("k", "v").publish("news", "2").execute()
        breaker.reset()
        await recovered(breaker)
        assert (await alone.outcome(), await together.outcome()) == (1, 1)
    messages = [message for _ in range(5) if (message := heard.get_message(timeout=0.5))]
    assert [message["data"] for message in messages] == ["1", "2"]
    heard.close()
    assert valkey_rig.admin.get("k") == "v"
