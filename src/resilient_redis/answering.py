"""Answers that do not come from the server: what is journaled, what is remembered, what is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .base import BreakerBase
from .core.command import Command
from .core.exchange import ReplyError
from .core.guard import Answer, Refuse, Step
from .core.premise import removed
from .core.unit import span
from .core.wire import reply_bytes
from .errors import CommandRefused, JournalFull, OutcomeUnknown
from .receipt import Queued
from .seam.failures import out_of_memory
from .seam.replies import encode_reply


class _Live:
    """In a list of slots: this reply is read from the socket."""


LIVE = _Live()
#: A reply that is not read from the socket: RESP bytes, RESP bytes whose place a receipt takes in
#: the end (or receipts take in it, by their places in the list), or an error.
Slot = _Live | bytes | tuple[bytes, Queued | dict[int, Queued]] | Exception


class Answers:
    """The answers to one batch. What is to be queued is in the journal when this is made.

    `owner` is who calls (see `Provenance`), `at` the monotonic time of its call. Raises
    `JournalFull`; then nothing is queued and nobody was told anything.
    """

    def __init__(
        self,
        breaker: BreakerBase,
        batch: Sequence[Command],
        decision: Answer,
        *,
        db: int,
        at: float,
        owner: Any,
    ) -> None:
        self._batch = batch
        self._steps = decision.steps
        queued: list[Command] = []
        premises: list[tuple[bytes, ...]] = []
        read: set[bytes] = set()
        cleared: set[bytes] = set()
        reads = breaker.provenance.begin(owner)
        # In the order of the batch: a read is no premise of a write that stands before it.
        for command, step in zip(batch, decision.steps, strict=True):
            if step is Step.NEUTRAL:
                breaker.provenance.neutral(owner, command, db)
                read.update(command.shape.keys)
            elif step is Step.QUEUE:
                queued.append(command)
                # Fetch and clear in one pipeline must not clear what was not fetched.
                fetched = tuple(key for key in command.shape.keys if key in read)
                told = breaker.provenance.queued(owner, command, db)
                premise = (*(key for key in told if key not in cleared), *fetched)
                premises.append(premise)
                if not premise:
                    cleared.update(removed(command))
        try:
            self.first = breaker.queue(queued, db, at, premises) if queued else 0
        except JournalFull:
            reads.undo()
            raise
        reads.discard(db, cleared)
        reads.depends(db, (key for premise in premises for key in premise))
        for command, step in zip(batch, decision.steps, strict=True):
            if step is not Step.SEND:
                breaker.count("neutral" if step is Step.NEUTRAL else "queued", command.shape.name)
        self.receipts = {
            self.first + place: breaker.outbox.receipt(self.first + place, command.shape.name)
            for place, command in enumerate(queued)
            if decision.wait or command.shape.receipt
        }
        # Those of the commands of a transaction, by their places in it.
        self._parts = {
            self.first + place: {
                i: breaker.outbox.receipt(self.first + place, part.shape.name, i)
                for i, part in enumerate(command.parts)
                if part.shape.receipt
            }
            for place, command in enumerate(queued)
            if command.parts
        }

    def slots(self, protocol: int, parse_error: Callable[[str], Exception]) -> list[Slot]:
        """Where each reply comes from. `parse_error`: a server's message as redis-py's error."""
        slots: list[Slot] = []
        seq = self.first
        for command, step in zip(self._batch, self._steps, strict=True):
            if step is Step.SEND:
                slots += [LIVE] * span(command)
                continue
            if command.parts:
                slots += [b"+OK\r\n", *[b"+QUEUED\r\n"] * len(command.parts)]
            if step is Step.NEUTRAL:
                slots.append(_answer(command, protocol))
            else:
                slots.append(self._acknowledge(seq, command, protocol, parse_error))
                seq += 1
        return slots

    def _acknowledge(
        self,
        seq: int,
        command: Command,
        protocol: int,
        parse_error: Callable[[str], Exception],
    ) -> Slot:
        """The real reply, if the entry was replayed meanwhile; else what a queued write answers."""
        receipt = self.receipts.get(seq)
        acknowledgement = _answer(command, protocol)
        if receipt is not None and receipt.settled:
            try:
                value = receipt.result()
            except ReplyError as error:
                if error.code == "PREMISE":
                    return acknowledgement  # set aside, as it would be had it been queued earlier
                return parse_error(error.message)
            if value is not None:  # None: applied, but its reply was lost
                return encode_reply(value, protocol)
        if parts := self._parts.get(seq):
            return acknowledgement, parts
        if receipt is not None and command.shape.receipt:
            return acknowledgement, receipt
        return acknowledgement


def _answer(command: Command, protocol: int) -> bytes:
    """What EXEC answers to a transaction, or the server to a single command."""
    if not command.parts:
        return reply_bytes(command.shape, protocol)
    parts = [reply_bytes(part.shape, protocol) for part in command.parts]
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def answer_or_refuse(
    breaker: BreakerBase, command: Command, decision: Answer, *, db: int, at: float, owner: Any
) -> Answers:
    """The answer to a single command of which nothing has run: where the journal is full, it is
    refused.
    """
    try:
        return Answers(breaker, [command], decision, db=db, at=at, owner=owner)
    except JournalFull as error:
        breaker.count("refused", error.command)
        raise


def refusal(breaker: BreakerBase, refuse: Refuse) -> Exception:
    """The error of a command that is refused."""
    breaker.count("refused", refuse.command)
    if refuse.oom:
        return out_of_memory()
    return CommandRefused(refuse.command, refuse.reason, breaker.retry_after())


def unknown(breaker: BreakerBase, command: str, replies: Sequence[Any] = ()) -> OutcomeUnknown:
    """The error of a command of which nobody knows whether it ran."""
    breaker.count("unknown", command)
    return OutcomeUnknown(command, replies)
