"""Streams: https://redis.io/docs/latest/commands/?group=stream"""

from __future__ import annotations

import re

from ..command import Shape, Wire
from .parse import CONDITIONAL, INT_MAX, NEWER, SYNTAX, at_most_one, integer, none_of, options
from .row import WRONG_NUMBER, Args, ByArgs, Refuse, Row, read, take, write

INVALID_ID = "invalid stream ID specified as stream command argument"

_ID = re.compile(rb"[0-9]{1,20}(?:-[0-9]{1,20})?")
_ID_MAX = 2**64 - 1
_TRIMMING = (b"MAXLEN", b"MINID")
# What becomes of references in consumer groups (Redis 8.2)
_REFERENCES = (b"KEEPREF", b"DELREF", b"ACKED")


def _check_id(arg: bytes) -> None:
    if _ID.fullmatch(arg) is None or any(int(part) > _ID_MAX for part in arg.split(b"-")):
        raise Refuse(INVALID_ID)


def _check_range_end(arg: bytes) -> None:
    if arg not in (b"-", b"+"):
        _check_id(arg[1:] if arg[:1] == b"(" else arg)


def _after_trimming(args: Args, at: int) -> int:
    """`MAXLEN | MINID [= | ~] threshold [LIMIT count]` starts at `at`: where it ends."""
    word = args[at].upper()
    at += 1
    approximate = at < len(args) and args[at] == b"~"
    if at < len(args) and args[at] in (b"~", b"="):
        at += 1
    if at >= len(args):
        raise Refuse(SYNTAX)
    if word == b"MAXLEN":
        integer(args[at], 0)
    else:
        _check_id(args[at])
    at += 1
    if at + 1 < len(args) and args[at].upper() == b"LIMIT":
        if not approximate:
            raise Refuse(SYNTAX)
        integer(args[at + 1], 0)
        at += 2
    return at


def _xadd(args: Args, shape: Shape) -> Shape:
    """`XADD key [NOMKSTREAM] [references] [trimming] * | id field value …`"""
    at, trimmed, referenced = 2, False, False
    while at < len(args):
        word = args[at].upper()
        if word == b"NOMKSTREAM":
            raise Refuse(CONDITIONAL)
        if word in (b"IDMP", b"IDMPAUTO"):
            raise Refuse(NEWER)
        if word in _TRIMMING and not trimmed:
            at, trimmed = _after_trimming(args, at), True
        elif word in _REFERENCES and not referenced:
            at, referenced = at + 1, True
        else:
            break
    pairs = len(args) - at - 1
    if pairs < 2 or pairs % 2:
        raise Refuse(WRONG_NUMBER)
    if args[at] != b"*":
        _check_new_id(args[at])
    return shape


def _check_new_id(arg: bytes) -> None:
    _check_id(arg[:-2] if arg.endswith(b"-*") and b"-" not in arg[:-2] else arg)
    if arg in (b"0", b"0-0"):
        raise Refuse("the ID must be greater than 0-0")


def _xtrim(args: Args, shape: Shape) -> Shape:
    """`~` removes no more than LIMIT entries at a time, and has one also where none is given
    (https://redis.io/docs/latest/commands/xtrim/): a second run would remove more.
    """
    if args[2].upper() not in _TRIMMING:
        raise Refuse(SYNTAX)
    end = _after_trimming(args, 2)
    found = options(args, end, dict.fromkeys(_REFERENCES, 0))
    at_most_one(found, *_REFERENCES)
    limited = args[3] == b"~" and (args[end - 2].upper(), args[end - 1]) != (b"LIMIT", b"0")
    return shape._replace(safe_twice=False) if limited else shape


def _ids_from(start: int) -> ByArgs:
    def by_args(args: Args, shape: Shape) -> Shape:
        for arg in args[start:]:
            _check_id(arg)
        return shape

    return by_args


def _check_reference_ids(args: Args, at: int) -> int:
    """`[KEEPREF | DELREF | ACKED] IDS numids id …` starts at `at`: the number of IDs."""
    if at < len(args) and args[at].upper() in _REFERENCES:
        if args[at].upper() == b"ACKED":
            raise Refuse(CONDITIONAL)
        at += 1
    if at + 1 >= len(args) or args[at].upper() != b"IDS":
        raise Refuse(SYNTAX)
    if integer(args[at + 1], 1) != len(args) - at - 2:
        raise Refuse(WRONG_NUMBER)
    for arg in args[at + 2 :]:
        _check_id(arg)
    return len(args) - at - 2


