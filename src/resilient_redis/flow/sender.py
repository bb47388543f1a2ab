"""What becomes of a batch that cannot simply be sent: it waits, is answered, queued or refused."""

from __future__ import annotations

import math
from abc import abstractmethod
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
from ..seam.packed import Call, commands_of
from .handshake import put_up_fence
from .socket import GuardedSocket, Tie
from .steps import Steps

# Seconds between two attempts for one caller while the breaker is still closed.
_PAUSES = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08)


# A command whose reply is lost so often within a deadline, while others are served, is itself what
# costs its connection.
TOO_OFTEN = 3
READ_AS_NEUTRAL = (
    "this task was told during the outage that its key is empty, and it is not: read it again"
)


class GuardedSender(GuardedSocket):
    """The sending half of a guarded connection."""

    def __init__(self, **kwargs: Any) -> None:
        self._slots: deque[Slot] | None = None  # where replies do not all come from the socket
        self._delivered = 0
        self._told = 0  # replies that come again, and are not passed on again
        self._losses = 0  # how often this batch has failed
        self._touched = ""  # the command of which an earlier try may have run
        self._lost_replies = 0  # and how often after it was sent
        self._until = 0.0  # until when it is repeated
        super().__init__(**kwargs)

    @abstractmethod
    def _owner(self) -> Any:
        """Whose command it is: what it is told, that `track()`, task or thread is told."""

    def _forget(self) -> None:
        super()._forget()
        self._slots = None
        self._delivered = self._told = 0

    def _submitting(self, calls: Sequence[Call], check_health: bool) -> Steps[None]:
        """Sends `calls`, or decides what they are answered."""
        if self._sent is not None:  # left behind by a caller who went away
            yield self._shut
        self._forget()
        slots = yield from self._carry(calls, self.breaker.clock(), check_health)
        self._slots = None if all(slot is LIVE for slot in slots) else deque(slots)

    def _carry(
        self, calls: Sequence[Call], at: float, check_health: bool = False, touched: bool = False
    ) -> Steps[list[Slot]]:
        """Sends `calls` or answers them; returns where each reply comes from.

        `at` is when the caller called. `touched`: some of it may have run already, so that a
        refusal would be a lie.
        """
        breaker = self.breaker
        if not breaker.live and breaker.breath_is_due():
            yield breaker.breathe
        batch = grouped(breaker.ruled(commands_of(calls, self.encoder)))
        if self._tied is Tie.WATCHES:
            # What was read under WATCH is void after an outage: nothing of it may be answered.
            batch = [untold(command) for command in batch]
        owner, db = self._owner(), int(self.db)
        start = breaker.clock()
        if not self._losses:
            began, self._began = self._began or start, None
            self._until = began + breaker.deadline
        until, away = self._until, False
        while True:
            # The recovery may not log in: who has waited for it tries, and raises as in redis-py.
            denied = breaker.denied and breaker.closed
            if denied and not (yield from self._ready(breaker.deadline)):
                yield from self._pause()
            waited = breaker.clock() - start
            blocked = breaker.clock() - at
            decision = breaker.decide(batch, waited >= breaker.drain_wait, away, blocked)
            if isinstance(decision, Refuse):
                raise self._refusal(decision, touched)
            if isinstance(decision, AwaitRecovery):
                calls = yield from self._blocked_until_recovery(calls, batch[0], at)
                until, away = self._until, False
                continue
            if isinstance(decision, AwaitDrain):
                breaker.start_recovery()
                yield from breaker.wait_drained(breaker.drain_wait - waited)
                until = self._until = breaker.clock() + breaker.deadline  # to connect anew
                continue
            left = min(until - breaker.clock(), breaker.patience())
            if isinstance(decision, Send) and breaker.suspects and writes(batch) and left > 0:
                # A write of a connection that has died may not land after this one.
                if not ((yield from self._ready(left)) and (yield from self._fenced(left))):
                    breaker.silent()
                    yield from self._pause()
                continue
            if isinstance(decision, Send) and (reads := breaker.provenance.reads_of(owner)):
                back = yield from self._back_from_outage(batch, reads, until - breaker.clock())
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
            if live and not (yield from self._attempt(live, check_health, left)):
                if breaker.silent():
                    continue
                if breaker.closed and breaker.clock() >= until:
                    if self._lost_replies >= TOO_OFTEN:
                        raise self._refusal(self._too_often(batch), touched)
                    # Others are served, so the breaker stays closed; for this caller it is away.
                    yield from breaker.hang_verdict()
                    away = True
                yield from self._pause()
                continue
            if not isinstance(decision, Answer):
                breaker.provenance.live(owner, batch, db)
                breaker.refresh()
                return [LIVE] * len(calls)
            try:
                return (yield from self._answer(batch, decision, at, owner))
            except JournalFull as error:
                if live:  # on the wire, and nobody will read the replies
                    yield self._shut
                    self._forget()
                if touched:
                    raise self._unknown(error.command) from error
                breaker.count("refused", error.command)
                raise

    def _blocked_until_recovery(
        self, calls: Sequence[Call], command: Command, at: float
    ) -> Steps[Sequence[Call]]:
        """A blocking command waits here for Redis, and then for the rest of its time there."""
        breaker, asked = self.breaker, command.shape.block_ms / 1000
        breaker.start_recovery()
        yield from breaker.wait_recovered(asked - (breaker.clock() - at) if asked else None)
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

    def _fenced(self, seconds: float) -> Steps[bool]:
        """Puts up the fence from this connection. False where Redis is away."""
        era = self.breaker.era
        error = yield from self._past_the_guard(partial(put_up_fence, self), seconds)
        if error is not None:
            yield from self._failed(era, error)
        return error is None

    def _pause(self) -> Steps[None]:
        """Between two attempts for one caller: quick, because five refusals should open the breaker
        within tens of milliseconds.
        """
        pause = _PAUSES[min(self._losses, len(_PAUSES) - 1)]
        self._losses += 1
        if self.breaker.closed:
            yield self.breaker.pausing(pause)

    def _back_from_outage(
        self, batch: list[Command], reads: NeutralReads, seconds: float
    ) -> Steps[Send | Refuse | None]:
        """Redis is back, but this task has been told that keys are empty: its writes to them must
        not go over what they hold. None: decide again, time has passed.
        """
        db = int(self.db)
        risky = [(c.shape.name, keys) for c in batch if (keys := reads.premise_of(c, db))]
        if not risky:
            return Send()
        if not (yield from self._ready(seconds)):
            return None
        exists = yield from self._exist([keys for _, keys in risky], seconds)
        if exists is None:
            return None
        # Until it has read: a retry around the write alone knows nothing more.
        answers = list(zip(risky, exists, strict=True))
        reads.discard(db, [key for (_, keys), there in answers if not there for key in keys])
        found = [name for (name, _), there in answers if there]
        return Refuse(found[0], READ_AS_NEUTRAL) if found else None

    def _exist(self, premises: list[tuple[bytes, ...]], seconds: float) -> Steps[list[bool] | None]:
        """Of each of them whether any of its keys exists; None where Redis is away."""
        found: list[bool] = []

        def ask() -> Steps[None]:
            asks = [pack((b"EXISTS", *keys)) for keys in premises]
            yield partial(self._send_raw, b"".join(asks))
            for _ in asks:
                found.append((yield self._read_raw) != 0)

        era = self.breaker.era
        error = yield from self._past_the_guard(ask, seconds)
        if error is not None:
            yield from self._failed(era, error)
            return None
        return found

    def _answer(
        self, batch: list[Command], decision: Answer, at: float, owner: Any
    ) -> Steps[list[Slot]]:
        """Journals what is to be queued, and finds the replies."""
        breaker = self.breaker
        answers = Answers(breaker, batch, decision, db=int(self.db), at=at, owner=owner)
        breaker.start_recovery()
        if decision.wait:
            yield from breaker.wait_settled(list(answers.receipts.values()), breaker.drain_wait)
        return answers.slots(self.protocol, partial(parse_error, self))

    def _refusal(self, refuse: Refuse, touched: bool) -> Exception:
        return self._unknown(refuse.command) if touched else refusal(self.breaker, refuse)

    def _unknown(self, command: str) -> OutcomeUnknown:
        return unknown(self.breaker, command, self._replies)
