"""A breaker among threads that `interleaving` schedules, and what is asked of it."""

from __future__ import annotations

import importlib.metadata
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pytest
from redis import ConnectionPool
from tenacity import wait_fixed

import resilient_redis.base
import resilient_redis.sync.breaker
import resilient_redis.sync.connection
import resilient_redis.sync.socket
from resilient_redis import RedisCircuitBreaker
from resilient_redis.core.breaker import Cause
from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command
from resilient_redis.events import Event as BreakerEvent
from resilient_redis.events import StateChanged
from resilient_redis.flow import processes
from resilient_redis.flow.link import LinkBase
from resilient_redis.flow.steps import Steps, Wait
from resilient_redis.sync.breaker import SyncQueued
from resilient_redis.sync.driving import Running
from resilient_redis.sync.guarding import guard_client
from tests.sync.interleaving import Condition, Event, Lock, Scheduler, all_schedules
from tests.sync.model import (
    Client,
    Connection,
    Connections,
    FakeLink,
    FakeThread,
    Server,
    Wire,
    read_reply,
)
from tests.sync.sharing import looked_at

# Seconds that a sleep takes at least: who polls need not look oftener to see what there is.
SLEEP = 0.06
# None: all schedules, reduced. Else unreduced, with so many preemptions.
preemptions: int | None = None


class Receipt(SyncQueued):
    """Which is settled once."""

    __slots__ = ()

    def settle(self, applied: bool, value: Any) -> None:
        assert not self.settled, f"{self} is settled a second time"
        super().settle(applied, value)


class Breaker(RedisCircuitBreaker):
    """Whose recovery is an operation of its own, and to whom everybody has his own time."""

    world: World

    def beside(self, steps: Steps[None], name: str) -> Running:
        return self.world.spawn(steps)

    def opening_link(self) -> Steps[LinkBase]:
        yield partial(self.world.wait, "connects")
        return FakeLink(self.world)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        raise AssertionError("the recovery has failed")

    def sleeping(self, seconds: float) -> Wait:
        def sleep() -> None:
            self.world.wait("sleeps")
            self.world.sleep(seconds)

        return sleep

    def resting(self, seconds: float) -> Wait:
        # Forced open, it would look again and again until `reset`: so it rests until then.
        core = self._core

        def rest() -> None:
            self.world.wait("rests", lambda: not object.__getattribute__(core, "_forced"))
            with self.world.scheduler.at_once():
                assert not core._forced
            self.world.sleep(seconds)

        return rest

    def hurry(self) -> None:
        pass  # nobody rests

    def wake(self) -> None:
        # That somebody has called this is all that counts, and not in which order.
        with self.world.scheduler.adding():
            super().wake()


