"""One outage, as every kind of client has to come through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis
from tenacity import wait_fixed

from resilient_redis.asyncio import (
    CommandRefused,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
)
from resilient_redis.cli.servers import REDIS, VALKEY
from tests.contract.helpers import OPEN, PASSWORD, Client, recovered, until
from tests.contract.recovery_helpers import watermarks
from tests.support.servers import Rig
from tests.surface.helpers import aside
from tests.surface.tls import TlsProxy

#: Opens at the first failure, looks at the server every 10 ms.
QUICK: dict[str, Any] = {
    "failure_threshold": 1,
    "recovery_wait": wait_fixed(0.01),
    "deadline": 0.3,
}
#: An ACL user who may do what an application may.
USER = ("app", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-@dangerous")
WRITERS, EACH = 4, 5


@dataclass
class Place:
    """One server, and the ways to it."""

    rig: Rig
    unix_socket: str
    tls: TlsProxy
    authority: str  # the file that holds what the TLS certificate is checked against
    database: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.rig.port}/{self.database}"

    @property
    def unix(self) -> str:
        return f"unix://{self.unix_socket}"

    @property
    def rediss(self) -> str:
        return f"rediss://127.0.0.1:{self.tls.port}/0"


def quick(client: Any = None, **options: Any) -> RedisCircuitBreaker:
    return RedisCircuitBreaker(client, **{**QUICK, **options})


async def goes_down(rig: Rig, client: Client, breaker: RedisCircuitBreaker) -> None:
    """Kills the server; the breaker is open when this returns, and no read has raised."""
    rig.kill()
    while breaker.state != OPEN:
        assert await aside(client.get, "never-set") is None


async def through_an_outage(
    rig: Rig, client: Client, breaker: RedisCircuitBreaker, *, text: bool = False, db: int = 0
) -> None:
    """Healthy, killed, restarted, live again. `text`: replies are decoded."""

    def data(value: str) -> Any:
        return value if text else value.encode()

    assert await client.set("before", "v") is True
    assert await client.get("before") == data("v")
    assert await client.incr("n") == 1
    assert await client.pipeline(transaction=False).rpush("l", "0").get("before").execute() == [
        1,
        data("v"),
    ]
    assert await client.pipeline().rpush("l", "1").lrange("l", 0, -1).execute() == [
        2,
        [data("0"), data("1")],
    ]
    await goes_down(rig, client, breaker)

    assert await aside(client.get, "before") is None
    assert await aside(client.hgetall, "h") == {}
    assert await aside(client.mget, "before", "b") == [None, None]
    assert await aside(client.smembers, "s") == set()
    piped = client.pipeline(transaction=False).get("before").lrange("l", 0, -1)
    assert await aside(piped.execute) == [None, []]
    with pytest.raises(CommandRefused):
        await client.incr("n")
    assert await client.set("during", "v") is True
    assert await client.rpush("l", "2") == "OK"
    assert await client.pipeline(transaction=False).rpush("l", "3").hset("h", "f", "v").execute()
    assert await client.pipeline().rpush("l", "4").rpush("l", "5").execute() == ["OK", "OK"]
    assert await client.delete("before") == 1

    async def writes(number: int) -> None:
        for n in range(EACH):
            await client.rpush(f"list:{number}", n)

    await asyncio.gather(*map(writes, range(WRITERS)))
    queued = 6 + WRITERS * EACH
    assert breaker.pending == queued
    rig.restart()
    await recovered(breaker)

    counters = breaker.snapshot().counters
    assert (breaker.pending, breaker.dead_letters) == (0, ())
    assert counters["replayed"] == queued, counters
    assert await client.lrange("l", 0, -1) == [data(str(n)) for n in range(6)]
    for number in range(WRITERS):
        assert await client.lrange(f"list:{number}", 0, -1) == [data(str(n)) for n in range(EACH)]
    assert await client.get("during") == data("v")
    assert await client.hgetall("h") == {data("f"): data("v")}
    assert await client.exists("before") == 0
    assert await client.incr("n") == 2
    assert await client.rpush("l", "6") == 7
    words = [f"word-{n}" for n in range(20)]
    for word in words:  # one by one: a pool of one connection serves this too
        assert await client.echo(word) == data(word)
    await until(lambda: not watermarks(rig, db))
    assert not in_use(client)


def in_use(client: Client) -> set[Any]:
    """The connections that its pool does not have back."""
    pool = client.connection_pool
    found: set[Any] = pool._in_use_connections
    return found - {client.connection}


async def nothing_is_left(rig: Rig) -> None:
    """Whoever was connected to the server has gone."""
    await until(lambda: rig.connections() == 0)


# -- three ways in, for what is asked of each ------------------------------------------------------


@asynccontextmanager
async def by_class(url: str, **options: Any) -> AsyncIterator[tuple[Any, RedisCircuitBreaker]]:
    """`options` are the breaker's."""
    breaker = quick(**options)
    client = Redis.from_url(url, connection_class=ResilientConnection, breaker=breaker)
    try:
        yield client, breaker
    finally:
        await client.aclose()
        await breaker.aclose()


@asynccontextmanager
async def by_facade(url: str, **options: Any) -> AsyncIterator[tuple[Any, RedisCircuitBreaker]]:
    async with ResilientRedis.from_url(url, **{**QUICK, **options}) as client:
        yield client, client.breaker


@asynccontextmanager
async def over_a_client(url: str, **options: Any) -> AsyncIterator[tuple[Any, RedisCircuitBreaker]]:
    """redis-py's own client, with its default retry of 10."""
    client = Redis(host="127.0.0.1", port=int(url.rpartition(":")[2].partition("/")[0]))
    breaker = quick(client, **options)
    try:
        yield client, breaker
    finally:
        await client.aclose()
        await breaker.aclose()


#: Each on one of the two servers, of which none is left out.
every_way = pytest.mark.parametrize(
    "way, rig",
    [(by_class, REDIS), (by_facade, VALKEY), (over_a_client, REDIS)],
    indirect=["rig"],
    ids=["class", "façade", "breaker"],
)
