"""Sets: https://redis.io/docs/latest/commands/?group=set"""

from __future__ import annotations

from ..command import Shape, Wire
from .parse import INT_MAX, counted_keys, integer, key_count, options, scan_from_start
from .row import WRONG_NUMBER, Args, Refuse, Row, every, read, take, write


def _smismember(args: Args, shape: Shape) -> Shape:
    return shape._replace(numbers=(0,) * (len(args) - 2))


def _count(args: Args, low: int) -> bool:
    """Whether a count is given."""
    if len(args) > 3:
        raise Refuse(WRONG_NUMBER)
    if len(args) == 3:
        integer(args[2], low)
    return len(args) == 3


def _srandmember(args: Args, shape: Shape) -> Shape:
    return shape._replace(reply=Wire.EMPTY_ARRAY) if _count(args, -INT_MAX) else shape


def _spop(args: Args, shape: Shape) -> Shape:
    return shape._replace(reply=Wire.EMPTY_SET) if _count(args, 0) else shape


def _sintercard(args: Args, shape: Shape) -> Shape:
    for (limit,) in options(args, 2 + key_count(args, 1), {b"LIMIT": 1}).values():
        integer(limit, 0)
    return shape


ROWS: tuple[Row, ...] = (
    read("SCARD", 2, Wire.INT),
    read("SISMEMBER", 3, Wire.INT),
    read("SMISMEMBER", -3, Wire.INTS, by_args=_smismember),
    read("SMEMBERS", 2, Wire.EMPTY_SET),
    read("SRANDMEMBER", -2, Wire.NIL, by_args=_srandmember),
    read("SSCAN", -3, Wire.SCAN, by_args=scan_from_start(b"MATCH", b"COUNT")),
    read("SDIFF", -2, Wire.EMPTY_SET, keys=every),
    read("SINTER", -2, Wire.EMPTY_SET, keys=every),
    read("SUNION", -2, Wire.EMPTY_SET, keys=every),
    read("SINTERCARD", -3, Wire.INT, keys=counted_keys(1), by_args=_sintercard),
    take("SPOP", -2, Wire.NIL, by_args=_spop),
    write("SADD", -3, Wire.INT, receipt=True, safe_twice=True, grows=True),
    write("SREM", -3, Wire.INT, receipt=True, safe_twice=True),
    # not safe twice: by then later writes may have changed the sources
    write("SDIFFSTORE", -3, Wire.INT, receipt=True, keys=every, grows=True),
    write("SINTERSTORE", -3, Wire.INT, receipt=True, keys=every, grows=True),
    write("SUNIONSTORE", -3, Wire.INT, receipt=True, keys=every, grows=True),
)
