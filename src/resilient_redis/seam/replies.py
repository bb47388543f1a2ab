"""Reading RESP on the recovery connection, and feeding RESP of our own to redis-py's parsers.

Reading a reply through `Connection.read_response` costs 5.5-5.9 µs; draining hiredis in bulk 1.1
(FACTS.md, "Replay").
"""

from __future__ import annotations

import builtins
import inspect
from typing import Any

import redis
from redis._parsers import _AsyncRESP2Parser, _AsyncRESP3Parser, _RESP2Parser, _RESP3Parser
from redis._parsers.hiredis import NOT_ENOUGH_DATA, _AsyncHiredisParser, _HiredisParser
from redis.exceptions import ConnectionError, TimeoutError

from ..core.exchange import ReplyError

try:
    import hiredis
except ImportError:  # it is optional in redis-py, too
    HIREDIS = False
else:
    HIREDIS = True

MISSING = object()


class _PythonReader:
    """RESP2 and RESP3, one reply at a time. For where hiredis is not installed."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        self._data += data

    def gets(self) -> Any:
        start = self._at
        try:
            reply = self._parse()
        except IndexError:
            self._at = start
            return MISSING
        if self._at > 65536:
            del self._data[: self._at]
            self._at = 0
        return reply

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._at)
        if end < 0:
            raise IndexError
        line = bytes(self._data[self._at : end])
        self._at = end + 2
        return line

    def _bulk(self, length: int) -> bytes:
        end = self._at + length
        if len(self._data) < end + 2:
            raise IndexError
        bulk = bytes(self._data[self._at : end])
        self._at = end + 2
        return bulk

    def _parse(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ReplyError(rest.decode(errors="replace"))
        if kind in (b":", b"("):
            return int(rest)
        if kind == b",":
            return float(rest)
        if kind == b"#":
            return rest == b"t"
        if kind == b"_":
            return None
        if kind in (b"$", b"=", b"!"):
            if rest == b"-1":
                return None
            bulk = self._bulk(int(rest))
            if kind == b"!":
                return ReplyError(bulk.decode(errors="replace"))
            return bulk[4:] if kind == b"=" else bulk
        if kind == b">":
            for _ in range(int(rest)):
                self._parse()
            return self._parse()
        if kind in (b"*", b"~"):
            return None if rest == b"-1" else [self._parse() for _ in range(int(rest))]
        if kind == b"%":
            return {self._key(): self._parse() for _ in range(int(rest))}
        raise ReplyError(f"PROTOCOL unexpected byte {kind!r}")

    def _key(self) -> Any:
        key = self._parse()
        return tuple(key) if isinstance(key, list) else key


def make_reader() -> Any:
    """Something with `feed(bytes)` and `gets()`, which answers `MISSING` for want of bytes."""
    if not HIREDIS:
        return _PythonReader()
    return hiredis.Reader(replyError=ReplyError, notEnoughData=MISSING)


#: The class of a RESP3 push, which answers no command; hiredis has one from 3.2 on.
PUSH: Any = getattr(hiredis, "PushNotification", None) if HIREDIS else None


def at_hand(parser: Any, disable_decoding: bool) -> Any:
    """The next reply if this process has read it already, else `MISSING`; an error is returned.

    redis-py puts a timer around each reply of a pipeline (4.8 µs: FACTS.md), though nearly all of
    them came with the first. Only its hiredis parser can be asked without waiting.
    """
    if type(parser) is not _AsyncHiredisParser or not parser._connected:
        return MISSING
    reader: Any = parser._reader
    reply = reader.gets(False) if disable_decoding else reader.gets()
    if reply is NOT_ENOUGH_DATA:
        return MISSING
    if type(reply) is list and reply and isinstance(reply[0], ConnectionError):
        return reply[0]  # as redis-py's parser has it
    return reply


#: Before redis-py 8 its hiredis parser takes a reply out of the reader in `can_read`.
KEEPS_REPLY = int(redis.__version__.partition(".")[0]) < 8
_HIREDIS: Any = _HiredisParser  # untyped


def read_reply(connection: Any, disable_decoding: bool, push_request: bool) -> Any:
    """The next reply on a synchronous connection; an error is returned.

    redis-py's `read_response` without its surroundings, which write down where the server is for
    each reply in case that it fails, and close the socket when a slice of its timeout is over.
    """
    parser = connection._parser
    try:
        if type(parser) is not _HIREDIS or parser._reader is None:
            return _read_parsed(connection, parser, disable_decoding, push_request)
        if KEEPS_REPLY and parser._next_response is not NOT_ENOUGH_DATA:
            return _read_parsed(connection, parser, disable_decoding, push_request)
        gets = parser._reader.gets
        while True:
            reply = gets(False) if disable_decoding else gets()
            if reply is NOT_ENOUGH_DATA:
                parser.read_from_socket()
            elif PUSH is not None and type(reply) is PUSH:
                handled = parser.handle_push_response(reply)
                if push_request:
                    return handled
            elif type(reply) is list and reply and isinstance(reply[0], ConnectionError):
                return reply[0]  # as redis-py's parser has it
            else:
                return reply
    except builtins.TimeoutError as error:
        # Before redis-py 8 its hiredis parser raises this one, and its connection the other.
        raise TimeoutError(str(error)) from error


def _read_parsed(connection: Any, parser: Any, disable_decoding: bool, push_request: bool) -> Any:
    if getattr(parser, "_buffer", parser) is None:
        # What redis-py's hiredis parser says; those in Python raise an AttributeError.
        raise ConnectionError("Connection closed by server.")
    if connection.protocol in (3, "3"):
        return parser.read_response(disable_decoding=disable_decoding, push_request=push_request)
    return parser.read_response(disable_decoding=disable_decoding)


def has_read_ahead(parser: Any) -> bool:
    """Whether it holds something that nobody has asked for yet."""
    if type(parser) is not _HIREDIS:
        return parser._buffer is not None and parser._buffer.unread_bytes() > 0
    if KEEPS_REPLY and parser._next_response is not NOT_ENOUGH_DATA:
        return True
    return parser._reader is not None and bool(parser._reader.has_data())


def encode_reply(value: Any, protocol: int) -> bytes:
    """A reply that was read on the recovery connection, as RESP for the caller's own parser."""
    if value is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    if isinstance(value, ReplyError):  # one of a transaction's
        return b"-%b\r\n" % value.message.encode()
    if isinstance(value, bool):
        return b"#t\r\n" if value else b"#f\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, float):
        return b",%r\r\n" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, dict):
        pairs = [encode_reply(x, protocol) for pair in value.items() for x in pair]
        return b"%%%d\r\n" % len(value) + b"".join(pairs)
    if isinstance(value, (list, tuple)):
        return b"*%d\r\n" % len(value) + b"".join(encode_reply(x, protocol) for x in value)
    raise TypeError(f"no RESP form for a {type(value).__name__}")


