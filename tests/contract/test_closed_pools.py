"""Whoever owns a pool closes it while others wait for their replies: no outage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from resilient_redis import OutcomeUnknown
from tests.contract.helpers import Client, guarded, never_opens, outcome, sent, until, warm
from tests.support.flavours import RedisCircuitBreaker
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

pytestmark = pytest.mark.server

AWAITED: dict[str, tuple[Callable[[Client], Any], Any]] = {
    "read": (lambda c: c.get("read"), b"1"),
    "written": (lambda c: c.set("written", 1), True),
    "both": (lambda c: c.pipeline().set("both", 1).get("both").execute(), [True, b"1"]),
    "counter": (lambda c: c.incr("counter"), OutcomeUnknown),
    "list": (lambda c: c.blpop("list", 5), OutcomeUnknown),
}


@pytest.mark.parametrize("fresh", [True, False])
async def test_whoever_owns_the_pool_closes_it(valkey_rig: Rig, fresh: bool) -> None:
    """While replies are awaited: it says nothing about the server. Each goes on by its safety."""
    breaker = RedisCircuitBreaker(failure_threshold=1, deadline=2.0)
    async with (
        ChaosProxy(valkey_rig.port) as proxy,
        guarded(proxy.port, breaker, socket_timeout=None) as client,
        never_opens(breaker),
    ):
        valkey_rig.admin.set("read", 1)
        if not fresh:
            await warm(client, len(AWAITED))
        lost = {key: proxy.drop_replies(key.encode()) for key in AWAITED}
        calls = [asyncio.create_task(outcome(call(client))) for call, _ in AWAITED.values()]
        for key, fault in lost.items():
            await proxy.seen(key.encode())
            if key != "list":  # nothing comes for that one
                await until(partial(getattr, fault, "fired"))
        proxy.clear()
        await client.connection_pool.disconnect()
        for (_, expected), call in zip(AWAITED.values(), calls, strict=True):
            result = await asyncio.wait_for(call, 1.0)
            if expected is OutcomeUnknown:
                assert isinstance(result, OutcomeUnknown)
            else:
                assert result == expected
        assert await client.get("counter") == b"1"
        assert sent(proxy, b"BLPOP") == 1
        await asyncio.gather(*(client.echo(n) for n in range(20)))


async def test_whoever_owns_the_pool_closes_it_while_it_connects(valkey_rig: Rig) -> None:
    breaker = RedisCircuitBreaker(failure_threshold=1, deadline=2.0)
    async with (
        ChaosProxy(valkey_rig.port) as proxy,
        guarded(proxy.port, breaker) as client,
        never_opens(breaker),
    ):
        proxy.half_open()
        calls = [asyncio.create_task(client.incr("n")) for _ in range(5)]
        await until(lambda: len(proxy.links) == 5)
        proxy.half_open(False)
        await client.connection_pool.disconnect()
        assert sorted([await asyncio.wait_for(call, 1.0) for call in calls]) == [1, 2, 3, 4, 5]
