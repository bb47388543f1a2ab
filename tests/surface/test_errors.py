"""What this library raises: classes, attributes, who catches it, and that nobody repeats it."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import time
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

import resilient_redis.errors
from resilient_redis import (
    CommandRefused,
    JournalCorrupt,
    JournalFull,
    MemoryJournal,
    OutcomeUnknown,
    ReplyUnknown,
    ResilienceError,
)
from tests.contract.helpers import recovered, until
from tests.support.flavours import (
    ConnectionPool,
    Queued,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
)
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig
from tests.surface.helpers import QUICK, aside, facade, goes_down, guarded, quick

# class -> its bases, as DESIGN writes them
CLASSES: dict[type[Exception], tuple[type[Exception], ...]] = {
    ResilienceError: (Exception,),
    CommandRefused: (ResilienceError, redis.ConnectionError),
    JournalFull: (CommandRefused,),
    OutcomeUnknown: (ResilienceError, redis.TimeoutError),
    ReplyUnknown: (ResilienceError, TypeError),
    JournalCorrupt: (ResilienceError,),
}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_bases_are_those_of_the_design(cls: type[Exception]) -> None:
    assert cls.__bases__ == CLASSES[cls]


def test_there_are_no_others() -> None:
    ours = {
        value
        for value in vars(resilient_redis.errors).values()
        if inspect.isclass(value) and value.__module__ == "resilient_redis.errors"
    }
    assert ours == set(CLASSES)


def test_attributes() -> None:
    refused = CommandRefused("INCR", "the reason", 1.5)
    assert (refused.command, refused.reason, refused.retry_after) == ("INCR", "the reason", 1.5)
    assert CommandRefused("INCR", "the reason").retry_after is None
    for word in ("INCR", "the reason", "1.50 s", "nothing was queued"):
        assert word in str(refused)
    unknown = OutcomeUnknown("INCR", [b"OK", 7])
    assert (unknown.command, unknown.replies) == ("INCR", (b"OK", 7))
    assert OutcomeUnknown("INCR").replies == ()
    assert JournalCorrupt("at byte 7", "/a/journal").path == "/a/journal"
    assert JournalCorrupt("at byte 7").path is None


@pytest.mark.parametrize("error", [CommandRefused("INCR", "why", 1.5), OutcomeUnknown("INCR")])
def test_they_can_be_pickled(error: Exception) -> None:
    try:
        again = pickle.loads(pickle.dumps(error))
    except TypeError as failed:
        again = failed
    assert (type(again), str(again)) == (type(error), str(error))
    assert vars(again) == vars(error)


# -- "an error that code written for redis-py outages already catches"


@pytest.mark.server
@pytest.mark.parametrize(
    "caught",
    [redis.ConnectionError, redis.RedisError, ResilienceError, redis.exceptions.ConnectionError],
)
async def test_a_refusal_is_caught_as_an_outage(valkey_rig: Rig, caught: type[Exception]) -> None:
    async with facade(valkey_rig) as client, guarded(valkey_rig) as (other, breaker):
        client.breaker.force_open()
        breaker.force_open()
        for each in (client, other):
            with pytest.raises(caught) as raised:
                await each.incr("n")
            assert type(raised.value) is CommandRefused
            assert isinstance(raised.value, redis.asyncio.ConnectionError)


async def test_a_refusal_says_what_why_and_when() -> None:
    breaker = RedisCircuitBreaker(failure_threshold=1, recovery_timeout=5.0)
    client = Redis.from_url(
        "redis://127.0.0.1:1/0", connection_class=ResilientConnection, breaker=breaker
    )
    with pytest.raises(CommandRefused) as raised:
        await client.incr("n")
    error = raised.value
    assert error.command == "INCRBY"
    assert "counter" in error.reason
    await until(lambda: breaker.retry_after() is not None)  # the recovery, which has just begun
    with pytest.raises(CommandRefused) as raised:
        await client.incr("n")
    assert raised.value.retry_after is not None
    assert 0 <= raised.value.retry_after <= 5.0
    await client.aclose()
    await breaker.aclose()


async def test_a_full_journal_says_so_and_keeps_what_it_holds() -> None:
    breaker = RedisCircuitBreaker(journal=MemoryJournal(max_entries=2))
    client: Any = Redis.from_url(
        "redis://127.0.0.1:1/0", connection_class=ResilientConnection, breaker=breaker
    )
    breaker.force_open()
    pipe = client.pipeline(transaction=False).set("a", 1).set("b", 1).set("c", 1)
    with pytest.raises(JournalFull):
        await pipe.execute()
    assert breaker.pending == 0, "a part of a pipeline"
    await client.mset({"a": 1})
    await client.set("b", 1)
    with pytest.raises(JournalFull) as raised:
        await client.set("c", 1)
    assert (raised.value.command, raised.value.reason) == ("SET", "the journal is full")
    assert isinstance(raised.value, redis.ConnectionError)
    assert breaker.pending == 2
    assert await client.get("d") is None
    await client.aclose()
    await breaker.aclose()


@pytest.mark.server
async def test_a_lost_reply_is_a_timeout_with_the_replies_that_came(valkey_rig: Rig) -> None:
    async with ChaosProxy(valkey_rig.port) as proxy:
        breaker = quick()
        client: Any = Redis.from_url(
            proxy.url, connection_class=ResilientConnection, breaker=breaker
        )
        await client.set("n", 41)
        proxy.cut_on_reply(b"INCR")
        with pytest.raises(redis.TimeoutError) as raised:
            await client.incr("n")
        assert type(raised.value) is OutcomeUnknown
        assert (raised.value.command, raised.value.replies) == ("INCRBY", ())
        assert valkey_rig.admin.get("n") == "42"  # sent once, run once
        await client.aclose()
        await breaker.aclose()


def test_a_receipt_used_as_a_reply_is_no_connection_error() -> None:
    receipt = Queued(7, "RPUSH")
    with pytest.raises(TypeError) as raised:
        receipt + 1
    assert type(raised.value) is ReplyUnknown
    assert not isinstance(raised.value, (redis.RedisError, OSError))


# -- "never retried"


def counted(port: int, breaker: RedisCircuitBreaker) -> Any:
    """A client that would repeat anything ten times, a second apart."""
    pool = ConnectionPool(
        connection_class=ResilientConnection,
        breaker=breaker,
        host="127.0.0.1",
        port=port,
        retry=Retry(ConstantBackoff(1.0), 10, supported_errors=(redis.RedisError,)),
        retry_on_error=[redis.RedisError],
    )
    return Redis.from_pool(pool)


@pytest.mark.server
async def test_redis_pys_retry_does_not_repeat_a_refusal(valkey_rig: Rig) -> None:
    breaker = quick()
    client = counted(valkey_rig.port, breaker)
    await client.exists("warm")
    await goes_down(valkey_rig, client, breaker)
    started = time.monotonic()
    pipe = client.pipeline(transaction=False).set("a", 1).incr("n")
    for n, call in enumerate((lambda: client.incr("n"), pipe.execute)):
        with pytest.raises(CommandRefused):
            await call()
        assert breaker.snapshot().counters["refused"] == n + 1
    assert time.monotonic() - started < 0.5
    assert breaker.pending == 0
    valkey_rig.restart()
    await recovered(breaker)
    assert valkey_rig.admin.keys("*") == []
    await client.aclose()
    await breaker.aclose()


@pytest.mark.server
async def test_nor_what_may_have_run(valkey_rig: Rig) -> None:
    async with ChaosProxy(valkey_rig.port) as proxy:
        breaker = quick()
        client = counted(proxy.port, breaker)
        await client.exists("warm")
        proxy.cut_on_reply(b"INCR", times=None)
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(client.incr("n"), 0.9)
        assert valkey_rig.calls("incrby") == 1
        proxy.clear()
        await client.aclose()
        await breaker.aclose()


@pytest.mark.server
async def test_nor_a_full_journal(valkey_rig: Rig) -> None:
    breaker = quick(journal=MemoryJournal(max_entries=1))
    client = counted(valkey_rig.port, breaker)
    breaker.force_open()
    await client.set("a", 1)
    with pytest.raises(JournalFull):
        await asyncio.wait_for(client.set("b", 1), 0.9)
    breaker.reset()
    await recovered(breaker)
    await client.aclose()
    await breaker.aclose()


# -- "In a pipeline every command is decided before anything is journaled"


@pytest.mark.server
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("raise_on_error", [True, False])
async def test_one_refused_refuses_the_whole_pipeline(
    valkey_rig: Rig, place: int, raise_on_error: bool
) -> None:
    async with facade(valkey_rig) as client, guarded(valkey_rig) as (other, breaker):
        for each, guard in ((client, client.breaker), (other, breaker)):
            guard.force_open()
            pipe: Any = each.pipeline(transaction=False)
            calls: list[Any] = [lambda p: p.set("a", 1), lambda p: p.get("k")]
            calls.insert(place, lambda p: p.incr("n"))
            for call in calls:
                call(pipe)
            with pytest.raises(CommandRefused) as raised:
                await pipe.execute(raise_on_error=raise_on_error)
            assert raised.value.command == "INCRBY"
            assert guard.pending == 0
            counters = guard.snapshot().counters
            assert (counters["refused"], counters.get("neutral", 0)) == (1, 0)
            # What was read in it is no premise either: nobody was told anything.
            assert await each.set("k", "v") is True
            guard.reset()
            await recovered(guard)
            assert guard.dead_letters == ()
    assert valkey_rig.admin.keys("*") == ["k"]


@pytest.mark.server
async def test_a_pipeline_that_is_queued_is_queued_as_a_whole_and_in_order(rig: Rig) -> None:
    async with guarded(rig, RedisCircuitBreaker(**QUICK)) as (client, breaker):
        breaker.force_open()
        pipe = client.pipeline(transaction=False)
        for n in range(50):
            pipe.rpush("l", n)
        answers = await pipe.execute()
        assert len(answers) == breaker.pending == 50
        assert all(isinstance(answer, Queued) for answer in answers)
        assert await aside(client.llen, "l") == 0
        breaker.reset()
        await recovered(breaker)
        assert rig.admin.lrange("l", 0, -1) == [str(n) for n in range(50)]
