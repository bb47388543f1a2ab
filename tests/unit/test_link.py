"""What the recovery connection makes of the bytes that come."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from resilient_redis.asyncio.link import Link
from resilient_redis.core.exchange import Exchange, ReplyError
from resilient_redis.seam.replies import PUSH


class Writer:
    """A socket that takes everything."""

    def __init__(self) -> None:
        self.transport = self
        self.sent = b""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.sent += data


def make_link() -> Link:
    connection: Any = SimpleNamespace(_reader=asyncio.StreamReader(), _writer=Writer())
    return Link(connection, 0.1)


def feed(link: Link, data: bytes) -> None:
    reader = link._connection._reader
    assert reader is not None
    reader.feed_data(data)


async def test_replies_that_are_not_asked_for_yet_are_kept() -> None:
    link = make_link()
    feed(link, b"+OK\r\n:1\r\n-WRONG type\r\n*2\r\n$-1\r\n-ERR in it\r\n:5\r\n")
    assert await link.exchange(Exchange(b"", 0)) == []
    assert await link.exchange(Exchange(b"", 1)) == [b"OK"]
    one, error, (nil, inner) = await link.exchange(Exchange(b"", 3))
    assert (one, nil) == (1, None)
    assert isinstance(error, ReplyError)
    assert isinstance(inner, ReplyError)
    assert await link.exchange(Exchange(b"", 1)) == [5]


async def test_replies_that_come_in_pieces() -> None:
    link = make_link()
    asking = asyncio.create_task(link.exchange(Exchange(b"", 3)))
    for piece in (b"+O", b"K\r\n$3\r\n", b"a\r\n\r\n:", b"7\r\n"):
        await asyncio.sleep(0)
        feed(link, piece)
    assert await asking == [b"OK", b"a\r\n", 7]


@pytest.mark.skipif(PUSH is None, reason="this hiredis does not tell a push from a reply")
async def test_a_push_answers_no_command() -> None:
    link = make_link()
    push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
    feed(link, push + b"+OK\r\n" + push + push + b":1\r\n")
    assert await link.exchange(Exchange(b"", 2)) == [b"OK", 1]
