"""Whose premise it is where `track()` stands around each request: the request's own."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from resilient_redis import CommandRefused, track
from tests.contract.recovery_helpers import until
from tests.support.flavours import RedisCircuitBreaker
from tests.support.servers import Rig
from tests.surface.helpers import Store, facade, guarded, quick

pytestmark = pytest.mark.server

Made = tuple[Any, RedisCircuitBreaker]
Door = Callable[[Rig], AbstractAsyncContextManager[Made]]


@asynccontextmanager
async def by_connection(rig: Rig) -> AsyncIterator[Made]:
    async with guarded(rig, decode_responses=True) as made:
        yield made


@asynccontextmanager
async def by_facade(rig: Rig) -> AsyncIterator[Made]:
    async with facade(rig, decode_responses=True) as client:
        yield client, client.breaker


class Caller:
    """`breaker.execute` by hand."""

    def __init__(self, store: Store, breaker: RedisCircuitBreaker) -> None:
        self._store = store
        self._breaker = breaker

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._breaker.client, name)
        return lambda *args: self._breaker.execute(name, method, *args)


@asynccontextmanager
async def by_execute(_: Rig) -> AsyncIterator[Made]:
    store = Store()
    breaker = quick(store)
    yield Caller(store, breaker), breaker
    await breaker.aclose()


each_door = pytest.mark.parametrize(
    "door", [by_connection, by_facade, by_execute], ids=lambda door: door.__name__
)


async def recovered(client: Any, breaker: RedisCircuitBreaker) -> None:
    breaker.reset()
    await breaker.flush_re_sync_queue()
    await until(lambda: not breaker.busy)


def reasons(breaker: RedisCircuitBreaker) -> list[str]:
    return [letter.reason for letter in breaker.dead_letters]


@each_door
async def test_what_an_earlier_request_of_the_worker_was_told(valkey_rig: Rig, door: Door) -> None:
    """One thread, or task, serves one user after the other."""
    async with door(valkey_rig) as (client, breaker):
        await client.set("a", "old")
        await client.set("b", "old")
        breaker.force_open()
        with track():
            assert await client.get("a") is None
            assert await client.get("b") is None
        with track():
            assert await client.set("a", "another user's")
        await recovered(client, breaker)
        assert reasons(breaker) == []
        with track():
            assert await client.set("b", "another user's")  # not refused
        assert await client.get("a") == await client.get("b") == "another user's"


@each_door
async def test_what_the_request_itself_was_told(valkey_rig: Rig, door: Door) -> None:
    """It is its own reader: in blocks inside it, and in the tasks that it starts."""
    async with door(valkey_rig) as (client, breaker):
        await client.set("a", "old")
        await client.set("b", "old")

        async def load(key: str) -> Any:
            with track():
                return await client.get(key)

        breaker.force_open()
        with track():
            assert list(await asyncio.gather(load("a"), load("b"))) == [None, None]
            await client.set("a", "a default")
            await recovered(client, breaker)
            assert reasons(breaker) == ["premise"]
            with pytest.raises(CommandRefused):
                await client.set("b", "a default")
            assert await load("b") == "old"
            assert await client.set("b", "made of what it is")
        assert await client.get("a") == "old"


async def test_a_request_that_has_ended_is_forgotten(valkey_rig: Rig) -> None:
    async with by_facade(valkey_rig) as (client, breaker):
        breaker.force_open()
        with track() as t:
            assert await client.get("a") is None
        request = weakref.ref(t)
        assert breaker.provenance
        del t
        await until(lambda: request() is None)  # a thread lets go of its last call
        assert not breaker.provenance
        breaker.reset()
        await until(lambda: not breaker.busy)
        assert breaker.live


def test_two_trackers_are_two() -> None:
    """Owners are told apart, though their counts are alike."""
    with track() as one:
        pass
    with track() as another:
        pass
    assert one != another
    assert len({one, another}) == 2
