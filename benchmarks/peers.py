"""Other breakers around each redis-py call, and redis-py's own client with a breaker in it.

They are imported by name, because none of them need be installed: who is missing is told in the
table. Each is used in that way of its documentation which costs least.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import import_module

from redis.asyncio import Redis

from .subjects import KEY, PIPELINE, Call, Opened, Subject, calls_of

LONG = 3600  # seconds for which an open breaker stays open, so that its rejection can be measured

Guard = Callable[[Call], Call]


def around(make: Callable[[], tuple[Guard, type[Exception]]]) -> Subject:
    """redis-py with a guard around each call; a pipeline is one call."""

    @asynccontextmanager
    async def subject(url: str) -> AsyncIterator[Opened]:
        guard, rejection = make()
        client = Redis.from_url(url)
        yield Opened({name: guard(call) for name, call in calls_of(client).items()}, rejection)
        await client.aclose()

    return subject


def pybreaker() -> tuple[Guard, type[Exception]]:
    module = import_module("pybreaker")
    breaker = module.CircuitBreaker(reset_timeout=LONG)

    # Its `call_async` needs Tornado, and took 30 us where `calling` takes 3.
    def guard(call: Call) -> Call:
        async def guarded() -> object:
            with breaker.calling():
                return await call()

        return guarded

    return guard, module.CircuitBreakerError


def aiobreaker() -> tuple[Guard, type[Exception]]:
    module = import_module("aiobreaker")
    breaker = module.CircuitBreaker(timeout_duration=timedelta(seconds=LONG))

    def guard(call: Call) -> Call:
        async def guarded() -> object:
            return await breaker.call_async(call)

        return guarded

    return guard, module.CircuitBreakerError


def purgatory() -> tuple[Guard, type[Exception]]:
    breakers = import_module("purgatory").AsyncCircuitBreakerFactory(default_ttl=LONG)

    def guard(call: Call) -> Call:
        async def guarded() -> object:
            async with await breakers.get_breaker("redis"):
                return await call()

        return guarded

    return guard, import_module("purgatory.domain.model").OpenedState


def circuitbreaker() -> tuple[Guard, type[Exception]]:
    module = import_module("circuitbreaker")
    breaker = module.CircuitBreaker(recovery_timeout=LONG, name="redis")

    def guard(call: Call) -> Call:
        @breaker  # type: ignore[untyped-decorator]  # ships no types
        async def guarded() -> object:
            return await call()

        wrapped: Call = guarded
        return wrapped

    return guard, module.CircuitBreakerError


@asynccontextmanager
async def multi_db(url: str) -> AsyncIterator[Opened]:
    """redis-py's MultiDBClient with one database. Its pipeline is always a MULTI."""
    config = import_module("redis.asyncio.multidb.config")
    database = config.DatabaseConfig(from_url=url, grace_period=LONG)
    make = import_module("redis.asyncio.multidb.client").MultiDBClient
    client = make(config.MultiDbConfig(databases_config=[database]))
    await client.initialize()

    async def pipeline() -> object:
        pipe = client.pipeline()
        for _ in range(PIPELINE):
            pipe.get(KEY)
        return await pipe.execute()

    rejection = import_module("redis.multidb.exception").TemporaryUnavailableException
    yield Opened({**calls_of(client), "pipeline": pipeline}, rejection)
    await client.aclose()


PEERS: dict[str, Subject] = {
    "pybreaker": around(pybreaker),
    "aiobreaker": around(aiobreaker),
    "purgatory": around(purgatory),
    "circuitbreaker": around(circuitbreaker),
    "redis-py's MultiDBClient": multi_db,
}
