"""Replies: those that come, those that were decided here, and those that do not come."""

from __future__ import annotations

from collections import deque
from typing import Any

from redis.exceptions import ConnectionError, ExecAbortError, ResponseError, TimeoutError

from ..answering import LIVE, Slot
from ..core.command import Kind
from ..core.guard import Repeat, Sent, Unknown, lost, writes
from ..core.unit import grouped
from ..seam.failures import REJECTED, holding_code, is_outage
from ..seam.packed import commands_of
from ..seam.replies import OwnReplies
from .sender import TOO_OFTEN
from .socket import Tie
from .steps import Steps
from .subscriber import GuardedSubscriber


class GuardedReceiver(GuardedSubscriber):
    """The receiving half of a guarded connection."""

    def __init__(self, **kwargs: Any) -> None:
        self._own: OwnReplies | None = None
        super().__init__(**kwargs)

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

    def _deliver(self, disable_decoding: bool) -> Any:
        """The reply that was decided here."""
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
            self._own = OwnReplies.like(self)
        reply = self._own.parse(slot, disable_decoding)
        if self.receipts and not self.in_client:
            return self.with_receipts(reply)
        return reply

    # -- replies that do not come -----------------------------------------------------------

    def _abandoned(self) -> None:
        """The caller was cancelled. That is no failure, but it may be a symptom of one."""
        breaker = self.breaker
        now = breaker.clock()
        if self.waiting_since() is not None and now - self._sent_at > breaker.deadline / 10:
            breaker.check_hang_soon(now - breaker.deadline / 2)
        self._forget()

    def _error_reply(self, error: ResponseError) -> Steps[bool]:
        """An error has come for a reply. Whether the next one is to be read instead; else `error`
        is the caller's.
        """
        if (yield from self._was_rejected(error)):
            return True
        self._arrived(error)
        if self._already_told():
            return True
        if self._touched and holding_code(error) is not None:
            # An earlier try, whose reply was lost, may have been accepted.
            unknown = self._unknown(self._touched)
            yield self._shut  # the rest of a pipeline stays unread
            self._forget()
            raise unknown from error
        return False

    def _was_rejected(self, error: ResponseError) -> Steps[bool]:
        """Whether an error reply means "not now", and the command is answered like one not sent."""
        calls = self._sent
        if calls is None or len(calls) != 1:
            return False  # of a pipeline nobody knows what the rest will say: redis-py's errors
        if isinstance(error, REJECTED):
            yield self._shut
            yield from self._lost(error)
            return True
        code = holding_code(error)
        if code is None or code == "OOM":
            return False  # out of memory: growing writes raise, as in redis-py
        (command,) = self.breaker.ruled(commands_of(calls, self.encoder))
        if command.shape.kind is not Kind.WRITE:
            return False
        self._sent = None
        self.breaker.hold(code)
        slots = yield from self._carry(calls, self._sent_at)
        self._merge(slots, self._slots)
        return True

    def _lost(self, error: Exception) -> Steps[None]:
        """The replies to what is left of the batch will not come."""
        dismissed = self._dismissed
        yield self._shut
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
        if not is_outage(error) and not dismissed:
            raise error
        verdict = lost(rest, sent)
        blocked = isinstance(error, TimeoutError) and any(c.shape.blocking for c in rest)
        if blocked:
            # Longer than it has asked to wait: the server owes it a reply like any other.
            blocked = not 0 < rest[0].shape.block_ms <= (breaker.clock() - at) * 1000
        if blocked and isinstance(verdict, Repeat):
            raise error  # it waited longer than socket_timeout, as in redis-py
        # The server may close an idle socket when it likes: the new one is the verdict.
        if not idle_eof and not blocked and not dismissed:
            breaker.failure(self._era, error, max(at, self._cleared_at))
        if isinstance(verdict, Unknown):
            # A pop that has blocked, too: sent again by redis-py's retry, it would take out another
            # element, and nobody be told of the first.
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
        yield from self._pause()
        carried = yield from self._carry(calls, at, touched=touched)
        self._replies, self._delivered, self._told = replies, delivered, told
        self._touched = rest[0].shape.name if touched else ""
        self._merge(carried, slots, told)

    def _merge(self, carried: list[Slot], slots: deque[Slot] | None, told: int = 0) -> None:
        """The new slots of what was lost, in the places where a reply was awaited."""
        if slots is not None:
            fresh = iter(carried[told:])
            carried = carried[:told] + [next(fresh) if slot is LIVE else slot for slot in slots]
        self._slots = None if all(slot is LIVE for slot in carried) else deque(carried)
