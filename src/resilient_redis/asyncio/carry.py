"""What becomes of a batch that cannot simply be sent: it waits, is answered, queued or refused."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..answering import LIVE, Answers, Slot, refusal, unknown
from ..core.command import Command
from ..core.guard import Answer, AwaitDrain, AwaitRecovery, Refuse, Send, Step, writes
from ..core.premise import NeutralReads
from ..core.unit import grouped, span, untold
from ..core.wire import pack
from ..errors import JournalFull, OutcomeUnknown
from ..seam.failures import parse_error
from ..seam.packed import Call, Packed, commands_of
from ..seam.replies import OwnReplies
from .calling import caller
from .handshake import put_up_fence
from .wire import PUBSUB, SESSION, GuardedSocket, Tie

# Seconds between two attempts for one caller while the breaker is still closed.
_PAUSES = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08)


# A command whose reply is lost so often within a deadline, while others are served, is itself what
# costs its connection.
TOO_OFTEN = 3
READ_AS_NEUTRAL = (
    "this task was told during the outage that its key is empty, and it is not: read it again"
)


class GuardedSender(GuardedSocket):
    """The sending half of `GuardedConnection`."""

    def __init__(self, **kwargs: Any) -> None:
        self._slots: deque[Slot] | None = None  # where replies do not all come from the socket
        self._delivered = 0
        self._told = 0  # replies that come again, and are not passed on again
        self._losses = 0  # how often this batch has failed
        self._touched = ""  # the command of which an earlier try may have run
        self._lost_replies = 0  # and how often after it was sent
        self._until = 0.0  # until when it is repeated
        self._own: OwnReplies | None = None
        super().__init__(**kwargs)

    def _forget(self) -> None:
        super()._forget()
        self._slots = None
        self._delivered = self._told = 0

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
        self._delivered = self._losses = self._lost_replies = 0
        self._touched = ""
        if self.receipts:
            self.receipts = {}
        if self.breaker.live and self._usable() and not (check_health and self._check_is_due()):
            # Packed first: a value that has no bytes is the caller's mistake, and leaves no trace.
            chunks = packed or self.pack_command(*calls[0])
            special = calls[0][0] in SESSION
            if special or self._tied:
                self._tie(calls)
            self._slots = None
            self._track(calls)
            await self._write(chunks)
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
        if not self.breaker.live:
            await self.breaker.breathe()
        breaker = self.breaker
        batch = grouped(breaker.ruled(commands_of(calls, self.encoder)))
        if self._tied is Tie.WATCHES:
            # What was read under WATCH is void after an outage: nothing of it may be answered.
            batch = [untold(command) for command in batch]
        owner, db = caller.get() or asyncio.current_task(), int(self.db)
        start = breaker.clock()
        if not self._losses:
            began, self._began = self._began or start, None
            self._until = began + breaker.deadline
        until, away = self._until, False
        while True:
            # The recovery may not log in: who has waited for it tries, and raises as in redis-py.
            if breaker.denied and breaker.closed and not await self._ready(breaker.deadline):
                await self._pause()
            waited = breaker.clock() - start
            blocked = breaker.clock() - at
            decision = breaker.decide(batch, waited >= breaker.drain_wait, away, blocked)
            if isinstance(decision, Refuse):
                raise self._refusal(decision, touched)
            if isinstance(decision, AwaitRecovery):
                calls = await self._blocked_until_recovery(calls, batch[0], at)
                until, away = self._until, False
                continue
            if isinstance(decision, AwaitDrain):
                breaker.start_recovery()
                await breaker.wait_drained(breaker.drain_wait - waited)
                until = self._until = breaker.clock() + breaker.deadline  # to connect anew
                continue
            left = min(until - breaker.clock(), breaker.patience())
            if isinstance(decision, Send) and breaker.suspects and writes(batch) and left > 0:
                # A write of a connection that has died may not land after this one.
                if not (await self._ready(left) and await self._fenced(left)):
                    breaker.silent()
                    await self._pause()
                continue
            if isinstance(decision, Send) and (reads := breaker.provenance.reads_of(owner)):
                back = await self._back_from_outage(batch, reads, until - breaker.clock())
                if back is None:
                    continue
                if isinstance(back, Refuse):
                    raise self._refusal(back, touched)
                decision = back
            live = list(calls)
            if isinstance(decision, Answer):
                steps = [
                    s for c, s in zip(batch, decision.steps, strict=True) for _ in range(span(c))
                ]
                live = [call for call, step in zip(calls, steps, strict=True) if step is Step.SEND]
            left = min(until - breaker.clock(), breaker.patience())
            if live and not await self._attempt(live, check_health, left):
                if breaker.silent():
                    continue
                if breaker.closed and breaker.clock() >= until:
                    if self._lost_replies >= TOO_OFTEN:
                        raise self._refusal(self._too_often(batch), touched)
                    # Others are served, so the breaker stays closed; for this caller it is away.
                    await breaker.hang_verdict()
                    away = True
                await self._pause()
                continue
            if not isinstance(decision, Answer):
                breaker.provenance.live(owner, batch, db)
                breaker.refresh()
                return [LIVE] * len(calls)
            try:
                return await self._answer(batch, decision, at, owner)
            except JournalFull as error:
                if live:  # on the wire, and nobody will read the replies
                    await self.disconnect(nowait=True)
                    self._forget()
                if touched:
                    raise self._unknown(error.command) from error
                breaker.count("refused", error.command)
                raise

    async def _blocked_until_recovery(
        self, calls: Sequence[Call], command: Command, at: float
    ) -> Sequence[Call]:
        """A blocking command waits here for Redis, and then for the rest of its time there."""
        breaker, asked = self.breaker, command.shape.block_ms / 1000
        breaker.start_recovery()
        await breaker.wait_recovered(asked - (breaker.clock() - at) if asked else None)
        self._until = breaker.clock() + breaker.deadline  # to connect anew
        if not asked:
            return calls
        place, value = command.waiting(math.ceil((asked - (breaker.clock() - at)) * 1000))
        (call,) = calls
        return ((*call[:place], value, *call[place + 1 :]),)

    def _too_often(self, batch: list[Command]) -> Refuse:
        """It is this command that costs its connection: others are served."""
        reason = f"its reply was lost {self._lost_replies} times"
        return Refuse(batch[0].shape.name, reason)

    async def _fenced(self, seconds: float) -> bool:
        """Puts up the fence from this connection. False where Redis is away."""
        era = self.breaker.era
        error = await self._past_the_guard(put_up_fence(self), seconds)
        if error is not None:
            await self._failed(era, error)
        return error is None

    async def _pause(self) -> None:
        """Between two attempts for one caller: quick, because five refusals should open the breaker
        within tens of milliseconds.
        """
        pause = _PAUSES[min(self._losses, len(_PAUSES) - 1)]
        self._losses += 1
        if self.breaker.closed:
            await self.breaker.pause(pause)

    async def _back_from_outage(
        self, batch: list[Command], reads: NeutralReads, seconds: float
    ) -> Send | Refuse | None:
        """Redis is back, but this task has been told that keys are empty: its writes to them must
        not go over what they hold. None: decide again, time has passed.
        """
        db = int(self.db)
        risky = [(c.shape.name, keys) for c in batch if (keys := reads.premise_of(c, db))]
        if not risky:
            return Send()
        if not await self._ready(seconds):
            return None
        exists = await self._exist([keys for _, keys in risky], seconds)
        if exists is None:
            return None
        # Until it has read: a retry around the write alone knows nothing more.
        answers = list(zip(risky, exists, strict=True))
        reads.discard(db, [key for (_, keys), there in answers if not there for key in keys])
        found = [name for (name, _), there in answers if there]
        return Refuse(found[0], READ_AS_NEUTRAL) if found else None

    async def _exist(self, premises: list[tuple[bytes, ...]], seconds: float) -> list[bool] | None:
        """Of each of them whether any of its keys exists; None where Redis is away."""
        found: list[bool] = []

        async def ask() -> None:
            asks = [pack((b"EXISTS", *keys)) for keys in premises]
            await self.send_packed_command(b"".join(asks), check_health=False)
            found.extend([await self.read_response() != 0 for _ in asks])

        era = self.breaker.era
        error = await self._past_the_guard(ask(), seconds)
        if error is not None:
            await self._failed(era, error)
            return None
        return found

    async def _answer(
        self, batch: list[Command], decision: Answer, at: float, owner: Any
    ) -> list[Slot]:
        """Journals what is to be queued, and finds the replies."""
        breaker = self.breaker
        answers = Answers(breaker, batch, decision, db=int(self.db), at=at, owner=owner)
        breaker.start_recovery()
        if decision.wait:
            await breaker.wait_settled(list(answers.receipts.values()), breaker.drain_wait)
        return answers.slots(self.protocol, partial(parse_error, self))

    def _refusal(self, refuse: Refuse, touched: bool) -> Exception:
        return self._unknown(refuse.command) if touched else refusal(self.breaker, refuse)

    def _unknown(self, command: str) -> OutcomeUnknown:
        return unknown(self.breaker, command, self._replies)
