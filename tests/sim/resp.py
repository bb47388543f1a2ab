"""Replies as bytes, in both protocols."""

from __future__ import annotations

from typing import Any

from .commands import Err


class _NilArray:
    pass


class _Nothing:
    pass


NIL_ARRAY = _NilArray()
#: No reply now: a blocking command waits, or one that has said all it had to say.
NOTHING = _Nothing()


class Push(list[Any]):
    """A message that answers no command: an array in RESP2."""


class Several(list[Any]):
    """More than one reply to one command."""


class Pairs(dict[Any, Any]):
    """A map; in RESP2 not flat, but an array of pairs (XREADGROUP)."""


def encode(value: Any, resp3: bool) -> bytes:
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, str):
        return b"+%b\r\n" % value.encode()
    if isinstance(value, int):
        return b":%d\r\n" % value
    if value is None:
        return b"_\r\n" if resp3 else b"$-1\r\n"
    if value is NIL_ARRAY:
        return b"_\r\n" if resp3 else b"*-1\r\n"
    if value is NOTHING:
        return b""
    if isinstance(value, Err):
        return b"-%b\r\n" % str(value).encode()
    if isinstance(value, Pairs) and not resp3:
        value = list(map(list, value.items()))
    if isinstance(value, dict):
        flat = [encode(x, resp3) for pair in value.items() for x in pair]
        head = b"%%%d\r\n" % len(value) if resp3 else b"*%d\r\n" % len(flat)
        return head + b"".join(flat)
    items = b"".join(encode(x, resp3) for x in value)
    if isinstance(value, Several):
        return items
    kind = b">" if resp3 and isinstance(value, Push) else b"*"
    return b"%b%d\r\n" % (kind, len(value)) + items
