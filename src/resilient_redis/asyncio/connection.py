"""`ResilientConnection`: a redis-py connection whose commands pass the guard.

The healthy path is redis-py's own behind one attribute test (`breaker.live`). Everything else
starts in `_carry` (a command cannot simply be sent) or `_lost` (its reply did not come).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from ..core.command import Command, Kind
from ..core.exchange import ReplyError
from ..core.guard import Answer, AwaitDrain, Refuse, Sent, Step, Unknown, lost, writes
from ..core.wire import reply_bytes
from ..errors import CommandRefused, JournalFull, OutcomeUnknown
from ..receipt import Queued
from ..seam.failures import OUTAGE, REJECTED, holding_code, is_outage, out_of_memory, parse_error
from ..seam.packed import Call, Packed, commands_of
from ..seam.replies import OwnReplies, encode_reply
from .breaker import RedisCircuitBreaker
from .wire import PUBSUB, SESSION, GuardedSocket

# Waits between two attempts of one caller while the breaker is still closed, in seconds: quick,
# because five refusals should open it within tens of milliseconds.
_PAUSES = (0.0, 0.005, 0.01, 0.02, 0.04)
_LAST_PAUSE = 0.08


class _Live:
    """In `_slots`: this reply is read from the socket."""


LIVE = _Live()
#: A reply that is not read from the socket: RESP bytes, RESP bytes whose place a receipt takes in
#: the end, or an error.
Slot = _Live | bytes | tuple[bytes, Queued] | Exception


class GuardedConnection(GuardedSocket):
    """Mixed into a connection class of redis-py; see `ResilientConnection`."""

    def __init__(self, **kwargs: Any) -> None:
        self._slots: deque[Slot] | None = None  # where replies do not all come from the socket
        self._delivered = 0
        self._own: OwnReplies | None = None
        super().__init__(**kwargs)

    @classmethod
    def bound_to(cls, breaker: RedisCircuitBreaker) -> type[GuardedConnection]:
        """A subclass whose connections use `breaker`, for where only a class can be given."""
        return type(cls.__name__, (cls,), {"bound_breaker": breaker, "__module__": cls.__module__})

    def _forget(self) -> None:
        super()._forget()
        self._slots = None
        self._delivered = 0

    # -- sending --------------------------------------------------------------------------

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

    async def _submit(
        self, calls: Sequence[Call], check_health: bool, packed: list[bytes] | None
    ) -> None:
        self._delivered = 0
        if self.receipts:
            self.receipts = {}
        if self.breaker.live and self._usable() and not (check_health and self._check_is_due()):
            special = calls[0][0] in SESSION
            if special or self._tied:
                self._tie(calls)
            self._slots = None
            self._track(calls)
            await self._write(packed or self.pack_command(*calls[0]))
            if special and calls[0][0] in PUBSUB:
                self._forget()
            return
        if self._sent is not None:  # left behind by a caller who went away
            await self.disconnect(nowait=True)
        self._forget()
        slots = await self._carry(calls, self.breaker.clock(), check_health)
        self._slots = None if all(slot is LIVE for slot in slots) else deque(slots)

    async def _carry(
        self, calls: Sequence[Call], at: float, check_health: bool = False, touched: bool = False
    ) -> list[Slot]:
        """Sends `calls` or answers them; returns where each reply comes from.

        `at` is when the caller called. `touched`: some of it may have run already, so that a
        refusal would be a lie.
        """
        breaker = self.breaker
        batch = commands_of(calls, self.encoder)
        start = breaker.clock()
        until = start + breaker.deadline
        pauses = iter(_PAUSES)
        while True:
            waited = breaker.clock() - start
            decision = breaker.decide(batch, waited >= breaker.drain_wait)
            if isinstance(decision, Refuse):
                raise self._refusal(decision, touched)
            if isinstance(decision, AwaitDrain):
                breaker.start_recovery()
                await breaker.wait_drained(breaker.drain_wait - waited)
                continue
            steps = decision.steps if isinstance(decision, Answer) else (Step.SEND,) * len(calls)
            live = [call for call, step in zip(calls, steps, strict=True) if step is Step.SEND]
            if live and not await self._attempt(live, check_health, until - breaker.clock()):
                if breaker.closed and breaker.clock() >= until:
                    name = batch[0].shape.name
                    late = Refuse(name, f"no connection within {breaker.deadline:g} s")
                    raise self._refusal(late, touched)
                if breaker.closed:
                    await breaker.pause(next(pauses, _LAST_PAUSE))
                continue
            if not isinstance(decision, Answer):
                return [LIVE] * len(calls)
            try:
                return await self._answer(batch, decision, at)
            except JournalFull as error:
                if touched:
                    raise self._unknown(error.command) from error
                raise

    async def _answer(self, batch: list[Command], decision: Answer, at: float) -> list[Slot]:
        """Journals what is to be queued, and finds the replies."""
        breaker = self.breaker
        steps = decision.steps
        queued = [c for c, step in zip(batch, steps, strict=True) if step is Step.QUEUE]
        first = breaker.queue(queued, int(self.db), at) if queued else 0
        breaker.start_recovery()
        receipts = {
            first + i: breaker.outbox.receipt(first + i, c.shape.name)
            for i, c in enumerate(queued)
            if decision.wait or c.shape.receipt
        }
        if decision.wait:
            await breaker.wait_settled(list(receipts.values()), breaker.drain_wait)
        slots: list[Slot] = []
        seq = first
        for command, step in zip(batch, steps, strict=True):
            if step is Step.SEND:
                slots.append(LIVE)
            elif step is Step.NEUTRAL:
                breaker.counters["neutral"] += 1
                slots.append(reply_bytes(command.shape, self.protocol))
            else:
                slots.append(self._acknowledge(command, receipts.get(seq)))
                seq += 1
        return slots

    def _acknowledge(self, command: Command, receipt: Queued | None) -> Slot:
        """The real reply, if the entry was replayed meanwhile; else what a queued write answers."""
        acknowledgement = reply_bytes(command.shape, self.protocol)
        if receipt is not None and receipt.settled:
            try:
                value = receipt.result()
            except ReplyError as error:
                return parse_error(self, error.message)
            if value is not None:  # None: applied, but its reply was lost
                return encode_reply(value, self.protocol)
        if receipt is not None and command.shape.receipt:
            return acknowledgement, receipt
        return acknowledgement

    def _refusal(self, refuse: Refuse, touched: bool) -> Exception:
        if touched:
            return self._unknown(refuse.command)
        if refuse.oom:
            return out_of_memory()
        return CommandRefused(refuse.command, refuse.reason, self.breaker.retry_after())

    def _unknown(self, command: str) -> OutcomeUnknown:
        self.breaker.counters["unknown"] += 1
        return OutcomeUnknown(command, self._replies)

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
            return await super().read_response(
                disable_decoding,
                timeout,
                disconnect_on_error=disconnect_on_error,
                push_request=push_request,
            )
        while True:
            if self._slots is not None and self._slots[0] is not LIVE:
                return await self._deliver(disable_decoding)
            try:
                reply = await super().read_response(
                    disable_decoding,
                    timeout,
                    disconnect_on_error=disconnect_on_error,
                    push_request=push_request,
                )
            except ResponseError as error:
                if await self._was_rejected(error):
                    continue
                self._arrived(error)
                raise
            except OUTAGE as error:
                await self._lost(error)
            except BaseException:
                self._abandoned()
                raise
            else:
                self._arrived(reply)
                return reply

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
            if not self.in_client:
                return receipt
            self.receipts[index] = receipt
        assert isinstance(slot, bytes)
        if self._own is None:
            self._own = OwnReplies(self._parser, self.encoder)
        return await self._own.parse(slot, disable_decoding)

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
        (command,) = commands_of(calls, self.encoder)
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
        rest, calls, slots = self._rest(), (self._sent or ())[self._next :], self._slots
        replies, at, delivered = self._replies, self._sent_at, self._delivered
        done = commands_of((self._sent or ())[: self._next], self.encoder)
        sent = self._loss or Sent.MAYBE
        if isinstance(error, REJECTED) and len(self._sent or ()) == 1:
            sent = Sent.NO
        tied, self._tied = self._tied, False
        idle_eof = self._reused and not done and not isinstance(error, TimeoutError)
        self._forget()
        self._replies = replies
        if not is_outage(error):
            raise error
        if isinstance(error, TimeoutError) and any(c.shape.blocking for c in rest):
            raise error  # it waited longer than socket_timeout, as in redis-py
        # The server may close an idle socket when it likes: the new one is the verdict.
        if not idle_eof:
            breaker.failure(self._era, error)
        verdict = lost(rest, sent)
        if isinstance(verdict, Unknown):
            raise self._unknown(verdict.command) from error
        if tied:
            self._forget()
            raise ConnectionError("the connection was lost under WATCH") from error
        touched = writes(done) or (sent is Sent.MAYBE and writes(rest))
        carried = await self._carry(calls, at, touched=touched)
        self._replies, self._delivered = replies, delivered
        self._merge(carried, slots)

    def _merge(self, carried: list[Slot], slots: deque[Slot] | None) -> None:
        """The new slots of what was lost, in the places where a reply was awaited."""
        if slots is not None:
            fresh = iter(carried)
            carried = [next(fresh) if slot is LIVE else slot for slot in slots]
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
                "ResilientConnection speaks plain TCP; TLS and Unix sockets are not supported yet"
            )
        super().__init__(**kwargs)
