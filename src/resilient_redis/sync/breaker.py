"""`RedisCircuitBreaker` among threads: what waits, and what runs in the background."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from ..base import BreakerBase
from ..core.exchange import ReplyError
from ..events import Event
from ..flow.breaker import CircuitBreaker
from ..flow.recovery import recover
from ..flow.steps import Steps
from ..receipt import Queued
from ..seam.failures import as_redis_error
from ..seam.methods import SyncStandIn
from .driving import Lock, Running, run
from .link import Link

T = TypeVar("T")


class SyncQueued(Queued):
    """A receipt whose reply can be waited for."""

    __slots__ = ()

    def outcome(self, timeout: float | None = None) -> Any:
        """Waits for the replay and returns the raw reply.

        `timeout` in seconds, None for as long as it takes. Raises `TimeoutError`, or the server's
        error that set the write aside as redis-py's class for it.
        """
        if not self.settled:
            settled = threading.Event()
            self.on_settled(settled.set)
            if not settled.wait(timeout):
                raise TimeoutError(f"{self.command} is still queued as entry {self.seq}")
        try:
            return self.result()
        except ReplyError as error:
            raise as_redis_error(error) from None


class RedisCircuitBreaker(CircuitBreaker):
    __doc__ = CircuitBreaker.__doc__

    _shared: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], Any]] = (
        weakref.WeakValueDictionary()
    )
    _holding: ClassVar[set[BreakerBase]] = set()
    stand_in = SyncStandIn
    lock: Lock

    def _set_up(self) -> None:
        self.lock = Lock(self._observers.tell)
        self._recovery: Running | None = None
        self._hang_check: Running | None = None
        self._hurried = False

    def execute(self, method_name: str, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Calls `func(*args, **kwargs)`, the method `method_name` of this breaker's client, or
        decides what it is answered: `execute("set", client.set, "k", "v")`.

        Over a client of redis-py the guard sits at the connections, and this just calls. Over any
        other object: while open, a write is queued and answered "OK", a read gets its neutral
        answer, the rest raises `CommandRefused`; a call that fails by an outage is raised again,
        and its `queued` says whether the write is queued.
        """
        if self.object is not None:
            owner = threading.current_thread()
            steps = self.object.execute(method_name, func, args, kwargs, owner)
            result: T = run(self.lock, steps)
            return result
        self._check_client(func)
        return func(*args, **kwargs)

    def flush_re_sync_queue(self) -> int:
        """Looks at the server now and waits for the replay, up to `drain_wait`; returns how many
        writes were applied meanwhile.
        """
        return run(self.lock, self._flushing())

    def close(self, drain_timeout: float = 0.0) -> int:
        """Stops recovery, until it is used again. Waits up to `drain_timeout` seconds for the
        journal to empty first.

        Returns how many acknowledged writes are left unapplied; if any, their number is logged at
        ERROR.
        """
        return run(self.lock, self._closing(drain_timeout))

    def _guard_connections(self, client: Any) -> bool:
        # Late: a connection makes a breaker where it is given none, and a client's breaker makes
        # its connections.
        from .guarding import guard_client  # noqa: PLC0415

        return guard_client(client, self)

    def _make_receipt(self, seq: int, command: str) -> SyncQueued:
        return SyncQueued(seq, command)

    def exclusively(self, work: Callable[[], T]) -> T:
        return self.lock.exclusively(work)

    def emit(self, event: Event) -> None:
        self.lock.emit(event)

    # -- in the background --------------------------------------------------------------------

    def adopt(self) -> None:
        pass  # threads have no loop

    def spawn(self, steps: Steps[None], name: str) -> Running:
        return Running(self.lock, steps, name)

    def joined(self, running: Running, seconds: float) -> None:
        running.join(seconds)

    def limited(self, steps: Steps[Any], seconds: float) -> Any:  # noqa: ARG002 - see below
        # A thread cannot be interrupted: how long it takes is for the object's own timeout to say.
        return run(self.lock, steps)

    def start_recovery(self) -> None:
        with self.lock.held:
            if self._recovery is not None or not self.busy or self._closed or self.object:
                return
            try:
                self._recovery = self.spawn(recover(self), f"{self.name}-recovery")
            except RuntimeError:
                pass  # the interpreter is ending, and lets no thread begin

    def recovery_ended(self) -> None:
        self._recovery = None

    def _recovery_over(self, seconds: float) -> None:
        if (recovery := self._recovery) is not None:
            recovery.join(seconds)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()

    def open_link(self) -> Link:
        assert self.template is not None
        return run(self.lock, Link.opened(self.template, self.clock))

    def _end_all(self) -> None:
        with self.lock.held:
            replaying = self.object.replaying if self.object is not None else None
            ending = [self._recovery, self._hang_check, replaying]
            for running in ending:
                if running is not None:
                    running.stop()
            self._hurried = True
            self.wake()
        for running in ending:
            if running is not None:
                # What it waits for at a socket takes no longer than that.
                running.join(self.probe_timeout)

    # -- waiting ------------------------------------------------------------------------------

    def _wake_waiting(self) -> None:
        with self.lock.changed:
            self.lock.changed.notify_all()

    def _pause(self, seconds: float, changes: int) -> None:
        with self.lock.changed:
            self.lock.changed.wait_for(lambda: self.changes != changes, max(seconds, 0.0))

    def sleep(self, seconds: float) -> None:
        with self.lock.changed:
            self.lock.changed.wait_for(lambda: self._closed, seconds)

    def breathe(self) -> None:
        time.sleep(0)

    def rest(self, seconds: float) -> None:
        with self.lock.changed:
            self.lock.changed.wait_for(lambda: self._hurried or self._closed, seconds)
            self._hurried = False

    def hurry(self) -> None:
        with self.lock.changed:
            self._hurried = True
            self.lock.changed.notify_all()

    # -- hang detection -----------------------------------------------------------------------

    def watch(self, connection: Any) -> None:
        with self.lock.held:
            self.connections.add(connection)

    def check_hang(self, since: float) -> None:
        with self.lock.held:
            if not self.closed or (self._hang_check is not None and not self._hang_check.done()):
                return
            steps = self._asking(self._question_time(since))
            try:
                self._hang_check = self.spawn(steps, f"{self.name}-hang-check")
            except RuntimeError:
                pass  # the interpreter is ending, and lets no thread begin

    def check_hang_soon(self, since: float) -> None:
        self.check_hang(since)

    def hang_verdict(self) -> None:
        if (asking := self._hang_check) is not None:
            asking.join(0.05)

    def _asking(self, seconds: float) -> Steps[None]:
        era, asked, found = self.era, self.clock(), None
        assert self.template is not None
        try:
            yield from self.template.asking(Link, seconds)
        except Exception as error:  # noqa: BLE001 - it is classified, and nobody waits for this
            found = error
        self._asked(era, asked, found)
