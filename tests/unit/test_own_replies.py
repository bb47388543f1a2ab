"""RESP of ours through redis-py's parsers, whichever of them a connection happens to have."""

from __future__ import annotations

from typing import Any

import pytest
from redis._parsers import Encoder, _AsyncRESP2Parser, _AsyncRESP3Parser

from resilient_redis.core.catalog import shape_of
from resilient_redis.core.wire import reply_bytes
from resilient_redis.seam.replies import HIREDIS, OwnReplies
from tests.unit.test_catalog_samples import NEUTRAL, QUEUED

# The parsers that a connection may have before it has stood, by the protocol that it will speak.
PAIRS: list[tuple[Any, int]] = [
    (_AsyncRESP2Parser, 2),
    (_AsyncRESP2Parser, 3),
    (_AsyncRESP3Parser, 3),
]
if HIREDIS:
    from redis._parsers import _AsyncHiredisParser

    PAIRS += [(_AsyncHiredisParser, 2), (_AsyncHiredisParser, 3)]


@pytest.mark.parametrize("parser, protocol", PAIRS)
async def test_every_reply_can_be_read(parser: Any, protocol: int) -> None:
    """redis-py before version 8 changes a connection's parser to that of RESP3 in its first
    handshake: what is answered before that must be read all the same.
    """
    encoder: Any = Encoder("utf-8", "strict", True)  # type: ignore[no-untyped-call]  # redis-py
    own = OwnReplies(parser(socket_read_size=65536), encoder, protocol)
    for sample in (*NEUTRAL, *QUEUED):
        own.parse(reply_bytes(shape_of(sample), protocol), False)
    assert own.parse(b"$5\r\nvalue\r\n", False) == "value"
