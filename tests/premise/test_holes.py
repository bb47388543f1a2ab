"""Where a default goes over real data though one task reads and writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from resilient_redis.events import PremisesFailed
from tests.contract.recovery_helpers import guarded, healthy, proxied, until
from tests.support.servers import Rig

pytestmark = pytest.mark.server

OPTIONS: dict[str, Any] = {"client": {"decode_responses": True}}


async def test_a_loop_that_retries_the_write_alone(valkey_rig: Rig) -> None:
    """`CommandRefused` is a `redis.ConnectionError`, for which applications have retries."""
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await client.set("k", "real")
        guard.breaker.force_open()
        p = await client.get("k") or "default"
        await guard.reopened()
        refused = 0
        for _ in range(3):
            try:
                await client.set("k", p)
            except ConnectionError:
                refused += 1
        assert valkey_rig.admin.get("k") == "real"
        assert refused == 3
        assert await client.get("k") == "real"
        assert await client.set("k", "on purpose") is True


@pytest.mark.parametrize("how", ["drain goes on", "drain is interrupted"])
async def test_what_comes_into_being_before_its_turn(valkey_rig: Rig, how: str) -> None:
    """The key is absent when the drain begins. Before the default is replayed another client
    writes it, or a backup is restored.
    """
    async with proxied(valkey_rig, batch_size=1, **OPTIONS) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        for n in range(50):
            await asyncio.create_task(client.rpush("list", n))
        p = await client.get("k") or "default"
        await client.set("k", p)
        slow = proxy.latency(0.01, match=b"TIME", direction="down")
        guard.breaker.reset()
        await until(lambda: valkey_rig.admin.llen("list") > 3)
        if how == "drain is interrupted":
            await proxy.refuse()
            proxy.cut_all()
            await until(lambda: not guard.breaker.closed)
        valkey_rig.admin.set("k", "real")
        slow.end()
        await proxy.accept()
        await guard.recovered()
        assert valkey_rig.admin.get("k") == "real"
        assert sum(event.count for event in guard.seen(PremisesFailed)) == 1
        assert valkey_rig.admin.llen("list") == 50


async def test_what_comes_into_being_at_the_last_moment(valkey_rig: Rig) -> None:
    """Between the question whether the key exists, and the default that is on its way."""
    async with proxied(valkey_rig, **OPTIONS) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        p = await client.get("k") or "a default"
        await client.set("k", p)
        on_its_way = proxy.stall(b"a default")
        guard.breaker.reset()
        await until(lambda: on_its_way.fired)
        valkey_rig.admin.set("k", "real")
        on_its_way.end()
        await guard.recovered()
        assert valkey_rig.admin.get("k") == "real"
        assert sum(event.count for event in guard.seen(PremisesFailed)) == 1


@pytest.mark.parametrize("piped", [False, True], ids=["one by one", "in a pipeline"])
async def test_what_is_replaced_is_not_lost_altogether(valkey_rig: Rig, piped: bool) -> None:
    """`DEL k · HSET k`: both, or neither."""
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await client.hset("k", mapping={"doc": "real"})
        guard.breaker.force_open()
        p = await client.hgetall("k") or {"doc": "new"}
        if piped:
            await client.pipeline(transaction=False).delete("k").hset("k", mapping=p).execute()
        else:
            await client.delete("k")
            await client.hset("k", mapping=p)
        await guard.reopened()
        assert valkey_rig.admin.hgetall("k") in ({"doc": "new"}, {"doc": "real"})


async def test_getdel_is_a_read(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await client.set("k", "real")
        guard.breaker.force_open()
        p = await client.getdel("k") or "default"
        await client.set("k", p)
        await guard.reopened()
        assert valkey_rig.admin.get("k") == "real"
