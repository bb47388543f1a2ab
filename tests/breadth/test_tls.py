"""TLS through what networks do to it: nobody can say which part of a record has arrived."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from resilient_redis.asyncio import OutcomeUnknown, RedisCircuitBreaker, ResilientRedis
from resilient_redis.seam.sockets import unsent
from tests.breadth.story import QUICK, Place, in_use
from tests.contract.helpers import CLOSED, outcome, recovered, until
from tests.contract.recovery_helpers import raised
from tests.support.faults import DOWN, FIN, RST
from tests.support.proxy import ChaosProxy
from tests.surface.helpers import aside

pytestmark = pytest.mark.server


@asynccontextmanager
async def encrypted(
    place: Place, **options: Any
) -> AsyncIterator[tuple[ChaosProxy, ResilientRedis, RedisCircuitBreaker]]:
    """A client whose ciphertext goes through the chaos proxy, certificate checks on."""
    async with ChaosProxy(place.tls.port) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        async with ResilientRedis.from_url(
            url, **{**QUICK, "ssl_ca_certs": place.authority, **options}
        ) as client:
            try:
                yield proxy, client, client.breaker
            finally:
                proxy.clear()


# The TLS 1.3 record of an INCR is some 50 bytes: 5 of a header, the command, 17 of a trailer.
@pytest.mark.parametrize("cut", [0, 1, 5, 20, 43])
async def test_half_a_record_of_a_counter(place: Place, cut: int) -> None:
    """It cannot have run, but nobody here can know: OutcomeUnknown, and it is not sent again."""
    async with encrypted(place, failure_threshold=3) as (proxy, client, breaker):
        assert await client.incr("n") == 1
        record = len(proxy.links[-1].sent)
        assert await client.incr("n") == 2
        record = len(proxy.links[-1].sent) - record
        assert record > 43
        proxy.cut_at(cut)
        with pytest.raises(OutcomeUnknown):
            await client.incr("n")
        assert breaker.state == CLOSED
        assert await client.incr("n") == 3  # the fence was put up over TLS
        assert breaker.pending == 0


async def test_the_whole_record_and_no_reply(place: Place) -> None:
    async with encrypted(place, failure_threshold=3) as (proxy, client, _):
        assert await client.incr("n") == 1
        proxy.cut_on_reply()
        with pytest.raises(OutcomeUnknown):
            await client.incr("n")
        assert await client.incr("n") == 3


@pytest.mark.parametrize("how", [FIN, RST])
@pytest.mark.parametrize("cut", [0, 5, 40])
async def test_half_a_record_of_what_is_safe_twice(place: Place, cut: int, how: str) -> None:
    async with encrypted(place, failure_threshold=3) as (proxy, client, breaker):
        assert await client.set("k", "1") is True
        proxy.cut_at(cut, how=how)
        assert await client.set("k", "2") is True
        proxy.cut_at(cut, how=how)
        assert await client.get("k") == b"2"
        assert breaker.state == CLOSED
        assert not in_use(client)


async def test_half_a_record_of_a_reply(place: Place) -> None:
    async with encrypted(place, failure_threshold=3) as (proxy, client, _):
        await client.set("long", "x" * 1000)
        stalled = proxy.trickle(100)
        stalled.direction = DOWN
        reading = asyncio.create_task(aside(client.get, "long"))
        link = proxy.links[-1]
        received = len(link.received)
        await until(lambda: len(link.received) > received)
        proxy.cut_all()
        assert await reading == b"x" * 1000


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="there asyncio's TLS has no buffer of its own to be filled"
)
@pytest.mark.parametrize("size", [10, 8 << 20])
async def test_a_write_that_has_not_left(place: Place, size: int) -> None:
    """On plain TCP its last byte would tell that it cannot have run. What TLS keeps back are
    records, and which of a command's have left it does not say.
    """
    async with encrypted(place, failure_threshold=3) as (proxy, client, breaker):
        assert await client.rpush("l", "1") == 1
        pool: Any = client.connection_pool
        writer = pool._available_connections[0]._writer
        writer.transport._ssl_protocol.pause_writing()  # as the socket does that takes no more
        writing = asyncio.create_task(raised(client.rpush("l", "x" * size)))
        await until(writer.transport.get_write_buffer_size)
        assert not unsent(writer)
        proxy.cut_all()
        assert isinstance(await writing, OutcomeUnknown)
        assert breaker.pending == 0
        assert await client.llen("l") == 1  # it was aborted: what had not left never leaves


async def test_a_handshake_that_nobody_answers(place: Place) -> None:
    async with encrypted(place) as (proxy, client, breaker):
        proxy.half_open()
        assert await outcome(asyncio.wait_for(client.get("k"), 2.0)) is None
        assert breaker.state != CLOSED
        assert await client.set("k", "v") is True
        proxy.half_open(False)
        await recovered(breaker)
        assert await client.get("k") == b"v"
