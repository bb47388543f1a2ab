"""One lock protocol for append, gate and transition: all interleavings of two or three operations.

The library's own connection, recovery and replay, over a model of the server. What a test's
`run` names are the threads; a thread may be stopped before it takes the lock, before I/O, before an
observer is told, and before each access, under the lock or not, to anything that another thread may
change at that moment. *All* schedules of these are tried, without a bound on preemptions: `sharing`
says which accesses those are and how they are found, `exploring` why one schedule stands for all
those that nobody can tell apart from it, and `test_exploring` holds both against a search that
leaves nothing out.

In each of them no acknowledged write is lost, applied twice or out of its order, none that was sent
before an outage lands after the fence, no gate opens before entries, nobody holds the lock at I/O
or before an observer, nobody waits for ever, each receipt is settled once, somebody recovers, and
events are told in order.

Not in here: time that runs out (who waits, waits until he is told; a pause between two attempts may
end at any moment), what a socket does by itself, and telling, except where the name of a test says
so. What takes minutes is part of `make full`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import resilient_redis.base
from resilient_redis import OutcomeUnknown
from resilient_redis.sync.breaker import SyncQueued
from tests.sync.interleaving import Stuck
from tests.sync.world import World, play

FULL = bool(os.environ.get("ALL_WORLDS"))
in_full = pytest.mark.skipif(not FULL, reason="takes minutes: `make full` has it")

Writer = Callable[[], Any]


def writer(push: Callable[[bytes], Any], certain: list[bytes], *values: bytes) -> Writer:
    """Pushes `values`; those of which it knows that they are or will be there go to `certain`."""

    def writes() -> None:
        for value in values:
            try:
                push(value)
                certain.append(value)
            except OutcomeUnknown:
                pass

    return writes


@pytest.mark.parametrize("values", [(b"a1",), (b"a1", b"a2")], ids=["one write", "two writes"])
def test_a_healthy_write_and_the_trip(
    monkeypatch: pytest.MonkeyPatch, values: tuple[bytes, ...]
) -> None:
    """It is seen by who opens, or it sees that it is open."""

    def once(world: World) -> None:
        one = world.connection()
        one.connect()
        certain: list[bytes] = []
        world.scheduler.run(("writes", writer(one.rpush, certain, *values)), ("trips", world.trip))
        world.judge(certain)

    assert play(once, monkeypatch) >= 20


def test_a_healthy_write_and_the_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on the wire as the breaker opens lands before the first replayed write, or never."""

    def once(world: World) -> None:
        one = world.connection()
        one.connect()
        certain: list[bytes] = []

        def opens() -> None:
            world.trip()
            world.fence()

        world.scheduler.run(("writes", writer(one.rpush, certain, b"a1")), ("opens", opens))
        world.judge(certain)

    assert play(once, monkeypatch) >= 20


@in_full
def test_a_healthy_write_and_the_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on the wire as the breaker opens lands before the first replayed write, or never."""

    def once(world: World) -> None:
        one = world.connection()
        one.connect()
        certain: list[bytes] = []

        world.scheduler.run(
            ("writes", writer(one.rpush, certain, b"a1")),
            ("trips", partial(world.trip, b"b1")),
            ("recovers", world.recovers),
        )
        world.judge(certain, [b"b1"])

    assert play(once, monkeypatch, 3) >= 200


def test_a_failure_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply after a failure makes the breaker count anew, under the lock; another trips it."""

    def once(world: World) -> None:
        one = world.connection()
        one.connect()
        world.fail()
        certain: list[bytes] = []
        world.scheduler.run(("writes", writer(one.rpush, certain, b"a1")), ("trips", world.trip))
        world.judge(certain)

    assert play(once, monkeypatch) >= 20


def test_a_write_and_the_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is queued, waits for its entry, or goes to the server behind those."""

    def once(world: World) -> None:
        world.trip(b"a1")
        certain: list[bytes] = []
        push = world.connection().rpush
        world.scheduler.run(
            ("writes", writer(push, certain, b"a2", b"a3")), ("recovers", world.recovers)
        )
        world.judge([b"a1", *certain])

    assert play(once, monkeypatch) >= 50


def test_an_append_and_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that waits for its own entry is told its real reply: no wakeup is lost, and none
    passes the journal as the gate opens.
    """
    # A write waits for its own entry, and not for a short journal to be empty.
    monkeypatch.setattr(resilient_redis.base, "TAIL", -1)

    def once(world: World) -> None:
        world.trip(b"a1")
        world.close_undrained()
        first, other = world.connection(), world.connection()
        replies: list[Any] = []

        def writes() -> None:
            replies.append(first.rpush(b"a2"))
            replies.append(other.rpush(b"a3"))

        world.scheduler.run(("writes", writes), ("drains", world.recovers))
        assert replies == [2, 3]
        world.judge([b"a1", b"a2", b"a3"])

    assert play(once, monkeypatch) >= 50


