"""Strings: https://redis.io/docs/latest/commands/?group=string"""

from __future__ import annotations

from ..command import RelativeTTL, Shape, Wire
from .parse import (
    CONDITIONAL,
    INT_MAX,
    INT_MIN,
    TTL_MAX_MS,
    at_most_one,
    integer,
    integers_at,
    key_count,
    milliseconds,
    none_of,
    number,
    options,
)
from .row import (
    WRONG_NUMBER,
    Args,
    Refuse,
    Row,
    counted_from,
    counter,
    every,
    every_other,
    first_two,
    read,
    take,
    write,
)

# proto-max-bulk-len, by default 512 MB (redis.conf)
STRING_MAX = 512 * 1024 * 1024

_LIFETIMES = (b"EX", b"PX", b"EXAT", b"PXAT", b"KEEPTTL")
_SET_OPTIONS = {
    **dict.fromkeys((b"EX", b"PX", b"EXAT", b"PXAT"), 1),
    **dict.fromkeys((b"KEEPTTL", b"NX", b"XX", b"GET"), 0),
    **dict.fromkeys((b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE"), 1),
}
_MSETEX_OPTIONS = {word: _SET_OPTIONS[word] for word in (*_LIFETIMES, b"NX", b"XX")}
_CONDITIONS = (b"NX", b"XX", b"GET", b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE")


def _with_lifetime(shape: Shape, found: dict[bytes, Args], head: tuple[bytes, ...]) -> Shape:
    """EX and PX count from the call: PXAT in their place. EXAT, PXAT and KEEPTTL stay."""
    none_of(found, *_CONDITIONS, reason=CONDITIONAL)
    at_most_one(found, *_LIFETIMES)
    for word, unit in ((b"EXAT", 1000), (b"PXAT", 1)):
        if word in found:
            milliseconds(found[word][0], unit, 1, INT_MAX)
    for word, unit in ((b"EX", 1000), (b"PX", 1)):
        if word in found:
            ms = milliseconds(found[word][0], unit, 1, TTL_MAX_MS)
            return shape._replace(ttl=RelativeTTL(ms, (*head, b"PXAT"), ()))
    return shape


def _set(args: Args, shape: Shape) -> Shape:
    if len(args) == 3:
        return shape
    found = options(args, 3, _SET_OPTIONS)
    return _with_lifetime(shape, found, (b"SET", args[1], args[2]))


def _setex(args: Args, shape: Shape) -> Shape:
    unit = 1000 if shape.name == "SETEX" else 1
    ms = milliseconds(args[2], unit, 1, TTL_MAX_MS)
    return shape._replace(ttl=RelativeTTL(ms, (b"SET", args[1], args[3], b"PXAT"), ()))


def _mset(args: Args, shape: Shape) -> Shape:
    if len(args) % 2 == 0:
        raise Refuse(WRONG_NUMBER)
    return shape


def _msetex_keys(args: Args) -> tuple[bytes, ...]:
    """`MSETEX numkeys key value … [options]` (Redis 8.4, Valkey 9.1)."""
    return tuple(args[2 : 2 + 2 * key_count(args, 1) : 2])


def _msetex(args: Args, shape: Shape) -> Shape:
    end = 2 + 2 * key_count(args, 1)
    if end > len(args):
        raise Refuse(WRONG_NUMBER)
    found = options(args, end, _MSETEX_OPTIONS)
    return _with_lifetime(shape, found, (b"MSETEX", *args[1:end]))


def _getex(args: Args, shape: Shape) -> Shape:
    if len(args) > 2:
        raise Refuse("a read that also changes the expiry")
    return shape


def _lcs(args: Args, shape: Shape) -> Shape:
    known = {b"LEN": 0, b"IDX": 0, b"WITHMATCHLEN": 0, b"MINMATCHLEN": 1}
    found = options(args, 3, known)
    at_most_one(found, b"LEN", b"IDX")
    if b"MINMATCHLEN" in found:
        integer(found[b"MINMATCHLEN"][0])
    if b"LEN" in found:
        return shape._replace(reply=Wire.INT)
    return shape._replace(reply=Wire.LCS_MATCHES) if b"IDX" in found else shape


def _decrby(args: Args, shape: Shape) -> Shape:
    integer(args[2], INT_MIN + 1)  # t_string.c: its negative does not fit
    return shape


def _incrbyfloat(args: Args, shape: Shape) -> Shape:
    number(args[2])
    return shape


def _setrange(args: Args, shape: Shape) -> Shape:
    integer(args[2], 0, STRING_MAX - len(args[3]))
    return shape


ROWS: tuple[Row, ...] = (
    read("GET", 2, Wire.NIL),
    read("GETEX", -2, Wire.NIL, may_write=True, by_args=_getex),
    read("GETRANGE", 4, Wire.EMPTY_STRING, by_args=integers_at(2, 3)),
    read("SUBSTR", 4, Wire.EMPTY_STRING, by_args=integers_at(2, 3)),
    read("STRLEN", 2, Wire.INT),
    read("MGET", -2, Wire.NILS, keys=every, by_args=counted_from(1)),
    read("LCS", -3, Wire.EMPTY_STRING, keys=first_two, by_args=_lcs),
    take("GETDEL", 2, Wire.NIL),
    write("SET", -3, Wire.OK, safe_twice=True, grows=True, by_args=_set),
    write("SETEX", 4, Wire.OK, safe_twice=True, grows=True, by_args=_setex),
    write("PSETEX", 4, Wire.OK, safe_twice=True, grows=True, by_args=_setex),
    write("MSET", -3, Wire.OK, keys=every_other, safe_twice=True, grows=True, by_args=_mset),
    # 1 says that all were set, and without NX and XX nothing else can happen
    write("MSETEX", -4, Wire.INT, 1, keys=_msetex_keys, safe_twice=True, grows=True,
          by_args=_msetex),
    counter("INCR", 2, Wire.INT),
    counter("DECR", 2, Wire.INT),
    counter("INCRBY", 3, Wire.INT, by_args=integers_at(2)),
    counter("DECRBY", 3, Wire.INT, by_args=_decrby),
    counter("INCRBYFLOAT", 3, Wire.ZERO_STRING, by_args=_incrbyfloat),
    counter("APPEND", 3, Wire.INT),
    counter("SETRANGE", 4, Wire.INT, by_args=_setrange),
)  # fmt: skip
