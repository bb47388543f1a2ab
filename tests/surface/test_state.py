"""What a user reads of a breaker: `state`, `failures`, `pending`, `dead_letters`, `snapshot()`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any

import pytest
from redis.exceptions import ConnectionError, ResponseError

from resilient_redis import CommandRefused, MemoryJournal
from resilient_redis.events import StateChanged
from tests.contract.helpers import CLOSED, HALF_OPEN, OPEN, events_of, outcome, recovered, until
from tests.support.flavours import Redis, RedisCircuitBreaker, ResilientConnection
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig
from tests.surface.helpers import Store, aside, goes_down, guarded, nobody_listens, quick

NAMED = [
    *("state", "era", "failures", "retry_after", "draining", "writes_held", "pending"),
    *("pending_bytes", "oldest_age", "dead_letters", "last_error", "counters"),
]
KEY, VALUE = "key-s3cret", "value-s3cret"


# -- "`state` and `failures` are read-only"


@pytest.mark.parametrize("name", ["state", "failures", "pending", "dead_letters"])
def test_read_only(name: str) -> None:
    breaker = RedisCircuitBreaker()
    before = getattr(breaker, name)
    with pytest.raises(AttributeError):
        setattr(breaker, name, before)
    with pytest.raises(AttributeError):
        delattr(breaker, name)
    assert getattr(breaker, name) == before


def test_a_new_breaker() -> None:
    breaker = RedisCircuitBreaker()
    assert (breaker.state, breaker.failures, breaker.pending) == ("CLOSED", 0, 0)
    assert breaker.dead_letters == ()


@pytest.mark.server
async def test_the_three_states(valkey_rig: Rig) -> None:
    async with ChaosProxy(valkey_rig.port) as proxy:
        breaker = quick(probe_timeout=5.0)
        events = events_of(breaker)
        client = await connected(proxy, breaker)
        assert breaker.state == "CLOSED"
        await proxy.refuse()
        proxy.cut_all()
        assert await client.get(KEY) is None
        assert breaker.state in ("OPEN", "HALF-OPEN")
        proxy.half_open()  # a probe is connected, and not answered
        await proxy.accept()
        await until(lambda: breaker.state == "HALF-OPEN" and proxy.open_links())
        assert type(breaker.state) is str
        proxy.half_open(False)
        proxy.cut_all(match=lambda link: not link.server)
        await recovered(breaker)
        assert (breaker.state, breaker.failures) == ("CLOSED", 0)
        await client.aclose()
        await breaker.aclose()
    assert {event.new for event in events if isinstance(event, StateChanged)} == {
        *(OPEN, HALF_OPEN, CLOSED)
    }


async def connected(proxy: ChaosProxy, breaker: RedisCircuitBreaker) -> Any:
    client = Redis.from_url(proxy.url, connection_class=ResilientConnection, breaker=breaker)
    await client.exists("warm")
    return client


async def test_failures_are_consecutive() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store)
    counted = []
    for down in (True, True, False, True, True, True, True, False, False, True):
        store.down = nobody_listens() if down else None
        await outcome(breaker.execute("get", store.get, "k"))
        counted.append(breaker.failures)
    assert counted == [1, 2, 0, 1, 2, 3, 4, 0, 0, 1]
    assert breaker.state == CLOSED


@pytest.mark.server
async def test_failures_at_the_connections_are_consecutive(valkey_rig: Rig) -> None:
    """A connection that never comes up counts; one reply sets the count back."""
    async with ChaosProxy(valkey_rig.port) as proxy:
        breaker = RedisCircuitBreaker(failure_threshold=50, deadline=0.2)
        client = await connected(proxy, breaker)
        assert breaker.failures == 0
        await proxy.refuse()
        proxy.cut_all()
        waiting = asyncio.create_task(aside(client.get, "k"))
        await until(lambda: breaker.failures >= 3)
        assert breaker.state == CLOSED
        await proxy.accept()
        await waiting
        await client.exists("warm")
        assert (breaker.failures, breaker.state) == (0, CLOSED)
        await client.aclose()
        await breaker.aclose()


# -- "`pending`, `dead_letters` (bounded, 1,000)"


@pytest.mark.server
async def test_pending_counts_writes_and_nothing_else(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await goes_down(valkey_rig, client, breaker)
        assert breaker.pending == 0
        await client.set(KEY, VALUE)
        await client.pipeline(transaction=False).sadd("s", 1).sadd("s", 2).get("x").execute()
        assert breaker.pending == 3
        await aside(client.get, "y")
        with pytest.raises(CommandRefused):
            await client.incr("n")
        assert breaker.pending == 3
        valkey_rig.restart()
        await recovered(breaker)
        assert breaker.pending == 0


async def has_a_dead_letter(rig: Rig, client: Any, breaker: RedisCircuitBreaker) -> None:
    await client.set("text", "v")
    await goes_down(rig, client, breaker)
    await client.sadd("text", VALUE)
    rig.restart()
    await recovered(breaker)


@pytest.mark.server
async def test_a_dead_letter_tells_what_and_why(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await has_a_dead_letter(valkey_rig, client, breaker)
        (letter,) = breaker.dead_letters
        assert isinstance(breaker.dead_letters, tuple)
        assert (letter.seq, letter.command, letter.reason) == (1, "SADD", "error")
        assert "WRONGTYPE" in (letter.error or "")
        assert VALUE.encode() in letter.payload
        assert VALUE not in repr(letter)
        with pytest.raises(FrozenInstanceError):
            letter.reason = "other"  # type: ignore[misc]  # that is the point


async def test_of_dead_letters_the_last_thousand_are_kept() -> None:
    store = Store()
    breaker = quick(store, journal=MemoryJournal(max_age=0.001))
    breaker.force_open()
    for n in range(1005):
        assert await breaker.execute("set", store.set, f"k{n}", n) == "OK"
    await asyncio.sleep(0.002)
    breaker.reset()
    await breaker.flush_re_sync_queue()
    assert breaker.pending == 0
    assert len(breaker.dead_letters) == 1000
    assert [letter.seq for letter in breaker.dead_letters] == list(range(6, 1006))
    assert {letter.reason for letter in breaker.dead_letters} == {"age"}
    assert breaker.snapshot().counters["dead_lettered"] == 1005
    assert store.calls == []


# -- "`snapshot()` (frozen: …; no values)"


def test_a_snapshot_has_what_the_design_names() -> None:
    snapshot = RedisCircuitBreaker().snapshot()
    assert is_dataclass(snapshot)
    names = [field.name for field in fields(snapshot)]
    assert [name for name in names if name in NAMED] == NAMED
    assert set(names) - set(NAMED) == {"replay_mode", "fence_denied"}


def test_a_snapshot_is_frozen() -> None:
    snapshot = RedisCircuitBreaker().snapshot()
    for name in NAMED:
        with pytest.raises(FrozenInstanceError):
            setattr(snapshot, name, None)
    assert isinstance(snapshot.counters, Mapping)
    with pytest.raises(TypeError):
        snapshot.counters["neutral"] = 7  # type: ignore[index]  # that is the point


async def test_a_snapshot_stays_what_it_was() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 1)
    before = breaker.snapshot()
    store.down = ConnectionError("gone")
    await outcome(breaker.execute("set", store.set, "k", "v"))
    await breaker.execute("get", store.get, "other")
    after = breaker.snapshot()
    assert (before.state, before.failures, dict(before.counters)) == (CLOSED, 0, {})
    assert (after.state, after.failures, after.last_error) == (OPEN, 1, "ConnectionError")
    assert after.counters["neutral"] == 1


@pytest.mark.server
async def test_what_a_snapshot_says_in_an_outage(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await client.exists("warm")
        calm = breaker.snapshot()
        assert (calm.state, calm.era, calm.failures, calm.retry_after) == (CLOSED, 0, 0, None)
        assert (calm.draining, calm.writes_held, calm.pending, calm.pending_bytes) == (
            *(False, None, 0, 0),
        )
        assert (calm.oldest_age, calm.dead_letters, calm.last_error) == (None, 0, None)
        await goes_down(valkey_rig, client, breaker)
        await client.set(KEY, VALUE)
        await client.sadd(f"other-{KEY}", VALUE)
        await asyncio.sleep(0.02)
        with pytest.raises(CommandRefused):
            await client.incr("n")
        away = breaker.snapshot()
        assert away.state in (OPEN, HALF_OPEN)
        assert away.era >= 1
        assert away.failures >= 1
        assert away.retry_after is not None
        assert 0 <= away.retry_after <= 0.5
        assert (away.draining, away.pending) == (False, 2)
        assert away.pending_bytes >= 2 * len(VALUE) + 2 * len(KEY)
        assert away.oldest_age is not None
        assert 0.02 <= away.oldest_age < 1.0
        assert away.last_error == "ConnectionError"
        assert away.counters["queued"] == 2
        assert away.counters["refused"] == 1
        assert away.counters["neutral"] >= 1
        assert away.counters["trips"] == 1
        await until(lambda: breaker.snapshot().counters["probes"] >= 2)
        for shown in (repr(away), str(away), repr(breaker), str(breaker)):
            assert "s3cret" not in shown
        valkey_rig.restart()
        await recovered(breaker)
        again = breaker.snapshot()
        assert (again.state, again.failures, again.retry_after) == (CLOSED, 0, None)
        assert (again.pending, again.pending_bytes, again.oldest_age) == (0, 0, None)
        assert again.counters["replayed"] == 2
        assert again.era > away.era


@pytest.mark.server
async def test_draining_is_closed_and_not_yet_empty(valkey_rig: Rig) -> None:
    async with ChaosProxy(valkey_rig.port) as proxy:
        breaker = quick(probe_timeout=5.0)
        client = await connected(proxy, breaker)
        await proxy.refuse()
        proxy.cut_all()
        assert await aside(client.get, "never-set") is None
        await client.rpush("l", 1)
        assert not breaker.snapshot().draining
        stalled = proxy.stall(match=b"RPUSH", direction="down")
        await proxy.accept()
        await until(lambda: valkey_rig.admin.llen("l"))
        during = breaker.snapshot()
        assert (during.state, during.draining, during.pending) == (CLOSED, True, 1)
        assert during.retry_after is None
        stalled.end()
        await recovered(breaker)
        assert not breaker.snapshot().draining
        await client.aclose()
        await breaker.aclose()


@pytest.mark.server
async def test_writes_held_says_why(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await client.set(KEY, VALUE)
        valkey_rig.read_only()
        assert await client.set(KEY, "later") is True
        held = breaker.snapshot()
        assert (held.state, held.writes_held, held.draining) == (CLOSED, "READONLY", False)
        valkey_rig.writable()
        await recovered(breaker)
        assert breaker.snapshot().writes_held is None


@pytest.mark.server
async def test_a_snapshot_counts_dead_letters(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await has_a_dead_letter(valkey_rig, client, breaker)
        snapshot = breaker.snapshot()
        assert (snapshot.dead_letters, snapshot.counters["dead_lettered"]) == (1, 1)
        # An answer of the server is no failure.
        with pytest.raises(ResponseError):
            await client.sadd("text", VALUE)
        assert breaker.snapshot().failures == 0
