"""The four ways in of DESIGN's code block, each through a kill and a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from resilient_redis import CommandRefused
from tests.contract.helpers import CLOSED, HALF_OPEN, OPEN, recovered
from tests.support.flavours import (
    BlockingConnectionPool,
    ConnectionPool,
    Queued,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
)
from tests.support.servers import Rig
from tests.surface.helpers import aside, goes_down

pytestmark = pytest.mark.server

Made = tuple[Any, RedisCircuitBreaker]


def by_connection_class(rig: Rig) -> Made:
    breaker = RedisCircuitBreaker(failure_threshold=5, recovery_timeout=0.2)
    return Redis.from_url(rig.url, connection_class=ResilientConnection, breaker=breaker), breaker


def by_pool(rig: Rig) -> Made:
    breaker = RedisCircuitBreaker(failure_threshold=5, recovery_timeout=0.2)
    pool = ConnectionPool(
        connection_class=ResilientConnection, breaker=breaker, host="127.0.0.1", port=rig.port
    )
    return Redis(connection_pool=pool), breaker


def by_facade_over_a_client(rig: Rig) -> Made:
    breaker = RedisCircuitBreaker(Redis.from_url(rig.url), recovery_timeout=0.2)
    return ResilientRedis(breaker), breaker


def by_facade_short_form(rig: Rig) -> Made:
    client = ResilientRedis.from_url(rig.url, failure_threshold=5, recovery_timeout=0.2)
    return client, client.breaker


def by_blocking_pool(rig: Rig) -> Made:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    pool = BlockingConnectionPool(
        connection_class=ResilientConnection, breaker=breaker, host="127.0.0.1", port=rig.port
    )
    return Redis(connection_pool=pool), breaker


def by_facade_arguments(rig: Rig) -> Made:
    client = ResilientRedis(host="127.0.0.1", port=rig.port, recovery_timeout=0.2)
    return client, client.breaker


def by_facade_pool(rig: Rig) -> Made:
    client = ResilientRedis.from_pool(ConnectionPool.from_url(rig.url), recovery_timeout=0.2)
    return client, client.breaker


def by_facade_over_a_pool_with_a_breaker(rig: Rig) -> Made:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    pool = ConnectionPool.from_url(rig.url, breaker=breaker)
    return ResilientRedis.from_pool(pool), breaker


def by_facade_over_a_guarded_pool(rig: Rig) -> Made:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    bound = ResilientConnection.bound_to(breaker)
    return ResilientRedis.from_pool(
        ConnectionPool.from_url(rig.url, connection_class=bound)
    ), breaker


def by_class_alone(rig: Rig) -> Made:
    """Nothing but the class: the breaker of the endpoint."""
    client = Redis.from_url(rig.url, connection_class=ResilientConnection)
    return client, client.connection_pool.make_connection().breaker  # type: ignore[no-untyped-call]  # redis-py


WAYS: list[Callable[[Rig], Made]] = [
    by_connection_class,
    by_pool,
    by_facade_over_a_client,
    by_facade_short_form,
    by_blocking_pool,
    by_facade_arguments,
    by_facade_pool,
    by_facade_over_a_pool_with_a_breaker,
    by_facade_over_a_guarded_pool,
    by_class_alone,
]


async def closed(client: Any, breaker: RedisCircuitBreaker) -> None:
    """Also a pool that was given to a client, which then leaves it alone."""
    await breaker.aclose()
    await client.connection_pool.disconnect()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_through_a_kill_and_a_restart(rig: Rig, way: Callable[[Rig], Made]) -> None:
    client, breaker = way(rig)
    async with client:
        assert await client.set("k", "before") is True
        assert await client.get("k") == b"before"
        assert await client.rpush("l", "before") == 1
        assert (breaker.state, breaker.snapshot().counters) == (CLOSED, {})

        await goes_down(rig, client, breaker)
        assert breaker.state in (OPEN, HALF_OPEN)
        # 1. Neutral.
        assert await aside(client.get, "k") is None
        assert await aside(client.hgetall, "h") == {}
        assert await aside(client.mget, "a", "b") == [None, None]
        assert await client.publish("channel", "x") == 0
        # 2. Queued.
        assert await client.set("k", "during") is True
        assert await client.expire("k", 1000) is True
        assert await client.delete("gone", "gone too") == 2
        receipt: Any = await client.rpush("l", "during")
        assert isinstance(receipt, Queued)
        # 3. Refused.
        with pytest.raises(CommandRefused):
            await client.incr("n")
        # A pipeline is a pipeline.
        pipe = client.pipeline(transaction=False).rpush("l", "piped").get("other").set("p", 1)
        pushed, found, was_set = await pipe.execute()
        assert isinstance(pushed, Queued)
        assert (found, was_set) == (None, True)
        assert breaker.pending == 6

        rig.restart()
        await recovered(breaker)  # without any traffic
        assert breaker.state == CLOSED
        assert (breaker.pending, breaker.dead_letters) == (0, ())
        assert await client.get("k") == b"during"
        assert 990 < await client.ttl("k") <= 1000
        assert await client.lrange("l", 0, -1) == [b"before", b"during", b"piped"]
        assert (await client.get("p"), await client.exists("n")) == (b"1", 0)
        assert await receipt.outcome(1.0) == 2
        assert await client.incr("n") == 1
    await closed(client, breaker)
    assert [task.get_name() for task in asyncio.all_tasks() if "redis" in task.get_name()] == []


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_down_from_the_start(valkey_rig: Rig, way: Callable[[Rig], Made]) -> None:
    valkey_rig.kill()
    client, breaker = way(valkey_rig)
    async with client:
        assert await aside(client.get, "k") is None
        assert await client.set("k", "v") is True
        valkey_rig.restart()
        await recovered(breaker)
        assert await client.get("k") == b"v"
    await closed(client, breaker)


@pytest.mark.parametrize("way", WAYS[:4], ids=lambda way: way.__name__)
async def test_what_a_client_is_told_to_do_it_does(
    valkey_rig: Rig, way: Callable[[Rig], Made]
) -> None:
    """The client stays the user's: its callbacks, its decoding, its pub/sub, its locks."""
    client, breaker = way(valkey_rig)
    async with client:
        client.set_response_callback("GET", lambda reply, **_: ("mine", reply))
        await client.set("k", "v")
        assert await client.get("k") == ("mine", b"v")
        async with client.lock("lock", timeout=5):
            assert valkey_rig.admin.exists("lock")
        assert not valkey_rig.admin.exists("lock")
        async with client.pubsub() as pubsub:
            await pubsub.subscribe("channel")
            assert (await pubsub.get_message(timeout=1.0))["type"] == "subscribe"
            await client.publish("channel", "x")
            assert (await pubsub.get_message(timeout=1.0))["data"] == b"x"
        async with client.pipeline(transaction=True) as pipe:
            assert await pipe.incr("n").incr("n").execute() == [1, 2]
        script = client.register_script("return ARGV[1]")
        assert await script(args=["x"]) == b"x"
        await client.mset({f"scan:{n}": n for n in range(30)})
        assert len([key async for key in client.scan_iter("scan:*", count=5)]) == 30
        breaker.force_open()
        assert await aside(client.get, "k") == ("mine", None)
        breaker.reset()
    await closed(client, breaker)
