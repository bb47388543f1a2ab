"""`ResilientConnection`: a redis-py connection whose commands pass the guard.

The healthy path is redis-py's own behind one attribute test (`breaker.live`). Everything else is in
`resilient_redis.flow`; here stands what touches the socket, and what runs for every command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import ResponseError

from ..answering import LIVE
from ..core.guard import Sent
from ..flow.receiver import GuardedReceiver
from ..flow.socket import PUBSUB, SESSION, PlainTCP
from ..flow.steps import Steps
from ..seam.failures import OUTAGE
from ..seam.packed import Call, Packed
from ..seam.replies import MISSING, PUSH, at_hand
from ..seam.sockets import abort, nobody_awaits_its_end, unsent
from ..track import outermost
from .breaker import RedisCircuitBreaker
from .driving import caller, end, run, within
from .retry import GuardedRetry


class GuardedConnection(GuardedReceiver, AbstractConnection):
    """Mixed into a connection class of redis-py; see `ResilientConnection`."""

    breaker_class = RedisCircuitBreaker
    retry_class = GuardedRetry
    _opening: asyncio.Task[None] | None

    # -- opening and closing ------------------------------------------------------------------

    async def connect(self) -> None:
        """For the pool, before the command is known: silent where Redis is away."""
        if not self._usable() and not self._in_handshake():
            await run(self._connecting())

    def _usable(self) -> bool:
        reader, writer = self._reader, self._writer
        return (
            writer is not None
            and reader is not None
            and self._sent is None
            and self._outage == self.breaker.outages
            and not reader.at_eof()
            and not writer.transport.is_closing()
        )

    def _has_socket(self) -> bool:
        return self._writer is not None

    def _socket_id(self) -> Any:
        return self._writer

    def _in_handshake(self) -> bool:
        return self._opening is not None and self._opening is asyncio.current_task()

    def _begin(self, work: Callable[[], Steps[None]]) -> None:
        self._opening = asyncio.get_running_loop().create_task(run(work()))

    async def _ended(self, seconds: float) -> BaseException | None:
        task = self._opening
        assert task is not None
        try:
            # A reply is a sign of life: a handshake is several round trips, and may take longer.
            while not task.done():
                left = self._sent_at + max(seconds, 0.001) - self.breaker.clock()
                if left <= 0 and not self.asks_elsewhere:
                    await end(task)
                patience = left if left > 0 else self.breaker.deadline
                await asyncio.wait({task}, timeout=patience)
        except BaseException:
            # The caller was cancelled: half a handshake must not be left on the connection.
            try:
                await end(task)  # it may be cancelled again
            finally:
                await self.disconnect(nowait=True)
            raise
        finally:
            self._opening = None
        if task.cancelled():
            return TimeoutError("Timeout connecting to server")
        return task.exception()

    async def _opened_by_another(self, seconds: float) -> None:
        if self._opening is not None:
            await asyncio.wait({self._opening}, timeout=seconds)

    def _interrupt_opening(self) -> None:
        assert self._opening is not None
        self._opening.cancel()

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await run(self._greeting(check_health))

    async def re_auth(self) -> None:
        """As in redis-py, where the connection is up."""
        if self._re_auth_token is not None:  # this is asked after each command
            await run(self._logging_in_again())

    def _subscribes_again(self) -> bool:
        return any(callback() is not None for callback in self._connect_callbacks)

    def _check_is_due(self) -> bool:
        if not self.health_check_interval:
            return False
        return asyncio.get_running_loop().time() > self.next_health_check

    async def can_read(self) -> bool:
        """False where not connected: what is to be done is decided with the command."""
        return self._writer is not None and await super().can_read()

    async def can_read_destructive(self) -> bool:
        """`can_read` of redis-py before version 8."""
        return self._writer is not None and await super().can_read_destructive()

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """As in redis-py; a socket with unanswered calls is aborted, so that none is sent later."""
        if not (args or kwargs or self._in_handshake()):  # redis-py says why, if it does it itself
            self._dismissed = True
        self._retire()
        if self._writer is not None:
            nobody_awaits_its_end(self._writer)
        await super().disconnect(*args, **kwargs)

    async def _shut(self) -> None:
        await self.disconnect(nowait=True)

    def _abort(self, *, reset: bool) -> None:
        assert self._writer is not None
        abort(self._writer, reset=reset)

    def _unsent(self) -> bool:
        assert self._writer is not None
        return unsent(self._writer)

    # -- sending ------------------------------------------------------------------------------

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        """Sends a command, or decides what it is answered."""
        if self._in_handshake():
            await super().send_command(*args, **kwargs)
            return
        self._pipelined = False
        await self._submit((args,), kwargs.get("check_health", True), None)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Sends what `pack_commands` made, or decides what it is answered."""
        if isinstance(command, Packed) and not self._in_handshake():
            self._pipelined = True
            await self._submit(command.calls, check_health, command)
        else:
            await super().send_packed_command(command, check_health)

    def _submit(
        self, calls: Sequence[Call], check_health: bool, packed: list[bytes] | None
    ) -> Coroutine[Any, Any, None]:
        # Not `async`: the healthy path has no coroutine more.
        if self._connect_callbacks and self._subscribes_again():
            return run(self._submitting_to_subscription(calls))
        self._delivered = self._losses = self._lost_replies = 0
        self._touched = ""
        if self.receipts:
            self.receipts = {}
        if self.breaker.live and self._usable() and not (check_health and self._check_is_due()):
            # Packed first: a value that has no bytes is the caller's mistake, and leaves no trace.
            return self._send_live(calls, packed or self.pack_command(*calls[0]))
        return run(self._submitting(calls, check_health))

    async def _send_live(self, calls: Sequence[Call], chunks: Sequence[bytes]) -> None:
        special = calls[0][0] in SESSION
        if special or self._tied:
            self._tie(calls)
        self._slots = None
        self._track(calls)
        if self.breaker.timer is None:
            self.breaker.arm()
        await self._write(chunks)
        if special and calls[0][0] in PUBSUB:
            self._forget()

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
            await within(writer.drain(), self.socket_timeout)
        except OUTAGE as error:
            # `read_response` finds the socket closed and decides.
            self.breaker.note_error(error)
            await self.disconnect(nowait=True)
        except BaseException:  # a cancellation: half of it may be on the wire
            await self.disconnect(nowait=True)
            self._forget()
            raise

    def _owner(self) -> Any:
        return outermost() or caller.get() or asyncio.current_task()

    # -- replies ------------------------------------------------------------------------------

    async def _read_raw(self) -> Any:
        return await self.read_response()

    async def read_response(
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,
        *,
        disconnect_on_error: bool = True,
        push_request: bool | None = False,
    ) -> Any:
        """The next reply: from the socket, or the one that was decided."""
        if (self._sent is None and self._slots is None) or self._in_handshake():
            stock = partial(
                super().read_response,
                disable_decoding,
                disconnect_on_error=disconnect_on_error,
                push_request=push_request,
            )
            if self._connect_callbacks and not self._in_handshake() and self._subscribes_again():
                return await run(self._reading_message(timeout, lambda left: stock(timeout=left)))
            reply = await stock(timeout=timeout)
            self._sent_at = self.breaker.clock()
            return reply
        while True:
            if self._slots is not None and self._slots[0] is not LIVE:
                reply = self._deliver(disable_decoding)
                if self._already_told():
                    continue
                return reply
            try:
                sent = self._sent
                pipelined = sent is not None and len(sent) > 1 and not self.health_check_interval
                reply = at_hand(self._parser, disable_decoding) if pipelined else MISSING
                if reply is MISSING:
                    reply = await super().read_response(
                        disable_decoding,
                        timeout,
                        disconnect_on_error=disconnect_on_error,
                        push_request=push_request,
                    )
                elif isinstance(reply, Exception):
                    raise reply
                elif type(reply) is PUSH:
                    await self._parser.handle_push_response(reply)  # type: ignore[attr-defined]  # hiredis's has it
                    continue
            except ResponseError as error:
                if not await run(self._error_reply(error)):
                    raise
            except OUTAGE as error:
                await run(self._lost(error))
            except BaseException:  # a cancellation: nobody reads the reply
                self._abandoned()
                raise
            else:
                self._arrived(reply)
                if not self._already_told():
                    return reply


class ResilientConnection(PlainTCP, GuardedConnection, Connection):
    __doc__ = PlainTCP.__doc__


class ResilientSSLConnection(GuardedConnection, SSLConnection):
    """redis-py's TLS connection with the guard inside. See `ResilientConnection`."""


class ResilientUnixDomainSocketConnection(GuardedConnection, UnixDomainSocketConnection):
    """redis-py's Unix socket connection with the guard inside. See `ResilientConnection`."""


GUARDED: dict[type[Any], type[Any]] = {
    Connection: ResilientConnection,
    SSLConnection: ResilientSSLConnection,
    UnixDomainSocketConnection: ResilientUnixDomainSocketConnection,
}
