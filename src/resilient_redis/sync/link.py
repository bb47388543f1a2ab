"""`Link` among threads."""

from __future__ import annotations

import builtins

from redis.exceptions import ConnectionError, TimeoutError

from ..core.exchange import Exchange, Replies
from ..flow.link import LinkBase
from ..seam.sockets import cut_off, make_room_for


class Link(LinkBase):
    """See `flow/link.py`."""

    def _connect(self) -> None:
        self._connection.connect()
        make_room_for(self._connection._sock)

    def _connect_bare(self) -> None:
        self._connection._sock = self._connection._connect()

    def exchange(self, ask: Exchange) -> Replies:
        sock = self._connection._sock
        if sock is None:
            raise ConnectionError("the recovery connection is closed")
        replies: Replies = []
        try:
            if ask.send:
                sock.sendall(ask.send)
            while not self._collect(replies, ask.receive):
                data = sock.recv(1 << 18)
                if not data:
                    raise ConnectionError("the server closed the recovery connection")
                self._replies.feed(data)
        except builtins.TimeoutError:
            raise TimeoutError("no answer on the recovery connection") from None
        return replies

    def abort(self) -> None:
        sock = self._connection._sock
        if sock is not None:
            cut_off(sock, reset=True)
        self._connection.disconnect()