class World:
    """A breaker whose locks are the scheduler's, and a server that is always there.

    `telling` False: events are told at once, and unseen. Nobody but observers sees what is told,
    and when; so where a world is about other things it is no part of it, and has one of its own.
    """

    def __init__(
        self, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, *, telling: bool
    ) -> None:
        self.scheduler = scheduler
        self.server = Server()
        self.server.scheduler = scheduler
        self.times: dict[int, float] = {}
        self.told: list[BreakerEvent] = []
        self.fenced = 0  # the last outage whose fence is up
        tokens = itertools.count()
        monkeypatch.setattr(resilient_redis.base, "_token", lambda: b"token %d" % next(tokens))
        breaker = self.breaker = Breaker(recovery_timeout=0.1, recovery_wait=wait_fixed(0.05))
        monkeypatch.setattr(Breaker, "world", self, raising=False)
        monkeypatch.setattr(Connection, "world", self, raising=False)
        self.lock = Lock(scheduler)
        replaced: Any = breaker.lock
        replaced._made = (self.lock, Condition(scheduler, self.lock, self.sleep))
        if not telling:
            replaced.emit, replaced.tell = self.told.append, lambda: None
        replaceable: Any = breaker
        replaceable.connections = Connections(self)
        replaceable.clock = self.clock
        replaceable.outbox._make_receipt = self.receipt
        processes._breakers.discard(breaker)  # its locks are none: no fork may wait for them
        breaker.rights_asked = breaker.rights_known = True
        scheduler.invariant = self.nothing_passes
        read = [(breaker, "gate_open"), (breaker, "live"), (breaker._core, "state")]
        journal = breaker.outbox.journal
        read += [(journal, "_next"), (journal, "_confirmed")]
        for thing, name in read:
            scheduler.watched |= scheduler.sharing.bit(thing, name)
        breaker.add_observer(self.observe)
        self.made: list[Connection] = []
        self.receipts: list[Receipt] = []
        self.started: Running | None = None
        self.exchanges = 0
        #: What happens after so many.
        self.then: dict[int, Callable[[], None]] = {}
        self.recovered = False  # there is a thread for it
        self.connection()  # so that the recovery knows where to go
        threads = SimpleNamespace(
            Event=lambda: Event(scheduler),
            current_thread=threading.current_thread,
            get_ident=threading.get_ident,
        )
        for module in (resilient_redis.sync.breaker, resilient_redis.sync.socket):
            monkeypatch.setattr(module, "threading", threads)
        monkeypatch.setattr(resilient_redis.sync.connection, "read_reply", read_reply)
        monkeypatch.setattr(resilient_redis.sync.socket, "set_timeout", lambda *_: None)
        monkeypatch.setattr(
            resilient_redis.sync.socket, "cut_off", lambda wire, **_: wire.shutdown(0)
        )

    def receipt(self, seq: int, command: str) -> Receipt:
        made = Receipt(seq, command)
        self.receipts.append(made)
        return made

    def clock(self) -> float:
        """Everybody has his own time: only his own sleep takes any."""
        return self.times.get(threading.get_ident(), 0.0)

    def sleep(self, seconds: float) -> None:
        self.times[threading.get_ident()] = self.clock() + max(seconds, SLEEP)

    @property
    def outages(self) -> int:
        return self.breaker.outages

    def nothing_passes(self) -> None:
        breaker = self.breaker
        assert not (breaker.gate_open and breaker.pending), "the gate is open, and writes wait"
        assert not (breaker.live and not breaker.closed), "it is live, and not closed"

    def wait(self, what: str, ready: Callable[[], bool] = lambda: True) -> None:
        """For anything: nobody may hold the lock meanwhile."""
        assert not self.lock.held(), f"the lock is held by who {what}"
        self.scheduler.point(what, ready)

    @contextmanager
    def io(self, what: str) -> Iterator[None]:
        """I/O, or an observer: it waits, and then is done at once."""
        self.wait(what)
        with self.scheduler.at_once():
            yield

    def observe(self, event: BreakerEvent) -> None:
        with self.io("is told"):
            self.scheduler.sharing.note("told", "", write=True)
            self.told.append(event)

    def connection(self) -> Connection:
        return Connection(breaker=self.breaker, port=1)

    def client(self) -> Callable[[bytes], Any]:
        """`rpush` of a client that the breaker guards, with a pool of its own."""
        pool = ConnectionPool(connection_class=Connection, breaker=self.breaker, port=1)
        client: Any = Client.from_pool(pool)
        assert guard_client(client, self.breaker)
        pool.release(pool.get_connection())
        return lambda value: client.rpush(value[:1], value)

    def fail(self) -> None:
        """A socket has failed, and the breaker has not opened yet."""
        breaker = self.breaker
        breaker.exclusively(partial(breaker.failure, breaker.era, OSError(), 0.0))

    def trip(self, *queued: bytes) -> None:
        """Opens; `queued` is in the journal when others see it."""

        def opens() -> None:
            self.breaker.trip(Cause.HANG, "TimeoutError")
            for value in queued:
                args = (b"RPUSH", value[:1], value)
                self.breaker.queue([Command(args, shape_of(args))], 0, self.clock())

        self.breaker.exclusively(opens)

    def fence(self) -> None:
        """As much of a recovery as old connections are concerned with."""

        def cut() -> None:
            for connection in self.breaker.late_connections():
                connection.cut()

        self.breaker.exclusively(cut)
        with self.io("replays"):
            self.scheduler.sharing.note("the fence", "", write=True)
            self.fenced = self.outages

    def close_undrained(self) -> None:
        """Closed, and its gate is shut yet."""

        def close() -> None:
            permit = self.breaker.take_permit()
            assert permit is not None
            self.breaker.give_back(permit, True)

        self.breaker.exclusively(close)

    def exchanged(self) -> None:
        """The recovery has been answered, and is not told yet."""
        self.exchanges += 1
        if self.exchanges in self.then:
            self.then[self.exchanges]()

    def spawn(self, steps: Steps[None]) -> Running:
        """Called under the lock, which is the first that the new thread wants."""
        running = Running.__new__(Running)
        made = (self.breaker.lock, steps, False, False, FakeThread(self))
        # Unseen: a thread sees all that was done before it was started.
        for name, value in zip(
            ("_lock", "_steps", "_stopped", "_over", "thread"), made, strict=True
        ):
            object.__setattr__(running, name, value)
        self.scheduler.sharing.note("the recovery", "", write=True, seen=False)
        self.started = running
        return running

    def recovers(self) -> None:
        """The recovery's thread, whenever there is one, for as long as there are others."""
        self.recovered = True
        note = partial(self.scheduler.sharing.note, "the recovery", "", seen=False)
        while True:
            self.wait(
                "is started",
                lambda: (self.started and self.lock.free) or self.scheduler.others_are_done,
            )
            note()
            running, self.started = self.started, None
            if running is None:
                return
            note(write=True)
            running._run()
            thread: Any = running.thread
            thread.ends()

    @property
    def there(self) -> list[bytes]:
        """All that has been pushed."""
        return [value for row in self.server.data.values() for value in row]

    def judge(self, *mine: list[bytes]) -> None:
        """Each thread's own, acknowledged, once and in order; the breaker is as before."""
        untold: Any = self.breaker.lock
        assert not untold._events, "an event is told to nobody"
        if not self.recovered and self.breaker.busy:
            self.breaker.start_recovery()
            self.recovers()
        assert not self.breaker.busy, "nobody recovers"
        assert self.breaker.live, self.breaker.snapshot()
        assert all(receipt.settled for receipt in self.receipts), "a receipt is not settled"
        there = self.there
        assert len(there) == len(set(there)), f"twice: {there}"
        for values in mine:
            assert [value for value in there if value in values] == values, f"{values}: {there}"
        eras = [event.era for event in self.told if isinstance(event, StateChanged)]
        assert eras == list(range(1, self.breaker.era + 1)), "told out of order, or not"


Play = Callable[[World], None]


def play(
    once: Play, monkeypatch: pytest.MonkeyPatch, threads: int = 2, *, telling: bool = False
) -> int:
    """Plays `once` in each schedule of so many threads; returns how many there were."""

    def with_world(scheduler: Scheduler) -> None:
        with monkeypatch.context() as patched:
            once(World(scheduler, patched, telling=telling))

    # redis-py asks for each connection, which takes longer than all else of it.
    monkeypatch.setattr(importlib.metadata, "version", cache(importlib.metadata.version))
    with looked_at(Wire):
        whole, begun = all_schedules(
            with_world, threads, reduced=preemptions is None, preemptions=preemptions
        )
    print(f"{whole} schedules, {begun} more begun")
    return whole
