"""`RedisCircuitBreaker` for asyncio: what waits, what is timed, and what runs in the background."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, TypeVar

from ..base import BreakerBase
from ..core.exchange import ReplyError
from ..flow.breaker import CircuitBreaker
from ..flow.recovery import recover
from ..flow.steps import Steps
from ..receipt import Queued
from ..seam.failures import as_redis_error
from ..seam.methods import AsyncStandIn
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

    _shared: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], Any]] = (
        weakref.WeakValueDictionary()
    )
    _holding: ClassVar[set[BreakerBase]] = set()
    stand_in = AsyncStandIn

    def _set_up(self) -> None:
        self.timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._hang_check: asyncio.Task[None] | None = None
        self._soon: asyncio.TimerHandle | None = None  # until a hang check
        self._waiting: set[asyncio.Future[None]] = set()
        self._resting: asyncio.Future[None] | None = None

    def execute(
        self, method_name: str, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Any]:
        """Calls `func(*args, **kwargs)`, the method `method_name` of this breaker's client, or
        decides what it is answered: `execute("set", client.set, "k", "v")`.

        Over a client of redis-py the guard sits at the connections, and this just calls. Over any
        other object: while open, a write is queued and answered "OK", a read gets its neutral
        answer, the rest raises `CommandRefused`; a call that fails by an outage is raised again,
        and its `queued` says whether the write is queued.
        """
        # Not `async`: here the caller's own task runs, whoever awaits what is returned.
        if self.object is not None:
            return self._executed(self.object, method_name, func, args, kwargs, calling_task())
        self._check_client(func)
        return _call(func, args, kwargs)

    async def _executed(self, guard: Any, *call: Any) -> Any:
        *what, owner = call
        return await run(guard.execute(*what, owner or asyncio.current_task()))

    async def flush_re_sync_queue(self) -> int:
        """Looks at the server now and waits for the replay, up to `drain_wait`; returns how many
        writes were applied meanwhile.
        """
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

    def _make_receipt(self, seq: int, command: str) -> AsyncQueued:
        return AsyncQueued(seq, command)

    def exclusively(self, work: Callable[[], T]) -> T:
        return work()

    # -- one event loop at a time -------------------------------------------------------------

    def adopt(self) -> asyncio.AbstractEventLoop:
        # Moves to the running loop: no timer, task or future outlives its own.
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self.timer = self._recovery = self._hang_check = self._soon = self._resting = None
            self._waiting = set()
            self.connections = weakref.WeakSet()
            if self.object is not None:
                self.object.replaying = None
        return loop

    def spawn(self, steps: Steps[None], name: str) -> asyncio.Task[None]:
        return self.adopt().create_task(run(steps), name=name)

    async def joined(self, running: asyncio.Task[None], seconds: float) -> None:
        await asyncio.wait({running}, timeout=seconds)

    async def limited(self, steps: Steps[Any], seconds: float) -> Any:
        return await asyncio.wait_for(run(steps), seconds)

    # -- recovery -----------------------------------------------------------------------------

    def start_recovery(self) -> None:
        try:
            self.adopt()
        except RuntimeError:
            return  # no loop runs: the next command on one starts it
        if self._recovery is not None and not self._recovery.done():
            return
        if self.busy and not self._closed and self.object is None:
            self._recovery = self.spawn(recover(self), f"{self.name}-recovery")

    def recovery_ended(self) -> None:
        pass  # its task says so

    async def _recovery_over(self, seconds: float) -> None:
        if self._recovery is not None:
            await asyncio.wait({self._recovery}, timeout=seconds)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.adopt().call_later(seconds, call)

    async def open_link(self) -> Link:
        assert self.template is not None
        return await run(Link.opened(self.template, self.clock))

    async def _end_all(self) -> None:
        for timer in (self.timer, self._soon):
            if timer is not None:
                timer.cancel()
        self.timer = self._soon = None
        replaying = self.object.replaying if self.object is not None else None
        for task in (self._recovery, self._hang_check, replaying):
            if task is not None:
                await end(task)

    # -- waiting ------------------------------------------------------------------------------

    def _wake_waiting(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _pause(self, seconds: float, changes: int) -> None:
        if seconds <= 0 or self.changes != changes:
            return
        future: asyncio.Future[None] = self.adopt().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:
            self._waiting.discard(future)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def breathe(self) -> None:
        await asyncio.sleep(0)

    async def rest(self, seconds: float) -> None:
        self._resting = self.adopt().create_future()
        await asyncio.wait({self._resting}, timeout=seconds)

    def hurry(self) -> None:
        if self._resting is not None and not self._resting.done():
            self._resting.set_result(None)

    # -- hang detection -----------------------------------------------------------------------

    def watch(self, connection: Any) -> None:
        self.adopt()
        self.connections.add(connection)
        if self.timer is None:
            self.arm()

    def arm(self) -> None:
        """Starts the one timer; it runs only while commands are in flight."""
        loop = self.adopt()
        self.timer = loop.call_later(self.deadline / 2, self._tick)

    def _tick(self) -> None:
        """A command unanswered for half a deadline starts one PING on a second connection."""
        self.timer = None
        if not self.closed or not (waits := self._waits()):
            return
        oldest = min(waits)
        due = oldest + self.deadline / 2 - self.clock()
        if due <= 0:
            self.check_hang(oldest)
            due = self.deadline / 2
        assert self._loop is not None
        self.timer = self._loop.call_later(due, self._tick)

    def check_hang(self, since: float) -> None:
        if not self.closed or (self._hang_check is not None and not self._hang_check.done()):
            return
        asking = self._ask(self._question_time(since))
        self._hang_check = self.adopt().create_task(asking, name=f"{self.name}-hang-check")

    def check_hang_soon(self, since: float) -> None:
        # Where the task is cancelled because the loop ends, a new one would be left behind.
        loop = self.adopt()
        if self._soon is None and not self._closed:
            self._soon = loop.call_later(self.deadline / 20, self._check_late, since)

    def _check_late(self, since: float) -> None:
        self._soon = None
        self.check_hang(since)

    async def hang_verdict(self) -> None:
        if self._hang_check is not None and not self._hang_check.done():
            await asyncio.wait({self._hang_check}, timeout=0.05)

    async def _ask(self, seconds: float) -> None:
        era, asked, found = self.era, self.clock(), None
        assert self.template is not None
        try:
            await asyncio.wait_for(run(self.template.asking(Link, seconds)), seconds)
        except Exception as error:  # noqa: BLE001 - it is classified, and nobody awaits this task
            found = error
        self._asked(era, asked, found)


async def _call(
    func: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return await func(*args, **kwargs)
