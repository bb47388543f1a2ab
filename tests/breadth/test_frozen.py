"""A server that hangs, over every kind of socket: nothing tells of it, and nothing lands late."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from resilient_redis.asyncio import OutcomeUnknown, Queued
from tests.breadth.story import Place, in_use, nothing_is_left
from tests.breadth.test_kinds import WAYS
from tests.contract.helpers import CLOSED, outcome, recovered, until
from tests.surface.helpers import aside

pytestmark = pytest.mark.server

KINDS = (
    "Unix socket, façade",
    "TLS, façade",
    "single_connection_client",
    "a blocking pool of one",
    "RESP2, Python parser",
    "health checks all the time",
)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_frozen_server(place: Place, kind: str) -> None:
    """Reads and queued writes are answered within a deadline or so; what was in flight when it
    froze is applied before what came later, and once, or its caller is told that nobody knows.
    """
    client, breaker = WAYS[kind](place)
    rig = place.rig
    alone = "one" in kind or "single" in kind  # a second command waits for the first
    try:
        assert await client.set("k", "-1") is True
        assert await client.rpush("l", "-1") == 1
        for n in range(2):
            if not alone:
                await asyncio.gather(client.get("k"), client.get("k"))  # two connections
            rig.freeze()
            started = time.monotonic()
            in_flight: list[asyncio.Task[Any]] = [
                asyncio.create_task(outcome(client.set("k", f"{n}-in flight")))
            ]
            if not alone:
                in_flight.append(asyncio.create_task(outcome(client.rpush("l", f"{n}-in flight"))))
            assert await aside(client.get, "k") is None
            assert await in_flight[0] is True
            assert time.monotonic() - started < 1.5  # 0.3 s, or three of these in a row
            assert breaker.state != CLOSED
            assert await client.set("k", str(n)) is True
            assert await client.rpush("l", n) == "OK"
            rig.thaw()
            await recovered(breaker)
            assert await client.get("k") == str(n).encode()
            for told in await asyncio.gather(*in_flight[1:]):
                # Its reply came late, nobody knows, or it had no connection yet: queued.
                assert isinstance(told, (int, OutcomeUnknown, Queued)), told
            await until(lambda: not in_use(client))
        found = await client.lrange("l", 0, -1)
        assert [item for item in found if b"in flight" not in item] == [b"-1", b"0", b"1"]
        assert len(set(found)) == len(found)
        for n in range(2):
            late = f"{n}-in flight".encode()
            assert late not in found or found.index(late) < found.index(str(n).encode())
        assert breaker.dead_letters == ()
        # Nor does anything land later.
        await client.aclose()
        await client.connection_pool.disconnect()
        await nothing_is_left(rig)
        assert rig.admin.get("k") == "1"
        assert rig.admin.llen("l") == len(found)
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()
        await breaker.aclose()
