"""The journal in memory: segments, each with its columns.

Packed bytes in 64 KiB segments cost 121-142 B for a write of 100 B; tuples of Python objects
282-491 B (FACTS.md, "Journal floors"). The payloads stand side by side, so that a stretch of them
is handed out in one piece: an object for each entry cost more than all else of a replay.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator

from ..core.command import Command
from ..core.entry import HEAD, Entry, Gap, Stretch, entry_at, entry_of, gaps_in, head_of, is_plain
from .base import NoRoom

SEGMENT = 64 * 1024  # bytes of payload; a longer one has a segment of its own
_OTHER = 255  # not plain, or of a database that does not fit into a byte
_OVERHEAD = HEAD.size + 8 + 4 + 1 + 1  # bytes of an entry in the other columns


class _Segment:
    """A row for each entry: the time of its call, its head, where its payload ends, its database
    if it is plain, and whether it expires.
    """

    __slots__ = ("ends", "expiring", "first", "heads", "payloads", "stretches", "times")

    def __init__(self, first: int) -> None:
        self.first = first  # sequence number of the first row
        self.times = array("d")
        self.heads = bytearray()
        self.ends = array("I")
        self.stretches = bytearray()  # neighbours that are alike make a stretch
        self.expiring = bytearray()  # 1: a deadline goes into its payload
        self.payloads = bytearray()

    @property
    def last(self) -> int:
        return self.first + len(self.ends) - 1

    def append(self, entry: Entry) -> None:
        self.times.append(entry.at)
        self.heads += head_of(entry)
        self.payloads += entry.payload
        self.ends.append(len(self.payloads))
        self.stretches.append(min(entry.db, _OTHER) if is_plain(entry) else _OTHER)
        self.expiring.append(entry.ttl_ms is not None)

    def size(self, rows: int) -> int:
        """Bytes of the first so many rows."""
        return rows * _OVERHEAD + self._start(rows)

    def entry(self, row: int) -> Entry:
        payload = self._payload(row, row + 1)
        return entry_at(self.first + row, self.times[row], self.heads, row * HEAD.size, payload)

    def stretch(self, row: int, most: int) -> Stretch | None:
        """The one that begins there, at most so long."""
        db = self.stretches[row]
        if db == _OTHER:
            return None
        alike = self.stretches[row : row + most]
        count = len(alike) - len(alike.lstrip(alike[:1]))
        end = row + count
        times = self.times[row:end]
        gaps = self._gaps(row, end) if 1 in self.expiring[row:end] else []
        return Stretch(self.first + row, count, min(times), db, self._payload(row, end), gaps)

    def _gaps(self, row: int, end: int) -> list[Gap]:
        start = self._start(row)
        starts = [0, *[at - start for at in self.ends[row : end - 1]]]
        heads = self.heads[row * HEAD.size : end * HEAD.size]
        return gaps_in(heads, starts, self.times[row:end])

    def _start(self, row: int) -> int:
        return self.ends[row - 1] if row else 0

    def _payload(self, row: int, end: int) -> bytes:
        with memoryview(self.payloads) as payloads:
            return bytes(payloads[self._start(row) : self._start(end)])


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
        self._front = 0  # bytes of the first segment that do not count any more

    def append(self, commands: list[Command], at: float, db: int) -> int:
        first = self._next
        entries = [entry_of(c, first + i, at, db) for i, c in enumerate(commands)]
        room = self.max_entries - len(self)
        added = sum([_OVERHEAD + len(entry.payload) for entry in entries])
        if len(entries) > room or self._bytes + added > self.max_bytes:
            raise NoRoom
        for entry in entries:
            segment = self._segments[-1] if self._segments else None
            if segment is None or len(segment.payloads) + len(entry.payload) > SEGMENT:
                segment = _Segment(entry.seq)
                self._segments.append(segment)
            segment.append(entry)
        self._next += len(entries)
        self._bytes += added
        return first

    def durable(self, seq: int) -> bool:
        """Memory is all that this journal promises, so an appended entry is durable."""
        return seq < self._next

    def read(self, after: int) -> Iterator[Entry]:
        after = max(after, self._confirmed)
        for segment in list(self._segments):
            row = max(after + 1 - segment.first, 0)
            while row < len(segment.ends):
                yield segment.entry(row)
                row += 1

    def pieces(self, after: int, most: int) -> Iterator[Entry | Stretch]:
        after = max(after, self._confirmed)
        for segment in list(self._segments):
            row = max(after + 1 - segment.first, 0)
            while row < len(segment.ends) and most > 0:
                piece = segment.stretch(row, most) or segment.entry(row)
                yield piece
                row += piece.size if isinstance(piece, Stretch) else 1
                most -= piece.size

    def confirm(self, seq: int) -> None:
        self._confirmed = max(self._confirmed, min(seq, self._next - 1))
        while self._segments and self._segments[0].last <= self._confirmed:
            front = self._segments.popleft()
            self._bytes -= front.size(len(front.ends)) - self._front
            self._front = 0
        if self._segments:
            front = self._segments[0]
            done = front.size(max(self._confirmed + 1 - front.first, 0))
            self._bytes -= done - self._front
            self._front = done

    @property
    def last(self) -> int:
        return self._next - 1

    def __len__(self) -> int:
        return self._next - 1 - self._confirmed

    @property
    def size(self) -> int:
        return self._bytes

    @property
    def oldest(self) -> Entry | None:
        if not len(self):
            return None
        front = self._segments[0]
        return front.entry(self._confirmed + 1 - front.first)
