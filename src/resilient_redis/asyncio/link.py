"""A connection of our own, for probes, the fence and the replay. The guard does not see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, TimeoutError

from ..core.exchange import UNAVAILABLE, Dialogue, Exchange, Replies, ReplyError
from ..core.fence import Identity, identity_of
from ..core.wire import pack
from ..seam.failures import parse_error
from ..seam.replies import MISSING, PUSH, make_reader
from ..seam.sockets import make_room

T = TypeVar("T")


# redis-py 8 asks managed servers for push messages about maintenance; nobody here would read them.
_MAINTENANCE = ("maint", "orig_", "oss_")


@dataclass(eq=False, repr=False)
class Template:
    """How to make a connection like the guarded ones: redis-py's own class, and its arguments."""

    connection_class: type[AbstractConnection]
    kwargs: dict[str, Any]
    timeout: float

    def make(self, **where: Any) -> AbstractConnection:
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
                **where,
            }
        )

    async def locate(self) -> AbstractConnection:
        """A connection, not open yet, to the server that is the endpoint now."""
        return self.make()

    def server_of(self, connection: AbstractConnection) -> str:
        """Whose ids the fence knows `connection` by; "" where the endpoint is always one server."""
        del connection
        return ""

    async def answers(self) -> None:
        """Returns if the server answers what waits for it, and raises if it does not."""
        await answers(self.make(), self.timeout)


class Link:
    """One raw connection after redis-py's own handshake."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._replies = make_reader()
        self.identity: Identity | None = None
        self.server = ""  # see `Template.server_of`
        self.fresh = True  # no replay has run on it

    @classmethod
    async def open(cls, template: Template, clock: Callable[[], float]) -> Link:
        """Connects, authenticates, has PING answered, and learns how the server knows this link.

        Each step may take the template's timeout: on a long way a handshake of five round trips
        takes longer than that, and proves all the while that the server lives.
        """
        link = cls(await template.locate(), template.timeout)
        try:
            await link._connection.connect()  # type: ignore[no-untyped-call]  # redis-py
            link.server = template.server_of(link._connection)
            make_room(link._connection._writer)
            asks = pack((b"PING",)) + pack((b"CLIENT", b"INFO"))
            pong, info = await link.exchange(Exchange(asks, 2))
            # Any other error (NOPERM, MISCONF: PING is refused like a write) is an answer.
            if isinstance(pong, ReplyError) and pong.code in UNAVAILABLE:
                raise parse_error(link._connection, pong.message)
        except BaseException:
            link.abort()
            raise
        if isinstance(info, (bytes, str)):
            link.identity = identity_of(info, clock(), link.server)
        return link

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
                if type(reply) is not PUSH:  # that answers no command
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

    def abort(self) -> None:
        """Closes at once: nothing that was not sent may be sent after this."""
        connection = self._connection
        writer = connection._writer
        if writer is not None:
            writer.transport.abort()
        connection._reader = connection._writer = None
        connection._parser.on_disconnect()  # type: ignore[no-untyped-call]  # redis-py


async def answers(connection: AbstractConnection, timeout: float) -> None:
    """Returns as soon as the server says anything but that it is unavailable.

    Without a handshake: PING before AUTH is answered, with an error, by a server that lives.
    """
    link = Link(connection, timeout)
    try:
        await connection._connect()  # type: ignore[no-untyped-call]  # redis-py
        (reply,) = await link.exchange(Exchange(pack((b"PING",)), 1))
        if isinstance(reply, ReplyError) and reply.code in UNAVAILABLE:
            raise ConnectionError(reply.message)
    finally:
        link.abort()