def test_two_writes_and_the_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(world: World) -> None:
        world.trip(b"a1")
        certain: list[bytes] = []
        works = [
            (name, writer(world.connection().rpush, certain, value))
            for name, value in (("one", b"a2"), ("other", b"b1"))
        ]
        world.scheduler.run(*works, ("recovers", world.recovers))
        assert sorted(certain) == [b"a2", b"b1"]
        world.judge([b"a1", b"a2"], [b"b1"])

    assert play(once, monkeypatch, 3) >= 200


def test_a_recovery_that_ends_and_a_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on, or another is begun."""

    def once(world: World) -> None:
        world.trip(b"a1")
        world.scheduler.run(("recovers", world.recovers), ("trips", partial(world.trip, b"a2")))
        world.judge([b"a1", b"a2"])

    assert play(once, monkeypatch) >= 10


@pytest.mark.parametrize(
    "again, after",
    [
        pytest.param(again, after, marks=[] if (again, after) == ("trip", 6) else in_full)
        for again in ("trip", "force_open")
        for after in range(1, 8)  # a drain of one entry asks so often
    ],
)
def test_a_write_a_drain_and_a_transition(
    monkeypatch: pytest.MonkeyPatch, again: str, after: int
) -> None:
    """It opens again in the midst of a drain, for whose end somebody waits: as the recovery waits
    for that many answers, in its own thread. Both do all of it under the lock, so another thread
    could not do it in any other order.
    """

    def once(world: World) -> None:
        world.trip(b"a1")
        world.close_undrained()
        one = world.connection()
        one.connect()
        certain: list[bytes] = []

        def opens() -> None:
            if again == "trip":
                world.trip()
            else:
                world.breaker.force_open()
                world.breaker.reset()

        world.then[after] = opens
        world.scheduler.run(
            ("writes", writer(one.rpush, certain, b"a2")), ("recovers", world.recovers)
        )
        assert world.exchanges >= after, "it has not opened"
        world.judge([b"a1", *certain])

    assert play(once, monkeypatch) >= 50


def test_a_recovery_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` has waited for what was acknowledged before. (A write beside it may have to wait for
    its own time to be over, which nothing in here does.)
    """

    def once(world: World) -> None:
        world.trip(b"a1")
        left: list[int] = []
        world.scheduler.run(
            ("closes", lambda: left.append(world.breaker.close(10.0))),
            ("recovers", world.recovers),
        )
        assert left == [0]
        assert world.there == [b"a1"]
        world.judge([b"a1"])

    assert play(once, monkeypatch) >= 10


def test_a_client_and_the_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a breaker's client, which answers without a connection while it is open."""

    def once(world: World) -> None:
        push = world.client()
        world.trip(b"a1")
        certain: list[bytes] = []
        world.scheduler.run(("writes", writer(push, certain, b"a2")), ("recovers", world.recovers))
        world.judge([b"a1", *certain])

    assert play(once, monkeypatch) >= 20


def test_a_receipt_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(world: World) -> None:
        world.trip()
        receipt = world.connection().rpush(b"a1")
        assert isinstance(receipt, SyncQueued)
        told: list[Any] = []
        world.scheduler.run(
            ("waits", lambda: told.append(receipt.outcome())), ("recovers", world.recovers)
        )
        assert told == [1]
        world.judge([b"a1"])

    assert play(once, monkeypatch) >= 5


def test_telling_of_a_drill_and_a_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Observers hear in order, of one at a time, and nobody holds the lock; a snapshot is of one
    moment.
    """

    def once(world: World) -> None:
        breaker = world.breaker

        def drills() -> None:
            breaker.force_open()
            breaker.reset()

        def trips() -> None:
            world.trip()
            now = breaker.snapshot()
            assert (now.retry_after is None) or now.state != "CLOSED"

        world.scheduler.run(("drills", drills), ("trips", trips))
        world.judge()

    assert play(once, monkeypatch, telling=True) >= 100


def test_telling_as_another_has_just_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a teller's last look and his way out another may have begun."""

    def once(world: World) -> None:
        world.trip()

        def resets() -> None:
            world.breaker.reset()
            world.breaker.reset()

        world.scheduler.run(("resets", resets), ("trips", world.trip))
        world.judge()

    assert play(once, monkeypatch, telling=True) >= 50


def test_telling_by_three(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(world: World) -> None:
        breaker = world.breaker
        world.scheduler.run(
            ("opens", breaker.force_open), ("resets", breaker.reset), ("trips", world.trip)
        )
        breaker.reset()
        world.judge()

    assert play(once, monkeypatch, 3, telling=True) >= 100


def test_telling_of_a_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps' own driver tells, too."""

    def once(world: World) -> None:
        world.trip()
        world.scheduler.run(("recovers", world.recovers), ("resets", world.breaker.reset))
        world.judge()

    assert play(once, monkeypatch, telling=True) >= 50


def test_a_lost_wakeup_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the equipment: who waits where nobody tells is found."""

    def once(world: World) -> None:
        world.trip()
        receipt = world.connection().rpush(b"a1")
        world.scheduler.run(("waits", receipt.outcome))

    with pytest.raises(Stuck, match="wait for ever"):
        play(once, monkeypatch, 1)
