"""Who is measured: redis-py as it is, ours, and the peers around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import ConnectionPool, Redis

from resilient_redis.asyncio import (
    CommandRefused,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
)

KEY, COUNTER = "benchmark:key", "benchmark:counter"
VALUE = "v" * 100
PIPELINE = 100

PLAIN, CONTROL = "redis-py", "redis-py, once more"
BY_CLASS, BY_FACADE = "ours, connection class", "ours, façade"
OURS = (BY_CLASS, BY_FACADE)

Call = Callable[[], Awaitable[object]]


class NeverRaised(Exception):
    """The rejection of a subject that rejects nothing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A subject at work."""

    calls: Mapping[str, Call]
    rejection: type[Exception] = NeverRaised
    breaker: RedisCircuitBreaker | None = None  # ours


Subject = Callable[[str], AbstractAsyncContextManager[Opened]]


def calls_of(client: Redis) -> dict[str, Call]:
    async def get() -> object:
        return await client.get(KEY)

    async def set_() -> object:
        return await client.set(KEY, VALUE)

    async def incr() -> object:
        return await client.incr(COUNTER)

    async def pipeline() -> object:
        pipe = client.pipeline(transaction=False)
        for _ in range(PIPELINE):
            pipe.get(KEY)
        return await pipe.execute()

    return {"get": get, "set": set_, "incr": incr, "pipeline": pipeline}


# More than the 1,000 tasks of the benchmark `scaling`; redis-py's default of 100 raises
# MaxConnectionsError at the 101st.
MANY = 1100


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Opened]:
    client = Redis.from_url(url, max_connections=MANY)
    yield Opened(calls_of(client))
    await client.aclose()


@asynccontextmanager
async def by_class(url: str) -> AsyncIterator[Opened]:
    breaker = RedisCircuitBreaker()
    client = Redis.from_url(
        url, connection_class=ResilientConnection, breaker=breaker, max_connections=MANY
    )
    yield Opened(calls_of(client), CommandRefused, breaker)
    await client.aclose()
    await breaker.aclose()


@asynccontextmanager
async def by_facade(url: str) -> AsyncIterator[Opened]:
    client = ResilientRedis.from_url(url, max_connections=MANY)
    yield Opened(calls_of(client), CommandRefused, client.breaker)
    await client.aclose()


def guarded_client(url: str, breaker: RedisCircuitBreaker) -> Redis:
    """By connection class, with a breaker of the benchmark's making."""
    pool = ConnectionPool.from_url(url, connection_class=ResilientConnection, breaker=breaker)
    return Redis(connection_pool=pool)
