"""The pure core: a seeded swarm, and Hypothesis as the shrinker.

CORE_SCHEDULES (default 20,000) sets how many schedules the swarm runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from resilient_redis.core.breaker import Breaker, Cause, Permit, State, Transition
from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command, Kind
from resilient_redis.core.guard import Answer, AwaitDrain, Refuse, Send, Step, View, decide
from tests.sim.schedules import run_many

SCHEDULES = int(os.environ.get("CORE_SCHEDULES", "20000"))
PROCESSES = 2


def chunks(size: int = 500) -> Iterator[range]:
    for first in range(0, SCHEDULES, size):
        yield range(first, min(first + size, SCHEDULES))


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(SCHEDULES // 300 + 60)
def test_no_schedule_breaks_the_replay() -> None:
    started = time.monotonic()
    faults, wrong = 0, []
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for more, found in pool.map(run_many, chunks()):
            faults += more
            wrong += found
    seconds = time.monotonic() - started
    print(f"\n{SCHEDULES} schedules in {seconds:.0f} s, {faults} lost connections")
    assert not wrong, f"{len(wrong)} schedules\n" + "\n".join(wrong[:10])
    assert faults > SCHEDULES


CALLS = [
    (b"GET", b"k"),
    (b"MGET", b"k", b"j"),
    (b"LPOP", b"k"),
    (b"BLPOP", b"k", b"1"),
    (b"SET", b"k", b"v"),
    (b"SET", b"k", b"v", b"NX"),
    (b"RPUSH", b"k", b"v"),
    (b"DEL", b"k"),
    (b"INCR", b"k"),
    (b"PING",),
    (b"MULTI",),
    (b"NO-SUCH", b"k"),
]
COMMANDS = [Command(call, shape_of(call)) for call in CALLS]
batches = st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=4)


class BreakerMachine(RuleBasedStateMachine):
    """The breaker under any order of calls, and what the guard decides in each of its states."""

    permits: Bundle[Permit] = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(3)
        self.now = 0.0
        self.era = 0
        self.forced = False

    def moved(self, move: Transition | None) -> None:
        """Each move raises the era by one, and nothing else does."""
        self.era += move is not None
        assert self.breaker.era == self.era
        if move is not None:
            assert move.old is not move.new
            assert move.new is self.breaker.state

    @rule(old=st.booleans())
    def fail(self, old: bool) -> None:
        before = self.breaker.failures
        self.moved(self.breaker.failure(self.era - old))
        assert not old or self.breaker.failures == before

    @rule(old=st.booleans())
    def succeed(self, old: bool) -> None:
        before = self.breaker.failures
        self.breaker.success(self.era - old)
        closed = self.breaker.state is State.CLOSED
        assert self.breaker.failures == (0 if closed and not old else before)

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=permits)
    def probe(self) -> Permit:
        held = self.breaker._permit
        busy = held is not None and self.now < held.deadline
        before = self.breaker.state
        taken = self.breaker.take_permit(self.now, 2.0)
        may = before is State.OPEN or (before is State.HALF_OPEN and not busy)
        assert (taken is not None) == (may and not self.forced)
        if taken is None:
            return Permit(-1, 0.0)
        self.moved(taken[1])
        assert self.breaker.state is State.HALF_OPEN
        return taken[0]

    @rule(permit=permits, succeeded=st.booleans())
    def give_back(self, permit: Permit, succeeded: bool) -> None:
        valid = permit is self.breaker._permit and self.breaker.state is State.HALF_OPEN
        move = self.breaker.give_back(permit, succeeded)
        self.moved(move)
        assert (move is not None) == valid
        if move is not None:
            assert move.new is (State.CLOSED if succeeded else State.OPEN)

    @rule(cause=st.sampled_from((Cause.HANG, Cause.REPLAY_FAILED)))
    def trip(self, cause: Cause) -> None:
        closed = self.breaker.state is State.CLOSED
        move = self.breaker.trip(cause)
        self.moved(move)
        assert (move is not None) == closed

    @rule()
    def force(self) -> None:
        self.moved(self.breaker.force_open())
        self.forced = True
        assert self.breaker.state is State.OPEN

    @rule()
    def reset(self) -> None:
        self.moved(self.breaker.reset())
        self.forced = False
        assert self.breaker.state is State.CLOSED

    @invariant()
    def closed_below_the_threshold(self) -> None:
        breaker = self.breaker
        assert breaker.state is not State.CLOSED or breaker.failures < breaker.failure_threshold

    @rule(
        batch=batches,
        draining=st.booleans(),
        held=st.sampled_from((None, "OOM", "READONLY")),
        waited=st.booleans(),
        once=st.booleans(),
        tail=st.booleans(),
    )
    def decide(
        self,
        batch: list[Command],
        draining: bool,
        held: str | None,
        waited: bool,
        once: bool,
        tail: bool,
    ) -> None:
        state = self.breaker.state
        decision = decide(batch, View(state, draining, held, waited, once, tail))
        closed = state is State.CLOSED
        if isinstance(decision, Send):
            assert closed
            assert not draining
            assert held is None
        if isinstance(decision, AwaitDrain):
            assert closed
            assert draining
            assert not waited
        if isinstance(decision, Refuse):
            assert any(c.shape.name == decision.command for c in batch)
        if isinstance(decision, Answer):
            assert len(decision.steps) == len(batch)
            for command, step in zip(batch, decision.steps, strict=True):
                kind = command.shape.kind
                if step is Step.QUEUE:
                    assert kind is Kind.WRITE
                    assert once or command.shape.safe_twice
                elif step is Step.NEUTRAL:
                    assert kind in (Kind.READ, Kind.TAKE, Kind.PUBLISH)
                else:
                    assert step is Step.SEND
                    assert closed
                    assert held is not None


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
