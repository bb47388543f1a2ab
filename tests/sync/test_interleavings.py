"""One lock protocol for append, gate and transition: all interleavings of two operations.

The library's own connection, recovery and replay, over a model of the server: see `interleaving`
for where they may be stopped.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from types import CodeType, SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError

import resilient_redis.base
import resilient_redis.sync.breaker
import resilient_redis.sync.socket
from resilient_redis import OutcomeUnknown, RedisCircuitBreaker, ResilientConnection
from resilient_redis.base import BreakerBase
from resilient_redis.core.breaker import Cause
from resilient_redis.core.exchange import Exchange, Replies
from resilient_redis.events import Event as BreakerEvent
from resilient_redis.events import StateChanged
from resilient_redis.flow.link import LinkBase
from resilient_redis.flow.receiver import GuardedReceiver
from resilient_redis.flow.recovery import recover
from resilient_redis.flow.steps import Steps
from resilient_redis.receipt import Queued
from resilient_redis.sync import connection as sync_connection
from resilient_redis.sync import driving
from resilient_redis.sync.breaker import SyncQueued
from resilient_redis.sync.driving import run
from tests.sync.interleaving import Condition, Event, Lock, Scheduler, Stuck, all_schedules
from tests.unit.model_server import ModelServer

# `make full` runs all schedules with two.
PREEMPTIONS = int(os.environ.get("PREEMPTIONS", "1"))
# What runs without the lock, or decides what such code sees.
TRACED: frozenset[CodeType] = frozenset(
    function.__code__
    for function in (
        sync_connection.GuardedConnection._submit,
        GuardedReceiver._arrived,
        driving.Lock.tell,
        driving.Lock._next,
        Queued.on_settled,
        Queued.settle,
        SyncQueued.outcome,
        BreakerBase._moved,
        BreakerBase.open_gate,
    )
)


class Server(ModelServer):
    def execute(self, client: Any, args: tuple[bytes, ...]) -> Any:
        return b"PONG" if args[0] == b"PING" else super().execute(client, args)


class Wire:
    """A socket to the model: what is sent is done at once, unless it was cut off before."""

    family = None

    def __init__(self, world: World) -> None:
        self._world = world
        self._client = world.server.connect()
        self._outage = world.breaker.outages
        self.cut = False
        self.replies: deque[Any] = deque()

    def send(self, data: bytes) -> int:
        self._world.io("sends")
        if self.cut:
            raise BrokenPipeError("it was cut off")
        assert self._outage >= self._world.fenced, "a socket of before the fence is used"
        self.replies += self._world.server.feed(self._client, data)
        return len(data)

    def settimeout(self, _: float | None) -> None:
        pass

    def shutdown(self, _: int) -> None:
        self.cut = True

    def close(self) -> None:
        self.cut = True


class Connection(ResilientConnection):
    """Over a `Wire`; of a command's way only the parser is left out."""

    world: World

    def _connect_stock(self) -> None:
        self.world.io("connects")
        self._sock = Wire(self.world)
        self._introduced = True

    def rpush(self, value: bytes) -> Any:
        """As a client's: the reply, or a receipt."""
        self.connect()
        self.send_command("RPUSH", "l", value)
        while self._slots is None:
            self.world.io("reads")
            wire = self._sock
            if wire is None or wire.cut:
                run(self.breaker.lock, self._lost(ConnectionError("it was cut off")))
                continue
            reply = wire.replies.popleft()
            self._arrived(reply)
            return reply
        return self.read_response()


def close(breaker: RedisCircuitBreaker) -> None:
    permit = breaker.take_permit()
    assert permit is not None
    breaker.give_back(permit, True)


def _rpush(connection: Connection, value: bytes) -> None:
    connection.rpush(value)


class FakeLink(LinkBase):
    """The recovery's, over the model."""

    def __init__(self, world: World) -> None:
        super().__init__(None, 1.0)
        self._world = world
        self._client = world.server.connect()
        self._found: Replies = []

    def _connect(self) -> None:
        raise NotImplementedError

    _connect_bare = _connect

    def exchange(self, ask: Exchange) -> Replies:
        self._world.io("exchanges")
        if b"EXEC" in ask.send:
            self._world.fenced = self._world.breaker.outages
        self._found += self._world.server.feed(self._client, ask.send)
        replies, self._found = self._found[: ask.receive], self._found[ask.receive :]
        return replies

    def abort(self) -> None:
        pass


