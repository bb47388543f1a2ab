"""`Link` for asyncio."""

from __future__ import annotations

import asyncio

from redis.exceptions import ConnectionError, TimeoutError

from ..core.exchange import Exchange, Replies
from ..flow.link import LinkBase
from ..seam.sockets import make_room


class Link(LinkBase):
    """See `flow/link.py`."""

    async def _connect(self) -> None:
        await self._connection.connect()
        make_room(self._connection._writer)

    async def _connect_bare(self) -> None:
        await self._connection._connect()

    async def exchange(self, ask: Exchange) -> Replies:
        connection = self._connection
        writer, reader = connection._writer, connection._reader
        if writer is None or reader is None or writer.transport.is_closing():
            raise ConnectionError("the recovery connection is closed")
        if ask.send:
            writer.write(ask.send)
        replies: Replies = []
        while not self._collect(replies, ask.receive):
            try:
                data = await asyncio.wait_for(reader.read(65536), self._timeout)
            except asyncio.TimeoutError:
                raise TimeoutError("no answer on the recovery connection") from None
            if not data:
                raise ConnectionError("the server closed the recovery connection")
            self._replies.feed(data)
        return replies

    def abort(self) -> None:
        connection = self._connection
        writer = connection._writer
        if writer is not None:
            writer.transport.abort()
        connection._reader = connection._writer = None
        connection._parser.on_disconnect()
