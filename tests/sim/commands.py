"""The commands of the simulated server: each changes a `Store` and returns its reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OK = "OK"  # a str is a simple string, bytes a bulk string, Err an error


class Err(Exception):
    """An error reply."""


WRONGTYPE = Err("WRONGTYPE Operation against a key holding the wrong kind of value")


class ZSet(dict[bytes, float]):
    """Member to score."""


class Store:
    """The data, and the log of what changed it: what a real server writes into its AOF."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock  # unix ms
        self.data: dict[tuple[int, bytes], Any] = {}
        self.expires: dict[tuple[int, bytes], int] = {}
        self.log: list[tuple[int, tuple[bytes, ...]]] = []
        self.wholes = [0]  # lengths of the log between two commands (or transactions, scripts)
        self.touched: Callable[[int, bytes], None] = lambda _db, _key: None
        self.taken: list[tuple[int, bytes, bytes]] = []  # what was popped, and from where
        self.tally: dict[bytes, int] = {}  # commands that were executed, by name

    def alive(self, db: int, key: bytes) -> Any:
        where = (db, key)
        if self.expires and self.expires.get(where, 1 << 62) <= self.clock():
            del self.expires[where]
            if self.data.pop(where, None) is not None:
                self.wrote(db, key, b"DEL", key)
        return self.data.get(where)

    def typed(self, db: int, key: bytes, kind: type) -> Any:
        value = self.alive(db, key)
        if value is not None and type(value) is not kind:
            raise WRONGTYPE
        return value

    def wrote(self, db: int, key: bytes, *effect: bytes) -> None:
        if effect:
            self.log.append((db, effect))
        self.touched(db, key)

    def remove(self, db: int, key: bytes) -> bool:
        self.expires.pop((db, key), None)
        return self.data.pop((db, key), None) is not None

    def replay(self, log: list[tuple[int, tuple[bytes, ...]]]) -> None:
        """Loads the data set from `log`."""
        self.data.clear()
        self.expires.clear()
        self.log = []
        for db, args in log:
            COMMANDS[args[0]].run(self, db, args)
        self.log = log
        self.wholes = [whole for whole in self.wholes if whole <= len(log)]


def _get(s: Store, db: int, a: tuple[bytes, ...]) -> Any:
    return s.typed(db, a[1], bytes)


def _mget(s: Store, db: int, a: tuple[bytes, ...]) -> Any:
    values = [s.alive(db, key) for key in a[1:]]
    return [value if isinstance(value, bytes) else None for value in values]


def _exists(s: Store, db: int, a: tuple[bytes, ...]) -> int:
    return sum(s.alive(db, key) is not None for key in a[1:])


def _set(s: Store, db: int, a: tuple[bytes, ...]) -> Any:
    at: int | None = None
    rest = [word.upper() for word in a[3:]]
    old = s.alive(db, a[1])
    if (b"NX" in rest and old is not None) or (b"XX" in rest and old is None):
        return None
    for word, factor, relative in ((b"EX", 1000, True), (b"PX", 1, True), (b"PXAT", 1, False)):
        if word in rest:
            at = int(rest[rest.index(word) + 1]) * factor + (s.clock() if relative else 0)
    s.remove(db, a[1])
    s.data[db, a[1]] = a[2]
    if at is None:
        s.wrote(db, a[1], b"SET", a[1], a[2])
        return OK
    s.expires[db, a[1]] = at
    s.wrote(db, a[1], b"SET", a[1], a[2], b"PXAT", b"%d" % at)
    s.alive(db, a[1])  # a deadline in the past deletes it at once, as Redis does
    return OK


def _del(s: Store, db: int, a: tuple[bytes, ...]) -> int:
    gone = [key for key in a[1:] if s.alive(db, key) is not None and s.remove(db, key)]
    for key in gone:
        s.wrote(db, key, b"DEL", key)
    return len(gone)


def _pexpireat(s: Store, db: int, a: tuple[bytes, ...], at: int | None = None) -> int:
    at = int(a[2]) if at is None else at
    if s.alive(db, a[1]) is None:
        return 0
    if at <= s.clock():
        s.remove(db, a[1])
        s.wrote(db, a[1], b"DEL", a[1])
    else:
        s.expires[db, a[1]] = at
        s.wrote(db, a[1], b"PEXPIREAT", a[1], b"%d" % at)
    return 1


