"""`RedisCircuitBreaker` among threads: what waits, and what runs in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..core.exchange import ReplyError
from ..events import Event
from ..flow.breaker import CircuitBreaker
from ..flow.steps import Steps
from ..receipt import Queued
from ..seam.failures import as_redis_error
from ..seam.methods import SyncStandIn
from ..track import outermost
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

    stand_in = SyncStandIn
    link_class = Link
    receipt_class = SyncQueued
    lock: Lock

    def _set_up(self) -> None:
        super()._set_up()
        self.lock = Lock(self._observers.tell)
        self.cache_lock = threading.RLock()  # of redis-py's client-side cache: see seam/caching.py

    def execute(self, method_name: str, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if self.object is not None:
            owner = outermost() or threading.current_thread()
            steps = self.object.execute(method_name, func, args, kwargs, owner)
            result: T = run(self.lock, steps)
            return result
        self._check_client(func)
        return func(*args, **kwargs)

    def flush_re_sync_queue(self) -> int:
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

    def exclusively(self, work: Callable[[], T]) -> T:
        return self.lock.exclusively(work)

    def emit(self, event: Event) -> None:
        self.lock.emit(event)

    # -- in the background --------------------------------------------------------------------

    def adopt(self) -> bool:
        return True  # threads have no loop

    def beside(self, steps: Steps[None], name: str) -> Running | None:
        try:
            return Running(self.lock, steps, f"{self.name}-{name}")
        except RuntimeError:
            return None  # the interpreter is ending, and lets no thread begin

    def joined(self, running: Running, seconds: float) -> None:
        running.join(seconds)

    def stop(self, running: Running) -> None:
        running.stop()

    def ended(self, running: Running) -> None:
        running.join(self.probe_timeout)  # what it waits for at a socket takes no longer

    def limited(self, steps: Steps[Any], seconds: float) -> Any:  # noqa: ARG002 - see below
        # A thread cannot be interrupted: how long it takes is for its own timeouts to say.
        return run(self.lock, steps)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()

    # -- waiting ------------------------------------------------------------------------------

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        with self.lock.held:
            self.lock.changed.wait_for(ready, max(seconds, 0.0))

    def wake_waiting(self) -> None:
        with self.lock.held:
            self.lock.changed.notify_all()

    def breathe(self) -> None:
        time.sleep(0)

    # -- hang detection: who waits at a socket looks about by himself -----------------------------

    def arm(self) -> None:
        pass

    def disarm(self) -> None:
        pass

    def check_hang_soon(self, since: float) -> None:
        self.check_hang(since)
