"""Whole keys and their expiry: https://redis.io/docs/latest/commands/?group=generic"""

from __future__ import annotations

from ..command import Kind, RelativeTTL, Shape, Wire
from .parse import (
    CONDITIONAL,
    INT_MAX,
    SYNTAX,
    TTL_MAX_MS,
    at_most_one,
    integer,
    milliseconds,
    options,
)
from .row import Args, Refuse, Row, counted_from, every, read, second, write

_UNITS = {"EXPIRE": 1000, "PEXPIRE": 1, "EXPIREAT": 1000, "PEXPIREAT": 1}
_SORT_OPTIONS = {
    **dict.fromkeys((b"ASC", b"DESC", b"ALPHA"), 0),
    **dict.fromkeys((b"BY", b"GET", b"STORE"), 1),
    b"LIMIT": 2,
}
# verifyDumpPayload: two bytes of version and eight of checksum stand at the end
_PAYLOAD_MIN = 10
_RESTORE_OPTIONS = {b"REPLACE": 0, b"ABSTTL": 0, b"IDLETIME": 1, b"FREQ": 1}


def _expire(args: Args, shape: Shape) -> Shape:
    """A time in the past is fine: the key is then deleted."""
    if len(args) > 3:
        known = args[3].upper() in (b"NX", b"XX", b"GT", b"LT")
        raise Refuse(CONDITIONAL if known else SYNTAX)
    unit = _UNITS[shape.name]
    if shape.name.endswith("AT"):
        milliseconds(args[2], unit, -(INT_MAX // unit), INT_MAX)
        return shape
    ms = milliseconds(args[2], unit, -(INT_MAX // unit), TTL_MAX_MS)
    return shape._replace(ttl=RelativeTTL(ms, (b"PEXPIREAT", args[1]), ()))


def _restore(args: Args, shape: Shape) -> Shape:
    """Without REPLACE it fails if the key is there."""
    if len(args[3]) < _PAYLOAD_MIN:
        raise Refuse("DUMP payload version or checksum are wrong")
    found = options(args, 4, _RESTORE_OPTIONS)
    at_most_one(found, b"IDLETIME", b"FREQ")
    if b"IDLETIME" in found:
        integer(found[b"IDLETIME"][0], 0)
    if b"FREQ" in found:
        integer(found[b"FREQ"][0], 0, 255)
    if b"REPLACE" not in found:
        raise Refuse(CONDITIONAL)
    ms = milliseconds(args[2], 1, 0, TTL_MAX_MS)
    if ms == 0 or b"ABSTTL" in found:
        return shape
    return shape._replace(ttl=RelativeTTL(ms, (b"RESTORE", args[1]), (*args[3:], b"ABSTTL")))


def _sort_options(args: Args) -> dict[bytes, Args]:
    found = options(args, 2, _SORT_OPTIONS, repeated=b"GET")
    at_most_one(found, b"ASC", b"DESC")
    for arg in found.get(b"LIMIT", ()):
        integer(arg)
    return found


def _sort_keys(args: Args) -> tuple[bytes, ...]:
    return (*args[1:2], *_sort_options(args).get(b"STORE", ()))


def _sort(args: Args, shape: Shape) -> Shape:
    if b"STORE" not in _sort_options(args):
        return shape
    return shape._replace(kind=Kind.WRITE, reply=Wire.INT, receipt=True, safe_twice=False)


def _sort_ro(args: Args, shape: Shape) -> Shape:
    if b"STORE" in _sort_options(args):
        raise Refuse(SYNTAX)
    return shape


def _memory_usage(args: Args, shape: Shape) -> Shape:
    for (count,) in options(args, 3, {b"SAMPLES": 1}).values():
        integer(count, 0)
    return shape


ROWS: tuple[Row, ...] = (
    read("EXISTS", -2, Wire.INT, keys=every),
    read("TOUCH", -2, Wire.INT, keys=every),  # marks keys as used; changes no data
    read("TYPE", 2, Wire.NONE_STATUS),
    read("TTL", 2, Wire.INT, -2),
    read("PTTL", 2, Wire.INT, -2),
    read("EXPIRETIME", 2, Wire.INT, -2),
    read("PEXPIRETIME", 2, Wire.INT, -2),
    read("DUMP", 2, Wire.NIL),
    read("OBJECT ENCODING", 3, Wire.NIL, keys=second),
    read("OBJECT FREQ", 3, Wire.NIL, keys=second),
    read("OBJECT IDLETIME", 3, Wire.NIL, keys=second),
    read("OBJECT REFCOUNT", 3, Wire.NIL, keys=second),
    read("MEMORY USAGE", -3, Wire.NIL, keys=second, by_args=_memory_usage),
    # SORT has the flag denyoom also where it only reads: the flag is the command's
    read("SORT", -2, Wire.EMPTY_ARRAY, keys=_sort_keys, grows=True, may_write=True, by_args=_sort),
    read("SORT_RO", -2, Wire.EMPTY_ARRAY, by_args=_sort_ro),
    write("DEL", -2, Wire.INT, keys=every, safe_twice=True, by_args=counted_from(1)),
    write("UNLINK", -2, Wire.INT, keys=every, safe_twice=True, by_args=counted_from(1)),
    # An expiry counts as safe twice, with one exception that is accepted: it found no key, a later
    # write of the same run makes the key, and the second time it finds it.
    write("EXPIRE", -3, Wire.INT, 1, safe_twice=True, by_args=_expire),
    write("PEXPIRE", -3, Wire.INT, 1, safe_twice=True, by_args=_expire),
    write("EXPIREAT", -3, Wire.INT, 1, safe_twice=True, by_args=_expire),
    write("PEXPIREAT", -3, Wire.INT, 1, safe_twice=True, by_args=_expire),
    write("PERSIST", 2, Wire.INT, 1, safe_twice=True),
    write("RESTORE", -4, Wire.OK, safe_twice=True, grows=True, by_args=_restore),
)
