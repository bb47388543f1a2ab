"""The contract as a table: what is sent, answered, queued, refused - in each situation."""

from dataclasses import replace

import pytest

from resilient_redis.core.breaker import State
from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command
from resilient_redis.core.guard import (
    Answer,
    AwaitDrain,
    AwaitRecovery,
    Refuse,
    Repeat,
    Send,
    Sent,
    Step,
    Unknown,
    View,
    decide,
    lost,
    may_be_cut,
    writes,
)

HEALTHY = View(State.CLOSED, draining=False, held=None, waited=False, once=True)
AWAY = View(State.OPEN, draining=True, held=None, waited=False, once=True)
PROBING = View(State.HALF_OPEN, draining=True, held=None, waited=False, once=True)
DRAINING = View(State.CLOSED, draining=True, held=None, waited=False, once=True)
WAITED = View(State.CLOSED, draining=True, held=None, waited=True, once=True)
READONLY = View(State.CLOSED, draining=True, held="READONLY", waited=False, once=True)
OOM = View(State.CLOSED, draining=True, held="OOM", waited=False, once=True)
NO_RIGHTS = View(State.OPEN, draining=True, held=None, waited=False, once=False)


def batch(*lines: str) -> list[Command]:
    calls = [tuple(line.encode().split()) for line in lines]
    return [Command(args, shape_of(args)) for args in calls]


GET, SET, RPUSH, INCR, DEL = "GET k", "SET k v", "RPUSH l a", "INCR n", "DEL k"


@pytest.mark.parametrize("line", [GET, SET, INCR, "EVAL x 0", "PING", "BLPOP l 0", "FOO"])
def test_healthy_everything_is_sent(line: str) -> None:
    assert decide(batch(line), HEALTHY) == Send()


@pytest.mark.parametrize("view", [AWAY, PROBING, WAITED])
@pytest.mark.parametrize(
    "line,step",
    [
        (GET, Step.NEUTRAL),
        ("LPOP l", Step.NEUTRAL),
        ("PUBLISH c m", Step.NEUTRAL),
        ("SET k v EX 5", Step.QUEUE),
        ("HSET h f v", Step.QUEUE),
        (DEL, Step.QUEUE),
    ],
)
def test_away_reads_are_neutral_and_writes_queued(view: View, line: str, step: Step) -> None:
    assert decide(batch(line), view) == Answer((step,))


@pytest.mark.parametrize("view", [AWAY, PROBING, WAITED])
@pytest.mark.parametrize(
    "line",
    [
        INCR,
        "SET k v NX",
        "EVAL x 0",
        "WATCH k",
        "KEYS *",
        "PING",
        "INFO",
        "FOO",
        "BLMOVE a b LEFT LEFT 1",
    ],
)
def test_away_what_cannot_be_promised_is_refused(view: View, line: str) -> None:
    decision = decide(batch(line), view)
    assert isinstance(decision, Refuse)
    assert decision.reason


def test_one_refused_command_refuses_the_pipeline_and_is_named() -> None:
    decision = decide(batch(SET, GET, INCR, SET), AWAY)
    assert isinstance(decision, Refuse)
    assert decision.command == "INCR"


def test_a_pipeline_of_reads_and_writes_is_answered_one_by_one() -> None:
    steps = (Step.QUEUE, Step.NEUTRAL, Step.QUEUE)
    assert decide(batch(SET, GET, RPUSH), AWAY) == Answer(steps)


def test_draining_writes_queue_behind_and_wait_for_their_reply() -> None:
    assert decide(batch(SET, RPUSH), DRAINING) == Answer((Step.QUEUE,) * 2, wait=True)


def test_at_the_tail_of_a_drain_writes_wait_so_that_it_ends() -> None:
    tail = View(State.CLOSED, draining=True, held=None, waited=False, once=True, tail=True)
    assert decide(batch(SET), tail) == AwaitDrain()


@pytest.mark.parametrize("lines", [[GET], [INCR], ["LPOP l"], [SET, GET], ["PING"]])
def test_draining_everything_else_waits(lines: list[str]) -> None:
    assert decide(batch(*lines), DRAINING) == AwaitDrain()


@pytest.mark.parametrize("line", [GET, "PING", "PUBLISH c m", "KEYS *"])
def test_held_writes_leave_reads_live(line: str) -> None:
    assert decide(batch(line), READONLY) == Answer((Step.SEND,))


def test_held_writes_are_queued_and_conditions_refused() -> None:
    assert decide(batch(SET, GET), READONLY) == Answer((Step.QUEUE, Step.SEND))
    assert isinstance(decide(batch(INCR), READONLY), Refuse)


def test_out_of_memory_growing_writes_raise_and_deletes_queue() -> None:
    refusal = decide(batch(SET), OOM)
    assert isinstance(refusal, Refuse)
    assert refusal.oom
    assert decide(batch(DEL), OOM) == Answer((Step.QUEUE,))


def test_without_rights_only_what_is_safe_twice_is_queued() -> None:
    assert decide(batch(SET), NO_RIGHTS) == Answer((Step.QUEUE,))
    assert isinstance(decide(batch(RPUSH), NO_RIGHTS), Refuse)


def test_a_lost_reply() -> None:
    assert lost(batch(SET, GET), Sent.MAYBE) == Repeat()
    assert lost(batch(GET, INCR, SET), Sent.MAYBE) == Unknown("INCR")
    assert lost(batch(INCR), Sent.NO) == Repeat()


def test_fetch_and_clear_is_not_safe_twice() -> None:
    assert lost(batch(GET, DEL), Sent.MAYBE) == Unknown("DEL")
    assert lost(batch(DEL, GET), Sent.MAYBE) == Repeat()
    assert lost(batch(GET, "DEL other"), Sent.MAYBE) == Repeat()
    assert not may_be_cut(batch(GET, DEL))


def test_what_may_be_cut_and_what_the_fence_must_know() -> None:
    assert may_be_cut(batch(SET, GET))
    assert not may_be_cut(batch(GET, RPUSH))
    assert writes(batch(GET, SET))
    assert writes(batch("EVAL x 0"))
    assert not writes(batch(GET, "PING", "KEYS *"))


@pytest.mark.parametrize("view", [AWAY, PROBING, WAITED, READONLY])
def test_a_blocking_pop_waits_for_recovery_or_for_its_own_time(view: View) -> None:
    assert isinstance(decide(batch("BLPOP l 1"), view), AwaitRecovery)
    over = replace(view, blocked_out=True)
    assert decide(batch("BLPOP l 1"), over) == Answer((Step.NEUTRAL,))


def test_a_blocking_read_is_live_while_writes_are_held() -> None:
    assert decide(batch("XREAD BLOCK 5 STREAMS s $"), READONLY) == Answer((Step.SEND,))


def test_in_a_pipeline_nothing_waits() -> None:
    decision = decide(batch("GET k", "BLPOP l 1"), AWAY)
    assert isinstance(decision, Refuse)
