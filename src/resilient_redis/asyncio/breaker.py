"""`RedisCircuitBreaker` for asyncio: what waits, what is timed, and what runs in the background."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from tenacity.wait import wait_base

from ..base import BreakerBase
from ..core.breaker import Cause, State, Transition
from ..core.exchange import ReplyError
from ..journal import Journal
from ..observers import logger
from ..policy import Policy
from ..receipt import Queued
from ..seam.failures import as_redis_error, is_alive
from ..seam.pools import breaker_of
from ..settings import Settings
from .calling import calling_task
from .ending import end
from .link import Template
from .recovery import recover

if TYPE_CHECKING:
    from .objects import ObjectGuard
    from .wire import GuardedSocket


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
            await asyncio.wait_for(settled, timeout)
        try:
            return self.result()
        except ReplyError as error:
            raise as_redis_error(error) from None


class RedisCircuitBreaker(BreakerBase):
    """A circuit breaker for one Redis endpoint and one user, shared by all its connections.

    `redis_client` (none): a client of redis-py is guarded at its connections from now on; any other
    object with async methods (fakeredis, a mock, another client) is guarded by `execute`.
    `failure_threshold` (default 5): consecutive failed sockets that open it, at least 1.
    `recovery_timeout` (10.0 s): the longest wait between two probes while open; the first comes
    after about 50 ms, and the wait doubles. Over any other object the probe is the first call after
    it. `policy` (`Policy.cache()`): which keys and commands
    get which answer. `journal` (a new `MemoryJournal()`): where acknowledged writes wait.
    `deadline` (1.0 s): how long a caller waits at most for a server that does not answer.
    `probe_timeout` (1.0 s): how long a probe may take. `drain_wait` (1.0 s): how long a command
    waits at most for the replay before it is answered as while open. `batch_size` (1,000): entries
    in one EXEC of the replay, 1 to 1,000. `failure_rate` (None): the share of failed calls, above 0
    and at most 1, that opens it, too, counted over the last `failure_window` (10.0 s) once there
    were `minimum_calls` (20) in it. `name` ("redis") stands in events and logs.
    `watermark_prefix` ("resilient-redis:"): how the keys begin that a replay sets for its duration.
    `recovery_wait`: a tenacity wait strategy in place of the doubling one.

    No I/O happens at construction. It serves one event loop at a time.
    """

    def __init__(
        self,
        redis_client: Any = None,
        failure_threshold: int = 5,
        recovery_timeout: float = 10.0,
        *,
        policy: Policy | None = None,
        journal: Journal | None = None,
        deadline: float = 1.0,
        probe_timeout: float = 1.0,
        drain_wait: float = 1.0,
        failure_rate: float | None = None,
        failure_window: float = 10.0,
        minimum_calls: int = 20,
        batch_size: int = 1000,
        name: str | None = None,
        watermark_prefix: str = "resilient-redis:",
        recovery_wait: wait_base | None = None,
    ) -> None:
        super().__init__(
            Settings(
                failure_threshold=failure_threshold,
                recovery_timeout=recovery_timeout,
                policy=policy,
                journal=journal,
                deadline=deadline,
                probe_timeout=probe_timeout,
                drain_wait=drain_wait,
                batch_size=batch_size,
                name=name,
                watermark_prefix=watermark_prefix,
                recovery_wait=recovery_wait,
                failure_rate=failure_rate,
                failure_window=failure_window,
                minimum_calls=minimum_calls,
            )
        )
        self.connections: weakref.WeakSet[GuardedSocket] = weakref.WeakSet()
        self.timer: asyncio.TimerHandle | None = None
        self.template: Template | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._hang_check: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._resting: asyncio.Future[None] | None = None
        self._closed = False
        self._answers = 0
        self.client: Any = None
        self._object: ObjectGuard | None = None
        self._paced = recovery_wait is not None
        if redis_client is not None:
            self.take_client(redis_client)

    def take_client(self, client: Any) -> None:
        """Guards `client`; for a breaker that was made without one.

        Raises ValueError where it has one, or the client has another breaker.
        """
        # Late: a connection makes a breaker where it is given none, and a client's breaker makes
        # its connections.
        from .guarding import guard_client  # noqa: PLC0415
        from .objects import ObjectGuard  # noqa: PLC0415

        if self.client is not None:
            raise ValueError("this breaker has a client already")
        if not guard_client(client, self):
            self._object = ObjectGuard(self, client, self.next_wait if self._paced else None)
        self.client = client

    @property
    def guards_object(self) -> bool:
        """Whether its client is guarded by `execute`, and not at its connections."""
        return self._object is not None

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
        if self._object is not None:
            return self._object.execute(method_name, func, args, kwargs, calling_task())
        if self.client is None and breaker_of(getattr(func, "__self__", None)) is not self:
            raise ValueError("execute needs a client: RedisCircuitBreaker(redis_client)")
        return _call(func, args, kwargs)

    # -- one event loop at a time -------------------------------------------------------

    def adopt(self) -> asyncio.AbstractEventLoop:
        """Moves to the running loop: no timer, task or future outlives its loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self.timer = self._recovery = self._hang_check = self._resting = None
            self._waiting = set()
            self.connections = weakref.WeakSet()
            if self._object is not None:
                self._object.replaying = None
        return loop

    def start_recovery(self) -> None:
        """Recovery runs while there is something to recover, and only then."""
        try:
            loop = self.adopt()
        except RuntimeError:
            return  # no loop runs: the next command on one starts it
        if self._recovery is not None and not self._recovery.done():
            return
        if self.busy and not self._closed and self._object is None:
            self._recovery = loop.create_task(recover(self), name=f"{self.name}-recovery")

    def _state_changed(self, move: Transition) -> None:
        if move.new is State.OPEN and move.old is State.CLOSED:
            for connection in list(self.connections):
                connection.outage()
        if move.new is State.OPEN and self._object is not None:
            self._object.opened()
        self.wake()
        self.start_recovery()

    def late_connections(self) -> list[GuardedSocket]:
        """Those of before the last outage that still wait for a reply."""
        return [c for c in list(self.connections) if c.late]

    # -- waiting ------------------------------------------------------------------------

    def wake(self) -> None:
        """Something changed: whoever waits looks again."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def open_gate(self) -> None:
        super().open_gate()
        self.wake()

    def hold(self, code: str | None) -> None:
        super().hold(code)
        self.wake()
        self.start_recovery()

    async def breathe(self) -> None:
        """Lets others run now and then: what is answered without I/O never yields by itself, and a
        consumer that polls would stop the very recovery that it waits for.
        """
        if self.breath_is_due():
            await asyncio.sleep(0)

    def breath_is_due(self) -> bool:
        self._answers += 1
        return self._answers % 32 == 0

    async def pause(self, seconds: float) -> bool:
        """Sleeps, or until something changes. True if something did."""
        if seconds <= 0:
            return False
        future: asyncio.Future[None] = self.adopt().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:
            self._waiting.discard(future)
        return future.done()

    async def rest(self, seconds: float) -> None:
        """The recovery's sleep between two probes; `flush_re_sync_queue` ends it."""
        self._resting = self.adopt().create_future()
        await asyncio.wait({self._resting}, timeout=seconds)

    async def wait_drained(self, seconds: float) -> None:
        """Until the gate is open, the breaker is not closed, or the time is over."""
        until = self.clock() + seconds
        while self.closed and not self.gate_open and self._held is None:
            left = until - self.clock()
            if left <= 0:
                return
            await self.pause(left)

    async def wait_recovered(self, seconds: float | None) -> None:
        """Until commands go to the server again, or the time is over; None is for ever."""
        until = None if seconds is None else self.clock() + seconds
        while not (self.closed and self.gate_open):
            left = 3600.0 if until is None else until - self.clock()
            if left <= 0:
                return
            await self.pause(left)

    async def wait_settled(self, receipts: Iterable[Queued], seconds: float) -> None:
        """Until all `receipts` are settled, the breaker is not closed, or the time is over."""
        until = self.clock() + seconds
        for receipt in receipts:
            while not receipt.settled and self.closed and self._held is None:
                left = until - self.clock()
                if left <= 0:
                    return
                receipt.on_settled(self.wake)
                await self.pause(left)

    def _make_receipt(self, seq: int, command: str) -> AsyncQueued:
        return AsyncQueued(seq, command)

    # -- hang detection -----------------------------------------------------------------

    def arm(self) -> None:
        """Starts the one timer; it runs only while commands are in flight."""
        loop = self.adopt()
        self.timer = loop.call_later(self.deadline / 2, self._tick)

    def _tick(self) -> None:
        """A command unanswered for half a deadline starts one PING on a second connection."""
        self.timer = None
        if not self.closed:
            return
        now = self.clock()
        waits = [since for c in list(self.connections) if (since := c.waiting_since()) is not None]
        if not waits:
            return
        oldest = min(waits)
        due = oldest + self.deadline / 2 - now
        if due <= 0:
            self.check_hang(oldest)
            due = self.deadline / 2
        assert self._loop is not None
        self.timer = self._loop.call_later(due, self._tick)

    def check_hang(self, since: float) -> None:
        """Asks on a second connection whether the server still answers; one question at a time."""
        if not self.closed or (self._hang_check is not None and not self._hang_check.done()):
            return
        left = max(since + self.deadline - self.clock(), self.deadline / 4)
        self._hang_check = self.adopt().create_task(
            self._ask(min(left, self.deadline)), name=f"{self.name}-hang-check"
        )

    async def hang_verdict(self) -> None:
        """If the question is being asked, waits for the answer that is due at any moment."""
        if self._hang_check is not None and not self._hang_check.done():
            await asyncio.wait({self._hang_check}, timeout=0.05)

    async def _ask(self, seconds: float) -> None:
        asked, era = self.clock(), self.era
        assert self.template is not None
        try:
            await asyncio.wait_for(self.template.answers(), seconds)
        except Exception as error:  # noqa: BLE001 - classified below, and nobody awaits this task
            if not is_alive(error):
                if self.era == era:
                    self.trip(Cause.HANG, type(error).__name__)
                return
        for connection in list(self.connections):
            connection.cleared(asked)

    # -- the end ------------------------------------------------------------------------

    async def flush_re_sync_queue(self) -> int:
        """Looks at the server now and waits for the replay, up to `drain_wait`; returns how many
        writes were applied meanwhile.
        """
        if self._object is not None:
            return await self._object.flush()
        before, until = self.replay.applied_count, self.clock() + self.drain_wait
        self.start_recovery()
        if self._resting is not None and not self._resting.done():
            self._resting.set_result(None)
        while self.pending and self._held is None and (left := until - self.clock()) > 0:
            await self.pause(left)
        return self.replay.applied_count - before

    async def aclose(self, drain_timeout: float = 0.0) -> int:
        """Stops recovery. Waits up to `drain_timeout` seconds for the journal to empty first.

        Returns how many acknowledged writes are left unapplied; if any, their number is logged at
        ERROR.
        """
        self.adopt()  # what belongs to a loop that has ended cannot be awaited in this one
        until = self.clock() + drain_timeout
        while self.busy and (left := until - self.clock()) > 0:
            if self._object is not None:
                await self._object.flush(left)
                break
            self.start_recovery()
            await self.pause(left)
        if self._recovery is not None and (left := until - self.clock()) > 0:
            # The gate opens before the watermarks are deleted.
            await asyncio.wait({self._recovery}, timeout=left)
        self._closed = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        replaying = self._object.replaying if self._object is not None else None
        for task in (self._recovery, self._hang_check, replaying):
            if task is not None:
                await end(task)
        if self.pending:
            logger.error(
                "%s: closed with %d acknowledged writes unapplied", self.name, self.pending
            )
        return self.pending


async def _call(
    func: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return await func(*args, **kwargs)