def _delete_with_references(start: int) -> ByArgs:
    def by_args(args: Args, shape: Shape) -> Shape:
        return shape._replace(numbers=(1,) * _check_reference_ids(args, start))

    return by_args


def _xrange(args: Args, shape: Shape) -> Shape:
    _check_range_end(args[2])
    _check_range_end(args[3])
    for (count,) in options(args, 4, {b"COUNT": 1}).values():
        integer(count)
    return shape


# What follows each word before STREAMS, so that a group may be called STREAMS too
_NEWER = {b"CLAIM": 1, b"MAXCOUNT": 1, b"MAXSIZE": 1}
_BEFORE_STREAMS = {b"GROUP": 2, b"COUNT": 1, b"BLOCK": 1, **_NEWER}


def _streams_at(args: Args) -> int:
    """Where the word STREAMS stands; keys follow, then as many IDs."""
    at = 1
    while at < len(args) and (word := args[at].upper()) != b"STREAMS":
        at += 1 + _BEFORE_STREAMS.get(word, 0)
    after = len(args) - at - 1
    if after < 2 or after % 2:
        raise Refuse("wrong number of keys and IDs")
    return at


def _stream_keys(args: Args) -> tuple[bytes, ...]:
    at = _streams_at(args)
    return tuple(args[at + 1 : at + 1 + (len(args) - at - 1) // 2])


def _reading(args: Args, shape: Shape, start: int, flags: tuple[bytes, ...]) -> Shape:
    at = _streams_at(args)
    known = {**dict.fromkeys(flags, 0), b"COUNT": 1, b"BLOCK": 1, **_NEWER}
    found = options(args[:at], start, known)
    none_of(found, *_NEWER, reason=NEWER)
    for count in found.get(b"COUNT", ()):
        integer(count)
    if b"BLOCK" not in found:
        return shape
    wait = integer(found[b"BLOCK"][0], 0, INT_MAX // 2)
    place = next(i for i in range(start, at) if args[i].upper() == b"BLOCK") + 1
    return shape._replace(blocking=True, block_ms=wait, block_at=place, block_unit=1)


def _xread(args: Args, shape: Shape) -> Shape:
    for arg in args[len(args) - len(shape.keys) :]:
        if arg not in (b"$", b"+"):
            _check_id(arg)
    return _reading(args, shape, 1, ())


def _xreadgroup(args: Args, shape: Shape) -> Shape:
    """With another ID than `>` it lists what is pending: that there is nothing would be a lie."""
    if args[1].upper() != b"GROUP":
        raise Refuse(SYNTAX)
    if any(arg != b">" for arg in args[len(args) - len(shape.keys) :]):
        raise Refuse("a neutral answer would hide pending entries")
    return _reading(args, shape, 4, (b"NOACK",))


ROWS: tuple[Row, ...] = (
    read("XLEN", 2, Wire.INT),
    read("XRANGE", -4, Wire.EMPTY_ARRAY, by_args=_xrange),
    read("XREVRANGE", -4, Wire.EMPTY_ARRAY, by_args=_xrange),
    read("XREAD", -4, Wire.NIL_ARRAY, keys=_stream_keys, by_args=_xread),
    take("XREADGROUP", -7, Wire.NIL_ARRAY, keys=_stream_keys, by_args=_xreadgroup),
    write("XADD", -5, Wire.STREAM_ID, receipt=True, grows=True, by_args=_xadd),
    write("XDEL", -3, Wire.INT, receipt=True, safe_twice=True, by_args=_ids_from(2)),
    write("XDELEX", -5, Wire.INTS, receipt=True, safe_twice=True,
          by_args=_delete_with_references(2)),
    write("XACK", -4, Wire.INT, receipt=True, safe_twice=True, by_args=_ids_from(3)),
    write("XACKDEL", -6, Wire.INTS, receipt=True, safe_twice=True,
          by_args=_delete_with_references(3)),
    write("XTRIM", -4, Wire.INT, receipt=True, safe_twice=True, by_args=_xtrim),
)  # fmt: skip
