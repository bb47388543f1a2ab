"""`await receipt.outcome(timeout)`: what became of a queued write."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any

import pytest

import resilient_redis
import resilient_redis.asyncio
from resilient_redis import ReplyUnknown
from tests.contract.helpers import recovered
from tests.support.flavours import Queued, RedisCircuitBreaker
from tests.support.servers import Rig
from tests.surface.helpers import aside, facade, guarded, quick

pytestmark = pytest.mark.server


def test_the_exported_class_has_it() -> None:
    assert hasattr(Queued, "outcome")


async def test_what_a_receipt_is(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        breaker.force_open()
        receipt: Any = await client.rpush("l", "value")
        assert not isinstance(receipt, (str, int, bytes))
        assert isinstance(receipt, Queued)
        assert receipt == "OK"
        assert (receipt.seq, receipt.command, receipt.settled) == (1, "RPUSH", False)
        assert repr(receipt) == str(receipt) == "<Queued RPUSH seq=1 queued>"
        with pytest.raises(ReplyUnknown):
            receipt.result()
        with pytest.raises(ReplyUnknown):
            bool(receipt)
        breaker.reset()
        await recovered(breaker)
        assert receipt.settled


# method, arguments, and the raw reply: not what redis-py would make of it
RAW: list[tuple[str, tuple[Any, ...], Any]] = [
    ("rpush", ("l", "a", "b"), 2),
    ("sadd", ("s", "a", "a"), 1),
    ("hset", ("h", "f", "v"), 1),
    ("zadd", ("z", {"m": 1.5}), 1),
    ("zrem", ("z", "nobody"), 0),
    ("xadd", ("x", {"f": "v"}, "1-1"), b"1-1"),
    ("sunionstore", ("d", "a", "b"), 0),
]


@pytest.mark.parametrize("door", ["facade", "connection"])
async def test_the_outcome_is_the_raw_reply(valkey_rig: Rig, door: str) -> None:
    make = facade(valkey_rig) if door == "facade" else guarded(valkey_rig)
    async with make as made:
        client: Any = made[0] if isinstance(made, tuple) else made
        breaker = made[1] if isinstance(made, tuple) else made.breaker
        breaker.force_open()
        receipts = [await getattr(client, method)(*args) for method, args, _ in RAW]
        waiting = [asyncio.create_task(receipt.outcome()) for receipt in receipts]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in waiting)
        breaker.reset()
        assert await asyncio.wait_for(asyncio.gather(*waiting), 2.0) == [raw for *_, raw in RAW]
        assert await receipts[0].outcome() == 2, "again, and late"
        assert await receipts[0].outcome(0.0) == 2
        assert receipts[0].result() == 2
        assert "applied" in repr(receipts[0])
        await recovered(breaker)


async def test_a_pipelines_receipts_have_outcomes(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        breaker.force_open()
        receipts = await client.pipeline(transaction=False).rpush("l", 1).rpush("l", 2).execute()
        breaker.reset()
        assert [await receipt.outcome(2.0) for receipt in receipts] == [1, 2]
        await recovered(breaker)


async def refused_at_replay(client: Any, breaker: RedisCircuitBreaker) -> Any:
    await client.set("text", "v")
    breaker.force_open()
    receipt = await client.sadd("text", "x")
    breaker.reset()
    return receipt


async def test_the_outcome_of_a_dead_letter_is_its_error(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        receipt = await refused_at_replay(client, breaker)
        with pytest.raises(Exception, match="WRONGTYPE") as raised:
            await receipt.outcome(2.0)
        assert not isinstance(raised.value, asyncio.TimeoutError)
        assert "set aside" in repr(receipt)
        with pytest.raises(Exception, match="WRONGTYPE"):
            receipt.result()
        await recovered(breaker)


async def test_that_error_is_one_that_a_user_can_catch(valkey_rig: Rig) -> None:
    from redis.exceptions import RedisError

    async with guarded(valkey_rig) as (client, breaker):
        receipt = await refused_at_replay(client, breaker)
        with pytest.raises(Exception, match="WRONGTYPE") as raised:
            await receipt.outcome(2.0)
        await recovered(breaker)
        assert isinstance(raised.value, (RedisError, resilient_redis.ResilienceError))


async def test_a_premise_that_fails_is_told_by_the_receipt(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await client.rpush("l", "there")
        breaker.force_open()
        assert await client.lrange("l", 0, -1) == []
        receipt = await client.rpush("l", "x")
        breaker.reset()
        with pytest.raises(Exception, match="PREMISE"):
            await receipt.outcome(2.0)
        await recovered(breaker)


async def test_a_timeout_is_asyncios(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        breaker.force_open()
        receipt = await client.rpush("l", 1)
        started = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await receipt.outcome(0.05)
        assert 0.04 < time.monotonic() - started < 0.5
        with pytest.raises(asyncio.TimeoutError):
            await receipt.outcome(timeout=0.0)
        breaker.reset()
        assert await receipt.outcome(2.0) == 1, "a timeout ends the waiting and nothing else"
        await recovered(breaker)


@pytest.mark.asyncio_only("nobody cancels a thread that waits")
async def test_a_cancelled_waiter_disturbs_nobody(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        breaker.force_open()
        receipt = await client.rpush("l", 1)
        waiters = [asyncio.create_task(receipt.outcome()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        breaker.reset()
        assert await asyncio.gather(*waiters[1:]) == [1, 1]
        assert waiters[0].cancelled()
        await recovered(breaker)


@pytest.mark.asyncio_only("about what is whose object: among threads the tests hold a shape of it")
async def test_outcome_by_default_waits_for_as_long_as_it_takes(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig, quick()) as (client, breaker):
        breaker.force_open()
        receipt = await client.rpush("l", 1)
        assert inspect.signature(receipt.outcome).parameters["timeout"].default is None
        task = asyncio.create_task(aside(receipt.outcome))
        await asyncio.sleep(0.1)
        assert not task.done()
        breaker.reset()
        assert await task == 1
        await recovered(breaker)
