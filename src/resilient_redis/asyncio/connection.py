"""`ResilientConnection`: a redis-py connection whose commands pass the guard.

The healthy path is redis-py's own behind one attribute test (`breaker.live`). Everything else
starts in `carry.py` (a command cannot simply be sent) or in `_lost` (its reply did not come).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import ConnectionError, ExecAbortError, ResponseError, TimeoutError

from ..answering import LIVE, Slot
from ..core.command import Kind
from ..core.guard import Sent, Unknown, lost, writes
from ..core.unit import grouped
from ..seam.failures import OUTAGE, REJECTED, holding_code, is_outage
from ..seam.packed import commands_of
from ..seam.replies import MISSING, PUSH, OwnReplies, at_hand
from .breaker import RedisCircuitBreaker
from .carry import TOO_OFTEN
from .subscriber import GuardedSubscriber
from .wire import Tie


class GuardedConnection(GuardedSubscriber):
    """Mixed into a connection class of redis-py; see `ResilientConnection`."""

    @classmethod
    def bound_to(cls, breaker: RedisCircuitBreaker) -> type[GuardedConnection]:
        """A subclass whose connections use `breaker`, for where only a class can be given."""
        return type(cls.__name__, (cls,), {"bound_breaker": breaker, "__module__": cls.__module__})

    # -- replies --------------------------------------------------------------------------

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
            if self._connect_callbacks and not self._in_handshake() and self._subscribes:
                return await self._read_message(
                    timeout,
                    disable_decoding=disable_decoding,
                    disconnect_on_error=disconnect_on_error,
                    push_request=push_request,
                )
            reply = await super().read_response(
                disable_decoding,
                timeout,
                disconnect_on_error=disconnect_on_error,
                push_request=push_request,
            )
            self._sent_at = self.breaker.clock()
            return reply
        while True:
            if self._slots is not None and self._slots[0] is not LIVE:
                reply = await self._deliver(disable_decoding)
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
                if await self._was_rejected(error):
                    continue
                self._arrived(error)
                if self._already_told():
                    continue
                if self._touched and holding_code(error) is not None:
                    # An earlier try, whose reply was lost, may have been accepted.
                    unknown = self._unknown(self._touched)
                    await self.disconnect(nowait=True)  # the rest of a pipeline stays unread
                    self._forget()
                    raise unknown from error
                raise
            except OUTAGE as error:
                await self._lost(error)
            except BaseException:
                self._abandoned()
                raise
            else:
                self._arrived(reply)
                if not self._already_told():
                    return reply

    def _already_told(self) -> bool:
        """A transaction that is sent anew answers MULTI and its commands again: redis-py has read
        so many of those replies before.
        """
        if not self._told:
            return False
        self._told -= 1
        self._delivered -= 1
        return True

    def _arrived(self, reply: Any) -> None:
        self._delivered += 1
        if self._slots is not None:
            self._slots.popleft()
            if not self._slots:
                self._slots = None
        self._reused = True
        sent = self._sent
        assert sent is not None
        if len(sent) == 1:
            self._sent = None
        else:
            self._replies.append(reply)
            self._next += 1
            if self._next == len(sent):
                self._sent = None
        if self.breaker.suspicious:
            self.breaker.success(self._era)

    async def _deliver(self, disable_decoding: bool) -> Any:
        assert self._slots is not None
        slot = self._slots.popleft()
        if not self._slots:
            self._slots = None
        index = self._delivered
        self._delivered += 1
        if isinstance(slot, Exception):
            raise slot
        if isinstance(slot, tuple):
            slot, receipt = slot
            if isinstance(receipt, dict):
                self.receipts.update(receipt)
            elif not self.in_client:
                return receipt
            else:
                self.receipts[index] = receipt
        assert isinstance(slot, bytes)
        if self._own is None:
            self._own = OwnReplies(self._parser, self.encoder)
        reply = await self._own.parse(slot, disable_decoding)
        if self.receipts and not self.in_client:
            return self.with_receipts(reply)
        return reply

    # -- replies that do not come ---------------------------------------------------------

    def _abandoned(self) -> None:
        """The caller was cancelled. That is no failure, but it may be a symptom of one."""
        breaker = self.breaker
        now = breaker.clock()
        if self._sent is not None and now - self._sent_at > breaker.deadline / 10:
            breaker.check_hang(now - breaker.deadline / 2)
        self._forget()

    async def _was_rejected(self, error: ResponseError) -> bool:
        """Whether an error reply means "not now", and the command is answered like one not sent."""
        calls = self._sent
        if calls is None or len(calls) != 1:
            return False  # of a pipeline nobody knows what the rest will say: redis-py's errors
        if isinstance(error, REJECTED):
            await self.disconnect(nowait=True)
            await self._lost(error)
            return True
        code = holding_code(error)
        if code is None or code == "OOM":
            return False  # out of memory: growing writes raise, as in redis-py
        (command,) = self.breaker.ruled(commands_of(calls, self.encoder))
        if command.shape.kind is not Kind.WRITE:
            return False
        self._sent = None
        self.breaker.hold(code)
        slots = await self._carry(calls, self._sent_at)
        self._merge(slots, self._slots)
        return True

    async def _lost(self, error: Exception) -> None:
        """The replies to what is left of the batch will not come."""
        await self.disconnect(nowait=True)
        breaker = self.breaker
        everything, first = self._sent or (), self._first_unsettled()
        rest, calls, slots = self._rest(), everything[first:], self._slots
        # Of a transaction that is under way, redis-py has read the first replies.
        told = self._next - first + self._told
        denied = any(isinstance(reply, Exception) for reply in self._replies[first:])
        replies, at, delivered = self._replies[:first], self._sent_at, self._delivered
        done = grouped(commands_of(everything[:first], self.encoder))
        sent = self._loss or Sent.MAYBE
        if isinstance(error, REJECTED) and len(everything) == 1:
            sent = Sent.NO
        tied, self._tied = self._tied, Tie.NOT
        idle_eof = self._reused and not self._next and not isinstance(error, TimeoutError)
        self._forget()
        self._replies = replies
        if not is_outage(error):
            raise error
        if isinstance(error, TimeoutError) and any(c.shape.blocking for c in rest):
            raise error  # it waited longer than socket_timeout, as in redis-py
        # The server may close an idle socket when it likes: the new one is the verdict.
        if not idle_eof:
            breaker.failure(self._era, error, max(at, self._cleared_at))
        verdict = lost(rest, sent)
        if isinstance(verdict, Unknown):
            raise self._unknown(verdict.command) from error
        if told and denied:
            # redis-py knows of a command that was refused as it was queued: EXEC would have failed.
            if self._touched:
                raise self._unknown(self._touched) from error
            aborted: list[Slot] = [b"+QUEUED\r\n"] * (len(calls) - told - 1)
            self._delivered = delivered
            self._slots = deque([*aborted, ExecAbortError("the transaction was refused")])
            return
        if tied:
            raise ConnectionError("the connection was lost under WATCH") from error
        # What an earlier try of this batch may have done stays true of the next one.
        touched = bool(self._touched) or writes(done) or (sent is Sent.MAYBE and writes(rest))
        self._lost_replies += 1
        if not self._losses:
            self._until = breaker.clock() + breaker.deadline
        elif (
            breaker.clock() >= self._until
            and self._lost_replies >= TOO_OFTEN
            and not breaker.silent()
            and breaker.closed
        ):
            # Others are served meanwhile, so nothing but this ends the repeats.
            raise self._refusal(self._too_often(rest), touched) from error
        await self._pause()
        carried = await self._carry(calls, at, touched=touched)
        self._replies, self._delivered, self._told = replies, delivered, told
        self._touched = rest[0].shape.name if touched else ""
        self._merge(carried, slots, told)

    def _merge(self, carried: list[Slot], slots: deque[Slot] | None, told: int = 0) -> None:
        """The new slots of what was lost, in the places where a reply was awaited."""
        if slots is not None:
            fresh = iter(carried[told:])
            carried = carried[:told] + [next(fresh) if slot is LIVE else slot for slot in slots]
        self._slots = None if all(slot is LIVE for slot in carried) else deque(carried)


class ResilientConnection(GuardedConnection, Connection):
    """redis-py's TCP connection with the guard inside; give it to a pool as `connection_class`.

    `breaker`: the `RedisCircuitBreaker` that its connections share; without one, all connections
    to the same host, port and user share one with default settings. Everything else is
    `redis.asyncio.Connection`'s.
    """

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("path") or any(key.startswith("ssl") for key in kwargs):
            raise ValueError(
                "ResilientConnection speaks plain TCP: write ResilientSSLConnection or "
                "ResilientUnixDomainSocketConnection, or ResilientRedis.from_url(url)"
            )
        super().__init__(**kwargs)


class ResilientSSLConnection(GuardedConnection, SSLConnection):
    """redis-py's TLS connection with the guard inside. See `ResilientConnection`."""


class ResilientUnixDomainSocketConnection(GuardedConnection, UnixDomainSocketConnection):
    """redis-py's Unix socket connection with the guard inside. See `ResilientConnection`."""


_GUARDED: dict[type[AbstractConnection], type[GuardedConnection]] = {
    Connection: ResilientConnection,
    SSLConnection: ResilientSSLConnection,
    UnixDomainSocketConnection: ResilientUnixDomainSocketConnection,
}


def guarded_class(connection_class: type[AbstractConnection]) -> type[GuardedConnection]:
    """`connection_class`, redis-py's or one derived from it, with the guard inside."""
    made = _GUARDED.get(connection_class)
    if made is None:
        made = type(connection_class.__name__, (GuardedConnection, connection_class), {})
        _GUARDED[connection_class] = made
    return made
