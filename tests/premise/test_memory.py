"""What is remembered of neutral reads is bounded, goes with its task, and costs nothing while
closed.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

from resilient_redis.core.premise import MAX_KEYS
from tests.contract.helpers import warm
from tests.contract.recovery_helpers import guarded, healthy, until
from tests.support.servers import Rig

pytestmark = pytest.mark.server

MANY = 5000  # tasks, or reads
A_KEY = 200  # B, with all that remembers it
OPTIONS: dict[str, Any] = {"client": {"decode_responses": True}}


def _held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
@pytest.mark.asyncio_only("how much is held is the same for a thread")
async def test_one_long_task_has_a_bound(valkey_rig: Rig) -> None:
    """12,000 keys read by one task: what is beyond the bound is not held."""
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await healthy(client)
        guard.breaker.force_open()
        tracemalloc.start()
        before = _held()
        for n in range(MAX_KEYS):
            assert await client.get(f"some-key:{n:08d}") is None
        full = _held() - before
        for n in range(MAX_KEYS, MAX_KEYS + 4000):
            assert await client.get(f"some-key:{n:08d}") is None
        beyond = _held() - before - full
        tracemalloc.stop()
        print(f"{MAX_KEYS} keys of one task: {full / 1e6:.2f} MB; 4,000 more: {beyond} B")
        assert full < MAX_KEYS * A_KEY * 1.5
        assert beyond < 10_000
        valkey_rig.admin.set("never read", "real")
        assert await client.set("never read", "default")
        await guard.reopened()
        assert valkey_rig.admin.get("never read") == "real", "beyond it, any write has a premise"


@pytest.mark.asyncio_only("how much is held is the same for a thread")
async def test_one_command_has_a_bound(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await healthy(client)
        guard.breaker.force_open()
        tracemalloc.start()
        before = _held()
        assert not any(await client.mget([f"k{n:08d}" for n in range(10 * MAX_KEYS)]))
        held = _held() - before
        tracemalloc.stop()
        assert held < MAX_KEYS * A_KEY * 2


async def _told_by_each(client: Any) -> None:
    for connection in client.connection_pool._available_connections:
        await connection.send_command("GET", "key")
        assert await connection.read_response() is None


async def test_what_ends_is_forgotten(valkey_rig: Rig) -> None:
    """5,000 tasks, each with a key of its own: when they have ended nothing is left of them."""
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await warm(client, 50)
        guard.breaker.force_open()
        # A pool keeps as many connections as were used at a time, each with a buffer of 32 KiB.
        await asyncio.create_task(_told_by_each(client))
        tracemalloc.start()
        before = _held()

        async def request(n: int) -> None:
            assert await client.get(f"key:{n}") is None

        for start in range(0, MANY, 50):
            tasks = {asyncio.create_task(request(n)) for n in range(start, start + 50)}
            while tasks:  # `wait` would be a way to be told what they were
                await asyncio.sleep(0)
                tasks = {task for task in tasks if not task.done()}
        await until(lambda: not guard.breaker.provenance)  # the last one's thread is ending
        left = _held() - before
        tracemalloc.stop()
        print(f"{MANY} tasks that have read and ended: {left} B are left")
        assert left < 100_000


async def test_it_costs_nothing_while_closed(valkey_rig: Rig) -> None:
    """Read, modified and written on a healthy server: nothing is remembered, the path is short."""
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        for n in range(500):
            assert await client.get(f"k{n}") is None
            assert await client.set(f"k{n}", "default")
            assert guard.breaker.live
            assert not guard.breaker.provenance


async def test_the_short_path_is_back_after_an_outage(valkey_rig: Rig) -> None:
    """As soon as who was told things has been told the truth, or has ended."""
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await client.set("k", "real")
        guard.breaker.force_open()
        assert await client.get("k") is None
        reading = asyncio.create_task(_get(client, "other"))
        await until(reading.done)
        del reading
        await guard.reopened()
        assert guard.breaker.provenance
        assert await client.get("k") == "real"
        gc.collect()
        assert await client.set("k", "changed")
        assert guard.breaker.live
        assert not guard.breaker.provenance
        assert valkey_rig.admin.get("k") == "changed"


async def _get(client: Any, key: str) -> None:
    assert await client.get(key) is None
