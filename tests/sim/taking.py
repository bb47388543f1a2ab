"""Commands of the simulated server that take something out, and wait for it where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .commands import COMMANDS, OK, Err, Spec, Store
from .resp import NIL_ARRAY, NOTHING, Pairs


class Stream:
    """Entries in the order of their ids, and for each group how many it has handed out."""

    def __init__(self) -> None:
        self.entries: list[tuple[bytes, list[bytes]]] = []
        self.groups: dict[bytes, int] = {}


def _pop(s: Store, db: int, key: bytes, left: bool = True) -> bytes | None:
    items: list[bytes] | None = s.typed(db, key, list)
    if not items:
        return None
    value = items.pop(0 if left else -1)
    if not items:
        s.remove(db, key)
    s.taken.append((db, key, value))
    return value


def _lpop(s: Store, db: int, a: tuple[bytes, ...]) -> Any:
    value = _pop(s, db, a[1], a[0] != b"RPOP")
    if value is not None:
        s.wrote(db, a[1], a[0], a[1])
    return value


def _blpop(s: Store, db: int, a: tuple[bytes, ...]) -> Any:
    for key in a[1:-1]:
        value = _pop(s, db, key, a[0] == b"BLPOP")
        if value is not None:
            s.wrote(db, key, a[0][1:], key)
            return [key, value]
    return NOTHING


def _blmove(s: Store, db: int, a: tuple[bytes, ...]) -> Any:
    value = _pop(s, db, a[1], a[3].upper() == b"LEFT")
    if value is None:
        return NOTHING if a[0] == b"BLMOVE" else None
    items: list[bytes] = s.typed(db, a[2], list) or s.data.setdefault((db, a[2]), [])
    items.insert(0 if a[4].upper() == b"LEFT" else len(items), value)
    s.wrote(db, a[1])
    s.wrote(db, a[2], b"LMOVE", *a[1:5])
    return value


def _xadd(s: Store, db: int, a: tuple[bytes, ...]) -> bytes:
    stream: Stream = s.typed(db, a[1], Stream) or s.data.setdefault((db, a[1]), Stream())
    number = a[2] if a[2] != b"*" else b"%d-0" % (len(stream.entries) + 1)
    if any(number == known for known, _ in stream.entries):
        raise Err("ERR The ID specified in XADD is equal or smaller than the top item")
    stream.entries.append((number, list(a[3:])))
    s.wrote(db, a[1], b"XADD", a[1], number, *a[3:])
    return number


def _xgroup(s: Store, db: int, a: tuple[bytes, ...]) -> str:
    stream: Stream = s.typed(db, a[2], Stream) or s.data.setdefault((db, a[2]), Stream())
    if a[3] in stream.groups:
        raise Err("BUSYGROUP Consumer Group name already exists")
    stream.groups[a[3]] = 0
    s.wrote(db, a[2], *a)
    return OK


def _xreadgroup(s: Store, db: int, a: tuple[bytes, ...]) -> Any:
    words = [word.upper() for word in a]
    key = a[words.index(b"STREAMS") + 1]
    count = int(a[words.index(b"COUNT") + 1]) if b"COUNT" in words else 1 << 30
    stream: Stream | None = s.typed(db, key, Stream)
    if stream is None or a[2] not in stream.groups:
        raise Err(f"NOGROUP No such key '{key.decode()}' or consumer group '{a[2].decode()}'")
    at = stream.groups[a[2]]
    found = stream.entries[at : at + count]
    if not found:
        return NOTHING if b"BLOCK" in words else NIL_ARRAY
    stream.groups[a[2]] = at + len(found)
    s.taken += [(db, key, fields[-1]) for _, fields in found]
    s.wrote(db, key, *a)
    return Pairs({key: [[number, fields] for number, fields in found]})


def _seconds(a: tuple[bytes, ...]) -> float:
    return float(a[-1])


def _block_ms(a: tuple[bytes, ...]) -> float:
    return int(a[[word.upper() for word in a].index(b"BLOCK") + 1]) / 1000


#: How long a command waits at the server, by its arguments; 0 is for ever.
BLOCKING: dict[bytes, Callable[[tuple[bytes, ...]], float]] = {
    b"BLPOP": _seconds,
    b"BRPOP": _seconds,
    b"BLMOVE": _seconds,
    b"XREADGROUP": _block_ms,
}

COMMANDS.update(
    {
        b"LPOP": Spec(_lpop, 2, "w"),
        b"RPOP": Spec(_lpop, 2, "w"),
        b"LMOVE": Spec(_blmove, 5, "wm"),
        b"BLPOP": Spec(_blpop, 3, "w"),
        b"BRPOP": Spec(_blpop, 3, "w"),
        b"BLMOVE": Spec(_blmove, 6, "wm"),
        b"XADD": Spec(_xadd, 5, "wm"),
        b"XGROUP": Spec(_xgroup, 5, "wm"),
        b"XREADGROUP": Spec(_xreadgroup, 7, "w"),
    }
)
