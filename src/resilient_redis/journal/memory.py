"""The journal in memory: packed records in segments.

Packed bytes in 64 KiB segments cost 121-142 B for a write of 100 B; tuples of Python objects
282-491 B (FACTS.md, "Journal floors").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ..core.command import Command
from ..core.entry import Entry, decode, encode, entry_of, skip
from .base import NoRoom

SEGMENT = 64 * 1024


class _Segment:
    __slots__ = ("data", "first", "last")

    def __init__(self, first: int) -> None:
        self.data = bytearray()
        self.first = first  # sequence number of the first record
        self.last = first - 1


class MemoryJournal:
    """Holds writes until the process ends.

    `max_entries` (default 100,000), `max_bytes` (default 64 MiB, records with their headers) and
    `max_age` in seconds (default 300) bound it: a write that does not fit is refused to its
    caller, an entry older than `max_age` becomes a dead letter instead of being applied.
    """

    def __init__(
        self,
        max_entries: int = 100_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_age: float = 300.0,
    ) -> None:
        if max_entries < 1 or max_bytes < 1 or max_age <= 0:
            raise ValueError("max_entries, max_bytes and max_age must be above 0")
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._segments: deque[_Segment] = deque()
        self._next = 1
        self._confirmed = 0
        self._bytes = 0
        self._front = 0  # in the first segment, where the first entry that counts begins
        # Where readers last stood: a drain reads on from there, not from the front of a segment.
        # Two, because it looks at one entry more than it takes.
        self._cursors: deque[tuple[int, _Segment, int]] = deque(maxlen=2)

    def append(self, commands: list[Command], at: float, db: int) -> int:
        first = self._next
        records = [encode(entry_of(c, first + i, at, db)) for i, c in enumerate(commands)]
        room = self.max_entries - len(self)
        added = sum(map(len, records))
        if len(records) > room or self._bytes + added > self.max_bytes:
            raise NoRoom
        for record in records:
            segment = self._segments[-1] if self._segments else None
            if segment is None or len(segment.data) + len(record) > SEGMENT:
                segment = _Segment(self._next)
                self._segments.append(segment)
            segment.data += record
            segment.last = self._next
            self._next += 1
        self._bytes += added
        return first

    def durable(self, seq: int) -> bool:
        """Memory is all that this journal promises, so an appended entry is durable."""
        return seq < self._next

    def read(self, after: int) -> Iterator[Entry]:
        cursor = next((cursor for cursor in self._cursors if cursor[0] == after), None)
        for segment in list(self._segments):
            if segment.last <= after:
                continue
            offset = self._front if segment is self._segments[0] else 0
            if cursor is not None and cursor[1] is segment:
                offset = cursor[2]
            before = now = None
            try:
                while offset < len(segment.data):
                    entry, offset = decode(segment.data, offset)
                    if entry.seq > after:
                        before, now = now, (entry.seq, segment, offset)
                        yield entry
            finally:
                self._cursors.extend(cursor for cursor in (before, now) if cursor is not None)

    def confirm(self, seq: int) -> None:
        self._confirmed = max(self._confirmed, min(seq, self._next - 1))
        while self._segments and self._segments[0].last <= self._confirmed:
            self._bytes -= len(self._segments.popleft().data) - self._front
            self._front = 0
        if not self._segments:
            self._cursors.clear()
            return
        front = self._segments[0]
        while front.first <= self._confirmed:
            end = skip(front.data, self._front)
            self._bytes -= end - self._front
            self._front = end
            front.first += 1

    def __len__(self) -> int:
        return self._next - 1 - self._confirmed

    @property
    def size(self) -> int:
        return self._bytes

    @property
    def oldest(self) -> Entry | None:
        if not len(self):
            return None
        return decode(self._segments[0].data, self._front)[0]
