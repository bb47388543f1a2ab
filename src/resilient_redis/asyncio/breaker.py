"""`RedisCircuitBreaker` for asyncio: what waits, what is timed, and what runs in the background."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ..core.exchange import ReplyError
from ..flow.breaker import CircuitBreaker
from ..flow.steps import Steps
from ..receipt import Queued
from ..seam.failures import as_redis_error
from ..seam.methods import AsyncStandIn
from ..track import outermost
from .driving import calling_task, end, run
from .link import Link

T = TypeVar("T")


class AsyncQueued(Queued):
    """A receipt whose reply can be awaited."""

    __slots__ = ()

    async def outcome(self, timeout: float | None = None) -> Any:
        """Waits for the replay and returns the raw reply.

        `timeout` in seconds, None for as long as it takes. Raises `asyncio.TimeoutError`, or the
        server's error that set the write aside as redis-py's class for it.
        """
        if not self.settled:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def wake() -> None:
                if not settled.done():
                    settled.set_result(None)

            self.on_settled(wake)
            if settled not in (await asyncio.wait({settled}, timeout=timeout))[0]:
                raise asyncio.TimeoutError  # not by `wait_for`, which swallows cancellations
        try:
            return self.result()
        except ReplyError as error:
            raise as_redis_error(error) from None


class RedisCircuitBreaker(CircuitBreaker):
    __doc__ = CircuitBreaker.__doc__

    stand_in = AsyncStandIn
    link_class = Link
    receipt_class = AsyncQueued

    def _set_up(self) -> None:
        super()._set_up()
        self.timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.TimerHandle | None = None  # until a hang check
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def execute(
        self, method_name: str, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Any]:
        # Not `async`: here the caller's own task runs, whoever awaits what is returned.
        if self.object is not None:
            return self._executed(self.object, method_name, func, args, kwargs, calling_task())
        self._check_client(func)
        return _call(func, args, kwargs)

    async def _executed(self, guard: Any, *call: Any) -> Any:
        *what, owner = call
        return await run(guard.execute(*what, outermost() or owner or asyncio.current_task()))

    async def flush_re_sync_queue(self) -> int:
        return await run(self._flushing())

    async def aclose(self, drain_timeout: float = 0.0) -> int:
        """Stops recovery, until it is used again. Waits up to `drain_timeout` seconds for the
        journal to empty first.

        Returns how many acknowledged writes are left unapplied; if any, their number is logged at
        ERROR.
        """
        self.adopt()
        return await run(self._closing(drain_timeout))

    def _guard_connections(self, client: Any) -> bool:
        # Late: a connection makes a breaker where it is given none, and a client's breaker makes
        # its connections.
        from .guarding import guard_client  # noqa: PLC0415

        return guard_client(client, self)

    def exclusively(self, work: Callable[[], T]) -> T:
        return work()

    # -- one event loop at a time -------------------------------------------------------------

    def adopt(self) -> bool:
        # Moves to the running loop: no timer, task or future outlives its own.
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._loop is not loop:
            self._loop = loop
            self.timer = self._soon = self._recovery = self._hang_check = None
            self._waiting = set()
            self.connections = weakref.WeakSet()
            if self.object is not None:
                self.object.replaying = None
        return True

    def beside(self, steps: Steps[None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(run(steps), name=f"{self.name}-{name}")

    async def joined(self, running: asyncio.Task[None], seconds: float) -> None:
        await asyncio.wait({running}, timeout=seconds)

    def stop(self, running: asyncio.Task[None]) -> None:
        running.cancel()

    async def ended(self, running: asyncio.Task[None]) -> None:
        await end(running)

    async def limited(self, steps: Steps[Any], seconds: float) -> Any:
        return await asyncio.wait_for(run(steps), seconds)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, call)

    # -- waiting ------------------------------------------------------------------------------

    async def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        until = self.clock() + seconds
        while not ready() and (left := until - self.clock()) > 0:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(woken)
            try:
                await asyncio.wait({woken}, timeout=left)
            finally:
                self._waiting.discard(woken)

    def wake_waiting(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for woken in waiting:
            if not woken.done():
                woken.set_result(None)

    async def breathe(self) -> None:
        await asyncio.sleep(0)

    # -- hang detection -----------------------------------------------------------------------

    def arm(self) -> None:
        # One timer; it runs only while commands are in flight.
        if self.timer is None:
            self.adopt()
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(self.deadline / 2, self._tick)

    def disarm(self) -> None:
        for timer in (self.timer, self._soon):
            if timer is not None:
                timer.cancel()
        self.timer = self._soon = None

    def _tick(self) -> None:
        """A command unanswered for half a deadline starts one PING on a second connection."""
        self.timer = None
        waits = [connection.waiting_since() for connection in list(self.connections)]
        since = min((each for each in waits if each is not None), default=None)
        if not self.closed or since is None:
            return
        due = since + self.deadline / 2 - self.clock()
        if due <= 0:
            self.check_hang(since)
            due = self.deadline / 2
        self.timer = asyncio.get_running_loop().call_later(due, self._tick)

    def check_hang_soon(self, since: float) -> None:
        # Where the task is cancelled because the loop ends, a new one would be left behind.
        self.adopt()
        if self._soon is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._soon = loop.call_later(self.deadline / 20, self._check_late, since)

    def _check_late(self, since: float) -> None:
        self._soon = None
        self.check_hang(since)


async def _call(
    func: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return await func(*args, **kwargs)
