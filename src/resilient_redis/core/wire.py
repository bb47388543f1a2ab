"""RESP, as far as this project writes it: commands to be replayed and neutral replies.

Reading replies is left to redis-py's own parsers. The format: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Iterable

from .command import Shape, Wire


def pack(args: Iterable[bytes]) -> bytes:
    """One command as an array of bulk strings."""
    parts = [b"$%d\r\n%b\r\n" % (len(a), a) for a in args]
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def unpack(packed: bytes) -> tuple[bytes, ...]:
    """The arguments of a command that `pack` made."""
    args, at = [], packed.index(b"\n") + 1
    while at < len(packed):
        end = packed.index(b"\r\n", at)
        start = end + 2
        at = start + int(packed[at + 1 : end])
        args.append(packed[start:at])
        at += 2
    return tuple(args)


_RESP2 = {
    Wire.OK: b"+OK\r\n",
    Wire.NIL: b"$-1\r\n",
    Wire.NIL_ARRAY: b"*-1\r\n",
    Wire.EMPTY_STRING: b"$0\r\n\r\n",
    Wire.EMPTY_ARRAY: b"*0\r\n",
    Wire.EMPTY_MAP: b"*0\r\n",
    Wire.EMPTY_SET: b"*0\r\n",
    Wire.NONE_STATUS: b"+none\r\n",
    Wire.SCAN: b"*2\r\n$1\r\n0\r\n*0\r\n",
    Wire.LCS_MATCHES: b"*4\r\n$7\r\nmatches\r\n*0\r\n$3\r\nlen\r\n:0\r\n",
    Wire.ZERO_STRING: b"$1\r\n0\r\n",
    Wire.SCORE: b"$1\r\n0\r\n",
    Wire.STREAM_ID: b"$3\r\n0-0\r\n",
}
_RESP3 = {
    **_RESP2,
    Wire.NIL: b"_\r\n",
    Wire.NIL_ARRAY: b"_\r\n",
    Wire.EMPTY_MAP: b"%0\r\n",
    Wire.EMPTY_SET: b"~0\r\n",
    Wire.LCS_MATCHES: b"%2\r\n$7\r\nmatches\r\n*0\r\n$3\r\nlen\r\n:0\r\n",
    Wire.SCORE: b",0\r\n",
}


def reply_bytes(shape: Shape, protocol: int) -> bytes:
    """The reply of `shape` as the server would send it in RESP `protocol` (2 or 3)."""
    table = _RESP3 if protocol == 3 else _RESP2
    constant = table.get(shape.reply)
    if constant is not None:
        return constant
    if shape.reply is Wire.INT:
        return b":%d\r\n" % shape.number
    if shape.reply is Wire.NILS:
        return b"*%d\r\n" % shape.number + table[Wire.NIL] * shape.number
    if shape.reply is Wire.NIL_ARRAYS:
        return b"*%d\r\n" % shape.number + table[Wire.NIL_ARRAY] * shape.number
    return b"*%d\r\n" % len(shape.numbers) + b"".join(b":%d\r\n" % n for n in shape.numbers)
