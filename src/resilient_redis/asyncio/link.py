"""A connection of our own, for probes, the fence and the replay. The guard does not see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, TimeoutError

from ..core.exchange import Dialogue, Exchange, Replies, ReplyError
from ..core.fence import Identity, identity_of
from ..core.wire import pack
from ..seam.failures import parse_error
from ..seam.replies import MISSING, is_push, make_reader

T = TypeVar("T")


# redis-py 8 asks managed servers for push messages about maintenance; nobody here would read them.
_MAINTENANCE = ("maint", "orig_", "oss_")


class Template(NamedTuple):
    """How to make a connection like the guarded ones: redis-py's own class, and its arguments."""

    connection_class: type[AbstractConnection]
    kwargs: dict[str, Any]
    timeout: float

    def make(self) -> AbstractConnection:
        kept = {k: v for k, v in self.kwargs.items() if not k.startswith(_MAINTENANCE)}
        return self.connection_class(
            **{
                **kept,
                "db": 0,
                "socket_timeout": self.timeout,
                "socket_connect_timeout": self.timeout,
                "health_check_interval": 0,
                "retry": None,
                "retry_on_error": [],
                "retry_on_timeout": False,
                "decode_responses": False,
            }
        )


class Link:
    """One raw connection after redis-py's own handshake."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._replies = make_reader()
        self.identity: Identity | None = None

    @classmethod
    async def open(cls, template: Template, clock: Callable[[], float]) -> Link:
        """Connects, authenticates, and learns how the server knows this connection."""
        link = cls(template.make(), template.timeout)
        try:
            await asyncio.wait_for(link._connection.connect(), template.timeout)  # type: ignore[no-untyped-call]  # redis-py
            (info,) = await link.exchange(Exchange(pack((b"CLIENT", b"INFO")), 1))
        except BaseException:
            link.abort()
            raise
        if isinstance(info, (bytes, str)):
            link.identity = identity_of(info, clock())
        return link

    @classmethod
    async def probe(cls, template: Template, clock: Callable[[], float], seconds: float) -> Link:
        """A link to a server that has answered PING, all of it within `seconds`."""
        link: Link | None = None

        async def dial() -> Link:
            nonlocal link
            link = await cls.open(template, clock)
            await link.ping()
            return link

        try:
            return await asyncio.wait_for(dial(), seconds)
        except BaseException:
            if link is not None:
                link.abort()
            raise

    async def exchange(self, ask: Exchange) -> Replies:
        """Sends and receives. Raises redis-py's errors where the connection fails."""
        connection = self._connection
        writer, reader = connection._writer, connection._reader
        if writer is None or reader is None or writer.transport.is_closing():
            raise ConnectionError("the recovery connection is closed")
        if ask.send:
            writer.write(ask.send)
        replies: Replies = []
        while len(replies) < ask.receive:
            reply = self._replies.gets()
            if reply is not MISSING:
                if not is_push(reply):
                    replies.append(reply)
                continue
            try:
                data = await asyncio.wait_for(reader.read(65536), self._timeout)
            except asyncio.TimeoutError:
                raise TimeoutError("no answer on the recovery connection") from None
            if not data:
                raise ConnectionError("the server closed the recovery connection")
            self._replies.feed(data)
        return replies

    async def drive(self, dialogue: Dialogue[T]) -> T:
        """Does the I/O that `dialogue` asks for, and returns what it concludes."""
        try:
            ask = next(dialogue)
            while True:
                ask = dialogue.send(await self.exchange(ask))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            dialogue.close()

    async def ping(self) -> None:
        """PING, and nothing but PONG will do. Raises the error reply as redis-py's own class."""
        (reply,) = await self.exchange(Exchange(pack((b"PING",)), 1))
        if isinstance(reply, ReplyError):
            raise parse_error(self._connection, reply.message)

    def abort(self) -> None:
        """Closes at once: nothing that was not sent may be sent after this."""
        connection = self._connection
        writer = connection._writer
        if writer is not None:
            writer.transport.abort()
        connection._reader = connection._writer = None
        connection._parser.on_disconnect()  # type: ignore[no-untyped-call]  # redis-py
