"""What goes on for longer than one command: scans, MONITOR, client tracking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis._parsers import _AsyncHiredisParser, _AsyncRESP2Parser
from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from resilient_redis.asyncio import CommandRefused, ResilientConnection
from tests.breadth.story import by_facade, every_way, goes_down, in_use, quick
from tests.contract.helpers import outcome, recovered
from tests.support.servers import Rig
from tests.surface.helpers import aside

pytestmark = pytest.mark.server

# -- scans -----------------------------------------------------------------------------------------

MANY = 600  # far more than one reply of SCAN holds, and stored as a table, not as a list
SCANS: dict[str, Callable[[Any], AsyncIterator[Any]]] = {
    "SCAN": lambda c: c.scan_iter("key:*", count=20),
    "HSCAN": lambda c: c.hscan_iter("h", count=20),
    "SSCAN": lambda c: c.sscan_iter("s", count=20),
    "ZSCAN": lambda c: c.zscan_iter("z", count=20),
}


async def fill(client: Any) -> None:
    numbers = range(MANY)
    await client.mset({f"key:{n}": n for n in numbers})
    await client.hset("h", mapping={f"f{n}": n for n in numbers})
    await client.sadd("s", *(f"m{n}" for n in numbers))
    await client.zadd("z", {f"m{n}": n for n in numbers})


@every_way
@pytest.mark.parametrize("name", SCANS)
async def test_a_scan_that_an_outage_interrupts(rig: Rig, name: str, way: Any) -> None:
    """Half of it looks like all of it: it raises, as it would in redis-py."""
    async with way(rig.url) as (client, breaker):
        await fill(client)
        assert len([item async for item in SCANS[name](client)]) >= MANY
        seen = 0

        async def through() -> None:
            nonlocal seen
            async for _ in SCANS[name](client):
                seen += 1
                if seen == 30:
                    await goes_down(rig, client, breaker)

        with pytest.raises(CommandRefused):
            await through()
        assert 30 <= seen < MANY
        rig.restart()
        await recovered(breaker)
        assert len({item async for item in SCANS[name](client)}) == MANY
        assert not in_use(client)


@every_way
@pytest.mark.parametrize("name", SCANS)
async def test_a_scan_that_begins_during_an_outage(rig: Rig, name: str, way: Any) -> None:
    """Of one key: it is empty. Of the keyspace: refused, or a clean-up would think all was done."""

    async def found(client: Any) -> list[Any]:
        return [item async for item in SCANS[name](client)]

    async with way(rig.url) as (client, breaker):
        await fill(client)
        await goes_down(rig, client, breaker)
        if name == "SCAN":
            with pytest.raises(CommandRefused):
                await found(client)
        else:
            assert await aside(found, client) == []
        with pytest.raises(CommandRefused):
            await client.execute_command(name, *(() if name == "SCAN" else ("h",)), 42)
        assert breaker.pending == 0


# -- MONITOR ---------------------------------------------------------------------------------------


@every_way
async def test_monitor(rig: Rig, way: Any) -> None:
    async with way(rig.url, failure_threshold=2) as (client, breaker):

        async def heard(monitor: Any, word: str) -> None:
            async for command in monitor.listen():
                if word in command["command"]:
                    return

        await client.get("k")
        async with client.monitor() as monitor:
            await client.set("k", "word-1")
            await asyncio.wait_for(heard(monitor, "word-1"), 2.0)
        assert not in_use(client)
        for n in range(5):
            assert await client.echo(str(n)) == str(n).encode()

        async with client.monitor() as monitor:
            listening = asyncio.create_task(heard(monitor, "never"))
            await asyncio.sleep(0)
            rig.kill()
            assert isinstance(await asyncio.wait_for(outcome(listening), 2.0), ConnectionError)
        assert not in_use(client)
        await goes_down(rig, client, breaker)
        # Its connection has to be given back by hand, as in redis-py: __aenter__ has failed.
        refused = client.monitor()
        with pytest.raises(CommandRefused):
            await refused.__aenter__()
        await client.connection_pool.release(refused.connection)
        assert await aside(client.get, "k") is None
        rig.restart()
        await recovered(breaker)
        async with client.monitor() as monitor:
            await client.set("k", "word-2")
            await asyncio.wait_for(heard(monitor, "word-2"), 2.0)
        for n in range(5):
            assert await client.echo(str(n)) == str(n).encode()


# -- pushes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parser", [_AsyncHiredisParser, _AsyncRESP2Parser], ids=["C", "Python"])
@pytest.mark.parametrize("guard", [False, True], ids=["stock", "guarded"])
async def test_client_tracking(rig: Rig, guard: bool, parser: Any) -> None:
    """Invalidations come between replies, and in the middle of a pipeline's; stock shows that the
    test asks for nothing more than redis-py gives.
    """
    breaker = quick()
    options: dict[str, Any] = {"protocol": 3, "parser_class": parser}
    if guard:
        options |= {"connection_class": ResilientConnection, "breaker": breaker}
    client: Any = Redis.from_url(rig.url, single_connection_client=True, **options)
    invalid: list[Any] = []

    async def invalidated(message: Any) -> None:
        invalid.append(message[1])

    try:
        await client.initialize()
        client.connection._parser.set_invalidation_push_handler(invalidated)
        assert await client.client_tracking_on(bcast=True, prefix=["k"]) == b"OK"
        for n in range(5):
            rig.admin.set("k", n)
            rig.admin.ping()
            pipe = client.pipeline(transaction=False)
            for i in range(50):
                pipe.set(f"k{i}", n).get(f"k{i}").echo(f"{n}-{i}")
            replies = await pipe.execute()
            assert replies[2::3] == [f"{n}-{i}".encode() for i in range(50)]
            assert replies[1::3] == [str(n).encode()] * 50
            rig.admin.set("k", "between")
            assert await client.echo(str(n)) == str(n).encode()
            assert await client.get("k") == b"between"
        told = {key for keys in invalid for key in keys}
        assert told == {b"k", *(b"k%d" % i for i in range(50))}
    finally:
        await client.aclose()
        await breaker.aclose()


async def test_client_tracking_through_an_outage(rig: Rig) -> None:
    """What the server knew of the connection is gone with it, as in redis-py; no reply is."""
    async with by_facade(rig.url, protocol=3, single_connection_client=True) as (client, breaker):
        await client.initialize()
        invalid: list[Any] = []

        async def invalidated(message: Any) -> None:
            invalid.append(message[1])

        client.client.connection._parser.set_invalidation_push_handler(invalidated)
        await client.client_tracking_on(bcast=True)
        rig.admin.set("k", "v")
        assert await client.get("k") == b"v"
        assert invalid == [[b"k"]]
        await goes_down(rig, client, breaker)
        with pytest.raises(CommandRefused):
            await client.client_tracking_on(bcast=True)
        with pytest.raises(CommandRefused):
            await client.client_tracking_off()
        assert await client.rpush("l", 1) == "OK"
        rig.restart()
        await recovered(breaker)
        rig.admin.set("k", "w")
        assert await client.get("k") == b"w"
        assert await client.lrange("l", 0, -1) == [b"1"]
        assert invalid == [[b"k"]]
        await client.client_tracking_on(bcast=True)
        rig.admin.set("k", "x")
        assert await client.get("k") == b"x"
        assert invalid == [[b"k"], [b"k"]]
