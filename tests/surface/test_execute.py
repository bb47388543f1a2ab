"""Who is guarded by `execute` and who at the connections, and what `execute` is for the latter."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest.mock import AsyncMock

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError

from resilient_redis import CommandRefused
from tests.contract.helpers import HALF_OPEN, OPEN
from tests.support.flavours import (
    ConnectionPool,
    FakeRedis,
    Redis,
    RedisCircuitBreaker,
    ResilientRedis,
)
from tests.support.servers import Rig
from tests.surface.helpers import Store, aside, guarded, nobody_listens, quick

# -- "A client is guarded at its connections only if its pool makes redis-py's own classes"


class Refined(redis.asyncio.Connection):
    """Adds something, and talks as redis-py's."""

    def repr_pieces(self) -> list[tuple[str, Any]]:
        return [("refined", True)]


class Stranger(redis.asyncio.Connection):
    """Talks in its own way."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        raise ConnectionError("not sent")


def test_who_is_guarded_at_the_connections_and_who_is_not() -> None:
    def over(connection_class: type[redis.asyncio.Connection]) -> Redis:
        return Redis(connection_pool=ConnectionPool(connection_class=connection_class))

    at_connections = [Redis(), over(Refined), Redis(ssl=True), Redis(unix_socket_path="/x.sock")]
    by_execute = [
        FakeRedis(),
        AsyncMock(spec=redis.asyncio.Redis),
        AsyncMock(),
        Store(),
        over(Stranger),
    ]
    for client in at_connections:
        assert isinstance(client, Redis)
        assert not RedisCircuitBreaker(client).guards_object, client
    for other in by_execute:
        before = type(other)
        assert RedisCircuitBreaker(other).guards_object, other
        assert type(other) is before
    # isinstance is no test:
    assert isinstance(by_execute[0], Redis)
    assert isinstance(by_execute[1], Redis)


# -- execute where there is nothing to be done, or nothing to do it with


@pytest.mark.server
async def test_over_a_client_of_redis_py_execute_just_calls(valkey_rig: Rig) -> None:
    client = Redis.from_url(valkey_rig.url)
    breaker = quick(client)
    assert await breaker.execute("set", client.set, "k", "v") is True
    assert await breaker.execute("get", client.get, "k") == b"v"
    breaker.force_open()
    # The connections answer, not `execute`: a SET is acknowledged as redis-py does it.
    assert await breaker.execute("set", client.set, "k", "w") is True
    assert await aside(breaker.execute, "get", client.get, "k") is None
    with pytest.raises(CommandRefused):
        await breaker.execute("incr", client.incr, "n")
    assert (breaker.pending, breaker.snapshot().counters["queued"]) == (1, 1)
    await breaker.aclose()
    await client.aclose()


@pytest.mark.server
async def test_also_where_the_client_was_given_the_connection_class(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        assert await breaker.execute("set", client.set, "k", "v") is True
        assert await breaker.execute("get", client.get, "k") == b"v"


async def test_execute_without_a_client_is_a_value_error() -> None:
    breaker, store = RedisCircuitBreaker(), Store()
    for func in (store.get, Redis().get):
        with pytest.raises(ValueError, match=r"RedisCircuitBreaker\(redis_client\)"):
            await breaker.execute("get", func, "k")
    assert store.calls == []


# -- the façade over an object


@pytest.mark.asyncio_only("about what is whose object: among threads the tests hold a shape of it")
async def test_the_facade_over_an_object_is_execute() -> None:
    store = Store()
    breaker = quick(store)
    client: Any = ResilientRedis(breaker)
    assert client.client is store
    store.down = nobody_listens()
    with pytest.raises(ConnectionError) as raised:
        await client.set("k", "v")
    assert raised.value.queued is True  # type: ignore[attr-defined]  # as execute says
    assert breaker.state in (OPEN, HALF_OPEN)
    breaker.force_open()
    assert await client.get("other") is None
    assert await client.rpush("l", 1) == "OK"
    with pytest.raises(CommandRefused):
        await client.incr("n")
    store.down = None
    breaker.reset()
    assert await breaker.flush_re_sync_queue() == 2
    assert store.writes()[-2:] == [("set", "k", "v"), ("rpush", "l", 1)]
    assert client.data == {"k": "v", "l": [1]}  # what is no method passes
    await breaker.aclose()


class Piped(Store):
    """With pipelines of its own, and no pool of redis-py."""

    sent = 0

    def pipeline(self, **_: Any) -> Any:
        store = self

        class Pipe:
            def set(self, *_: Any) -> Pipe:
                return self

            async def execute(self, raise_on_error: bool = True) -> list[bool]:
                store.sent += 1
                return [True]

            async def reset(self) -> None:
                pass  # it holds nothing

        return Pipe()


@pytest.mark.asyncio_only("about an object whose methods are coroutines")
async def test_a_strangers_pipeline_is_sent_whole_or_refused() -> None:
    store = Piped()
    client: Any = ResilientRedis(quick(store))
    assert await client.pipeline().set("k", "v").execute() == [True]
    client.breaker.force_open()
    with contextlib.suppress(CommandRefused):  # which is right
        await client.pipeline().set("k", "v").execute()
    assert store.sent == 1
