"""Hashes: https://redis.io/docs/latest/commands/?group=hash"""

from __future__ import annotations

from ..command import RelativeTTL, Shape, Wire
from .parse import (
    CONDITIONAL,
    FIELD_DEADLINE_MAX_MS,
    FIELD_TTL_MAX_MS,
    SYNTAX,
    at_most_one,
    integer,
    integers_at,
    milliseconds,
    none_of,
    number,
    options,
    scan_from_start,
)
from .row import WRONG_NUMBER, Args, Refuse, Row, counted_from, counter, read, take, write

_UNITS = {"HEXPIRE": 1000, "HPEXPIRE": 1, "HEXPIREAT": 1000, "HPEXPIREAT": 1}
_LIFETIMES = (b"EX", b"PX", b"EXAT", b"PXAT", b"KEEPTTL")
_CONDITIONS = (b"FNX", b"FXX", b"NX", b"XX")
_HSETEX_OPTIONS = {
    **dict.fromkeys((b"EX", b"PX", b"EXAT", b"PXAT"), 1),
    **dict.fromkeys((b"KEEPTTL", *_CONDITIONS), 0),
}
# hrandfieldCommand: with values the count is doubled
_COUNT_MAX = 2**62 - 1


def _field_count(args: Args, at: int, each: int = 1) -> int:
    """`FIELDS numfields field …`, to the end; `each` arguments belong to a field."""
    if at + 1 >= len(args) or args[at].upper() != b"FIELDS":
        raise Refuse(SYNTAX)
    if (count := integer(args[at + 1], 1)) * each != len(args) - at - 2:
        raise Refuse(WRONG_NUMBER)
    return count


def _field_times(args: Args, shape: Shape) -> Shape:
    """HTTL and its like: -2 for each field that is not there."""
    return shape._replace(numbers=(-2,) * _field_count(args, 2))


def _field_values(args: Args, shape: Shape) -> Shape:
    return shape._replace(number=_field_count(args, 2))


def _hgetex(args: Args, shape: Shape) -> Shape:
    if args[2].upper() != b"FIELDS":
        raise Refuse("a read that also changes the expiry")
    return _field_values(args, shape)


def _hrandfield(args: Args, shape: Shape) -> Shape:
    if len(args) == 2:
        return shape
    integer(args[2], -_COUNT_MAX, _COUNT_MAX)
    options(args, 3, {b"WITHVALUES": 0})
    return shape._replace(reply=Wire.EMPTY_ARRAY)


def _hset(args: Args, shape: Shape) -> Shape:
    if len(args) % 2:
        raise Refuse(WRONG_NUMBER)
    return shape


def _hsetex(args: Args, shape: Shape) -> Shape:
    """`HSETEX key [FNX | FXX] [lifetime] FIELDS numfields field value …`"""
    at = next((i for i, arg in enumerate(args) if i > 1 and arg.upper() == b"FIELDS"), len(args))
    _field_count(args, at, 2)
    found = options(args[:at], 2, _HSETEX_OPTIONS)
    none_of(found, *_CONDITIONS, reason=CONDITIONAL)
    at_most_one(found, *_LIFETIMES)
    for word, unit in ((b"EXAT", 1000), (b"PXAT", 1)):
        if word in found:
            milliseconds(found[word][0], unit, 1, FIELD_DEADLINE_MAX_MS)
    for word, unit in ((b"EX", 1000), (b"PX", 1)):
        if word in found:
            ms = milliseconds(found[word][0], unit, 1, FIELD_TTL_MAX_MS)
            head = (b"HSETEX", args[1], b"PXAT")
            return shape._replace(ttl=RelativeTTL(ms, head, tuple(args[at:])))
    return shape


def _hexpire(args: Args, shape: Shape) -> Shape:
    if args[3].upper() in (b"NX", b"XX", b"GT", b"LT"):
        raise Refuse(CONDITIONAL)
    shape = shape._replace(numbers=(1,) * _field_count(args, 3))
    unit = _UNITS[shape.name]
    if shape.name.endswith("AT"):
        milliseconds(args[2], unit, 0, FIELD_DEADLINE_MAX_MS)
        return shape
    ms = milliseconds(args[2], unit, 0, FIELD_TTL_MAX_MS)
    return shape._replace(ttl=RelativeTTL(ms, (b"HPEXPIREAT", args[1]), tuple(args[3:])))


def _hpersist(args: Args, shape: Shape) -> Shape:
    return shape._replace(numbers=(1,) * _field_count(args, 2))


def _hincrbyfloat(args: Args, shape: Shape) -> Shape:
    number(args[3])
    return shape


ROWS: tuple[Row, ...] = (
    read("HGET", 3, Wire.NIL),
    read("HMGET", -3, Wire.NILS, by_args=counted_from(2)),
    read("HGETALL", 2, Wire.EMPTY_MAP),
    read("HKEYS", 2, Wire.EMPTY_ARRAY),
    read("HVALS", 2, Wire.EMPTY_ARRAY),
    read("HLEN", 2, Wire.INT),
    read("HSTRLEN", 3, Wire.INT),
    read("HEXISTS", 3, Wire.INT),
    read("HRANDFIELD", -2, Wire.NIL, by_args=_hrandfield),
    read("HSCAN", -3, Wire.SCAN, by_args=scan_from_start(b"MATCH", b"COUNT", b"NOVALUES")),
    read("HTTL", -5, Wire.INTS, by_args=_field_times),
    read("HPTTL", -5, Wire.INTS, by_args=_field_times),
    read("HEXPIRETIME", -5, Wire.INTS, by_args=_field_times),
    read("HPEXPIRETIME", -5, Wire.INTS, by_args=_field_times),
    read("HGETEX", -5, Wire.NILS, may_write=True, by_args=_hgetex),
    take("HGETDEL", -5, Wire.NILS, by_args=_field_values),
    write("HSET", -4, Wire.INT, receipt=True, safe_twice=True, grows=True, by_args=_hset),
    write("HMSET", -4, Wire.OK, safe_twice=True, grows=True, by_args=_hset),
    # 1 says that all were set, and without FNX and FXX nothing else can happen
    write("HSETEX", -6, Wire.INT, 1, safe_twice=True, grows=True, by_args=_hsetex),
    write("HDEL", -3, Wire.INT, receipt=True, safe_twice=True),
    write("HEXPIRE", -6, Wire.INTS, receipt=True, safe_twice=True, by_args=_hexpire),
    write("HPEXPIRE", -6, Wire.INTS, receipt=True, safe_twice=True, by_args=_hexpire),
    write("HEXPIREAT", -6, Wire.INTS, receipt=True, safe_twice=True, by_args=_hexpire),
    write("HPEXPIREAT", -6, Wire.INTS, receipt=True, safe_twice=True, by_args=_hexpire),
    write("HPERSIST", -5, Wire.INTS, receipt=True, safe_twice=True, by_args=_hpersist),
    counter("HINCRBY", 4, Wire.INT, by_args=integers_at(3)),
    counter("HINCRBYFLOAT", 4, Wire.ZERO_STRING, by_args=_hincrbyfloat),
)
