"""The guard is put into a client that is there already, perhaps in use at this very moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio

from tests.contract.helpers import CLOSED, recovered, until, warm
from tests.support.flavours import (
    BlockingConnectionPool,
    ConnectionPool,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
    real,
)
from tests.support.servers import Rig
from tests.surface.helpers import aside, goes_down, guarded, quick

pytestmark = pytest.mark.server


class Mine(redis.asyncio.Redis):
    """A user's own client, with a method and a state of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.greetings = 0

    async def greet(self, name: str) -> Any:
        self.greetings += 1
        await self.set(f"greeting:{name}", "hello")
        return await aside(self.get, f"greeting:{name}")


class Prefixed(redis.asyncio.Redis):
    """Puts all keys behind a prefix, where all commands pass."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        name, key, *rest = args
        return await super().execute_command(name, f"app:{key}", *rest, **options)  # type: ignore[no-untyped-call]  # redis-py


async def connected(client: Any, connections: int) -> None:
    """As many idle connections in its pool."""
    pool = client.connection_pool
    held = [await pool.get_connection() for _ in range(connections)]
    for connection in held:
        await pool.release(connection)


# -- "its idle connections are closed, those in use are replaced when they come back"


@pytest.mark.asyncio_only("about what is whose object: among threads the tests hold a shape of it")
async def test_the_pool_makes_guarded_connections_from_now_on(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url)
    pool = client.connection_pool
    before = pool.make_connection()
    breaker = quick(client)
    assert client.connection_pool is pool
    assert pool.connection_class is real(ResilientConnection)
    assert pool.make_connection().breaker is breaker
    assert not hasattr(before, "breaker")
    await client.aclose()


async def test_idle_connections_are_retired(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url)
    await connected(client, 3)
    assert valkey_rig.connections() == 3
    breaker = quick(client)
    await until(lambda: valkey_rig.connections() == 0)
    await client.set("k", "v")
    assert valkey_rig.connections() == 1
    assert len(breaker.connections) == 1
    await breaker.aclose()
    await client.aclose()


async def test_those_in_use_are_untouched_until_they_come_back(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url)
    await connected(client, 3)
    blocked = [asyncio.create_task(client.blpop("queue")) for _ in range(2)]
    await until(lambda: valkey_rig.admin.info("clients")["blocked_clients"] == 2)
    breaker = quick(client)
    await until(lambda: valkey_rig.connections() == 2)  # the third was idle
    assert await client.get("k") is None  # on a guarded one
    assert len(breaker.connections) == 1
    valkey_rig.admin.rpush("queue", "a", "b")
    assert sorted(await asyncio.gather(*blocked)) == [(b"queue", b"a"), (b"queue", b"b")]
    await until(lambda: valkey_rig.connections() == 1)
    pool = client.connection_pool
    assert all(isinstance(real(c), ResilientConnection) for c in pool._available_connections)
    # From here on nothing of it is left: the pool is as any other.
    assert type(real(pool)._available_connections) is list
    await warm(client, 5)
    valkey_rig.kill()
    assert await asyncio.gather(*(client.set(f"k{n}", n) for n in range(5))) == [True] * 5
    valkey_rig.restart()
    await recovered(breaker)
    assert await client.mget([f"k{n}" for n in range(5)]) == [b"%d" % n for n in range(5)]
    await breaker.aclose()
    await client.aclose()


async def test_a_subscriber_keeps_its_connection(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url)
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("channel")
        assert (await pubsub.get_message(timeout=1.0) or {})["type"] == "subscribe"
        breaker = quick(client)
        await client.publish("channel", "x")
        assert (await pubsub.get_message(timeout=1.0) or {})["data"] == b"x"
    assert await client.ping()
    await breaker.aclose()
    await client.aclose()


async def test_a_pipeline_of_before_is_guarded_too(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url)
    await client.exists("warm")
    pipe = client.pipeline(transaction=False).set("a", 1)
    breaker = quick(client)
    await goes_down(valkey_rig, client, breaker)
    assert await pipe.set("b", 2).execute() == [True, True]
    assert breaker.pending == 2
    valkey_rig.restart()
    await recovered(breaker)
    assert valkey_rig.admin.mget("a", "b") == ["1", "2"]
    await breaker.aclose()
    await client.aclose()


@pytest.mark.parametrize("blocking", [False, True])
async def test_the_limits_of_the_pool_hold(valkey_rig: Rig, blocking: bool) -> None:
    kind = BlockingConnectionPool if blocking else ConnectionPool
    pool = kind.from_url(valkey_rig.url, max_connections=2)
    client = ResilientRedis.from_pool(pool)
    await warm(client, 2)
    if blocking:
        assert await asyncio.gather(*(client.incr("n") for _ in range(20)))
    assert len(pool._available_connections) + len(pool._in_use_connections) <= 2
    assert valkey_rig.connections() <= 2
    await client.aclose()


async def test_a_single_connection_client(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url, single_connection_client=True)
    await client.set("k", "v")
    breaker = quick(client)
    await until(lambda: valkey_rig.connections() == 0)
    assert await client.get("k") == b"v"
    assert len(breaker.connections) == 1
    await goes_down(valkey_rig, client, breaker)
    assert await client.set("k", "w") is True
    valkey_rig.restart()
    await recovered(breaker)
    assert await client.get("k") == b"w"
    assert valkey_rig.connections() == 1
    await breaker.aclose()
    await client.aclose()


async def test_a_single_connection_in_use_is_a_value_error(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url, single_connection_client=True)
    await client.exists("warm")
    blocked = asyncio.create_task(client.blpop("queue"))
    await until(lambda: valkey_rig.admin.info("clients")["blocked_clients"] == 1)
    with pytest.raises(ValueError, match="guard the client before"):
        RedisCircuitBreaker(client)
    valkey_rig.admin.rpush("queue", "a")
    assert await blocked == (b"queue", b"a")
    assert await client.get("k") is None
    await client.aclose()


# -- "another breaker on the same client is ValueError"


async def test_another_breaker_on_the_same_client_is_a_value_error(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url)
    breaker = quick(client)
    with pytest.raises(ValueError, match="another breaker guards this client"):
        RedisCircuitBreaker(client)
    # Also by way of a second client on the same pool, or a client that was guarded by its class.
    with pytest.raises(ValueError, match="another breaker guards this client"):
        RedisCircuitBreaker(Redis(connection_pool=client.connection_pool))
    bound = ResilientConnection.bound_to(breaker)
    with pytest.raises(ValueError, match="another breaker guards this client"):
        RedisCircuitBreaker(Redis.from_url(valkey_rig.url, connection_class=bound))
    async with guarded(valkey_rig) as (other, _):
        with pytest.raises(ValueError, match="another breaker guards this client"):
            RedisCircuitBreaker(other)
    with pytest.raises(ValueError, match="has a client already"):
        breaker.take_client(Redis.from_url(valkey_rig.url))
    # What was refused has changed nothing.
    assert client.connection_pool.make_connection().breaker is breaker
    await client.aclose()


@pytest.mark.asyncio_only("about what is whose object: among threads the tests hold a shape of it")
async def test_its_own_breaker_may_take_a_guarded_client(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await client.set("k", "v")
        breaker.take_client(client)
        facade = ResilientRedis(breaker)
        assert await facade.get("k") == b"v"
        assert facade.client is client
        breaker.force_open()
        assert await aside(facade.get, "k") is None
        breaker.reset()


async def test_a_connection_of_the_default_breaker_is_replaced_too(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url, connection_class=ResilientConnection)
    connection = await client.connection_pool.get_connection()
    breaker = quick(client)
    await client.connection_pool.release(connection)
    try:
        connection = await client.connection_pool.get_connection()
        await client.connection_pool.release(connection)
        assert connection.breaker is breaker
    finally:
        await client.aclose()


# -- "user's Redis subclass kept"


@pytest.mark.asyncio_only("of classes made of redis.asyncio.Redis")
async def test_a_class_of_the_users_stays_what_it_is(valkey_rig: Rig) -> None:
    client: Any = Mine.from_url(valkey_rig.url)
    assert isinstance(client, Mine)
    assert await client.greet("a") == b"hello"
    facade: Any = ResilientRedis(quick(client))
    assert facade.client is client
    for each in (client, facade):
        assert isinstance(each, Mine)
        assert isinstance(each, Redis)
    assert type(client).__name__ == "Mine"
    assert type(client).__qualname__ == Mine.__qualname__
    assert type(client).__module__ == Mine.__module__
    assert await facade.greet("b") == b"hello"
    facade.breaker.force_open()
    assert await facade.greet("c") is None
    assert facade.breaker.pending == 1
    assert client.greetings == 3
    facade.breaker.reset()
    await recovered(facade.breaker)
    assert await client.get("greeting:c") == b"hello"
    await facade.aclose()
    # Others of that class are as they were.
    other = Mine.from_url(valkey_rig.url)
    assert type(other) is Mine
    assert not hasattr(other, "_breaker")


@pytest.mark.asyncio_only("of classes made of redis.asyncio.Redis")
async def test_what_the_users_class_does_to_commands_it_does_while_open(valkey_rig: Rig) -> None:
    client: Any = Prefixed.from_url(valkey_rig.url)
    breaker = quick(client)
    await client.set("a", 1)
    breaker.force_open()
    await client.set("b", 2)
    breaker.reset()
    await recovered(breaker)
    await breaker.aclose()
    await client.aclose()
    assert sorted(valkey_rig.admin.keys("*")) == ["app:a", "app:b"]


@pytest.mark.asyncio_only("about what is whose object: among threads the tests hold a shape of it")
@pytest.mark.parametrize("way", ["client()", "its class", "from_pool"])
async def test_other_clients_can_be_made_of_it(valkey_rig: Rig, way: str) -> None:
    client: Any = Redis.from_url(valkey_rig.url)
    breaker = quick(client)
    await client.set("k", "v")
    made: dict[str, Any] = {
        "client()": client.client,
        "its class": lambda: type(client)(connection_pool=client.connection_pool),
        "from_pool": lambda: type(client).from_pool(client.connection_pool),
    }
    try:
        async with made[way]() as other:
            assert await other.get("k") == b"v"
            breaker.force_open()
            assert await aside(other.get, "k") is None
            breaker.reset()
    finally:
        await breaker.aclose()
        await client.aclose()


async def test_it_begins_in_the_middle_of_an_outage(valkey_rig: Rig) -> None:
    client: Any = Redis.from_url(valkey_rig.url)
    await connected(client, 3)
    valkey_rig.kill()
    breaker = quick(client)
    assert breaker.state == CLOSED
    assert await client.set("k", "v") is True
    assert breaker.state != CLOSED
    valkey_rig.restart()
    await recovered(breaker)
    assert await client.get("k") == b"v"
    await breaker.aclose()
    await client.aclose()
