"""Bitmaps and HyperLogLogs: https://redis.io/docs/latest/commands/?group=bitmap, hyperloglog"""

from __future__ import annotations

import re

from ..command import Kind, Shape, Wire
from .parse import SYNTAX, integer, one_of
from .row import WRONG_NUMBER, Args, Refuse, Row, counter, every, from_second, read, write

# A string has at most 512 MB (proto-max-bulk-len in redis.conf)
_OFFSET_MAX = 512 * 1024 * 1024 * 8 - 1

_TYPE = re.compile(rb"i(?:[1-9]|[1-5][0-9]|6[0-4])|u(?:[1-9]|[1-5][0-9]|6[0-3])")
# How many arguments follow each operation of BITFIELD
_OPERATIONS = {b"GET": 2, b"SET": 3, b"INCRBY": 3, b"OVERFLOW": 1}
_MANY_SOURCES = (b"DIFF", b"DIFF1", b"ANDOR")


def _getbit(args: Args, shape: Shape) -> Shape:
    integer(args[2], 0, _OFFSET_MAX)
    return shape


def _setbit(args: Args, shape: Shape) -> Shape:
    integer(args[2], 0, _OFFSET_MAX)
    integer(args[3], 0, 1)
    return shape


def _check_range(args: Args, start: int) -> None:
    """`start end [BYTE | BIT]`"""
    for arg in args[start : start + 2]:
        integer(arg)
    for arg in args[start + 2 :]:
        one_of(arg, b"BYTE", b"BIT")


def _bitcount(args: Args, shape: Shape) -> Shape:
    if len(args) not in (2, 4, 5):
        raise Refuse(SYNTAX)
    _check_range(args, 2)
    return shape


def _bitpos(args: Args, shape: Shape) -> Shape:
    """A missing key is all zeros, without end: the first 0 is at 0, there is no 1."""
    if len(args) > 6:
        raise Refuse(SYNTAX)
    _check_range(args, 3)
    return shape._replace(number=-integer(args[2], 0, 1))


def _bitop(args: Args, shape: Shape) -> Shape:
    how = one_of(args[1], b"AND", b"OR", b"XOR", b"NOT", b"ONE", *_MANY_SOURCES)
    sources = len(args) - 3
    if (how == b"NOT" and sources > 1) or (how in _MANY_SOURCES and sources < 2):
        raise Refuse(WRONG_NUMBER)
    return shape


def _check_bitfield(args: Args) -> list[bytes]:
    """The operations that answer something, in order."""
    answered, at = [], 2
    while at < len(args):
        word = args[at].upper()
        values = args[at + 1 : at + 1 + _OPERATIONS.get(word, 0)]
        if not values or len(values) != _OPERATIONS[word]:
            raise Refuse(SYNTAX)
        if word == b"OVERFLOW":
            one_of(values[0], b"WRAP", b"SAT", b"FAIL")
        else:
            _check_field(values)
            answered.append(word)
        at += 1 + len(values)
    return answered


def _check_field(values: Args) -> None:
    """`type offset [value]`; an offset `#n` counts in fields of this type."""
    kind, offset = values[:2]
    if _TYPE.fullmatch(kind) is None:
        raise Refuse("invalid bitfield type")
    bits = int(kind[1:])
    last = _OFFSET_MAX + 1 - bits
    if offset[:1] == b"#":
        integer(offset[1:], 0, last // bits)
    else:
        integer(offset, 0, last)
    for value in values[2:]:
        integer(value)


def _bitfield(args: Args, shape: Shape) -> Shape:
    answered = _check_bitfield(args)
    shape = shape._replace(numbers=(0,) * len(answered))
    if all(word == b"GET" for word in answered):
        return shape._replace(kind=Kind.READ, receipt=False, safe_twice=True)
    return shape


def _bitfield_ro(args: Args, shape: Shape) -> Shape:
    if any(word.upper() != b"GET" for word in args[2::3]):
        raise Refuse(SYNTAX)
    return shape._replace(numbers=(0,) * len(_check_bitfield(args)))


ROWS: tuple[Row, ...] = (
    read("GETBIT", 3, Wire.INT, by_args=_getbit),
    read("BITCOUNT", -2, Wire.INT, by_args=_bitcount),
    read("BITPOS", -3, Wire.INT, by_args=_bitpos),
    read("BITFIELD_RO", -2, Wire.INTS, by_args=_bitfield_ro),
    read("PFCOUNT", -2, Wire.INT, keys=every),
    write("PFADD", -2, Wire.INT, receipt=True, safe_twice=True, grows=True),
    # not safe twice: by then later writes may have changed the sources
    write("PFMERGE", -2, Wire.OK, keys=every, grows=True),
    write("BITOP", -4, Wire.INT, receipt=True, keys=from_second, grows=True, by_args=_bitop),
    counter("SETBIT", 4, Wire.INT, by_args=_setbit),
    counter("BITFIELD", -2, Wire.INTS, by_args=_bitfield),  # only GET: a read
)
