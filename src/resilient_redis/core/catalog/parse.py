"""Reading arguments as the server reads them. What it would not take is refused, never guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..command import Shape
from .row import Args, ByArgs, Keys, Refuse

INT_MIN, INT_MAX = -(2**63), 2**63 - 1

SYNTAX = "syntax error"
NOT_AN_INTEGER = "value is not an integer or out of range"
NOT_A_FLOAT = "value is not a valid float"
INVALID_EXPIRE = "invalid expire time"
NOT_A_RANGE = "min or max is not a valid range item"
CONDITIONAL = "a conditional write: its answer depends on what is there"
NEWER = "newer than Redis 8.2 and Valkey 9.1, with which this library is tested"

# string2ll in util.c takes one spelling only: no plus, no blanks, no leading zeros.
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_DIGITS = re.compile(rb"[0-9]+")
# Less than strtod takes (hexadecimal, leading plus): the servers do not agree on those.
_FLOAT = re.compile(rb"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_INFINITE = (b"inf", b"+inf", b"-inf")

# Deadlines are kept below 2**63 ms by the server; the part for "now" lasts until the year 2248.
_NOW_MAX = 2**43
TTL_MAX_MS = INT_MAX - _NOW_MAX
# Expiry of a hash field has 46 bits (ebuckets.h, EB_EXPIRE_TIME_MAX).
FIELD_DEADLINE_MAX_MS = 2**46 - 2
FIELD_TTL_MAX_MS = FIELD_DEADLINE_MAX_MS - _NOW_MAX


def integer(arg: bytes, low: int = INT_MIN, high: int = INT_MAX) -> int:
    if _INTEGER.fullmatch(arg) is None or not low <= (value := int(arg)) <= high:
        raise Refuse(NOT_AN_INTEGER)
    return value


def number(arg: bytes, *, infinite: bool = False) -> float:
    if infinite and arg.lower() in _INFINITE:
        return float(arg)
    if _FLOAT.fullmatch(arg) is None:
        raise Refuse(NOT_A_FLOAT)
    value = float(arg)
    # strtod sets ERANGE for both, and the server then refuses them
    underflow = value == 0 and re.match(rb"-?[0.]*[1-9]", arg) is not None
    if math.isinf(value) or underflow:
        raise Refuse(NOT_A_FLOAT)
    return value


def waits_for_seconds(args: Args, shape: Shape, at: int) -> Shape:
    """A blocking command whose timeout stands at `at`, in seconds (0 is for ever)."""
    seconds = number(args[at])
    if not 0 <= seconds <= TTL_MAX_MS // 1000:
        raise Refuse("timeout is negative or out of range")
    return shape._replace(block_ms=math.ceil(seconds * 1000), block_at=at, block_unit=1000)


def one_of(arg: bytes, *words: bytes) -> bytes:
    word = arg.upper()
    if word not in words:
        raise Refuse(SYNTAX)
    return word


def score_bound(arg: bytes) -> None:
    number(arg[1:] if arg[:1] == b"(" else arg, infinite=True)


def lex_bound(arg: bytes) -> None:
    if arg not in (b"-", b"+") and arg[:1] not in (b"[", b"("):
        raise Refuse(NOT_A_RANGE)


def options(
    args: Args, at: int, known: Mapping[bytes, int], repeated: bytes = b""
) -> dict[bytes, Args]:
    """The options from `at` on; `known` says how many values follow each.

    What stands twice is refused, but for the one that may be `repeated`: servers differ on it.
    """
    found: dict[bytes, Args] = {}
    while at < len(args):
        word = args[at].upper()
        values = known.get(word)
        if values is None or at + values >= len(args) or (word in found and word != repeated):
            raise Refuse(SYNTAX)
        found[word] = args[at + 1 : at + 1 + values]
        at += 1 + values
    return found


def none_of(found: Mapping[bytes, Args], *words: bytes, reason: str = SYNTAX) -> None:
    if any(word in found for word in words):
        raise Refuse(reason)


def at_most_one(found: Mapping[bytes, Args], *words: bytes) -> None:
    if sum(word in found for word in words) > 1:
        raise Refuse(SYNTAX)


def key_count(args: Args, at: int) -> int:
    """The number that stands at `at` and says how many of the arguments after it are keys."""
    count = integer(args[at], 1) if at < len(args) else 0
    if not 1 <= count <= len(args) - at - 1:
        raise Refuse("the number of keys does not fit the arguments")
    return count


def counted_keys(at: int) -> Keys:
    """Keys after their number at `at`: ZINTER, LMPOP, EVAL (which may have none) …"""

    def keys(args: Args) -> tuple[bytes, ...]:
        if at < len(args) and args[at] == b"0":
            return ()
        return tuple(args[at + 1 : at + 1 + key_count(args, at)])

    return keys


def target_and_counted_keys(args: Args) -> tuple[bytes, ...]:
    """`ZUNIONSTORE destination numkeys key …`."""
    return (args[1], *args[3 : 3 + key_count(args, 2)]) if len(args) > 2 else ()


def integers_at(*places: int) -> ByArgs:
    """Refuses the command unless integers stand at `places`."""

    def by_args(args: Args, shape: Shape) -> Shape:
        for place in places:
            integer(args[place])
        return shape

    return by_args


def milliseconds(arg: bytes, unit: int, low: int, limit: int) -> int:
    """A time of `unit` ms each, between `low` (in its own unit) and `limit` ms."""
    try:
        return integer(arg, low, limit // unit) * unit
    except Refuse:
        raise Refuse(INVALID_EXPIRE) from None


def scan_from_start(*known: bytes) -> ByArgs:
    """HSCAN, SSCAN, ZSCAN: neutral at the start; in the middle it would hide the rest."""
    values = {word: 0 if word == b"NOVALUES" else 1 for word in known}

    def by_args(args: Args, shape: Shape) -> Shape:
        found = options(args, 3, values)
        if b"COUNT" in found:
            integer(found[b"COUNT"][0], 1)
        if args[2] != b"0":
            raise Refuse("a neutral answer would cut the iteration short")
        return shape

    return by_args
