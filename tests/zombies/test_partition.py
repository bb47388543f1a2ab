"""A write that timed out in a partition is not delivered after the heal, over a newer one.

The kernel keeps what a closed socket has not got across, and goes on sending it: with redis-py's
own close 50 of 50 such writes arrive late (FACTS.md, "Zombie writes").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilient_redis.asyncio import OutcomeUnknown, RedisCircuitBreaker, ResilientConnection

from .conftest import Island
from .counting import NEW, OLD, late
from .namespaces import SERVER_ADDRESS

CONNECTIONS = 50
ALL = range(CONNECTIONS)
RAISED, QUEUED = ALL[0::2], ALL[1::2]  # what becomes of a guarded write
SOCKET_TIMEOUT = 0.3
# The kernel sends again after 0.2, 0.4, 0.8, 1.6 s: within this time after a cut of about 1 s.
RETRANSMISSION = 4.0


def _clients(island: Island, **options: Any) -> list[Any]:
    return [
        Redis.from_url(
            f"redis://{SERVER_ADDRESS}:{island.server.port}/0",
            single_connection_client=True,
            socket_timeout=SOCKET_TIMEOUT,
            **options,
        )
        for _ in range(CONNECTIONS)
    ]


async def _told(command: Awaitable[Any]) -> str:
    """What the caller was told."""
    try:
        await command
    except redis.exceptions.RedisError as error:
        return type(error).__name__
    return "ok"


def _push(client: Any, number: int) -> Awaitable[str]:
    return _told(client.rpush(f"key:{number}", OLD))


def _set(client: Any, number: int, value: bytes) -> Awaitable[str]:
    return _told(client.set(f"key:{number}", value))


def _renew_beyond_the_cut(island: Island, numbers: Iterable[int]) -> None:
    """A newer write on each key, acknowledged: by one who still reaches the server."""
    with island.network.inside(island.network.server):
        other = redis.Redis(port=island.server.port)
        for number in numbers:
            assert other.rpush(f"key:{number}", NEW) == 1
        other.close()


async def _renew(clients: list[Any], numbers: Iterable[int]) -> None:
    """The same through the clients themselves, once the network is back."""
    deadline = time.monotonic() + 10
    for number in numbers:
        while await _set(clients[number], number, NEW) != "ok":
            assert time.monotonic() < deadline, "the network did not come back"
            await asyncio.sleep(0.02)


async def _zombies(island: Island, enough: int) -> set[bytes]:
    """Those that land while the kernel may still send."""
    deadline = time.monotonic() + RETRANSMISSION
    while True:
        found = late(island.effects())
        if len(found) >= enough or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.1)


@pytest.mark.server
@pytest.mark.alone
async def test_no_write_of_ours_is_delivered_after_the_heal(island: Island) -> None:
    breaker = RedisCircuitBreaker(failure_threshold=5, recovery_timeout=0.2, probe_timeout=0.3)
    clients = _clients(island, connection_class=ResilientConnection, breaker=breaker)
    for client in clients:
        await client.ping()
    island.network.cut()
    told = await asyncio.gather(
        *(_set(clients[n], n, OLD) if n in QUEUED else _push(clients[n], n) for n in ALL)
    )
    assert {told[number] for number in RAISED} == {OutcomeUnknown.__name__}
    assert {told[number] for number in QUEUED} == {"ok"}
    _renew_beyond_the_cut(island, RAISED)
    await asyncio.sleep(0.5)
    island.network.heal()
    await _renew(clients, QUEUED)
    found = await _zombies(island, enough=CONNECTIONS + 1)
    applied = {e.args[1] for e in island.effects() if e.args[2:] and e.args[2] == NEW}
    print(f"{len(found)} of {CONNECTIONS} writes landed on newer ones")
    for client in clients:
        await client.aclose()
    assert await breaker.aclose(drain_timeout=5) == 0
    assert len(applied) == CONNECTIONS
    assert not found


@pytest.mark.server
@pytest.mark.alone
async def test_plain_redis_py_shows_that_this_network_makes_zombies(island: Island) -> None:
    clients = _clients(island, retry=Retry(NoBackoff(), 0))
    for client in clients:
        await client.ping()
    island.network.cut()
    told = await asyncio.gather(*(_push(c, n) for n, c in enumerate(clients)))
    assert told == ["TimeoutError"] * CONNECTIONS
    for client in clients:
        await client.aclose()
    _renew_beyond_the_cut(island, ALL)
    await asyncio.sleep(0.5)
    island.network.heal()
    found = await _zombies(island, enough=CONNECTIONS)
    print(f"{len(found)} of {CONNECTIONS} writes landed on newer ones")
    assert found
