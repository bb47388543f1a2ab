"""Blocking commands wait through an outage, and go on waiting at the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import TimeoutError

from resilient_redis import OutcomeUnknown
from tests.contract.helpers import (
    CLOSED,
    VALUE,
    Client,
    from_url,
    goes_away_in_use,
    guarded,
    never_opens,
    outcome,
    recovered,
    sent,
    timed,
    until,
)
from tests.support.flavours import RedisCircuitBreaker, ResilientRedis
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

pytestmark = pytest.mark.server


CALLS: dict[str, tuple[Callable[[Client, float], Any], Any, Callable[[Client], Any]]] = {
    "BLPOP": (
        lambda c, s: c.blpop(["a", "list"], s),
        (b"list", b"it"),
        lambda c: c.rpush("list", "it"),
    ),
    "BLMPOP": (
        lambda c, s: c.blmpop(s, 1, "list", direction="LEFT"),
        [b"list", [b"it"]],
        lambda c: c.rpush("list", "it"),
    ),
    "BZPOPMIN": (
        lambda c, s: c.bzpopmin("zset", s),
        (b"zset", b"it", 1.0),
        lambda c: c.zadd("zset", {"it": 1}),
    ),
    "XREAD": (
        lambda c, s: c.xread({"stream": "0"}, block=int(s * 1000)),
        None,
        lambda c: c.xadd("stream", {"it": "1"}),
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_it_waits_out_its_own_time(valkey_rig: Rig, name: str) -> None:
    call, _, _ = CALLS[name]
    breaker = RedisCircuitBreaker()
    async with from_url(valkey_rig.port, breaker) as client:
        await goes_away_in_use(client, valkey_rig, breaker)
        started = time.monotonic()
        assert not await call(client, 0.3)
        assert 0.29 <= time.monotonic() - started < 0.45


@pytest.mark.parametrize("seconds", [5.0, 0])
@pytest.mark.parametrize("name", CALLS)
async def test_it_goes_on_at_the_server(rig: Rig, name: str, seconds: float) -> None:
    if name == "BLMPOP":
        rig.needs("7.0", name)
    call, found, fill = CALLS[name]
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    async with from_url(rig.port, breaker, socket_timeout=None) as client:
        await goes_away_in_use(client, rig, breaker)
        waiting = asyncio.create_task(call(client, seconds))
        await asyncio.sleep(0.1)
        rig.restart()
        await recovered(breaker)
        await until(lambda: rig.calls("client|info") >= 0 and breaker.state == CLOSED)
        assert not waiting.done()
        await fill(rig_client := client)
        reply = await asyncio.wait_for(waiting, 2.0)
        assert reply == found if found is not None else len(reply) == 1
        assert await rig_client.echo("clean") == b"clean"


async def test_the_time_that_has_passed_is_not_waited_again(valkey_rig: Rig) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    async with from_url(valkey_rig.port, breaker) as client:
        await goes_away_in_use(client, valkey_rig, breaker)
        waiting = asyncio.create_task(timed(client.blpop("list", 1.0)))
        await asyncio.sleep(0.5)
        valkey_rig.restart()
        assert 0.95 < await waiting < 1.4


async def test_a_pop_in_flight_is_unknown_and_a_read_is_not(rig: Rig) -> None:
    async with ChaosProxy(rig.port) as proxy:
        breaker = RedisCircuitBreaker(recovery_timeout=0.1)
        async with from_url(proxy.port, breaker, socket_timeout=None) as client:
            pop = asyncio.create_task(client.blpop("list", 5))
            read = asyncio.create_task(client.xread({"stream": "0"}, block=5000))
            await proxy.seen(b"BLPOP")
            await proxy.seen(b"XREAD")
            proxy.cut_all()
            with pytest.raises(OutcomeUnknown):
                await pop
            await client.xadd("stream", {"it": "1"})
            assert len(await asyncio.wait_for(read, 2.0)) == 1


async def test_by_the_facade(valkey_rig: Rig) -> None:
    async with ResilientRedis.from_url(
        f"redis://127.0.0.1:{valkey_rig.port}", recovery_timeout=0.1
    ) as client:
        await goes_away_in_use(client, valkey_rig, client.breaker)
        assert await timed(client.blpop("list", 0.2)) >= 0.19
        waiting = asyncio.ensure_future(client.blpop("list", 5))
        await asyncio.sleep(0.05)
        await client.rpush("list", "it")
        valkey_rig.restart()
        assert await asyncio.wait_for(waiting, 3.0) == (b"list", b"it")


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
async def test_a_waiting_consumer_can_be_cancelled(valkey_rig: Rig) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    async with from_url(valkey_rig.port, breaker) as client:
        await goes_away_in_use(client, valkey_rig, breaker)
        waiting = asyncio.create_task(client.blpop("list", 0))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        valkey_rig.restart()
        await recovered(breaker)
        await client.rpush("list", "it")
        assert await client.lpop("list") == b"it"


# -- longer than the socket may -------------------------------------------------------------------


POPS: dict[str, Callable[[Client], Any]] = {
    "BLPOP": lambda c: c.blpop("list", 0),
    "BZPOPMIN": lambda c: c.bzpopmin("zset", 9),
    "BLMOVE": lambda c: c.blmove("list", "list", 9),
    "pipeline": lambda c: c.pipeline(transaction=False).blpop("list", 9).rpush("l", 1).execute(),
}


@pytest.mark.parametrize("name", POPS)
async def test_a_pop_is_never_sent_twice(valkey_rig: Rig, name: str) -> None:
    """redis-py's own retry sends it 11 times: what one of these takes out as its time ends is
    nobody's, and nobody is told. So: one error when the socket's time is over, and nobody waits.
    """
    breaker = RedisCircuitBreaker(deadline=0.2)
    async with (
        ChaosProxy(valkey_rig.port) as proxy,
        guarded(proxy.port, breaker, socket_timeout=0.3) as client,
        never_opens(breaker),
    ):
        started = time.monotonic()
        error = await outcome(POPS[name](client))
        assert 0.28 < time.monotonic() - started < 0.6
        assert isinstance(error, OutcomeUnknown)
        assert isinstance(error, TimeoutError)
        assert sent(proxy, b"BLPOP" if name == "pipeline" else name.encode()) == 1
        await client.rpush("list", VALUE)
        assert await client.lrange("list", 0, -1) == [VALUE.encode()]


async def test_a_read_that_waits_is_repeated_as_in_redis_py(valkey_rig: Rig) -> None:
    """It takes nothing out."""
    breaker = RedisCircuitBreaker(deadline=0.2)
    async with (
        ChaosProxy(valkey_rig.port) as proxy,
        guarded(proxy.port, breaker, socket_timeout=0.3) as client,
        never_opens(breaker),
    ):
        waiting = asyncio.create_task(client.xread({"stream": "0"}, block=5000))
        await until(lambda: sent(proxy, b"XREAD") == 2)
        await client.xadd("stream", {"it": 1})
        assert len(await waiting) == 1