class World:
    """A breaker whose locks are the scheduler's, and a server that is always there."""

    def __init__(self, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scheduler = scheduler
        self.server = Server()
        self.now = 0.0
        self.told: list[BreakerEvent] = []
        breaker = self.breaker = RedisCircuitBreaker(recovery_timeout=0.1)
        lock = breaker.lock
        self.lock = Lock(scheduler, "the lock", reentrant=True)
        replaced: Any = lock
        replaced._made = (self.lock, Condition(self.lock))
        breaker.clock = lambda: self.now
        breaker.rights_asked = breaker.rights_known = True
        change: Any = breaker
        scheduler.invariant = self.nothing_passes
        self.fenced = 0  # the last outage whose fence is up
        change.start_recovery = lambda: None  # `recover` is an operation of its own here
        change.opening_link = self.opening_link
        change.later = lambda *_: pytest.fail("the recovery has failed")
        change.sleeping = change.resting = lambda seconds: partial(self.sleep, seconds)
        breaker.add_observer(self.observe)
        self.connection()  # so that the recovery knows where to go
        threads = SimpleNamespace(
            Event=lambda: Event(scheduler), current_thread=threading.current_thread
        )
        monkeypatch.setattr(resilient_redis.sync.breaker, "threading", threads)
        monkeypatch.setattr(resilient_redis.sync.socket, "set_timeout", lambda *_: None)
        monkeypatch.setattr(
            resilient_redis.sync.socket, "cut_off", lambda wire, **_: wire.shutdown(0)
        )

    def nothing_passes(self) -> None:
        breaker = self.breaker
        if self.lock.free:
            assert not (breaker.gate_open and breaker.pending), "the gate is open, and writes wait"
            assert not (breaker.live and not breaker.closed)

    def io(self, what: str) -> None:
        """Something that waits, or an observer: nobody may hold the lock for it."""
        assert not self.lock.held(), f"the lock is held by who {what}"
        self.scheduler.point(what)

    def observe(self, event: BreakerEvent) -> None:
        self.io("is told")
        self.told.append(event)

    def sleep(self, seconds: float) -> None:
        self.io("sleeps")
        self.now += seconds

    def opening_link(self) -> Steps[FakeLink]:
        yield partial(self.io, "connects")
        return FakeLink(self)

    def connection(self) -> Connection:
        made = type("Connected", (Connection,), {"world": self})(breaker=self.breaker, port=1)
        assert isinstance(made, Connection)
        return made

    def trip(self) -> None:
        self.breaker.exclusively(partial(self.breaker.trip, Cause.HANG, "TimeoutError"))

    def recover(self) -> None:
        run(self.breaker.lock, recover(self.breaker))

    @property
    def there(self) -> list[bytes]:
        return list(self.server.data.get((0, b"l"), []))

    def judge(self, *mine: list[bytes]) -> None:
        """Each thread's own, acknowledged, once and in order; the breaker is as before."""
        untold: Any = self.breaker.lock
        assert not untold._events, "an event is told to nobody"
        if self.breaker.busy:
            self.recover()
        assert self.breaker.live, self.breaker.snapshot()
        there = self.there
        assert len(there) == len(set(there)), f"twice: {there}"
        for values in mine:
            assert [value for value in there if value in values] == values, f"{values}: {there}"
        eras = [event.era for event in self.told if isinstance(event, StateChanged)]
        assert eras == list(range(1, self.breaker.era + 1)), "told out of order, or not"


Play = Callable[[World], None]


def play(once: Play, monkeypatch: pytest.MonkeyPatch, more: int = 0, at_least: int = 50) -> None:
    def with_world(scheduler: Scheduler) -> None:
        with monkeypatch.context() as patched:
            once(World(scheduler, patched))

    count = all_schedules(with_world, PREEMPTIONS + more, TRACED)
    print(f"{count} schedules")
    assert count >= at_least


def test_a_healthy_send_and_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent as the breaker opens is seen by who opens it: nothing of it lands late."""

    def once(world: World) -> None:
        one, other = world.connection(), world.connection()
        one.connect()
        certain: list[bytes] = []

        def sends() -> None:
            for value in (b"a1", b"a2"):
                try:
                    one.rpush(value)
                    certain.append(value)
                except OutcomeUnknown:
                    pass

        def opens() -> None:
            world.trip()
            other.rpush(b"b1")
            at_the_time = world.breaker.closed
            world.recover()
            assert not at_the_time
            other.rpush(b"b2")

        world.scheduler.run(("sends", sends), ("opens", opens))
        world.judge(certain, [b"b1", b"b2"])

    play(once, monkeypatch)


def test_an_append_and_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that waits for its own entry is told its real reply: no wakeup is lost, and none
    passes the journal as the gate opens.
    """
    # A write waits for its own entry, and not for a short journal to be empty.
    monkeypatch.setattr(resilient_redis.base, "TAIL", -1)

    def once(world: World) -> None:
        first = world.connection()
        world.trip()
        first.rpush(b"a1")
        world.breaker.exclusively(partial(close, world.breaker))  # and not drained
        other = world.connection()
        replies: list[Any] = []

        def writes() -> None:
            replies.append(first.rpush(b"a2"))
            replies.append(other.rpush(b"a3"))

        world.scheduler.run(("writes", writes), ("drains", world.recover))
        assert replies == [2, 3]
        world.judge([b"a1", b"a2", b"a3"])

    play(once, monkeypatch)


def test_two_appends_and_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(world: World) -> None:
        one, other = world.connection(), world.connection()
        world.trip()
        one.rpush(b"a1")

        def writes(connection: Connection, value: bytes) -> Callable[[], None]:
            return partial(_rpush, connection, value)

        world.scheduler.run(
            ("one", writes(one, b"a2")), ("other", writes(other, b"b1")), ("drains", world.recover)
        )
        world.judge([b"a1", b"a2"], [b"b1"])

    play(once, monkeypatch, more=-1, at_least=5)


def test_a_receipt_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(world: World) -> None:
        world.trip()
        receipt = world.connection().rpush(b"a1")
        assert isinstance(receipt, SyncQueued)
        told: list[Any] = []
        world.scheduler.run(
            ("waits", lambda: told.append(receipt.outcome())), ("drains", world.recover)
        )
        assert told == [1]
        world.judge([b"a1"])

    play(once, monkeypatch)


def test_transitions_and_observers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, by one at a time, and nobody holds the lock; a snapshot is of one moment."""

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

    play(once, monkeypatch, more=1)


def test_a_lost_wakeup_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the equipment: who waits where nobody tells is found."""

    def once(world: World) -> None:
        world.trip()
        receipt = world.connection().rpush(b"a1")
        world.scheduler.run(("waits", receipt.outcome))

    with pytest.raises(Stuck, match="wait for ever"):
        play(once, monkeypatch)
