"""Cache-aside through outages: what is written to the database and deleted from the cache is not
found in the cache again, whoever fills it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from resilient_redis import CommandRefused
from tests.contract.recovery_helpers import Client, healthy, proxied
from tests.support.servers import Rig

from .outages import AFTER, DRAIN, KINDS, OUTAGE, Course

pytestmark = [pytest.mark.server, pytest.mark.slow]

KEYS = 120  # for each outage
LASTS = 0.3  # s
OPTIONS: dict[str, Any] = {
    "client": {"decode_responses": True, "max_connections": 1000},
    "batch_size": 20,
}


class Shop:
    """A database, and Redis in front of it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.database: dict[str, int] = {}
        self.parts: Counter[str] = Counter()  # when was deleted
        self.fills: Counter[str] = Counter()  # after a neutral read, and what became of it
        self.pauses = random.Random(0)  # between load and fill
        self._locks: dict[str, asyncio.Lock] = {}

    def lock(self, key: str) -> asyncio.Lock:
        """One at a time for each key: the race between load and fill is there without us."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def update(self, key: str, course: Course) -> None:
        """Deletes what it may have read as neutral itself: that is no premise of a DEL."""
        async with self.lock(key):
            self.parts[course.part] += 1
            await self.client.get(key)
            self.database[key] += 1
            await self.client.delete(key)

    async def look_up(self, key: str) -> int:
        """Get, or load and fill."""
        async with self.lock(key):
            found = await self.client.get(key)
            if found is not None:
                return int(found)
            version = self.database[key]
            await asyncio.sleep(self.pauses.choice((0, 0, 0.01, 0.1)))
            try:
                await self.client.set(key, version, ex=600)
            except CommandRefused:
                self.fills["refused"] += 1  # Redis is back, and holds something
            else:
                self.fills["taken"] += 1
            return version


ALONE, OTHERS, ITSELF = "deleted only", "filled by other tasks", "filled by the same task"


@pytest.mark.among_threads(filled=[OTHERS])
@pytest.mark.parametrize("filled", [ALONE, OTHERS, ITSELF])
async def test_nothing_stale_is_left(valkey_rig: Rig, filled: str) -> None:
    seed = f"cache-{random.SystemRandom().randrange(10**6)}"
    rng = random.Random(seed)
    async with proxied(valkey_rig, **OPTIONS) as (proxy, guard, client):
        await healthy(client)
        shop = Shop(client)
        for kind in KINDS:
            course = Course(guard.breaker)
            guard.breaker.add_observer(course.hear)
            keys = [f"{kind.__name__}:{n}" for n in range(KEYS)]
            shop.database.update(dict.fromkeys(keys, 1))
            valkey_rig.admin.mset(dict.fromkeys(keys, 1))  # all of it is cached
            slow = proxy.latency(0.004, match=b"TIME", direction="down")
            async with kind(valkey_rig, proxy):
                await client.set("something", "to replay")
                tasks = [asyncio.create_task(_one(shop, key, course, rng, filled)) for key in keys]
                await asyncio.sleep(LASTS)
                slow.end()
                slow = proxy.latency(0.004, match=b"TIME", direction="down")
            await course.ends()
            slow.end()
            await asyncio.wait_for(asyncio.gather(*tasks), 20)
            await guard.recovered()
    cached = dict(zip(shop.database, valkey_rig.admin.mget(list(shop.database)), strict=True))
    stale = [key for key, v in cached.items() if v is not None and int(v) != shop.database[key]]
    held = sum(value is not None for value in cached.values())
    aside = guard.breaker.counters["premise"]
    print(
        f"{seed}, {filled}: {len(cached)} entries cached, all of them outdated and deleted ("
        f"{', '.join(f'{shop.parts[part]} {part}' for part in (OUTAGE, DRAIN, AFTER))}); fills "
        f"after a neutral read: {shop.fills['taken']} taken, {aside} of them set aside, "
        f"{shop.fills['refused']} refused; cached in the end: {held}; stale: {len(stale)}"
    )
    assert not stale
    assert shop.parts[OUTAGE] >= KEYS / 2
    assert (shop.fills["taken"] >= KEYS) is (filled != ALONE)


async def _one(shop: Shop, key: str, course: Course, rng: random.Random, filled: str) -> None:
    """Updates `key` once, and looks it up before and afterwards."""
    steps: list[Coroutine[Any, Any, Any]] = [shop.update(key, course)]
    if filled != ALONE:
        for _ in range(2):
            steps.insert(rng.randrange(len(steps) + 1), shop.look_up(key))
    for step in steps:
        wanted = rng.choice((OUTAGE, OUTAGE, OUTAGE, DRAIN, AFTER))
        if wanted == OUTAGE:
            await asyncio.sleep(rng.random() * LASTS)
        else:
            await (course.closed if wanted == DRAIN else course.recovered).wait()
        if filled == ITSELF:
            await step
            continue
        # Each in a task for which nobody waits, as requests are.
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = asyncio.create_task(_request(step, done))
        await done
        await request


async def _request(step: Coroutine[Any, Any, Any], done: asyncio.Future[None]) -> None:
    try:
        await step
    finally:
        done.set_result(None)
