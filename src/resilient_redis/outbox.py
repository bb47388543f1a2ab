"""Acknowledged writes on their way to Redis: the journal, and who waits for what becomes of it."""

from __future__ import annotations

import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from .core.batch import error_in
from .core.command import Command
from .core.entry import Entry
from .core.exchange import ReplyError
from .errors import JournalFull
from .events import EntryDeadLettered, Event, ServerLostData
from .journal import Journal
from .journal.base import NoRoom
from .receipt import Queued
from .snapshot import DeadLetter

MAX_DEAD_LETTERS = 1000


class Outbox:
    """Takes writes in, and is the replay's listener (`core.batch.Listener`).

    `make_receipt` gives the flavour's kind of receipt; `stamp` fills in what every event carries.
    """

    def __init__(
        self,
        journal: Journal,
        counters: Counter[str],
        emit: Callable[[Event], None],
        stamp: Callable[[], tuple[str, float]],
        make_receipt: Callable[[int, str], Queued],
    ) -> None:
        self.journal = journal
        self.dead_letters: deque[DeadLetter] = deque(maxlen=MAX_DEAD_LETTERS)
        self._counters = counters
        self._emit = emit
        self._stamp = stamp
        self._make_receipt = make_receipt
        # By entry, and by the place in its transaction. They are the callers': weak.
        self._receipts: dict[tuple[int, int | None], weakref.ref[Queued]] = {}

    def queue(self, commands: list[Command], db: int, at: float, retry_after: float | None) -> int:
        """Journals `commands`, all or none. Returns the first sequence number.

        Raises `JournalFull`.
        """
        try:
            return self.journal.append(commands, at, db)
        except NoRoom:
            name = commands[0].shape.name
            raise JournalFull(name, "the journal is full", retry_after) from None

    def receipt(self, seq: int, command: str, part: int | None = None) -> Queued:
        """The receipt of entry `seq`, or of one command of its transaction; told when the entry is
        settled for as long as it is held.
        """
        receipt = self._make_receipt(seq, command)
        self._receipts[seq, part] = weakref.ref(receipt)
        return receipt

    def applied(self, entry: Entry, reply: Any) -> None:
        self._counters["replayed"] += 1
        if self._receipts:
            self._settle(entry.seq, None, reply)
            for place in range(len(entry.parts)):
                self._settle(entry.seq, place, None if reply is None else reply[place])
        if entry.parts and (error := error_in(reply)) is not None:
            # A transaction goes on past an error, as it does when it is sent live.
            self._set_aside(entry, "error", error)

    def applied_in_a_row(self, first: int, replies: Sequence[Any]) -> None:
        self._counters["replayed"] += len(replies)
        if self._receipts:
            for seq, reply in enumerate(replies, first):
                self._settle(seq, None, reply)

    def abandon(self) -> int:
        """What is queued is somebody else's to apply. Returns the last sequence number."""
        for seq, place in list(self._receipts):
            self._settle(seq, place, ReplyError("FORKED the write is the parent process's"))
        last = self.journal.last
        self.journal.confirm(last)
        return last

    def dead_letter(self, entry: Entry, reason: str, error: ReplyError | None) -> None:
        self._set_aside(entry, reason, error)
        outcome = error or ReplyError(f"{reason.upper()} the write was set aside")
        for place in (None, *range(len(entry.parts))):
            self._settle(entry.seq, place, outcome)

    def _settle(self, seq: int, place: int | None, outcome: Any) -> None:
        reference = self._receipts.pop((seq, place), None)
        receipt = None if reference is None else reference()
        if receipt is not None:
            receipt.settle(not isinstance(outcome, ReplyError), outcome)

    def _set_aside(self, entry: Entry, reason: str, error: ReplyError | None) -> None:
        self._counters["dead_lettered"] += 1
        self._counters["premise"] += reason == "premise"
        message = None if error is None else error.message
        name, now = self._stamp()
        payload = entry.at_deadline(now, int(time.time() * 1000))
        self.dead_letters.append(
            DeadLetter(entry.seq, entry.name, reason, message, entry.at, payload)
        )
        if reason != "premise":  # of those there is one event a drain
            self._emit(EntryDeadLettered(name, now, entry.seq, entry.name, reason))

    def lost_data(self, confirmed: int, found: int) -> None:
        self._emit(ServerLostData(*self._stamp(), confirmed, found))
