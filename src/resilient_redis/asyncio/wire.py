"""The socket side of a guarded connection: opening, closing, cutting off, putting on the wire.

It knows at each moment what was sent and which replies are awaited; what that means is decided in
`connection.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from enum import IntEnum
from typing import Any, ClassVar

from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.exceptions import ConnectionError, TimeoutError

from ..core.command import Command
from ..core.fence import Identity
from ..core.guard import Sent, may_be_cut, writes
from ..core.unit import grouped, units
from ..receipt import Queued
from ..seam.failures import OUTAGE, is_outage
from ..seam.packed import Call, Packed, commands_of
from ..seam.pools import endpoint_of
from ..seam.sockets import abort, nobody_awaits_its_end, unsent
from .breaker import RedisCircuitBreaker
from .ending import end
from .handshake import introduce
from .link import Template
from .retry import GuardedRetry
from .shared import shared_breaker

# From here on what follows is tied to this very connection, until one of those below.
BINDS = frozenset({"WATCH", b"WATCH"})
FREES = frozenset({"EXEC", "DISCARD", "UNWATCH", "RESET", b"EXEC", b"DISCARD", b"UNWATCH"})
# Their replies are pushes, and come when they like: not awaited one by one.
PUBSUB = frozenset(
    prefix + name for name in ("SUBSCRIBE", "UNSUBSCRIBE") for prefix in ("", "P", "S")
)
SESSION = BINDS | FREES | PUBSUB


class Tie(IntEnum):
    """Whether a connection is under WATCH. ENDS: what is on the wire ends it, if it runs."""

    NOT = 0
    WATCHES = 1
    ENDS = 2


class GuardedSocket(AbstractConnection):
    """What `GuardedConnection` is built on."""

    bound_breaker: ClassVar[RedisCircuitBreaker | None] = None

    def __init__(self, *, breaker: RedisCircuitBreaker | None = None, **kwargs: Any) -> None:
        if breaker is not None and not isinstance(breaker, RedisCircuitBreaker):
            raise TypeError(
                "breaker must be a resilient_redis.asyncio.RedisCircuitBreaker, not "
                f"{type(breaker).__name__}; it cannot be given in a URL"
            )
        endpoint = endpoint_of(kwargs)
        self.breaker = breaker or self.bound_breaker or shared_breaker(endpoint)
        self.breaker.bind(endpoint)
        self.identity: Identity | None = None
        self.in_client = False  # inside redis-py's retry, which puts the receipts in
        self.receipts: dict[int, Queued] = {}  # by place in the batch
        self._pipelined = False
        self._sent: Sequence[Call] | None = None  # on the wire, replies awaited
        self._next = 0  # how many of those have come
        self._replies: list[Any] = []  # those of a pipeline that have come
        self._sent_at = self._cleared_at = 0.0
        self._began: float | None = None  # when connecting for the next command began
        self._era = self._outage = 0
        self._reused = False  # a reply has come on this socket
        self._tied = Tie.NOT  # under WATCH
        self._loss: Sent | None = None  # what is known of the calls on a socket that was closed
        self._introduced = False  # on this socket, by `on_connect_check_health`
        self._opening: asyncio.Task[None] | None = None  # its traffic passes the guard by
        super().__init__(**kwargs)
        if self.breaker.template is None:
            self.breaker.template = self._template(kwargs)

    def _template(self, kwargs: dict[str, Any]) -> Template:
        """How the breaker makes connections of its own like this one."""
        return Template(_stock(type(self)), kwargs, self.breaker.probe_timeout)

    @property
    def retry(self) -> Retry:
        """redis-py's retry, which never repeats what the guard has decided."""
        return self._retry

    @retry.setter
    def retry(self, inner: Any) -> None:
        self._retry = GuardedRetry(inner, self)

    # -- opening and closing --------------------------------------------------------------

    async def connect(self) -> None:
        """For the pool, before the command is known: silent where Redis is away."""
        if self._in_handshake() or self._usable():
            return
        if self._opening is None:
            if self._writer is not None:
                await self.disconnect(nowait=True)
            self._forget()
            self._tied = Tie.NOT
        self._began = self.breaker.clock()  # the command's time is running
        if self.breaker.closed:
            await self._open(self.breaker.deadline)

    def _usable(self) -> bool:
        """Connected since the last outage, and nothing on it that belongs to somebody else."""
        reader, writer = self._reader, self._writer
        return (
            writer is not None
            and reader is not None
            and self._sent is None
            and self._outage == self.breaker.outages
            and not reader.at_eof()
            and not writer.transport.is_closing()
        )

    async def _open(self, seconds: float) -> bool:
        """Connects within `seconds`. False where Redis is away; what is no outage is raised."""
        breaker = self.breaker
        if self._opening is not None:
            # A pub/sub reader and a subscriber share a connection: one of them opens it.
            await asyncio.wait({self._opening}, timeout=max(seconds, 0.001))
            return self._usable()
        breaker.adopt()
        era, self._outage = breaker.era, breaker.outages
        breaker.connections.add(self)
        error = await self._past_the_guard(self._connect_and_introduce(), seconds)
        self._reused, self._tied, self._loss = False, Tie.NOT, None
        if error is None:
            return True
        await self._failed(era, error)
        return False

    async def _failed(self, era: int, error: BaseException) -> None:
        """What went past the guard has failed: counted if it is an outage, else raised."""
        await self.disconnect(nowait=True)
        if not is_outage(error):
            raise error
        self.breaker.failure(era, error, max(self._sent_at, self._cleared_at))

    async def _past_the_guard(
        self, work: Coroutine[Any, Any, None], seconds: float
    ) -> BaseException | None:
        """Runs redis-py's own traffic (a handshake, a PING) for `seconds` at most without a reply.

        Returns what it raised. The opening of the breaker ends it at once.
        """
        breaker = self.breaker
        self._sent_at = self._cleared_at = breaker.clock()
        task = self._opening = breaker.adopt().create_task(work)
        if breaker.timer is None:
            breaker.arm()
        try:
            # A reply is a sign of life: a handshake is several round trips, and may take longer.
            while not task.done():
                left = self._sent_at + max(seconds, 0.001) - breaker.clock()
                if left <= 0:
                    await end(task)
                await asyncio.wait({task}, timeout=left)
        except BaseException:
            # The caller was cancelled: half a handshake must not be left on the connection.
            await end(task)
            await self.disconnect(nowait=True)
            raise
        finally:
            self._opening = None
        if task.cancelled():
            return TimeoutError("Timeout connecting to server")
        return task.exception()

    async def _connect_and_introduce(self) -> None:
        # retry_socket_connect: no retry of redis-py inside ours (110 connects for one command).
        self._introduced = False
        await super().connect_check_health(check_health=False, retry_socket_connect=False)
        if not self._introduced and not self._connect_callbacks:
            await introduce(self)

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """redis-py's handshake and ours, before a `PubSub` subscribes: in RESP2 nothing else can be
        asked after that.
        """
        await super().on_connect_check_health(check_health=check_health)
        await introduce(self)
        self._introduced = True

    async def can_read(self) -> bool:
        """False where not connected: what is to be done is decided with the command."""
        return self._writer is not None and await super().can_read()

    async def can_read_destructive(self) -> bool:
        """`can_read` of redis-py before version 8."""
        return self._writer is not None and await super().can_read_destructive()

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """As in redis-py; a socket with unanswered calls is aborted, so that none is sent later."""
        self._retire()
        if self._writer is not None:
            nobody_awaits_its_end(self._writer)
        await super().disconnect(*args, **kwargs)

    def _retire(self) -> None:
        self.breaker.connections.discard(self)
        if self._writer is None or self._sent is None or self._loss is not None:
            return
        # Of a command, or a transaction, whose last byte has not left, nothing has run.
        alone = len(self._sent) == 1 or len(grouped(commands_of(self._sent, self.encoder))) == 1
        self._loss = Sent.NO if alone and unsent(self._writer) else Sent.MAYBE
        if self._loss is Sent.MAYBE and writes(self._rest()):
            self.breaker.suspect(self.identity)
        abort(self._writer)

    def _rest(self) -> list[Command]:
        """What has not taken effect, as far as the replies say."""
        calls = self._sent[self._first_unsettled() :] if self._sent is not None else ()
        return grouped(commands_of(calls, self.encoder))

    def _first_unsettled(self) -> int:
        """The place of the call whose reply comes next; in a transaction, that of its MULTI:
        before EXEC's reply nothing of it is settled.
        """
        if self._sent is None or not self._next or self._sent[-1][0] != "EXEC":
            return self._next
        for start, last in units(commands_of(self._sent, self.encoder)):
            if start < self._next <= last:
                return start
        return self._next

    def _forget(self) -> None:
        """Nothing is awaited any more."""
        self._sent = self._loss = None
        self._next = 0
        self._replies = []

    def with_receipts(self, result: Any) -> Any:
        """`result` of a client's command or pipeline, receipts in place of their placeholders."""
        receipts, self.receipts = self.receipts, {}
        if not self._pipelined:
            return receipts[0]
        for index, receipt in receipts.items():
            result[index] = receipt
        return result

    # -- what the breaker asks of a connection --------------------------------------------

    def waiting_since(self) -> float | None:
        """Since when a reply, or the connect, is waited for; None where nothing is, or a command
        that blocks by design.
        """
        if self._opening is None:
            if self._sent is None:
                return None
            if any(command.shape.blocking for command in self._rest()):
                return None
        return max(self._sent_at, self._cleared_at)

    def cleared(self, at: float) -> None:
        """The server answered a PING at `at`: what waits is slow, not lost."""
        self._cleared_at = at

    @property
    def late(self) -> bool:
        """Sent before the last outage, and still without its reply."""
        return self._sent is not None and self._outage != self.breaker.outages

    def outage(self) -> None:
        """The breaker opens. What is safe to send twice need not wait any longer."""
        if self._opening is not None:
            self._opening.cancel()
        elif self._sent is not None and may_be_cut(self._rest()):
            self._retire()

    def cut(self) -> None:
        """The fence is about to be put up: no more waiting."""
        self._retire()

    # -- on the wire ----------------------------------------------------------------------

    def _in_handshake(self) -> bool:
        return self._opening is not None and self._opening is asyncio.current_task()

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> Packed:
        """As in redis-py; the result still knows its commands."""
        calls = [tuple(call) for call in commands]
        return Packed(super().pack_commands(calls), calls)

    def _tie(self, calls: Sequence[Call]) -> None:
        if self._tied is Tie.ENDS:
            self._tied = Tie.NOT
        for call in calls:
            if call[0] in BINDS:
                self._tied = Tie.WATCHES
            elif call[0] in FREES:
                self._tied = Tie.ENDS if self._tied is Tie.WATCHES else Tie.NOT

    def _track(self, calls: Sequence[Call]) -> None:
        breaker = self.breaker
        self._sent, self._next, self._loss = calls, 0, None
        self._era = breaker.era
        self._sent_at = breaker.clock()
        if self._replies:
            self._replies = []
        if breaker.timer is None:
            breaker.arm()

    async def _write(self, chunks: Sequence[bytes]) -> None:
        """redis-py's write without a task per send (`wait_for`: 32 % of a GET's instructions).

        Waiting is needed only where the transport has asked its writers to pause.
        """
        writer = self._writer
        assert writer is not None
        if len(chunks) == 1:
            writer.write(chunks[0])
        else:
            writer.writelines(chunks)
        transport = writer.transport
        if transport.is_closing():
            # The kernel took nothing of it: a send that fails hands over no byte.
            self._loss = Sent.NO
            return
        if transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[1]:
            return
        try:
            await asyncio.wait_for(writer.drain(), self.socket_timeout)
        except OUTAGE as error:
            # `read_response` finds the socket closed and decides.
            self.breaker.note_error(error)
            await self.disconnect(nowait=True)
        except BaseException:
            await self.disconnect(nowait=True)
            self._forget()
            raise

    async def _ready(self, seconds: float) -> bool:
        """Makes sure of a connection of now. False where Redis is away."""
        if self._usable():
            return True
        if self._tied is Tie.WATCHES:
            # A new connection has no WATCH. redis-py makes a WatchError of this.
            self._tied = Tie.NOT
            raise ConnectionError("the connection was lost under WATCH")
        if self._writer is not None:
            await self.disconnect(nowait=True)
        return await self._open(seconds)

    async def _attempt(self, calls: Sequence[Call], check_health: bool, seconds: float) -> bool:
        """Puts `calls` on the wire. False where that failed and nothing of them was sent."""
        breaker = self.breaker
        before = (breaker.era, breaker.gate_open)
        if not await self._ready(seconds):
            return False
        if check_health and self._check_is_due() and not await self._healthy(seconds):
            return False
        if (breaker.era, breaker.gate_open) != before:
            return False  # it has tripped, or the journal has filled, while we connected
        self._tie(calls)
        self._track(calls)
        packed = super().pack_commands(calls) if len(calls) > 1 else self.pack_command(*calls[0])
        await self._write(packed)
        return True

    def _check_is_due(self) -> bool:
        """Whether redis-py would check the connection's health before the next command."""
        if not self.health_check_interval:
            return False
        return asyncio.get_running_loop().time() > self.next_health_check

    async def _healthy(self, seconds: float) -> bool:
        """redis-py's health check, once: what is to be done about a failure is decided here."""
        era = self.breaker.era
        ping = self._send_ping()  # type: ignore[no-untyped-call]  # redis-py
        error = await self._past_the_guard(ping, seconds)
        if error is None:
            return True
        await self._failed(era, error)
        return False


def _stock(guarded: type[AbstractConnection]) -> type[AbstractConnection]:
    """redis-py's own class underneath."""
    return next(
        base
        for base in guarded.__mro__
        if issubclass(base, AbstractConnection) and not issubclass(base, GuardedSocket)
    )
