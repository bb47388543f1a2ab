"""Who was told what while Redis was away: the memory behind the premise (`core/premise.py`)."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from .core.command import Command
from .core.premise import NeutralReads, shows_absence

# Seconds after an outage for which a task's writes to what it had read as neutral are still
# checked. A task that has ended is forgotten at once.
LIFETIME = 60.0


class Provenance:
    """The neutral reads of each owner: the outermost `track()`, else a task or a thread."""

    def __init__(self) -> None:
        self._reads: weakref.WeakKeyDictionary[Any, NeutralReads] = weakref.WeakKeyDictionary()
        self._latest: tuple[weakref.ref[Any], NeutralReads] | None = None

    def __bool__(self) -> bool:
        return bool(self._reads)

    def reads_of(self, owner: Any) -> NeutralReads | None:
        return self._reads.get(owner) if self._reads else None

    def begin(self, owner: Any) -> NeutralReads:
        """A batch of `owner` is answered; `NeutralReads.undo` takes that back."""
        reads = self._of(owner)
        reads.begin()
        return reads

    def _of(self, owner: Any) -> NeutralReads:
        if self._latest is not None and self._latest[0]() is owner:
            return self._latest[1]  # most often the one who has just asked asks again
        reads = self._reads.get(owner)
        if reads is None:
            reads = self._reads[owner] = NeutralReads()
        self._latest = (weakref.ref(owner), reads)
        return reads

    def absent(self, owner: Any, keys: tuple[bytes, ...], db: int) -> None:
        """`owner` was told that there is nothing in `keys`."""
        self._of(owner).add(db, keys)

    def neutral(self, owner: Any, command: Command, db: int) -> None:
        """`owner` was told that there is nothing in the keys of `command`."""
        if not command.parts:
            if shows_absence(command):
                self.absent(owner, command.shape.keys, db)
            return
        for part in command.parts:
            self.neutral(owner, part, db)

    def queued(self, owner: Any, command: Command, db: int) -> tuple[bytes, ...]:
        """`owner` writes; the keys that have to be absent for that."""
        reads = self._of(owner)
        premise = reads.premise_of(command, db)
        if not premise:
            reads.wrote(db, command.shape.keys)
        return premise

    def recovered(self) -> None:
        """The journal is empty."""
        for owner, reads in list(self._reads.items()):
            reads.recovered()
            if not reads:
                self._forget(owner)

    def live(self, owner: Any, batch: Sequence[Command], db: int) -> None:
        """`owner` reads from the server again."""
        reads = self.reads_of(owner)
        if reads is None:
            return
        for command in batch:
            for part in command.parts or (command,):
                if shows_absence(part):
                    reads.discard(db, part.shape.keys)
        if not reads:
            self._forget(owner)

    def _forget(self, owner: Any) -> None:
        del self._reads[owner]
        self._latest = None

    def expire(self, since_recovery: float) -> None:
        """`since_recovery`: seconds since the gate opened."""
        if since_recovery > LIFETIME:
            self._reads.clear()
            self._latest = None
