"""What is set aside for its premise is told: one event a drain, a dead letter each, no values."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resilient_redis.core.wire import pack
from resilient_redis.events import EntryDeadLettered, PremisesFailed, ReplayFinished
from tests.contract.recovery_helpers import Client, guarded, healthy, proxied, until
from tests.support.servers import Rig

pytestmark = pytest.mark.server

SECRET = "s3cret"
OPTIONS: dict[str, Any] = {"client": {"decode_responses": True}}


async def _default(client: Client, n: int) -> None:
    """In a task of its own, as always here."""
    assert await client.get(f"doc:{SECRET}:{n}") is None
    assert await client.set(f"doc:{SECRET}:{n}", f"default:{SECRET}:{n}") is True


async def _defaults(client: Client, numbers: range) -> None:
    for n in numbers:
        await asyncio.create_task(_default(client, n))


async def test_one_event_a_drain(rig: Rig) -> None:
    """10 of 15 keys hold something, then 12 of 12; then there is nothing to tell."""
    async with guarded(rig.port, batch_size=4, **OPTIONS) as (guard, client):
        await healthy(client)
        told = []
        for held, asked in ((10, 15), (12, 12), (0, 3), (0, 0)):
            rig.admin.flushall()
            for n in range(held):
                rig.admin.set(f"doc:{SECRET}:{n}", "real")
            guard.breaker.force_open()
            await _defaults(client, range(asked))
            await asyncio.create_task(client.rpush("list", "x"))
            await guard.reopened()
            told.append([event.count for event in guard.seen(PremisesFailed)])
            finished = guard.seen(ReplayFinished)[-1]
            assert (finished.applied, finished.dead_letters) == (asked - held + 1, held)
            kept = [rig.admin.get(f"doc:{SECRET}:{n}") for n in range(asked)]
            assert kept == ["real"] * held + [f"default:{SECRET}:{n}" for n in range(held, asked)]
        assert told == [[10], [10, 12], [10, 12], [10, 12]]
        assert guard.breaker.snapshot().counters["premise"] == 22
        assert not guard.seen(EntryDeadLettered), "there is one event a drain, not one each"


async def test_a_dead_letter_each_and_no_values_but_in_the_payload(
    valkey_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await healthy(client)
        for n in range(5):
            valkey_rig.admin.set(f"doc:{SECRET}:{n}", "real")
        guard.breaker.force_open()
        await _defaults(client, range(5))
        await guard.reopened()
        letters = guard.breaker.dead_letters
        assert [(each.command, each.reason, each.error) for each in letters] == [
            ("SET", "premise", None)
        ] * 5
        assert [letter.payload for letter in letters] == [
            pack((b"SET", f"doc:{SECRET}:{n}".encode(), f"default:{SECRET}:{n}".encode()))
            for n in range(5)
        ]
        for shown in (letters, guard.events, guard.breaker.snapshot(), guard.breaker):
            assert SECRET not in repr(shown)
        (event,) = guard.seen(PremisesFailed)
        assert event.count == 5
        assert SECRET not in caplog.text


async def test_the_event_counts_an_interrupted_drain(valkey_rig: Rig) -> None:
    async with proxied(valkey_rig, batch_size=1, **OPTIONS) as (proxy, guard, client):
        await healthy(client)
        for n in range(30):
            valkey_rig.admin.set(f"doc:{SECRET}:{n}", "real")
        guard.breaker.force_open()
        for n in range(30):
            await _defaults(client, range(n, n + 1))
            await asyncio.create_task(client.rpush("list", n))
        slow = proxy.latency(0.01, match=b"TIME", direction="down")
        guard.breaker.reset()
        await until(lambda: valkey_rig.admin.llen("list") > 5)
        await proxy.refuse()
        proxy.cut_all()
        await until(lambda: not guard.breaker.closed)
        slow.end()
        await proxy.accept()
        await guard.recovered()
        assert guard.breaker.snapshot().counters["premise"] == 30
        assert [event.count for event in guard.seen(PremisesFailed)] == [30]
        (finished,) = guard.seen(ReplayFinished)
        assert (finished.applied, finished.dead_letters) == (30, 30)
