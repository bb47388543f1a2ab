"""`force_open()`, `reset()`, `flush_re_sync_queue()` and `aclose()`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from typing import Any

import pytest
from redis.exceptions import ConnectionError
from tenacity import wait_fixed

from resilient_redis import CommandRefused
from resilient_redis.cli.servers import free_port
from resilient_redis.events import ProbeFailed, StateChanged
from tests.contract.helpers import CLOSED, OPEN, events_of, recovered, until, using
from tests.support.flavours import Redis, RedisCircuitBreaker, ResilientConnection, real
from tests.support.servers import Rig
from tests.surface.helpers import QUICK, Store, aside, goes_down, guarded, nobody_listens, quick

# It would look at the server in a minute.
PATIENT: dict[str, Any] = {**QUICK, "recovery_timeout": 60.0, "recovery_wait": wait_fixed(60.0)}


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "resilient_redis" and record.levelno >= logging.ERROR
    ]


# -- force_open and reset


@pytest.mark.server
async def test_forced_open_a_healthy_server_is_away(valkey_rig: Rig) -> None:
    """A drill: nobody asks the server, and it stays so until `reset`."""
    async with guarded(valkey_rig) as (client, breaker):
        await client.set("k", "before")
        events = events_of(breaker)
        breaker.force_open()
        assert breaker.state == OPEN
        received, gets = valkey_rig.connections_received(), valkey_rig.calls("get")
        assert await aside(client.get, "k") is None
        assert await client.set("k", "during") is True
        with pytest.raises(CommandRefused):
            await client.incr("n")
        await asyncio.sleep(0.2)  # twenty times the wait between two probes
        assert (breaker.state, breaker.pending) == (OPEN, 1)
        assert valkey_rig.connections_received() == received
        assert valkey_rig.calls("get") == gets
        assert valkey_rig.admin.get("k") == "before"
        breaker.reset()
        assert breaker.state == CLOSED
        await recovered(breaker)
        assert await client.get("k") == b"during"
    moves = [(e.old, e.new) for e in events if isinstance(e, StateChanged)]
    assert moves == [(CLOSED, OPEN), (OPEN, CLOSED)]


@pytest.mark.server
async def test_forced_open_in_an_outage_it_stays_open_after_it(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await goes_down(valkey_rig, client, breaker)
        breaker.force_open()
        valkey_rig.restart()
        await asyncio.sleep(0.2)
        assert breaker.state == OPEN
        assert await aside(client.get, "k") is None
        breaker.reset()
        await recovered(breaker)
        assert await client.set("k", "v") is True
        assert valkey_rig.admin.get("k") == "v"


def test_force_open_and_reset_again_and_again() -> None:
    breaker = RedisCircuitBreaker()
    events = events_of(breaker)
    for _ in range(3):
        breaker.force_open()
        breaker.force_open()
        breaker.reset()
        breaker.reset()
    assert len(events) == 6


async def test_reset_closes_without_a_probe() -> None:
    """Also where nobody listens: then it opens again by itself."""
    breaker = RedisCircuitBreaker(failure_threshold=2, recovery_wait=wait_fixed(30))
    url = f"redis://127.0.0.1:{free_port()}/0"
    client = Redis.from_url(url, connection_class=ResilientConnection, breaker=breaker)
    async with using(client, breaker):
        assert await client.get("k") is None
        assert (breaker.state, breaker.failures) == (OPEN, 2)
        events = events_of(breaker)
        breaker.reset()
        assert await client.get("k") is None
        await until(lambda: len(events) >= 2)
        moves = [(e.old, e.new, e.reason) for e in events if isinstance(e, StateChanged)]
        assert moves[0] == (OPEN, CLOSED, "reset")
        assert moves[1][:2] == (CLOSED, OPEN)


@pytest.mark.server
async def test_reset_does_not_wait_for_the_next_probe(valkey_rig: Rig) -> None:
    """Recovery rests for half a minute; what is queued is replayed now."""
    breaker = RedisCircuitBreaker(recovery_wait=wait_fixed(30))
    async with guarded(valkey_rig, breaker) as (client, _):
        breaker.force_open()
        assert await client.set("k", "v") is True
        await asyncio.sleep(0.05)  # it rests
        breaker.reset()
        await recovered(breaker, 2)
        assert valkey_rig.admin.get("k") == "v"


# -- "`flush_re_sync_queue() -> int` applied"


@pytest.mark.server
async def test_flush_looks_at_the_server_now_and_says_how_many_were_applied(
    valkey_rig: Rig,
) -> None:
    async with guarded(valkey_rig, RedisCircuitBreaker(**PATIENT)) as (client, breaker):
        await client.exists("warm")
        assert await breaker.flush_re_sync_queue() == 0
        await goes_down(valkey_rig, client, breaker)
        for n in range(7):
            await client.rpush("l", n)
        valkey_rig.restart()
        await asyncio.sleep(0.1)
        assert (breaker.state, breaker.pending) == (OPEN, 7)
        started = time.monotonic()
        assert await breaker.flush_re_sync_queue() == 7
        assert time.monotonic() - started < 0.5
        assert (breaker.state, breaker.pending) == (CLOSED, 0)
        assert valkey_rig.admin.lrange("l", 0, -1) == [str(n) for n in range(7)]
        assert await breaker.flush_re_sync_queue() == 0


@pytest.mark.server
async def test_flush_does_not_count_what_was_set_aside(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig, RedisCircuitBreaker(**PATIENT)) as (client, breaker):
        await client.set("text", "v")
        await goes_down(valkey_rig, client, breaker)
        await client.sadd("text", "x")
        await client.sadd("set", "x")
        valkey_rig.restart()
        assert await breaker.flush_re_sync_queue() == 1
        assert len(breaker.dead_letters) == 1


@pytest.mark.server
async def test_flush_with_nobody_there_applies_nothing_and_keeps_all(valkey_rig: Rig) -> None:
    breaker = RedisCircuitBreaker(**{**PATIENT, "drain_wait": 0.2})
    async with guarded(valkey_rig, breaker) as (client, _):
        await client.exists("warm")
        await goes_down(valkey_rig, client, breaker)
        await client.rpush("l", 1)
        events = events_of(breaker)
        started = time.monotonic()
        assert await breaker.flush_re_sync_queue() == 0
        assert 0.15 < time.monotonic() - started < 0.6  # drain_wait
        assert (breaker.state, breaker.pending) == (OPEN, 1)
        assert any(isinstance(event, ProbeFailed) for event in events), "it did not look"
        valkey_rig.restart()
        assert await breaker.flush_re_sync_queue() == 1


async def test_flush_over_any_object() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 1, 60.0)
    store.down = nobody_listens()
    with pytest.raises(ConnectionError) as raised:
        await breaker.execute("rpush", store.rpush, "l", 0)
    assert raised.value.queued is True  # type: ignore[attr-defined]  # as execute says
    for n in (1, 2):
        assert await breaker.execute("rpush", store.rpush, "l", n) == "OK"
    assert await breaker.flush_re_sync_queue() == 0
    store.down = None
    assert await breaker.flush_re_sync_queue() == 3
    assert store.data["l"] == [0, 1, 2]
    assert (breaker.state, breaker.pending) == (CLOSED, 0)


# -- "`aclose(drain_timeout=0.0) -> int` left (and an ERROR line with the count if not 0)"


def test_the_default_is_not_to_wait() -> None:
    parameters = inspect.signature(real(RedisCircuitBreaker).aclose).parameters
    assert parameters["drain_timeout"].default == 0.0


@pytest.mark.server
async def test_aclose_with_nothing_left_says_nothing(
    valkey_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await client.set("k", "v")
        assert await breaker.aclose() == 0
        assert await breaker.aclose() == 0
    assert errors(caplog) == []


@pytest.mark.server
async def test_aclose_returns_what_is_left_and_logs_the_count(
    valkey_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = quick(name="billing")
    client = Redis.from_url(valkey_rig.url, connection_class=ResilientConnection, breaker=breaker)
    await goes_down(valkey_rig, client, breaker)
    for n in range(41):
        await client.rpush("l", n)
    started = time.monotonic()
    assert await breaker.aclose() == 41
    assert time.monotonic() - started < 0.3
    (line,) = errors(caplog)
    assert "billing" in line
    assert "41 acknowledged writes" in line
    assert asyncio.all_tasks() == {asyncio.current_task()}
    valkey_rig.restart()
    await asyncio.sleep(0.1)
    assert valkey_rig.admin.llen("l") == 0, "a closed breaker replays nothing"
    await client.aclose()


@pytest.mark.server
async def test_aclose_waits_for_the_replay_up_to_its_timeout(
    valkey_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await goes_down(valkey_rig, client, breaker)
        await client.rpush("l", 1)
        started = time.monotonic()
        assert await breaker.aclose(0.15) == 1
        assert 0.1 < time.monotonic() - started < 0.5
    assert errors(caplog)


@pytest.mark.server
async def test_aclose_returns_as_soon_as_the_replay_is_done(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await goes_down(valkey_rig, client, breaker)
        await client.rpush("l", 2)
        closing = asyncio.create_task(breaker.aclose(drain_timeout=5.0))
        await asyncio.sleep(0.03)
        assert not closing.done()
        valkey_rig.restart()
        await until(lambda: valkey_rig.admin.llen("l") == 1)
        assert await asyncio.wait_for(closing, 1.0) == 0


@pytest.mark.server
async def test_aclose_waits_for_the_replay(
    valkey_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await goes_down(valkey_rig, client, breaker)
        await client.rpush("l", 2)
        closing = asyncio.create_task(breaker.aclose(drain_timeout=5.0))
        await asyncio.sleep(0.03)
        valkey_rig.restart()
        assert await closing == 0
    assert valkey_rig.admin.lrange("l", 0, -1) == ["2"]
    assert errors(caplog) == []


async def test_aclose_over_any_object(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    breaker = quick(store)
    breaker.force_open()
    await breaker.execute("set", store.set, "k", "v")
    assert await breaker.aclose() == 1
    assert errors(caplog) == ["redis: closed with 1 acknowledged writes unapplied"]
    caplog.clear()
    breaker.reset()
    assert await breaker.aclose(1.0) == 0
    assert store.data == {"k": "v"}
    assert errors(caplog) == []
    await until(lambda: len(asyncio.all_tasks()) == 1)
