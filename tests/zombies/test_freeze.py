"""A write that a frozen server still holds does not land on what is replayed after the thaw.

A small command is executed the moment the server wakes up, before anybody can forbid it (100 of
100), and before anything is replayed: no harm is done. One that does not fit into one read (16 KiB)
is read bit by bit, while newer connections are served in between: so these are large. CLIENT KILL
of the old connections, before the first replayed write, is what stops them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any

import pytest
import redis.exceptions
from redis.asyncio import Redis

import resilient_redis.flow.handshake
import resilient_redis.flow.recovery
from resilient_redis.asyncio import OutcomeUnknown, RedisCircuitBreaker, ResilientConnection
from tests.support.servers import Rig

from .counting import NEW, OLD, late

CONNECTIONS = 100
# Values of one RPUSH: a wide one widens the kernel's window, so that a large one fits into the
# buffers of a server that reads nothing. How much fits is the kernel's secret: hence all sizes.
WIDE = 25_000
LARGE = range(4_000, 16_000, 12_000 // CONNECTIONS)
ROUNDS = 12  # in which the control must see a zombie
SETTLE = 1.5  # s; by then the server has read all that there was


async def _push(client: Any, number: int, word: bytes, count: int) -> str:
    values = [b"%b:%d:%020d" % (word, number, i) for i in range(count)]
    try:
        await client.rpush(f"{'warm' if word == b'warm' else 'key'}:{number}", *values)
    except redis.exceptions.RedisError as error:
        return type(error).__name__
    return "ok"


async def zombies_of_a_freeze(rig: Rig) -> int:
    """How many of 100 timed-out writes land after the writes that were queued behind them."""
    breaker = RedisCircuitBreaker(
        failure_threshold=1, deadline=0.4, recovery_timeout=0.05, probe_timeout=3.0
    )
    clients = [
        Redis.from_url(
            rig.url,
            connection_class=ResilientConnection,
            breaker=breaker,
            single_connection_client=True,
            socket_timeout=0.5,
        )
        for _ in range(CONNECTIONS)
    ]
    for number, client in enumerate(clients):
        assert await _push(client, number, b"warm", WIDE) == "ok"
    rig.freeze()
    old = (_push(client, n, OLD, LARGE[n]) for n, client in enumerate(clients))
    assert set(await asyncio.gather(*old)) == {OutcomeUnknown.__name__}
    for number in range(CONNECTIONS):
        await clients[0].delete(f"key:{number}")
        await clients[0].rpush(f"key:{number}", NEW)
    await asyncio.sleep(0.2)
    rig.thaw()
    deadline = time.monotonic() + 20
    while breaker.busy:
        assert time.monotonic() < deadline, "no recovery"
        await asyncio.sleep(0.005)
    await asyncio.sleep(SETTLE)
    found = late(rig.effects())
    for client in clients:
        await client.aclose()
    await breaker.aclose()
    print(f"{len(found)} of {CONNECTIONS} writes landed on newer ones")
    return len(found)


@pytest.mark.server
@pytest.mark.alone
async def test_nothing_old_lands_behind_the_fence(rig: Rig) -> None:
    assert await zombies_of_a_freeze(rig) == 0


@pytest.mark.server
@pytest.mark.alone
@pytest.mark.timeout(180)  # a round takes 5 s, and every second one shows a zombie
async def test_without_the_fence_it_does(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fence(*_: object) -> Generator[Any, Any, bool]:
        yield from ()
        return True

    monkeypatch.setattr(resilient_redis.flow.recovery, "fence", no_fence)
    monkeypatch.setattr(resilient_redis.flow.handshake, "fence", no_fence)
    for _ in range(ROUNDS):
        if await zombies_of_a_freeze(rig) > 0:
            return
        assert rig.reset()
    pytest.fail("no zombies without the fence: this test cannot see any")
