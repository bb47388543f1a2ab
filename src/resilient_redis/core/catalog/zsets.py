"""Sorted sets: https://redis.io/docs/latest/commands/?group=sorted-set"""

from __future__ import annotations

from ..command import Kind, Shape, Wire
from .parse import (
    CONDITIONAL,
    SYNTAX,
    at_most_one,
    counted_keys,
    integer,
    integers_at,
    key_count,
    lex_bound,
    number,
    one_of,
    options,
    scan_from_start,
    score_bound,
    target_and_counted_keys,
    waits_for_seconds,
)
from .row import (
    WRONG_NUMBER,
    Args,
    ByArgs,
    Refuse,
    Row,
    all_but_last,
    counted_from,
    counter,
    first_two,
    read,
    take,
    write,
)

_ZADD_FLAGS = (b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR")
# zrandmemberWithCountCommand: with scores the count is doubled
_COUNT_MAX = 2**62 - 1


def _zadd(args: Args, shape: Shape) -> Shape:
    """`ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member …`"""
    at = 2
    while at < len(args) and args[at].upper() in _ZADD_FLAGS:
        at += 1
    flags = {arg.upper() for arg in args[2:at]}
    pairs = len(args) - at
    if pairs == 0 or pairs % 2:
        raise Refuse(SYNTAX)
    for score in args[at::2]:
        number(score, infinite=True)
    if flags - {b"CH", b"INCR"}:
        raise Refuse(CONDITIONAL)
    if b"INCR" not in flags:
        return shape
    if pairs != 2:
        raise Refuse("INCR takes one pair of score and member")
    return shape._replace(kind=Kind.COUNTER, reply=Wire.SCORE, safe_twice=False)


def _zincrby(args: Args, shape: Shape) -> Shape:
    number(args[2], infinite=True)
    return shape


def _check_limit(values: Args) -> None:
    for value in values:
        integer(value)


def _check_zrange(args: Args, start: int, *more: bytes) -> None:
    """`start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count]`, and the options `more`."""
    known = {**dict.fromkeys((b"BYSCORE", b"BYLEX", b"REV", *more), 0), b"LIMIT": 2}
    found = options(args, start + 2, known)
    at_most_one(found, b"BYSCORE", b"BYLEX")
    at_most_one(found, b"WITHSCORES", b"BYLEX")
    _check_limit(found.get(b"LIMIT", ()))
    if b"LIMIT" in found and not (b"BYSCORE" in found or b"BYLEX" in found):
        raise Refuse(SYNTAX)
    for bound in args[start : start + 2]:
        if b"BYSCORE" in found:
            score_bound(bound)
        elif b"BYLEX" in found:
            lex_bound(bound)
        else:
            integer(bound)


def _zrange(args: Args, shape: Shape) -> Shape:
    _check_zrange(args, 2, b"WITHSCORES")
    return shape


def _zrangestore(args: Args, shape: Shape) -> Shape:
    _check_zrange(args, 3)
    return shape


def _zrevrange(args: Args, shape: Shape) -> Shape:
    integer(args[2])
    integer(args[3])
    options(args, 4, {b"WITHSCORES": 0})
    return shape


def _by_score(args: Args, shape: Shape) -> Shape:
    score_bound(args[2])
    score_bound(args[3])
    _check_limit(options(args, 4, {b"WITHSCORES": 0, b"LIMIT": 2}).get(b"LIMIT", ()))
    return shape


def _by_lex(args: Args, shape: Shape) -> Shape:
    lex_bound(args[2])
    lex_bound(args[3])
    _check_limit(options(args, 4, {b"LIMIT": 2}).get(b"LIMIT", ()))
    return shape


def _zrank(args: Args, shape: Shape) -> Shape:
    if len(args) > 4:
        raise Refuse(WRONG_NUMBER)
    with_score = options(args, 3, {b"WITHSCORE": 0})
    return shape._replace(reply=Wire.NIL_ARRAY) if with_score else shape


def _zrandmember(args: Args, shape: Shape) -> Shape:
    if len(args) == 2:
        return shape
    integer(args[2], -_COUNT_MAX, _COUNT_MAX)
    options(args, 3, {b"WITHSCORES": 0})
    return shape._replace(reply=Wire.EMPTY_ARRAY)


def _combined(count_at: int, *, scores: bool, weights: bool = True) -> ByArgs:
    """`numkeys key … [WEIGHTS weight …] [AGGREGATE how] [WITHSCORES]`"""

    def by_args(args: Args, shape: Shape) -> Shape:
        keys = key_count(args, count_at)
        known = {b"WITHSCORES": 0} if scores else {}
        if weights:
            known = {**known, b"WEIGHTS": keys, b"AGGREGATE": 1}
        found = options(args, count_at + 1 + keys, known)
        for weight in found.get(b"WEIGHTS", ()):
            number(weight, infinite=True)
        for how in found.get(b"AGGREGATE", ()):
            one_of(how, b"SUM", b"MIN", b"MAX")
        return shape

    return by_args


def _zintercard(args: Args, shape: Shape) -> Shape:
    for (limit,) in options(args, 2 + key_count(args, 1), {b"LIMIT": 1}).values():
        integer(limit, 0)
    return shape


def _zpop(args: Args, shape: Shape) -> Shape:
    if len(args) > 3:
        raise Refuse(WRONG_NUMBER)
    if len(args) == 3:
        integer(args[2], 0)
    return shape


def _check_zmpop(args: Args, count_at: int) -> None:
    end = count_at + key_count(args, count_at) + 1
    if end >= len(args):
        raise Refuse(SYNTAX)
    one_of(args[end], b"MIN", b"MAX")
    for (count,) in options(args, end + 1, {b"COUNT": 1}).values():
        integer(count, 1)


def _zmpop(args: Args, shape: Shape) -> Shape:
    _check_zmpop(args, 1)
    return shape


def _bzmpop(args: Args, shape: Shape) -> Shape:
    _check_zmpop(args, 2)
    return waits_for_seconds(args, shape, 1)


def _bzpop(args: Args, shape: Shape) -> Shape:
    return waits_for_seconds(args, shape, len(args) - 1)


ROWS: tuple[Row, ...] = (
    read("ZCARD", 2, Wire.INT),
    read("ZCOUNT", 4, Wire.INT, by_args=_by_score),
    read("ZLEXCOUNT", 4, Wire.INT, by_args=_by_lex),
    read("ZSCORE", 3, Wire.NIL),
    read("ZMSCORE", -3, Wire.NILS, by_args=counted_from(2)),
    read("ZRANK", -3, Wire.NIL, by_args=_zrank),
    read("ZREVRANK", -3, Wire.NIL, by_args=_zrank),
    read("ZRANGE", -4, Wire.EMPTY_ARRAY, by_args=_zrange),
    read("ZREVRANGE", -4, Wire.EMPTY_ARRAY, by_args=_zrevrange),
    read("ZRANGEBYSCORE", -4, Wire.EMPTY_ARRAY, by_args=_by_score),
    read("ZREVRANGEBYSCORE", -4, Wire.EMPTY_ARRAY, by_args=_by_score),
    read("ZRANGEBYLEX", -4, Wire.EMPTY_ARRAY, by_args=_by_lex),
    read("ZREVRANGEBYLEX", -4, Wire.EMPTY_ARRAY, by_args=_by_lex),
    read("ZRANDMEMBER", -2, Wire.NIL, by_args=_zrandmember),
    read("ZSCAN", -3, Wire.SCAN, by_args=scan_from_start(b"MATCH", b"COUNT")),
    read("ZDIFF", -3, Wire.EMPTY_ARRAY, keys=counted_keys(1),
         by_args=_combined(1, scores=True, weights=False)),
    read("ZINTER", -3, Wire.EMPTY_ARRAY, keys=counted_keys(1), by_args=_combined(1, scores=True)),
    read("ZUNION", -3, Wire.EMPTY_ARRAY, keys=counted_keys(1), by_args=_combined(1, scores=True)),
    read("ZINTERCARD", -3, Wire.INT, keys=counted_keys(1), by_args=_zintercard),
    take("ZPOPMIN", -2, Wire.EMPTY_ARRAY, by_args=_zpop),
    take("ZPOPMAX", -2, Wire.EMPTY_ARRAY, by_args=_zpop),
    take("ZMPOP", -4, Wire.NIL_ARRAY, keys=counted_keys(1), by_args=_zmpop),
    take("BZPOPMIN", -3, Wire.NIL_ARRAY, keys=all_but_last, by_args=_bzpop, blocking=True),
    take("BZPOPMAX", -3, Wire.NIL_ARRAY, keys=all_but_last, by_args=_bzpop, blocking=True),
    take("BZMPOP", -5, Wire.NIL_ARRAY, keys=counted_keys(2), by_args=_bzmpop, blocking=True),
    write("ZADD", -4, Wire.INT, receipt=True, safe_twice=True, grows=True, by_args=_zadd),
    write("ZREM", -3, Wire.INT, receipt=True, safe_twice=True),
    write("ZREMRANGEBYSCORE", 4, Wire.INT, receipt=True, safe_twice=True, by_args=_by_score),
    write("ZREMRANGEBYLEX", 4, Wire.INT, receipt=True, safe_twice=True, by_args=_by_lex),
    # by rank, a second run would remove those that moved up
    write("ZREMRANGEBYRANK", 4, Wire.INT, receipt=True, by_args=integers_at(2, 3)),
    # not safe twice: by then later writes may have changed the sources
    write("ZRANGESTORE", -5, Wire.INT, receipt=True, keys=first_two, grows=True,
          by_args=_zrangestore),
    write("ZDIFFSTORE", -4, Wire.INT, receipt=True, keys=target_and_counted_keys, grows=True,
          by_args=_combined(2, scores=False, weights=False)),
    write("ZINTERSTORE", -4, Wire.INT, receipt=True, keys=target_and_counted_keys, grows=True,
          by_args=_combined(2, scores=False)),
    write("ZUNIONSTORE", -4, Wire.INT, receipt=True, keys=target_and_counted_keys, grows=True,
          by_args=_combined(2, scores=False)),
    counter("ZINCRBY", 4, Wire.SCORE, by_args=_zincrby),
)  # fmt: skip
