"""What the guard needs of a journal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..core.command import Command
from ..core.entry import Entry, Stretch


class NoRoom(Exception):
    """A bound of the journal is reached; the journal is unchanged."""


class Journal(Protocol):
    """A bounded queue of acknowledged writes, first in, first out.

    The contract:

    - Sequence numbers start at 1, rise by 1 and are never used again.
    - What `append` has returned stays until `confirm`; nothing else removes an entry.
    - `append` of several is all or none.
    - Nothing here blocks: no lock is waited for, no file is synced. Callers serialise.
    """

    max_age: float  #: seconds after which an entry is set aside instead of being applied

    def append(self, commands: list[Command], at: float, db: int) -> int:
        """Keeps `commands` in order; returns the sequence number of the first.

        Raises `NoRoom` if they do not all fit.
        """
        ...

    def durable(self, seq: int) -> bool:
        """Whether entry `seq` has reached what this journal promises to survive."""
        ...

    def read(self, after: int) -> Iterator[Entry]:
        """The entries with a sequence number above `after`, in order."""
        ...

    def pieces(self, after: int, most: int) -> Iterator[Entry | Stretch]:
        """The same, up to `most` commands, those in one piece that can be sent in one. (The last
        may be a transaction of more.)
        """
        ...

    def confirm(self, seq: int) -> None:
        """Entries up to and including `seq` are dealt with and may be forgotten."""
        ...

    @property
    def last(self) -> int:
        """The sequence number of the newest entry that there ever was; 0 before the first."""
        ...

    def __len__(self) -> int: ...

    @property
    def size(self) -> int:
        """Bytes held."""
        ...

    @property
    def oldest(self) -> Entry | None:
        """The entry at the front."""
        ...
