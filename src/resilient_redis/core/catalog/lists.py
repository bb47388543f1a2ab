"""Lists: https://redis.io/docs/latest/commands/?group=list"""

from __future__ import annotations

from ..command import Shape, Wire
from .parse import (
    INT_MAX,
    NOT_AN_INTEGER,
    counted_keys,
    integer,
    integers_at,
    key_count,
    one_of,
    options,
    waits_for_seconds,
)
from .row import Args, Refuse, Row, all_but_last, read, take, write


def _lpos(args: Args, shape: Shape) -> Shape:
    found = options(args, 3, {b"RANK": 1, b"COUNT": 1, b"MAXLEN": 1})
    for word, (value,) in found.items():
        rank = integer(value, -INT_MAX if word == b"RANK" else 0)
        if word == b"RANK" and rank == 0:
            raise Refuse(NOT_AN_INTEGER)
    return shape._replace(reply=Wire.EMPTY_ARRAY) if b"COUNT" in found else shape


def _pop(args: Args, shape: Shape) -> Shape:
    if len(args) == 2:
        return shape
    if len(args) > 3:
        raise Refuse("wrong number of arguments")
    integer(args[2], 0)
    return shape._replace(reply=Wire.NIL_ARRAY)


def _timeout_last(args: Args, shape: Shape) -> Shape:
    return waits_for_seconds(args, shape, len(args) - 1)


def _check_mpop(args: Args, count_at: int) -> None:
    side = count_at + key_count(args, count_at) + 1
    if side >= len(args):
        raise Refuse("syntax error")
    one_of(args[side], b"LEFT", b"RIGHT")
    for (count,) in options(args, side + 1, {b"COUNT": 1}).values():
        integer(count, 1)


def _lmpop(args: Args, shape: Shape) -> Shape:
    _check_mpop(args, 1)
    return shape


def _blmpop(args: Args, shape: Shape) -> Shape:
    _check_mpop(args, 2)
    return waits_for_seconds(args, shape, 1)


def _ltrim(args: Args, shape: Shape) -> Shape:
    """Twice is once where a fixed number is kept at one end; `1 -1` would drop another one."""
    start, stop = integer(args[2]), integer(args[3])
    keeps_an_end = (start == 0 and stop >= 0) or (start < 0 and stop == -1)
    return shape._replace(safe_twice=True) if keeps_an_end else shape


def _lrem(args: Args, shape: Shape) -> Shape:
    removes_all = integer(args[2], -INT_MAX) == 0
    return shape._replace(safe_twice=True) if removes_all else shape


ROWS: tuple[Row, ...] = (
    read("LLEN", 2, Wire.INT),
    read("LINDEX", 3, Wire.NIL, by_args=integers_at(2)),
    read("LRANGE", 4, Wire.EMPTY_ARRAY, by_args=integers_at(2, 3)),
    read("LPOS", -3, Wire.NIL, by_args=_lpos),
    take("LPOP", -2, Wire.NIL, by_args=_pop),
    take("RPOP", -2, Wire.NIL, by_args=_pop),
    take("LMPOP", -4, Wire.NIL_ARRAY, keys=counted_keys(1), by_args=_lmpop),
    take("BLPOP", -3, Wire.NIL_ARRAY, keys=all_but_last, by_args=_timeout_last, blocking=True),
    take("BRPOP", -3, Wire.NIL_ARRAY, keys=all_but_last, by_args=_timeout_last, blocking=True),
    take("BLMPOP", -5, Wire.NIL_ARRAY, keys=counted_keys(2), by_args=_blmpop, blocking=True),
    write("LPUSH", -3, Wire.INT, receipt=True, grows=True),
    write("RPUSH", -3, Wire.INT, receipt=True, grows=True),
    write("LREM", 4, Wire.INT, receipt=True, by_args=_lrem),
    write("LTRIM", 4, Wire.OK, by_args=_ltrim),
)
