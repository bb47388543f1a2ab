"""A journal entry and the bytes that hold it.

An entry is kept as the packed command itself, ready to be sent; only an expiry stays open until
the drain, because it is computed from the server's clock then (`at_deadline`).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .command import Command
from .wire import pack

# seq, monotonic time of the call, ms to live (-1: none), where the deadline goes, seconds until it
# is set aside (-1: as the journal says), db, flags, length of the name, length of the payload
_HEADER = struct.Struct("<QdqIdHBBI")
_names: dict[bytes, str] = {}  # of the commands that have been journaled: a few dozen
_SAFE_TWICE, _GROWS, _UNIT = 1, 2, 4


class Entry(NamedTuple):
    """One acknowledged write, or a transaction of `parts`.

    `at` is the monotonic time of the caller's call, in seconds; `payload` the RESP bytes, with a
    gap at `gap` where `ttl_ms` is not None; that of a transaction holds its encoded parts.
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

    def limit(self, default: float) -> float:
        """The age, in seconds, from which on it is set aside; `default` is the journal's."""
        return default if self.max_age is None else self.max_age

    def age(self, now: float) -> float:
        """Seconds since the call."""
        return now - self.at

    def at_deadline(self, now: float, server_ms: int) -> bytes:
        """The bytes to send, the expiry counted from the call.

        `now` is monotonic seconds and `server_ms` the server's unix clock at that moment. A
        deadline that has passed is sent all the same: the old value must go
        (https://redis.io/docs/latest/commands/set/ deletes the key then).
        """
        if self.parts:
            return b"".join([part.at_deadline(now, server_ms) for part in self.parts])
        if self.ttl_ms is None:
            return self.payload
        deadline = b"%d" % (server_ms - int(self.age(now) * 1000) + self.ttl_ms)
        bulk = b"$%d\r\n%b\r\n" % (len(deadline), deadline)
        return self.payload[: self.gap] + bulk + self.payload[self.gap :]


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
    payload, ttl_ms, gap = (b"".join(map(encode, parts)), None, 0) if parts else pack_write(command)
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


def encode(entry: Entry) -> bytes:
    """The record of an entry: a header, the name and the payload."""
    name = entry.name.encode()
    flags = _SAFE_TWICE * entry.safe_twice + _GROWS * entry.grows + _UNIT * bool(entry.parts)
    ttl = -1 if entry.ttl_ms is None else entry.ttl_ms
    age = -1.0 if entry.max_age is None else entry.max_age
    header = _HEADER.pack(
        entry.seq, entry.at, ttl, entry.gap, age, entry.db, flags, len(name), len(entry.payload)
    )
    return header + name + entry.payload


def skip(record: bytes | bytearray, offset: int) -> int:
    """The offset behind the entry at `offset`."""
    name_length, length = _HEADER.unpack_from(record, offset)[-2:]
    return int(offset + _HEADER.size + name_length + length)


def decode(record: bytes | bytearray, offset: int) -> tuple[Entry, int]:
    """The entry at `offset`, and the offset behind it."""
    seq, at, ttl, gap, age, db, flags, name_len, length = _HEADER.unpack_from(record, offset)
    start = offset + _HEADER.size
    body = start + name_len
    end = body + length
    parts: list[Entry] = []
    if flags & _UNIT:
        next_part = body
        while next_part < end:
            part, next_part = decode(record, next_part)
            parts.append(part)
    raw = bytes(record[start:body])
    name = _names.get(raw)
    if name is None:
        name = _names[raw] = raw.decode()
    return Entry(
        seq,
        at,
        db,
        name,
        bytes(record[body:end]),
        None if ttl < 0 else ttl,
        gap,
        bool(flags & _SAFE_TWICE),
        bool(flags & _GROWS),
        None if age < 0 else age,
        tuple(parts),
    ), end