class ReplyStream:
    """As much of `asyncio.StreamReader`, and of a socket, as redis-py's parsers use, fed by us."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def at_eof(self) -> bool:
        return False

    async def read(self, limit: int = -1) -> bytes:
        return self._take(len(self._buffer) if limit < 0 else limit)

    async def readexactly(self, count: int) -> bytes:
        return self._take(count)

    async def readline(self) -> bytes:
        return self._take(self._buffer.index(b"\n") + 1)

    def recv(self, limit: int) -> bytes:
        return self._take(limit)

    def recv_into(self, buffer: bytearray) -> int:
        taken = self._take(len(buffer))
        buffer[: len(taken)] = taken
        return len(taken)

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


class ParserHost:
    """What a parser's `on_connect` reads of a connection."""

    def __init__(self, encoder: Any) -> None:
        self._reader = self._sock = ReplyStream()
        self.socket_timeout = None
        self.encoder = encoder


_FOR_RESP3: dict[type[Any], type[Any]] = {
    _AsyncRESP2Parser: _AsyncRESP3Parser,
    _RESP2Parser: _RESP3Parser,
}


class OwnReplies:
    """Puts RESP bytes of ours through a parser like the connection's: decoding, and the types of
    its protocol, come from redis-py itself.
    """

    def __init__(self, parser: Any, encoder: Any, protocol: int) -> None:
        self._host = ParserHost(encoder)
        kind = type(parser)
        # redis-py before version 8 gives a connection its parser for RESP3 in the first handshake:
        # one that never stood has that for RESP2.
        if protocol == 3:
            kind = _FOR_RESP3.get(kind, kind)
        self._parser = kind(socket_read_size=65536)
        self._parser.on_connect(self._host)

    @classmethod
    def like(cls, connection: Any) -> OwnReplies:
        """As `connection` of redis-py reads its own."""
        return cls(connection._parser, connection.encoder, int(connection.protocol))

    def parse(self, reply: bytes, disable_decoding: bool) -> Any:
        self._host._reader.feed(reply)
        read = self._parser.read_response(disable_decoding=disable_decoding)
        return finished(read) if inspect.iscoroutine(read) else read


def finished(coroutine: Any) -> Any:
    """The result of a coroutine that does not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("redis-py waited for something other than the reply that is there")
