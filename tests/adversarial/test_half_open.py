"""Half-open over any object: who is let through, who is not, and what becomes of the permit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from resilient_redis import CommandRefused
from resilient_redis.events import Event, StateChanged
from tests.contract.helpers import CLOSED, HALF_OPEN, KEY, OPEN, VALUE, events_of, outcome, until
from tests.support.flavours import called, waits

from .conftest import Make
from .scripted import HANG, OK
from .worlds import (
    FAKE,
    RECOVERY,
    SCRIPTED,
    World,
    elsewhere,
    gather,
    script,
)

CROWD = 200


@pytest.fixture
async def world(make_world: Make) -> World:
    """The hand-written client, which counts."""
    made: World = await make_world(SCRIPTED)
    return made


def counted(world: World) -> list[str]:
    """Calls that reach the object from now on, whatever it is."""
    if world.scripted is not None:
        world.scripted.calls.clear()
        return world.scripted.calls
    seen: list[str] = []
    client = world.breaker.client
    real = client.execute_command

    async def counting(*args: Any, **options: Any) -> Any:
        seen.append(str(args[0]).lower())
        return await called(real, *args, **options)

    client.execute_command = waits(counting)
    return seen


def moves(events: list[Event]) -> list[tuple[str, str]]:
    return [(e.old, e.new) for e in events if isinstance(e, StateChanged)]


# -- the stampede ----------------------------------------------------------------------------------


async def test_of_200_readers_exactly_one_reaches_a_dead_object(any_object: World) -> None:
    await any_object.opened()
    seen = counted(any_object)
    any_object.probe()
    answers = await gather([any_object.client.get(f"{KEY}-{n}") for n in range(CROWD)])
    assert seen == ["get"]
    assert sum(isinstance(answer, Exception) for answer in answers) == 1
    assert answers.count(None) == CROWD - 1
    assert any_object.breaker.state == OPEN


async def test_of_200_writers_exactly_one_call_reaches_a_dead_object(any_object: World) -> None:
    """The first entry of the queue is the probe, whoever comes first."""
    await any_object.opened()
    await any_object.client.set(KEY, VALUE)
    seen = counted(any_object)
    any_object.probe()
    answers = await gather([any_object.client.set(f"{KEY}-{n}", n) for n in range(CROWD)])
    assert seen == ["set"]
    assert answers == ["OK"] * CROWD
    assert any_object.breaker.pending == CROWD + 1
    await any_object.healed()
    assert await any_object.truth.exists(KEY, *(f"{KEY}-{n}" for n in range(CROWD))) == CROWD + 1


async def test_a_slow_probe_lets_nobody_past(world: World) -> None:
    """The object is back and takes 50 ms: until it has answered, nobody else may try."""
    await world.opened()
    script(world).latency = 0.05
    await world.heal()
    world.probe()
    script(world).calls.clear()
    crowd = [asyncio.create_task(outcome(world.client.get(f"{KEY}-{n}"))) for n in range(CROWD)]
    await asyncio.sleep(0.02)
    assert world.breaker.state == HALF_OPEN
    assert script(world).calls == ["get"]
    assert await outcome(world.client.incr(KEY)) is not None
    assert await asyncio.gather(*crowd) == [None] * CROWD
    assert (script(world).calls.count("get"), world.breaker.state) == (1, CLOSED)


async def test_a_replay_makes_one_call_at_a_time(any_object: World) -> None:
    await any_object.opened()
    for n in range(CROWD):
        await any_object.client.set(f"{KEY}-{n}", n)
    await any_object.heal()
    any_object.probe()
    if any_object.scripted is not None:
        any_object.scripted.most = 0
        any_object.scripted.latency = 0.0001
    crowd = [any_object.client.set(f"{KEY}-{n}", "newer") for n in range(CROWD)]
    flushes = [any_object.breaker.flush_re_sync_queue() for _ in range(20)]
    await asyncio.gather(*crowd, *flushes)
    await any_object.recovered()
    keys = [f"{KEY}-{n}" for n in range(CROWD)]
    assert [await any_object.truth.get(key) for key in keys] == [b"newer"] * CROWD
    if any_object.scripted is not None:
        first = [value for _, _, value in any_object.scripted.effects[:CROWD]]
        assert first == list(range(CROWD))


async def test_200_flushes_at_once_apply_each_entry_once(any_object: World) -> None:
    await any_object.opened()
    for n in range(50):
        await any_object.push(f"{n}")
    await any_object.heal()
    applied = await asyncio.gather(
        *(any_object.breaker.flush_re_sync_queue() for _ in range(CROWD))
    )
    assert max(applied) == 50
    await any_object.check_row()
    assert len(await any_object.row()) == 50


async def test_200_at_a_reset_breaker_wait_for_one_replay(any_object: World) -> None:
    any_object.breaker.force_open()
    for n in range(20):
        await any_object.push(f"{n}")
    any_object.breaker.reset()
    answers = await gather([any_object.client.get(f"{KEY}-{n}") for n in range(CROWD)])
    assert answers == [None] * CROWD
    await any_object.check_row()
    assert (any_object.breaker.state, any_object.breaker.pending) == (CLOSED, 0)


# -- cancelled callers and hung probes -------------------------------------------------------------


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
async def test_a_cancelled_probe_gives_its_permit_back(world: World) -> None:
    await world.opened()
    script(world).fate = lambda method, args: HANG
    world.probe()
    probing = asyncio.create_task(world.client.get(KEY))
    await until(lambda: world.breaker.state == HALF_OPEN)
    await asyncio.sleep(0.001)
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    assert probing.cancelled()
    assert world.breaker.state == OPEN
    script(world).fate = lambda method, args: OK
    assert await world.client.get(KEY) is None
    assert world.breaker.state == CLOSED


async def test_a_hung_probe_loses_its_permit(world: World) -> None:
    """And what it says in the end moves nothing."""
    await world.opened()
    gate = asyncio.Event()
    real = script(world).get

    async def slow(name: str) -> Any:
        await gate.wait()
        return await real(name)

    world.probe()
    hung = asyncio.create_task(outcome(world.breaker.execute("get", slow, KEY)))
    await until(lambda: world.breaker.state == HALF_OPEN)
    world.clock.push(10 * world.breaker.probe_timeout - 0.5)
    assert await world.client.get(KEY) is None
    assert world.breaker.state == HALF_OPEN, "the lease is not over yet"
    world.clock.push(1.0)
    await world.heal()
    await world.client.get(KEY)
    assert world.breaker.state == CLOSED
    await world.opened()
    script(world).up = True
    events = events_of(world.breaker)
    gate.set()
    assert await hung is None
    assert (world.breaker.state, moves(events)) == (OPEN, [])


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
@pytest.mark.parametrize("steps", range(8))
async def test_a_caller_that_is_cancelled_anywhere_spoils_nothing(world: World, steps: int) -> None:
    """So many half milliseconds later: on the way, probing, or waiting for a replay."""
    await world.opened()
    for n in range(5):
        await world.push(f"{n}")
    await world.heal()
    script(world).latency = 0.001
    world.probe()
    victims = [
        asyncio.create_task(world.client.get(KEY)),
        asyncio.create_task(world.client.set(f"{KEY}-x", "x")),
        asyncio.create_task(world.breaker.flush_re_sync_queue()),
    ]
    for _ in range(steps):
        await asyncio.sleep(0.0005)
    for victim in victims:
        victim.cancel()
    await asyncio.gather(*victims, return_exceptions=True)
    await world.recovered()
    await world.check_row()
    assert await world.row() == [f"{n}" for n in range(5)]
    assert world.breaker.dead_letters == ()


async def test_a_cancelled_write_that_waited_for_the_replay_is_never_applied(
    world: World,
) -> None:
    await world.opened()
    await world.client.set(KEY, VALUE)
    script(world).latency = 0.05
    await world.heal()
    world.probe()
    waiting = asyncio.create_task(world.client.rpush(f"{KEY}-row", "gone"))
    await until(lambda: "set" in script(world).calls)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await world.recovered()
    assert [key for _, key, _ in script(world).effects] == [KEY]


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
async def test_a_cancelled_live_call_is_no_failure_and_not_queued(world: World) -> None:
    script(world).fate = lambda method, args: HANG
    for _ in range(5):
        call = asyncio.create_task(world.client.set(KEY, VALUE))
        await asyncio.sleep(0.002)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert (world.breaker.failures, world.breaker.state, world.breaker.pending) == (0, CLOSED, 0)


async def test_an_outcome_of_before_the_outage_says_nothing_about_now(world: World) -> None:
    """A slow call from before answers, or fails, while open: it moves nothing."""
    gate = asyncio.Event()

    async def slow(name: str) -> Any:
        await gate.wait()
        if name == "fails":
            raise redis.ConnectionError("late")
        return None

    late = [
        asyncio.create_task(outcome(world.breaker.execute("get", slow, name)))
        for name in ("fails", "answers")
    ]
    await asyncio.sleep(0)
    await world.opened()
    events, failures = events_of(world.breaker), world.breaker.failures
    gate.set()
    await asyncio.gather(*late)
    assert moves(events) == []
    assert world.breaker.failures == failures


# -- forced ----------------------------------------------------------------------------------------


async def test_a_forced_open_breaker_is_not_closed_by_traffic(any_object: World) -> None:
    any_object.breaker.force_open()
    for _ in range(3):
        any_object.probe()
        seen = counted(any_object)
        assert await any_object.client.get(KEY) is None
        assert isinstance(await outcome(any_object.client.ping()), CommandRefused)
        assert await any_object.breaker.flush_re_sync_queue() == 0
        assert seen == []
        assert any_object.breaker.state == OPEN


async def test_forced_open_during_a_probe_stays_open(world: World) -> None:
    await world.opened()
    await world.heal()
    script(world).latency = 0.02
    world.probe()
    probing = asyncio.create_task(world.client.get(KEY))
    await until(lambda: world.breaker.state == HALF_OPEN)
    world.breaker.force_open()
    assert await probing is None
    assert world.breaker.state == OPEN


async def test_a_blocking_call_is_no_probe(make_world: Make) -> None:
    """A consumer that waits for a job is the first to call after the outage, as consumers are."""
    world: World = await make_world(FAKE)
    await world.truth.set(KEY, VALUE)
    await world.opened()
    await world.heal()
    world.probe()
    consumer = asyncio.create_task(outcome(world.client.blpop([f"{KEY}-jobs"], 0.3)))
    await asyncio.sleep(0.05)
    found = [await elsewhere(world.client.get, KEY) for _ in range(3)]
    await consumer
    assert found == [VALUE.encode()] * 3


# -- flush -----------------------------------------------------------------------------------------


async def test_a_flush_with_nothing_queued_does_not_put_off_the_probe(any_object: World) -> None:
    """Nor does it bring it forward, and cost the next caller a dead object's timeout."""
    await any_object.opened()
    assert await any_object.breaker.flush_re_sync_queue() == 0
    seen = counted(any_object)
    assert await any_object.client.get(KEY) is None
    assert seen == []
    await any_object.heal()
    for _ in range(4):
        any_object.clock.push(RECOVERY / 2)
        before = any_object.breaker.snapshot().era
        await any_object.breaker.flush_re_sync_queue()
        assert any_object.breaker.snapshot().era == before  # it has not even looked half-open
        await outcome(any_object.client.get(KEY))
    assert any_object.breaker.state == CLOSED


async def test_a_flush_of_a_dead_object_says_nothing_was_applied(any_object: World) -> None:
    await any_object.opened()
    await any_object.client.set(KEY, VALUE)
    assert await any_object.breaker.flush_re_sync_queue() == 0
    assert (any_object.breaker.state, any_object.breaker.pending) == (OPEN, 1)
    await any_object.heal()
    assert await any_object.breaker.flush_re_sync_queue() == 1
    assert any_object.breaker.state == CLOSED
