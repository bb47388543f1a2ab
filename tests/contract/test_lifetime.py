"""Event loops, closing and cancelling: nothing outlives what it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio.connection import Connection

from resilient_redis.events import Event, StateChanged
from tests.contract.helpers import (
    CLOSED,
    HALF_OPEN,
    KEY,
    OPEN,
    VALUE,
    Client,
    events_of,
    goes_away,
    guarded,
    outcome,
    recovered,
    until,
    warm,
)
from tests.support.faults import UP
from tests.support.flavours import Redis, RedisCircuitBreaker, ResilientConnection
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

pytestmark = pytest.mark.server

CALLS: dict[str, Callable[[Client], Any]] = {
    "GET": lambda c: c.get(KEY),
    "SET": lambda c: c.set(KEY, VALUE),
    "RPUSH": lambda c: c.rpush("list", VALUE),
    "INCR": lambda c: c.incr("n"),
    "pipeline": lambda c: c.pipeline(transaction=False).set(KEY, VALUE).rpush("l", "x").execute(),
    "mixed": lambda c: c.pipeline(transaction=False).set(KEY, VALUE).get(KEY).execute(),
}


async def replies_are_right(client: Client) -> None:
    for _ in range(3):
        words = [f"{VALUE}-{n}" for n in range(20)]
        assert await asyncio.gather(*map(client.echo, words)) == [word.encode() for word in words]


# -- event loops ----------------------------------------------------------------------------------


@asynccontextmanager
async def client_of(rig: Rig, breaker: RedisCircuitBreaker) -> AsyncIterator[Client]:
    """Unlike `from_url` of the helpers it leaves the breaker to the next loop."""
    async with Redis.from_url(
        rig.url, connection_class=ResilientConnection, breaker=breaker
    ) as client:
        yield client


def test_a_second_loop_takes_over_what_the_first_has_queued(valkey_rig: Rig) -> None:
    rig = valkey_rig
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)

    async def first() -> None:
        async with client_of(rig, breaker) as client:
            await goes_away(rig, client, breaker)
            for n in range(10):
                await client.rpush("list", n)
            assert breaker.pending == 10

    async def second() -> list[bytes]:
        async with client_of(rig, breaker) as client:
            await client.rpush("list", 10)
            await recovered(breaker)
            found: list[bytes] = await client.lrange("list", 0, -1)
            await breaker.aclose()
            return found

    asyncio.run(first())
    assert (breaker.state, breaker.pending) == (OPEN, 10)
    rig.restart()
    assert asyncio.run(second()) == [b"%d" % n for n in range(11)]
    assert (breaker.pending, breaker.dead_letters) == (0, ())


def test_a_healthy_breaker_in_several_loops(valkey_rig: Rig) -> None:
    """Hang detection works in each: its timer does not stay in the loop that has ended."""
    rig = valkey_rig
    breaker = RedisCircuitBreaker(deadline=0.2, recovery_timeout=0.1)

    async def once() -> None:
        async with client_of(rig, breaker) as client:
            await warm(client, 3)
            rig.freeze()
            assert await asyncio.wait_for(client.get(KEY), 1.0) is None
            rig.thaw()
            await recovered(breaker)

    for _ in range(3):
        asyncio.run(once())


# -- closing --------------------------------------------------------------------------------------


@pytest.mark.asyncio_only("it counts tasks; no thread is left in tests/sync")
async def test_aclose_while_open(valkey_rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    async with guarded(valkey_rig.port, breaker) as client:
        await warm(client, 3)
        await goes_away(valkey_rig, client, breaker)
        for _ in range(3):
            await client.set(KEY, VALUE)
        assert await breaker.aclose() == 3
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert "3" in errors[0].getMessage()
        # Nothing begins by itself. Used again, it looks for the server again.
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await client.get(KEY) is None
        assert len(asyncio.all_tasks()) == 2
        assert await breaker.aclose() == 3
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_aclose_waits_for_the_drain(valkey_rig: Rig) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    async with guarded(valkey_rig.port, breaker) as client:
        await goes_away(valkey_rig, client, breaker)
        await client.set(KEY, VALUE)
        closing = asyncio.create_task(breaker.aclose(drain_timeout=5.0))
        await asyncio.sleep(0)
        valkey_rig.restart()
        assert await closing == 0
        assert valkey_rig.admin.get(KEY) == VALUE


@pytest.mark.parametrize("moment", ["probing", "draining"])
async def test_aclose_in_the_middle_of(valkey_rig: Rig, moment: str) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    async with ChaosProxy(valkey_rig.port) as proxy, guarded(proxy.port, breaker) as client:
        await enter(moment, proxy, client, breaker)
        assert await breaker.aclose() > 0
        assert [task for task in asyncio.all_tasks() if "redis" in task.get_name()] == []


def deafen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes hang, and swallow a cancellation.

    `wait_for`, with which redis-py sends, does so before Python 3.12 if what it waits for ends in
    the same step (https://github.com/python/cpython/issues/86296).
    """

    async def hang(*_: Any, **__: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    monkeypatch.setattr(Connection, "on_connect_check_health", hang)


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
async def test_a_cancellation_that_is_swallowed_while_connecting(
    valkey_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers a PING, so it is not away: the caller is refused."""
    breaker = RedisCircuitBreaker(deadline=0.2)
    deafen(monkeypatch)
    async with guarded(valkey_rig.port, breaker) as client:
        assert await asyncio.wait_for(client.get(KEY), 1.0) is None


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
async def test_a_cancellation_that_is_swallowed_while_probing(
    valkey_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = RedisCircuitBreaker(probe_timeout=5.0)
    async with guarded(valkey_rig.port, breaker) as client:
        await goes_away(valkey_rig, client, breaker)
        deafen(monkeypatch)
        valkey_rig.restart()
        await until(lambda: any("recovery" in name for name in waiting_in("hang")))
        await asyncio.wait_for(breaker.aclose(), 1.0)


def waiting_in(function: str) -> list[str]:
    """The names of the tasks that wait in `function`, or wait for one that does."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    inside = any(frame.f_code.co_name == function for task in tasks for frame in stack_of(task))
    return [task.get_name() for task in tasks] if inside else []


def stack_of(task: asyncio.Task[Any]) -> Iterator[Any]:
    step: Any = task.get_coro()
    while step is not None:
        if frame := getattr(step, "cr_frame", None):
            yield frame
        step = getattr(step, "cr_await", None)


# -- cancelling -----------------------------------------------------------------------------------


async def enter(
    moment: str, proxy: ChaosProxy, client: Client, breaker: RedisCircuitBreaker
) -> None:
    """An outage with a queued write, brought to `moment` and held there."""
    events = events_of(breaker)
    await warm(client, 5)
    await proxy.refuse()
    proxy.cut_all()
    while breaker.state == CLOSED:
        await client.get(KEY)
    await client.rpush("first", VALUE)
    if moment == "open":
        return
    if moment == "probing":
        proxy.half_open()
        await proxy.accept()
        await until(lambda: breaker.state == HALF_OPEN and proxy.open_links())
        return
    proxy.stall(b"MULTI")
    await proxy.accept()
    await until(lambda: closed_again(events))
    await until(lambda: any(b"MULTI" in link.sent for link in proxy.links))


def closed_again(events: list[Event]) -> bool:
    return any(isinstance(event, StateChanged) and event.new == CLOSED for event in events)


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
@pytest.mark.parametrize("moment", ["open", "probing", "draining"])
@pytest.mark.parametrize("name", CALLS)
async def test_cancelled(valkey_rig: Rig, moment: str, name: str) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1, drain_wait=5.0, probe_timeout=2.0)
    async with ChaosProxy(valkey_rig.port) as proxy, guarded(proxy.port, breaker) as client:
        await enter(moment, proxy, client, breaker)
        before = breaker.pending
        tasks = [asyncio.create_task(outcome(CALLS[name](client))) for _ in range(5)]
        await asyncio.sleep(0)
        if moment == "draining":
            await asyncio.sleep(0.01)  # they wait for something that does not happen
            assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if name in ("GET", "INCR"):
            assert breaker.pending == before
        await proxy.accept()
        proxy.half_open(False)
        proxy.clear()
        proxy.cut_all(match=lambda link: not link.server)  # a probe that was never answered
        await recovered(breaker)
        assert (breaker.pending, breaker.dead_letters) == (0, ())
        assert await client.llen("first") == 1
        assert await client.llen("list") <= 5
        await replies_are_right(client)


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
@pytest.mark.parametrize("name", CALLS)
async def test_cancelled_while_connecting(valkey_rig: Rig, name: str) -> None:
    breaker = RedisCircuitBreaker()
    async with ChaosProxy(valkey_rig.port) as proxy, guarded(proxy.port, breaker) as client:
        proxy.half_open()
        tasks = [asyncio.create_task(CALLS[name](client)) for _ in range(5)]
        await until(lambda: len(proxy.open_links()) == 5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        await until(lambda: not proxy.open_links())
        proxy.half_open(False)
        await replies_are_right(client)
        assert (breaker.state, breaker.failures) == (CLOSED, 0)
        assert client.connection_pool._in_use_connections == set()


@pytest.mark.asyncio_only("nobody cancels a thread that reads")
@pytest.mark.parametrize("name, reset", [("GET", False), ("SET", True)])
async def test_only_what_may_land_late_is_cut_off_with_a_reset(
    valkey_rig: Rig, name: str, reset: bool
) -> None:
    """A cancelled read ends its connection as in redis-py: whoever stands between, a proxy or a
    load balancer, sees an end and not an error.
    """
    async with (
        ChaosProxy(valkey_rig.port) as proxy,
        guarded(proxy.port, RedisCircuitBreaker()) as client,
    ):
        await warm(client, 1)
        (link,) = proxy.links
        fault = proxy.drop_replies()
        call = asyncio.create_task(CALLS[name](client))
        await proxy.seen(KEY.encode())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: not link.open)
        assert link.reset[UP] is reset
        fault.end()
        await replies_are_right(client)