def _expire(s: Store, db: int, a: tuple[bytes, ...]) -> int:
    return _pexpireat(s, db, a, s.clock() + int(a[2]) * (1000 if a[0] == b"EXPIRE" else 1))


def _persist(s: Store, db: int, a: tuple[bytes, ...]) -> int:
    if s.alive(db, a[1]) is None or s.expires.pop((db, a[1]), None) is None:
        return 0
    s.wrote(db, a[1], b"PERSIST", a[1])
    return 1


def _incr(s: Store, db: int, a: tuple[bytes, ...]) -> int:
    by = int(a[2]) if len(a) > 2 else 1
    value = int(s.typed(db, a[1], bytes) or b"0") + by
    s.data[db, a[1]] = b"%d" % value
    s.wrote(db, a[1], b"INCRBY", a[1], b"%d" % by)
    return value


def _rpush(s: Store, db: int, a: tuple[bytes, ...]) -> int:
    items: list[bytes] = s.typed(db, a[1], list) or s.data.setdefault((db, a[1]), [])
    items.extend(a[2:])
    s.wrote(db, a[1], *a)
    return len(items)


def _lrange(s: Store, db: int, a: tuple[bytes, ...]) -> list[bytes]:
    items: list[bytes] = s.typed(db, a[1], list) or []
    start, stop = int(a[2]), int(a[3])
    return items[start : len(items) if stop == -1 else stop + 1]


def _hset(s: Store, db: int, a: tuple[bytes, ...]) -> int:
    fields: dict[bytes, bytes] = s.typed(db, a[1], dict) or s.data.setdefault((db, a[1]), {})
    new = dict(zip(a[2::2], a[3::2], strict=True))
    added = len(new.keys() - fields.keys())
    fields.update(new)
    s.wrote(db, a[1], *a)
    return added


def _hget(s: Store, db: int, a: tuple[bytes, ...]) -> Any:
    return (s.typed(db, a[1], dict) or {}).get(a[2])


def _hgetall(s: Store, db: int, a: tuple[bytes, ...]) -> Any:
    return dict(s.typed(db, a[1], dict) or {})


def _sadd(s: Store, db: int, a: tuple[bytes, ...]) -> int:
    members: set[bytes] = s.typed(db, a[1], set) or s.data.setdefault((db, a[1]), set())
    new = [member for member in dict.fromkeys(a[2:]) if member not in members]
    members.update(new)
    if new:
        s.wrote(db, a[1], *a)
    return len(new)


def _zadd(s: Store, db: int, a: tuple[bytes, ...]) -> int:
    members: ZSet = s.typed(db, a[1], ZSet) or s.data.setdefault((db, a[1]), ZSet())
    new = {member: float(score) for score, member in zip(a[2::2], a[3::2], strict=True)}
    added = len(new.keys() - members.keys())
    if any(members.get(member) != score for member, score in new.items()):
        members.update(new)
        s.wrote(db, a[1], *a)  # a write that changes nothing is none
    return added


class Spec:
    """A command: how many arguments it needs, and the server's flags for it."""

    __slots__ = ("arity", "denyoom", "run", "write")

    def __init__(self, run: Callable[..., Any], arity: int, flags: str = "") -> None:
        self.run = run
        self.arity = arity  # name included, at least
        self.write = "w" in flags
        self.denyoom = "m" in flags


COMMANDS: dict[bytes, Spec] = {
    b"GET": Spec(_get, 2),
    b"MGET": Spec(_mget, 2),
    b"EXISTS": Spec(_exists, 2),
    b"LRANGE": Spec(_lrange, 4),
    b"HGET": Spec(_hget, 3),
    b"HGETALL": Spec(_hgetall, 2),
    b"SET": Spec(_set, 3, "wm"),
    b"DEL": Spec(_del, 2, "w"),
    b"UNLINK": Spec(_del, 2, "w"),
    b"EXPIRE": Spec(_expire, 3, "w"),
    b"PEXPIRE": Spec(_expire, 3, "w"),
    b"PEXPIREAT": Spec(_pexpireat, 3, "w"),
    b"PERSIST": Spec(_persist, 2, "w"),
    b"INCR": Spec(_incr, 2, "wm"),
    b"INCRBY": Spec(_incr, 3, "wm"),
    b"RPUSH": Spec(_rpush, 3, "wm"),
    b"HSET": Spec(_hset, 4, "wm"),
    b"SADD": Spec(_sadd, 3, "wm"),
    b"ZADD": Spec(_zadd, 4, "wm"),
}
