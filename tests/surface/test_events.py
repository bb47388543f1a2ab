"""Each event is told at least once in a story that calls for it, and none per command."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

import resilient_redis.events
from resilient_redis.events import (
    EntryDeadLettered,
    Event,
    FenceDenied,
    PremisesFailed,
    ProbeFailed,
    ReplayFinished,
    ReplayProgress,
    ReplayStarted,
    RightsMissing,
    ServerLostData,
    StateChanged,
    SubscriptionGap,
    WritesHeld,
)
from tests.contract.helpers import CLOSED, HALF_OPEN, OPEN, events_of, outcome, recovered, until
from tests.support.flavours import Redis, RedisCircuitBreaker, ResilientConnection
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig
from tests.surface.helpers import Store, aside, facade, goes_down, guarded, nobody_listens, quick

SECRET = "s3cret"
KINDS = [
    value
    for value in vars(resilient_redis.events).values()
    if inspect.isclass(value) and issubclass(value, Event) and value is not Event
]


# -- "Events (frozen, `breaker` and `at` on each)"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_frozen_with_breaker_and_at(kind: Any) -> None:
    names = [field.name for field in fields(kind)]
    assert names[:2] == ["breaker", "at"]
    event = kind(*[0 for _ in names])
    for name in names:
        with pytest.raises(FrozenInstanceError):
            setattr(event, name, 1)
    with pytest.raises((AttributeError, TypeError)):
        event.more = 1
    assert event == kind(*[0 for _ in names])


# -- each of them, in a story


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@asynccontextmanager
async def proxied(
    rig: Rig, **options: Any
) -> AsyncIterator[tuple[ChaosProxy, Any, RedisCircuitBreaker, list[Event]]]:
    """A client behind a proxy, warm."""
    async with ChaosProxy(rig.port) as proxy:
        breaker = quick(name="billing", **options)
        events = events_of(breaker)
        client = Redis.from_url(proxy.url, connection_class=ResilientConnection, breaker=breaker)
        await client.exists("warm")
        try:
            yield proxy, client, breaker, events
        finally:
            proxy.clear()
            await client.aclose()
            await breaker.aclose()


@pytest.mark.server
async def test_the_story_of_an_outage(rig: Rig) -> None:
    breaker = quick(name="billing")
    async with guarded(rig, breaker) as (client, _):
        events = events_of(breaker)
        await client.set("text", "v")
        assert events == []
        began = time.monotonic()
        await goes_down(rig, client, breaker)
        await client.set(f"k-{SECRET}", SECRET)
        await client.sadd("text", SECRET)
        await client.rpush("l", SECRET)
        await until(lambda: len(of(ProbeFailed, events)) >= 2)
        rig.restart()
        await recovered(breaker)
        ended = time.monotonic()

    moves = of(StateChanged, events)
    assert (moves[0].old, moves[0].new) == (CLOSED, OPEN)
    assert moves[0].reason == "failure threshold reached"
    assert [(m.old, m.new) for m in moves[1:3]] == [(OPEN, HALF_OPEN), (HALF_OPEN, OPEN)]
    assert (moves[-1].old, moves[-1].new) == (HALF_OPEN, CLOSED)
    assert [m.reason for m in moves[1:3]] == ["probe", "probe failed"]
    assert moves[-1].reason == "probe succeeded"
    assert [m.era for m in moves] == list(range(1, len(moves) + 1))
    for earlier, later in itertools.pairwise(moves):
        assert earlier.new == later.old

    # A server that has just come back may be loading.
    errors = {event.error for event in of(ProbeFailed, events)}
    assert "ConnectionError" in errors
    assert errors <= {"ConnectionError", "BusyLoadingError"}
    (started,) = of(ReplayStarted, events)
    assert started.pending == 3
    (letter,) = of(EntryDeadLettered, events)
    assert (letter.seq, letter.command, letter.reason) == (2, "SADD", "error")
    (finished,) = of(ReplayFinished, events)
    assert (finished.applied, finished.dead_letters) == (2, 1)
    assert 0 < finished.seconds < ended - began

    assert {event.breaker for event in events} == {"billing"}
    assert all(began <= event.at <= ended for event in events)
    assert SECRET not in repr(events)
    kinds = [type(event) for event in events]
    last = [kind for kind in kinds if kind is not ProbeFailed][-4:]
    assert last == [StateChanged, ReplayStarted, EntryDeadLettered, ReplayFinished]


class Slow:
    """A clock on which each batch of a replay takes its time."""

    def __init__(self, breaker: RedisCircuitBreaker, seconds: float) -> None:
        self._breaker, self._seconds = breaker, seconds

    def __call__(self) -> float:
        return time.monotonic() + self._seconds * self._breaker.counters["replayed"]


@pytest.mark.server
@pytest.mark.parametrize("seconds", [0.25, 0.0])
async def test_progress_of_a_long_drain(valkey_rig: Rig, seconds: float) -> None:
    """About once a second; a short drain tells nothing of it."""
    async with guarded(valkey_rig, quick(batch_size=1)) as (client, breaker):
        await client.exists("warm")
        events = events_of(breaker)
        breaker.force_open()
        for n in range(10):
            await client.set("k", n)
        breaker.clock = Slow(breaker, seconds)
        breaker.reset()
        await recovered(breaker)
        progress = of(ReplayProgress, events)
        # What is applied is settled while the next is on its way.
        assert [event.applied for event in progress] == ([4, 8] if seconds else [])
        assert [event.pending for event in progress] == ([6, 2] if seconds else [])
        (finished,) = of(ReplayFinished, events)
        assert finished.applied == 10


async def test_progress_over_an_object() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 1, 60.0)
    breaker.force_open()
    for n in range(10):
        await breaker.execute("set", store.set, "k", n)
    events = events_of(breaker)
    breaker.clock = Slow(breaker, 0.25)
    breaker.reset()
    assert await breaker.flush_re_sync_queue() == 10
    progress = of(ReplayProgress, events)
    assert [(event.applied, event.pending) for event in progress] == [(4, 6), (8, 2)]


@pytest.mark.server
async def test_writes_held(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await client.set("k", "v")
        events = events_of(breaker)
        valkey_rig.read_only()
        for n in range(5):
            assert await client.set("k", n) is True
        await asyncio.sleep(0.05)  # the recovery looks five times, and finds it unchanged
        assert [event.reason for event in of(WritesHeld, events)] == ["READONLY"]
        assert of(StateChanged, events) == []
        valkey_rig.writable()
        await recovered(breaker)
        assert [event.applied for event in of(ReplayFinished, events)] == [5]


@pytest.mark.server
async def test_fence_denied(valkey_rig: Rig) -> None:
    valkey_rig.acl("default", "-client|kill")
    async with ChaosProxy(valkey_rig.port) as proxy:
        breaker = quick(deadline=0.2)
        events = events_of(breaker)
        client: Any = Redis.from_url(
            proxy.url, connection_class=ResilientConnection, breaker=breaker, socket_timeout=0.05
        )
        await client.exists("warm")
        held = proxy.stall(match=b"held-back")
        assert await client.set("k", "held-back") is True
        old = await proxy.seen(b"held-back")
        held.match = lambda link: link is old
        await recovered(breaker)
        assert [event.connections for event in of(FenceDenied, events)] == [1]
        assert breaker.snapshot().fence_denied
        held.end()
        await client.aclose()
        await breaker.aclose()


@pytest.mark.server
async def test_rights_missing(valkey_rig: Rig) -> None:
    valkey_rig.acl("default", "-eval", "-watch")
    breaker = quick()
    events = events_of(breaker)
    async with guarded(valkey_rig, breaker) as (client, _):
        await client.set("k", "v")
        await client.set("k", "w")
    (event,) = of(RightsMissing, events)
    assert {"EVAL", "WATCH"} <= set(event.missing)
    assert events == [event]


@pytest.mark.server
async def test_premises_failed(valkey_rig: Rig) -> None:
    """One event with the count, not one for each."""
    async with guarded(valkey_rig) as (client, breaker):
        for n in range(3):
            await client.set(f"k{n}", "before")
        events = events_of(breaker)
        breaker.force_open()
        for n in range(3):
            assert await client.get(f"k{n}") is None
            assert await client.set(f"k{n}", "written over") is True
        breaker.reset()
        await recovered(breaker)
        assert [event.count for event in of(PremisesFailed, events)] == [3]
        assert of(EntryDeadLettered, events) == []
        assert [letter.reason for letter in breaker.dead_letters] == ["premise"] * 3
        assert valkey_rig.admin.get("k0") == "before"


@pytest.mark.server
async def test_server_lost_data(valkey_rig: Rig) -> None:
    rig = valkey_rig
    async with proxied(rig, batch_size=1, deadline=0.2) as (proxy, client, breaker, events):
        breaker.force_open()
        for n in range(20):
            await client.rpush("l", n)
        proxy.latency(0.02, match=b"TIME", direction="down")
        breaker.reset()
        await until(lambda: rig.admin.llen("l") >= 2)
        older = rig.snapshot()
        reached = rig.admin.llen("l")
        await until(lambda: rig.admin.llen("l") > reached + 3)
        rig.restart_with(older)
        await recovered(breaker)
        (event,) = of(ServerLostData, events)
        assert event.confirmed > event.found > 0


@pytest.mark.server
async def test_subscription_gap(valkey_rig: Rig) -> None:
    """Through the façade, as pub/sub passes straight through."""
    async with facade(valkey_rig) as client:
        events = events_of(client.breaker)
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(f"channel-{SECRET}")
            began = time.monotonic()
            assert (await pubsub.get_message(timeout=1.0) or {})["type"] == "subscribe"
            heard = time.monotonic()  # the last that came on the old socket
            await goes_down(valkey_rig, client, client.breaker)
            listening = asyncio.create_task(pubsub.get_message(timeout=3.0))
            await asyncio.sleep(0.05)
            valkey_rig.restart()
            await recovered(client.breaker)
            await listening
            await until(lambda: valkey_rig.admin.publish(f"channel-{SECRET}", "x"))
            messages = [await pubsub.get_message(timeout=1.0) for _ in range(2)]
            assert b"x" in [(message or {}).get("data") for message in messages]
        (gap,) = of(SubscriptionGap, events)
        assert gap.channels == (f"channel-{SECRET}".encode(),)
        assert began <= gap.start <= heard < gap.end <= gap.at
        assert SECRET not in repr(gap)


def test_no_event_is_forgotten_here() -> None:
    """A new one needs its story: here, or in the tests of what it is about."""
    told = {
        *(StateChanged, ProbeFailed, ReplayStarted, ReplayProgress, ReplayFinished),
        *(
            EntryDeadLettered,
            WritesHeld,
            FenceDenied,
            RightsMissing,
            PremisesFailed,
            ServerLostData,
        ),
        SubscriptionGap,
    }
    assert set(KINDS) == told


# -- "No per-command events; counters are in `snapshot()`"


@pytest.mark.server
@pytest.mark.parametrize("commands", [5, 500])
async def test_none_per_command(valkey_rig: Rig, commands: int) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await client.exists("warm")
        events = events_of(breaker)
        breaker.force_open()
        for n in range(commands):
            await aside(client.get, f"r{n}")
            await client.set(f"w{n}", n)
            await outcome(client.incr("n"))
        counters = breaker.snapshot().counters
        assert [counters[name] for name in ("neutral", "queued", "refused")] == [commands] * 3
        breaker.reset()
        await recovered(breaker)
        assert Counter(type(event).__name__ for event in events) == {
            "StateChanged": 2,
            "ReplayStarted": 1,
            "ReplayFinished": 1,
        }
        assert breaker.snapshot().counters["replayed"] == commands


async def test_an_object_tells_the_same_story() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 1, 0.2)
    events = events_of(breaker)
    store.down = nobody_listens()
    await outcome(breaker.execute("set", store.set, "k", "v"))
    await breaker.execute("set", store.set, "p", "poison")
    store.down = None
    await asyncio.sleep(0.21)
    await breaker.execute("get", store.get, "other")
    assert [type(event).__name__ for event in events] == [
        *("StateChanged", "StateChanged", "StateChanged"),
        *("ReplayStarted", "EntryDeadLettered", "ReplayFinished"),
    ]
