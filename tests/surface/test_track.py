"""`track()`: what the commands in a block were answered, whichever way they went."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from resilient_redis import (
    CommandRefused,
    JournalFull,
    MemoryJournal,
    OutcomeUnknown,
    Tracker,
    track,
)
from tests.contract.helpers import outcome, recovered
from tests.support.flavours import (
    FakeRedis,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
)
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig
from tests.surface.helpers import Store, aside, facade, guarded, nobody_listens, quick

URL = "redis://127.0.0.1:1/0"
Made = tuple[Any, RedisCircuitBreaker]


def by_connection(**options: Any) -> Made:
    breaker = quick(**options)
    return Redis.from_url(URL, connection_class=ResilientConnection, breaker=breaker), breaker


def by_facade(**options: Any) -> Made:
    client = ResilientRedis(quick(Redis.from_url(URL), **options))
    return client, client.breaker


def by_execute(**options: Any) -> Made:
    client = ResilientRedis(quick(Store(), **options))
    return client, client.breaker


DOORS: list[Callable[..., Made]] = [by_connection, by_facade, by_execute]
each_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


@asynccontextmanager
async def open_door(door: Callable[..., Made], **options: Any) -> AsyncIterator[Any]:
    client, breaker = door(**options)
    breaker.force_open()
    try:
        yield client
    finally:
        await close(door, client, breaker)


async def close(door: Callable[..., Made], client: Any, breaker: RedisCircuitBreaker) -> None:
    await breaker.aclose()
    if door is not by_execute:
        await client.connection_pool.disconnect()


def counts(t: Tracker) -> tuple[int, int, int, int]:
    return t.neutral, t.queued, t.refused, t.unknown


@each_door
async def test_every_way_counts_alike(door: Callable[..., Made]) -> None:
    async with open_door(door) as client:
        with track() as t:
            assert str(t.degraded) == "False"
            await client.get("k")
            await client.lpop("l")
            await client.set("k", "v")
            await client.rpush("l", 1)
            await client.delete("a", "b")
            with pytest.raises(CommandRefused):
                await client.incr("n")
            with pytest.raises(CommandRefused):
                await client.keys("*")
    assert counts(t) == (2, 3, 2, 0)
    assert str(t.degraded) == "True"
    assert t.commands == ["GET", "LPOP", "SET", "RPUSH", "DEL", "INCRBY", "KEYS"]


@each_door
async def test_a_full_journal_is_a_refusal(door: Callable[..., Made]) -> None:
    async with open_door(door, journal=MemoryJournal(max_entries=1)) as client:
        with track() as t:
            await client.set("k", "v")
            with pytest.raises(JournalFull):
                await client.set("k", "w")
    assert counts(t) == (0, 1, 1, 0)
    assert t.commands == ["SET", "SET"]


@each_door
async def test_the_first_hundred_commands_and_all_counts(door: Callable[..., Made]) -> None:
    async with open_door(door) as client:
        with track() as t:
            await client.set("first", 1)
            for n in range(250):
                await client.get(f"k{n}")
    assert counts(t) == (250, 1, 0, 0)
    assert t.commands == ["SET", *["GET"] * 99]


@each_door
async def test_the_counters_of_the_breaker_say_the_same(door: Callable[..., Made]) -> None:
    client, breaker = door()
    breaker.force_open()
    with track() as t:
        await client.get("k")
        await client.set("k", "v")
        await outcome(client.incr("n"))
    counters = breaker.snapshot().counters
    names = ("neutral", "queued", "refused", "unknown")
    assert counts(t) == tuple(counters.get(name, 0) for name in names) == (1, 1, 1, 0)
    await close(door, client, breaker)


# -- "a context manager (contextvars) around any code"


async def test_blocks_may_be_nested() -> None:
    async with open_door(by_facade) as client:
        with track() as outer:
            await client.get("a")
            with track() as inner:
                await client.get("b")
                with track() as innermost:
                    await client.set("c", 1)
            await client.get("d")
    assert counts(outer) == (3, 1, 0, 0)
    assert counts(inner) == (1, 1, 0, 0)
    assert counts(innermost) == (0, 1, 0, 0)


async def test_after_the_block_nothing_more_is_counted() -> None:
    async with open_door(by_facade) as client:
        with track() as t:
            await client.get("a")
        await client.get("b")
        assert counts(t) == (1, 0, 0, 0)
        with contextlib.suppress(ZeroDivisionError), track() as broken:
            await client.get("c")
            raise ZeroDivisionError  # which ends the block like any other end
        await client.get("d")
        assert counts(broken) == (1, 0, 0, 0)


@each_door
async def test_tasks_started_inside_count_too(door: Callable[..., Made]) -> None:
    async with open_door(door) as client:

        async def deep() -> None:
            await client.get("x")
            await asyncio.create_task(aside(client.get, "y"))

        with track() as t:
            await asyncio.gather(*(client.get(f"k{n}") for n in range(10)), deep())
    assert counts(t) == (12, 0, 0, 0)


async def test_others_at_the_same_time_are_not_counted() -> None:
    async with open_door(by_facade) as client:

        async def other() -> Tracker:
            with track() as mine:
                for n in range(20):
                    await client.get(f"k{n}")
                    await asyncio.sleep(0)
            return mine

        found = await asyncio.gather(*(other() for _ in range(5)))
        # One that was started before the block is not in it.
        stranger = asyncio.create_task(other())
        await asyncio.sleep(0)
        with track() as t:
            await stranger
    assert [counts(each) for each in found] == [(20, 0, 0, 0)] * 5
    assert counts(t) == (0, 0, 0, 0)
    assert not t.degraded


@pytest.mark.server
async def test_on_a_healthy_server_nothing_is_degraded(valkey_rig: Rig) -> None:
    async with facade(valkey_rig) as client, guarded(valkey_rig) as (other, _):
        with track() as t:
            each: Any
            for each in (client, other):
                await each.set("k", "v")
                await each.get("k")
                await each.get("not there")
                await each.pipeline().incr("n").incr("n").execute()
        assert (counts(t), t.degraded, t.commands) == ((0, 0, 0, 0), False, [])


# -- pipelines


@pytest.mark.parametrize("door", [by_connection, by_facade], ids=lambda door: door.__name__)
async def test_each_command_of_a_pipeline_counts(door: Callable[..., Made]) -> None:
    async with open_door(door) as client:
        with track() as t:
            pipe = client.pipeline(transaction=False)
            pipe.get("a").set("b", 1).lpop("c").sadd("d", 1)
            await pipe.execute()
    assert counts(t) == (2, 2, 0, 0)
    assert t.commands == ["GET", "SET", "LPOP", "SADD"]


def by_fakeredis(**options: Any) -> Made:
    client = ResilientRedis(quick(FakeRedis(), **options))
    return client, client.breaker


@pytest.mark.parametrize(
    "door", [by_connection, by_facade, by_fakeredis], ids=lambda door: door.__name__
)
async def test_a_refused_pipeline_is_refused_once(door: Callable[..., Made]) -> None:
    """Nothing of it was answered in another way."""
    async with open_door(door) as client:
        pipe = client.pipeline(transaction=False).get("a").set("b", 1).incr("n")
        with track() as t, pytest.raises(CommandRefused):
            await pipe.execute()
    assert counts(t) == (0, 0, 1, 0)
    assert t.degraded


# -- the outage itself


@pytest.mark.server
async def test_a_command_that_meets_the_outage_counts_as_it_was_answered(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await client.get("warm")
        valkey_rig.kill()
        with track() as t:
            assert await aside(client.get, "k") is None
            assert await client.set("k", "v") is True
        assert counts(t) == (1, 1, 0, 0)
        valkey_rig.restart()
        await recovered(breaker)


@pytest.mark.server
async def test_a_lost_reply_counts_as_unknown(valkey_rig: Rig) -> None:
    async with ChaosProxy(valkey_rig.port) as proxy:
        breaker = quick()
        client = Redis.from_url(proxy.url, connection_class=ResilientConnection, breaker=breaker)
        await client.get("warm")
        proxy.cut_on_reply(b"RPUSH")
        with track() as t, pytest.raises(OutcomeUnknown):
            await client.rpush("l", 1)
        assert counts(t) == (0, 0, 0, 1)
        assert (t.degraded, t.commands) == (True, ["RPUSH"])
        assert breaker.snapshot().counters["unknown"] == 1
        await client.aclose()
        await breaker.aclose()


async def test_a_failed_call_of_an_object_counts_as_what_became_of_it() -> None:
    """Raised again, and queued; or nobody knows."""
    store = Store()
    client: Any = ResilientRedis(RedisCircuitBreaker(store))
    with track() as t:
        store.down = nobody_listens()
        with pytest.raises(ConnectionError):
            await client.set("k", "v")
        assert counts(t) == (0, 1, 0, 0)
        store.down = ConnectionError("Connection closed by server.")
        with pytest.raises(ConnectionError):
            await client.rpush("l", 1)
    assert counts(t) == (0, 1, 0, 1)
    store.down = None
    await client.aclose(1.0)
