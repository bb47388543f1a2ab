"""A journal entry and the bytes that hold it.

An entry is kept as the packed command itself, ready to be sent; only an expiry stays open until
the drain, because it is computed from the server's clock then (`at_deadline`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from .catalog import ROWS
from .command import Command
from .wire import pack

# ms to live (-1: none), seconds until it is set aside (-1: as the journal says), where the deadline
# goes, length of the payload, db, name (its place in the catalog), flags
HEAD = struct.Struct("<qdIIHHB")
_NAMES = tuple(dict.fromkeys(row.name for row in ROWS))
_PLACES = {name: place for place, name in enumerate(_NAMES)}
_SAFE_TWICE, _GROWS, _UNIT = 1, 2, 4

#: Where in a payload a deadline goes, the monotonic time of the call, and ms to live from then on.
Gap = tuple[int, float, int]


class Entry(NamedTuple):
    """One acknowledged write, or a transaction of `parts`.

    `at` is the monotonic time of the caller's call, in seconds; `payload` the RESP bytes, with a
    gap at `gap` where `ttl_ms` is not None; that of a transaction holds its parts, each with its
    head.
    """

    seq: int
    at: float
    db: int
    name: str
    payload: bytes
    ttl_ms: int | None
    gap: int
    safe_twice: bool
    grows: bool
    max_age: float | None = None
    parts: tuple[Entry, ...] = ()

    @property
    def size(self) -> int:
        """How many commands it is."""
        return len(self.parts) or 1

    @property
    def last(self) -> int:
        return self.seq

    def limit(self, default: float) -> float:
        """The age, in seconds, from which on it is set aside; `default` is the journal's."""
        return default if self.max_age is None else self.max_age

    def age(self, now: float) -> float:
        """Seconds since the call."""
        return now - self.at

    def at_deadline(self, now: float, server_ms: int) -> bytes:
        """The bytes to send; see `filled`."""
        if self.parts:
            return b"".join([part.at_deadline(now, server_ms) for part in self.parts])
        if self.ttl_ms is None:
            return self.payload
        return filled(self.payload, [(self.gap, self.at, self.ttl_ms)], now, server_ms)


def filled(payload: bytes, gaps: Iterable[Gap], now: float, server_ms: int) -> bytes:
    """`payload` with its deadlines, counted from the calls.

    `now` is monotonic seconds and `server_ms` the server's unix clock at that moment. A deadline
    that has passed is sent all the same: the old value must go
    (https://redis.io/docs/latest/commands/set/ deletes the key then).
    """
    pieces: list[bytes] = []
    done = 0
    for place, at, ttl_ms in gaps:
        deadline = b"%d" % (server_ms - int((now - at) * 1000) + ttl_ms)
        pieces += (payload[done:place], b"$%d\r\n%b\r\n" % (len(deadline), deadline))
        done = place
    pieces.append(payload[done:])
    return b"".join(pieces)


def pack_write(command: Command) -> tuple[bytes, int | None, int]:
    """The payload of a write, its time to live in ms and the gap where the deadline goes."""
    ttl = command.shape.ttl
    if ttl is None:
        return pack(command.args), None, 0
    count = len(ttl.head) + 1 + len(ttl.tail)
    head = b"*%d\r\n" % count + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in ttl.head)
    tail = b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in ttl.tail)
    return head + tail, ttl.milliseconds, len(head)


def entry_of(command: Command, seq: int, at: float, db: int) -> Entry:
    """The entry that holds `command`, called at monotonic time `at` on database `db`."""
    shape = command.shape
    parts = tuple(entry_of(part, seq, at, db) for part in command.parts)
    if parts:
        payload, ttl_ms, gap = b"".join([head_of(part) + part.payload for part in parts]), None, 0
    else:
        payload, ttl_ms, gap = pack_write(command)
    return Entry(
        seq,
        at,
        db,
        shape.name,
        payload,
        ttl_ms,
        gap,
        shape.safe_twice,
        shape.grows,
        shape.max_age,
        parts,
    )


def head_of(entry: Entry) -> bytes:
    """What is kept of an entry besides its payload, its number and its time."""
    flags = _SAFE_TWICE * entry.safe_twice + _GROWS * entry.grows + _UNIT * bool(entry.parts)
    ttl = -1 if entry.ttl_ms is None else entry.ttl_ms
    age = -1.0 if entry.max_age is None else entry.max_age
    place = _PLACES[entry.name]
    return HEAD.pack(ttl, age, entry.gap, len(entry.payload), entry.db, place, flags)


def entry_at(seq: int, at: float, heads: bytes | bytearray, offset: int, payload: bytes) -> Entry:
    """The entry whose head stands in `heads` at `offset`."""
    ttl, age, gap, _, db, place, flags = HEAD.unpack_from(heads, offset)
    return Entry(
        seq,
        at,
        db,
        _NAMES[place],
        payload,
        None if ttl < 0 else ttl,
        gap,
        bool(flags & _SAFE_TWICE),
        bool(flags & _GROWS),
        None if age < 0 else age,
        _parts_in(seq, at, payload) if flags & _UNIT else (),
    )


def gaps_in(heads: bytearray, starts: Iterable[int], times: Iterable[float]) -> list[Gap]:
    """Of entries side by side: their heads, where their payloads start, the times of the calls."""
    rows = zip(HEAD.iter_unpack(heads), starts, times, strict=True)
    return [(start + gap, at, ttl) for (ttl, _, gap, *_), start, at in rows if ttl >= 0]


def _parts_in(seq: int, at: float, payload: bytes) -> tuple[Entry, ...]:
    parts: list[Entry] = []
    offset = 0
    while offset < len(payload):
        start = offset + HEAD.size
        end = start + HEAD.unpack_from(payload, offset)[3]
        parts.append(entry_at(seq, at, payload, offset, payload[start:end]))
        offset = end
    return tuple(parts)


class Stretch(NamedTuple):
    """Entries in a row that can be sent and settled all at once: of one database, none of them a
    transaction or with an age limit of its own.

    `oldest` is the monotonic time of the first of their calls, `payload` the RESP bytes of all but
    the deadlines, which go into `gaps`.
    """

    seq: int  # of the first
    size: int  # how many they are
    oldest: float
    db: int
    payload: bytes
    gaps: list[Gap]

    @property
    def last(self) -> int:
        return self.seq + self.size - 1

    def at_deadline(self, now: float, server_ms: int) -> bytes:
        """The bytes to send; see `filled`."""
        return filled(self.payload, self.gaps, now, server_ms) if self.gaps else self.payload


def is_plain(entry: Entry) -> bool:
    """Whether it may stand in a `Stretch`."""
    return entry.max_age is None and not entry.parts
