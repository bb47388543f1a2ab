"""What the queue asks before it writes, and what it does not keep for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from resilient_redis import CommandRefused, JournalFull, MemoryJournal
from tests.contract.helpers import KEY, OPEN, VALUE, outcome, until

from .conftest import Make
from .scripted import OK
from .worlds import FAKE, OBJECTS, SCRIPTED, World, elsewhere, over, script, traffic


@pytest.fixture
async def scripted(make_world: Make) -> World:
    made: World = await make_world(SCRIPTED)
    return made


# -- premises --------------------------------------------------------------------------------------


@pytest.mark.asyncio_only("a thread calls and waits by itself: nobody else awaits for it")
@pytest.mark.parametrize("how", ["wait_for", "gather", "create_task"])
async def test_a_read_under_a_timeout_is_the_callers_own(any_object: World, how: str) -> None:
    world = any_object
    await world.truth.set(KEY, "precious")
    await world.opened()
    if how == "wait_for":
        value = await asyncio.wait_for(world.client.get(KEY), 1.0)
    elif how == "gather":
        (value,) = await asyncio.gather(world.client.get(KEY))
    else:
        value = await asyncio.create_task(world.client.get(KEY))
    assert value is None
    await world.client.set(KEY, "default")
    await world.healed()
    assert await world.truth.get(KEY) == b"precious"


@pytest.mark.parametrize(
    "error", [redis.exceptions.NoPermissionError("NOPERM exists"), TypeError()]
)
async def test_a_premise_that_cannot_be_asked_costs_nobody_else(
    scripted: World, error: Exception
) -> None:
    """As at the connections: a key that cannot be asked for counts as present."""
    await scripted.opened()
    await elsewhere(scripted.client.set, f"{KEY}-1", VALUE)
    assert await scripted.client.get(KEY) is None
    await scripted.client.set(KEY, "default")
    await elsewhere(scripted.client.set, f"{KEY}-2", VALUE)
    script(scripted).fate = lambda method, args: error if method == "exists" else OK
    await traffic(scripted)
    await scripted.recovered()
    assert sorted(script(scripted).data) == [f"{KEY}-1", f"{KEY}-2"]
    assert [x.reason for x in scripted.breaker.dead_letters] == ["premise"]


async def test_the_premise_is_asked_with_the_callers_own_key() -> None:
    class Dictionary:
        """The simplest stand-in that a test suite has."""

        def __init__(self) -> None:
            self.up = True
            self.data = {KEY: "precious"}

        async def get(self, name: str) -> str | None:
            if not self.up:
                raise redis.ConnectionError
            return self.data.get(name)

        async def set(self, name: str, value: str) -> bool:
            self.data[name] = value
            return True

        async def exists(self, *names: str) -> int:
            return sum(name in self.data for name in names)

    there = Dictionary()
    breaker = over(there, failure_threshold=1)
    there.up = False
    await outcome(breaker.execute("get", there.get, "another"))
    assert await breaker.execute("get", there.get, KEY) is None
    await breaker.execute("set", there.set, KEY, "default")
    there.up = True
    await breaker.flush_re_sync_queue()
    assert there.data[KEY] == "precious"


@pytest.mark.asyncio_only("the hook that it puts into the object is a coroutine")
async def test_a_premise_is_asked_again_after_a_replay_was_cut_off(world: World) -> None:
    """Somebody else writes while we are cut off for the second time."""
    if world.proxy is None:
        await _die_behind_the_premise_of_an_object(world)
    else:
        await _die_behind_the_premise_of_a_server(world)
    assert world.breaker.pending == 2
    await world.healed()
    assert await world.truth.get(KEY) == b"precious"
    assert [x.reason for x in world.breaker.dead_letters] == ["premise"]


@pytest.mark.asyncio_only("the hook that it puts into the object is a coroutine")
async def test_what_comes_into_being_before_its_turn(any_object: World) -> None:
    """Somebody else writes while the replay is at what stands before the default."""
    world = any_object
    await _queue_first_and_default(world)
    await world.client.set(KEY, "a better default")
    client = world.breaker.client
    real = client.set

    async def and_somebody_else(*args: Any, **kwargs: Any) -> Any:
        client.set = real
        await real(KEY, "precious")
        return await real(*args, **kwargs)

    client.set = and_somebody_else
    await world.healed()
    assert await world.truth.get(KEY) == b"precious"
    assert await world.truth.get(f"{KEY}-first") == VALUE.encode()
    assert [x.reason for x in world.breaker.dead_letters] == ["premise", "premise"]


async def _queue_first_and_default(world: World) -> None:
    await world.opened()
    await elsewhere(world.client.set, f"{KEY}-first", VALUE)
    assert await world.client.get(KEY) is None
    await world.client.set(KEY, "default")


async def _die_behind_the_premise_of_an_object(world: World) -> None:
    await _queue_first_and_default(world)
    client = world.breaker.client
    real = client.set

    async def dies(*args: Any, **kwargs: Any) -> Any:
        client.set = real
        raise redis.ConnectionError("cut off again")

    client.set = dies
    await world.heal()
    world.probe()
    await elsewhere(world.breaker.flush_re_sync_queue)
    await world.truth.set(KEY, "precious")


async def _die_behind_the_premise_of_a_server(world: World) -> None:
    proxy, rig = world.proxy, world.rig
    assert proxy is not None
    assert rig is not None
    await _queue_first_and_default(world)
    cut = proxy.cut_at(0, match=b"-first", times=None)
    await proxy.accept()
    await until(lambda: cut.fired)
    await world.cut()
    cut.end()
    await world.truth.set(KEY, "precious")


# -- the bounds of the queue -----------------------------------------------------------------------


async def test_a_time_to_live_counts_from_the_call(make_world: Make) -> None:
    """On fakeredis, whose clock is the real one; ours says that the outage took 50 s."""
    world: World = await make_world(FAKE)
    await world.opened()
    await world.client.set(f"{KEY}-long", VALUE, ex=100)
    await world.client.set(f"{KEY}-short", VALUE, ex=40)
    await world.client.expire(f"{KEY}-long", 200)
    await world.truth_while_cut_off("set", f"{KEY}-short", "old")
    world.clock.push(50)
    await world.healed()
    assert 145 <= await world.truth.ttl(f"{KEY}-long") <= 150
    assert await world.truth.get(f"{KEY}-short") is None, "it had expired, and so has the old one"


async def test_a_time_to_live_counts_from_the_call_over_any_object(scripted: World) -> None:
    await scripted.opened()
    await scripted.client.set(KEY, VALUE, ex=100)
    scripted.clock.push(50)
    await scripted.healed()
    left = script(scripted).expiry[KEY] - scripted.clock() + scripted.clock.ahead
    assert left < 55


async def test_too_old_is_set_aside_and_not_applied(any_object: World) -> None:
    await any_object.opened()
    await any_object.client.set(f"{KEY}-old", VALUE)
    any_object.clock.push(301)
    await traffic(any_object)
    await any_object.client.set(f"{KEY}-new", VALUE)
    await any_object.healed()
    assert await any_object.truth.get(f"{KEY}-old") is None
    assert await any_object.truth.get(f"{KEY}-new") == VALUE.encode()
    assert [x.reason for x in any_object.breaker.dead_letters] == ["age"]


async def test_only_old_entries_left_is_no_reason_to_close(any_object: World) -> None:
    """Still cut off, and all that is queued is too old: nobody has asked the object."""
    await any_object.opened()
    await any_object.client.set(KEY, VALUE)
    any_object.clock.push(301)
    await any_object.breaker.flush_re_sync_queue()
    assert any_object.breaker.state == OPEN


async def test_a_full_journal_refuses_and_keeps_what_it_has(make_world: Make) -> None:
    for name in OBJECTS:
        world: World = await make_world(name, journal=MemoryJournal(max_entries=3))
        await world.opened()
        answers = [await outcome(world.client.set(f"{KEY}-{n}", n)) for n in range(5)]
        assert answers[:3] == ["OK"] * 3
        assert [type(error) for error in answers[3:]] == [JournalFull] * 2
        await world.healed()
        assert await world.truth.exists(*(f"{KEY}-{n}" for n in range(5))) == 3


async def test_a_full_journal_and_a_failing_call(make_world: Make) -> None:
    """Below the threshold: the call is raised as it failed, and says that it is not queued."""
    journal = MemoryJournal(max_entries=1)
    world: World = await make_world(SCRIPTED, journal=journal, failure_threshold=10)
    await world.cut()
    said = [vars(await outcome(world.client.set(f"{KEY}-{n}", n)))["queued"] for n in range(3)]
    assert said == [True, False, False]
    await world.healed()
    assert [key for _, key, _ in script(world).effects] == [f"{KEY}-0"]


async def test_while_writes_are_held_reads_are_live(scripted: World) -> None:
    """READONLY at the replay: the queue grows, and what is read is what is there."""
    await scripted.opened()
    await scripted.client.set(KEY, VALUE)
    script(scripted).data["there"] = b"value"
    refusal = redis.exceptions.ReadOnlyError("You can't write against a read only replica.")
    script(scripted).fate = lambda method, args: refusal if method in ("set", "incr") else OK
    await traffic(scripted)
    assert scripted.breaker.snapshot().writes_held == "READONLY"
    for n in range(3):
        assert await scripted.client.get("there") == b"value"
        assert await scripted.client.set(f"{KEY}-{n}", n) == "OK"
        assert isinstance(await outcome(scripted.client.incr(f"{KEY}-n")), CommandRefused)
        assert await scripted.client.ping() is True
    assert scripted.breaker.pending == 4
    script(scripted).fate = lambda method, args: OK
    await scripted.recovered()
    assert [key for _, key, _ in script(scripted).effects] == [
        KEY,
        *(f"{KEY}-{n}" for n in range(3)),
    ]
    assert scripted.breaker.snapshot().writes_held is None
