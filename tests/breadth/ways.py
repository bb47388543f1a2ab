"""The ways in which redis-py talks: protocol x legacy shapes x decoding; and clients for each."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from resilient_redis import COUNTERS, Policy, Rule
from resilient_redis.asyncio import RedisCircuitBreaker, ResilientConnection
from tests.support.servers import Rig
from tests.surface.helpers import quick

#: redis-py 8 has an option for the shapes of replies; before it there is one kind of them.
HAS_LEGACY = "legacy_responses" in inspect.signature(AbstractConnection.__init__).parameters

Way = dict[str, Any]
WAYS: list[Way] = [
    {
        **({} if protocol is None else {"protocol": protocol}),
        **({} if legacy is None else {"legacy_responses": legacy}),
        "decode_responses": decode,
    }
    for protocol, legacy, decode in itertools.product(
        (None, 2, 3), (True, False) if HAS_LEGACY else (None,), (False, True)
    )
]


def named(way: Way) -> str:
    legacy = way.get("legacy_responses")
    shapes = "" if legacy is None else "-legacy" if legacy else "-unified"
    decoding = "-str" if way["decode_responses"] else "-bytes"
    return f"resp{way.get('protocol', '')}{shapes}{decoding}"


@asynccontextmanager
async def stock(rig: Rig, way: Way) -> AsyncIterator[Any]:
    """redis-py as it is."""
    client = Redis.from_url(rig.url, **way)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def guarded(
    rig: Rig, way: Way, *, counters: bool = False, **options: Any
) -> AsyncIterator[tuple[Any, RedisCircuitBreaker]]:
    """The same with our connection class: one connection, so that what one command leaves unread
    is read by the next.
    """
    rules = [Rule(commands=COUNTERS, answer="queue")] if counters else []
    breaker = quick(policy=Policy(rules=rules), deadline=5.0)
    client = Redis.from_url(
        rig.url,
        connection_class=ResilientConnection,
        breaker=breaker,
        **{"max_connections": 1, **way, **options},
    )
    try:
        yield client, breaker
    finally:
        await client.aclose()
        await breaker.aclose()


async def answered(call: Awaitable[Any]) -> Any:
    """The result of a call, or the error that it raised."""
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - what is raised is what is asked for
        return error


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Exception):
        return str(one) == str(other)
    if isinstance(one, dict):
        return list(map(type, one)) == list(map(type, other)) and same(
            list(one.items()), list(other.items())
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
