"""Objects that lack a method, spell their keys otherwise, or raise what nobody expects."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import dataclass
from typing import Any
from unittest.mock import AsyncMock

import pytest
import redis
import redis.asyncio

from resilient_redis import CommandRefused, MemoryJournal
from tests.contract.helpers import CLOSED, KEY, OPEN, VALUE, outcome
from tests.support.flavours import RedisCircuitBreaker

from .conftest import Make
from .scripted import AWAY, OK, Scripted
from .worlds import (
    FAKE,
    RECOVERY,
    SCRIPTED,
    ByHand,
    Client,
    World,
    clock_of,
    elsewhere,
    over,
    script,
    traffic,
)


@pytest.fixture
async def scripted(make_world: Make) -> World:
    made: World = await make_world(SCRIPTED)
    return made


async def opened(there: Any) -> tuple[RedisCircuitBreaker, Client]:
    """Over an object with `up`: known to be away."""
    breaker = over(there, failure_threshold=1)
    client: Client = ByHand(breaker)
    there.up = False
    await elsewhere(client.get, f"{KEY}-opening")
    assert breaker.state == OPEN
    return breaker, client


# -- what cannot be asked ----------------------------------------------------------------------


class NoPing(Scripted):
    """It has `exists`, and no `ping`."""

    ping = None  # type: ignore[assignment]


async def test_an_object_without_ping_loses_no_push() -> None:
    there = NoPing()
    breaker, client = await opened(there)
    for n in range(3):
        await client.rpush(KEY, n)
    for _ in range(3):
        clock_of(breaker).push(RECOVERY)
        await outcome(client.incr(f"{KEY}-n"))
    assert breaker.dead_letters == ()
    there.up = True
    clock_of(breaker).push(RECOVERY)
    assert await breaker.flush_re_sync_queue() == 3


class PlainPing(Scripted):
    """A stand-in whose ping is no coroutine."""

    def ping(self) -> Any:
        return True


@pytest.mark.asyncio_only("about an object whose methods are coroutines")
@pytest.mark.parametrize("kind", ["plain", "mock"])
async def test_a_ping_that_cannot_be_awaited_is_no_outage(kind: str) -> None:
    there = PlainPing()
    guarded: Any = there
    if kind == "mock":
        guarded = AsyncMock(spec=redis.asyncio.Redis)
        for name in ("get", "rpush"):
            getattr(guarded, name).side_effect = getattr(there, name)
    breaker = over(guarded, failure_threshold=1)
    client: Client = ByHand(breaker)
    there.up = False
    await elsewhere(client.get, f"{KEY}-opening")
    await client.rpush(KEY, "1")
    there.up = True
    for _ in range(3):
        clock_of(breaker).push(RECOVERY)
        await breaker.flush_re_sync_queue()
    assert there.data.get(KEY) == [b"1"]
    assert breaker.state == CLOSED


# -- keys in other words -----------------------------------------------------------------------


class Words:
    """A dictionary whose keys are text, which is not what goes on a wire."""

    def __init__(self) -> None:
        self.up = True
        self.data = {KEY: "precious"}

    async def get(self, name: str) -> str | None:
        if not self.up:
            raise redis.ConnectionError("away")
        return self.data.get(name)

    async def set(self, name: str, value: str) -> bool:
        self.data[name] = value
        return True

    async def mset(self, mapping: dict[str, str]) -> bool:
        self.data.update(mapping)
        return True

    async def exists(self, *names: str) -> int:
        return sum(name in self.data for name in names)


WRITES: dict[str, Any] = {
    "positional": lambda client: client.set(KEY, "default"),
    "keyword": lambda client: client.set(name=KEY, value="default"),
    "mapping": lambda client: client.mset({KEY: "default"}),
}


@pytest.mark.parametrize("how", WRITES)
async def test_a_queued_default_goes_over_no_text_key(how: str) -> None:
    there = Words()
    breaker, client = await opened(there)
    assert await client.get(KEY) is None
    await WRITES[how](client)
    there.up = True
    clock_of(breaker).push(RECOVERY)
    await breaker.flush_re_sync_queue()
    assert there.data[KEY] == "precious"


@pytest.mark.parametrize("how", WRITES)
async def test_a_live_default_goes_over_no_text_key(how: str) -> None:
    """Read while away, written when it is back."""
    there = Words()
    breaker, client = await opened(there)
    assert await client.get(KEY) is None
    there.up = True
    clock_of(breaker).push(RECOVERY)
    await elsewhere(client.get, f"{KEY}-probe")
    assert breaker.state == CLOSED
    await outcome(WRITES[how](client))
    assert there.data[KEY] == "precious"


async def after_the_outage(make_world: Make) -> World:
    """There is something under the key that this task was told is empty."""
    world: World = await make_world(FAKE)
    await world.truth.set(KEY, "precious")
    await world.opened()
    assert await world.client.get(KEY) is None
    await world.healed()
    return world


async def test_a_pipeline_after_the_outage_goes_over_nothing(make_world: Make) -> None:
    world = await after_the_outage(make_world)
    async with world.client.pipeline() as pipe:
        answer = await outcome(pipe.set(KEY, "default").execute())
    assert await world.truth.get(KEY) == b"precious"
    assert isinstance(answer, CommandRefused)


async def test_under_watch_a_pipeline_goes_over_nothing(make_world: Make) -> None:
    world = await after_the_outage(make_world)
    async with world.client.pipeline() as pipe:
        await pipe.watch(f"{KEY}-other")
        assert isinstance(await outcome(pipe.set(KEY, "default")), CommandRefused)
        assert await pipe.get(KEY) == b"precious"
        assert await pipe.set(KEY, "on purpose") is True, "the task has read it"


@pytest.mark.parametrize("how", ["given up", "deleted first", "read before", "another key"])
async def test_a_pipeline_that_goes_over_nothing_is_sent(make_world: Make, how: str) -> None:
    world = await after_the_outage(make_world)
    async with world.client.pipeline() as pipe:
        if how == "given up":
            pipe.set(KEY, "default")
            await pipe.reset()
        elif how == "deleted first":
            pipe.delete(KEY).set(KEY, "new")
        elif how == "read before":
            assert await pipe.get(KEY).execute() == [b"precious"]
            pipe.set(KEY, "on purpose")
        answers = await pipe.set(f"{KEY}-other", VALUE).execute()
        assert answers[-1] is True


# -- errors of any kind ------------------------------------------------------------------------


POISON = (
    *(TypeError, ValueError, AttributeError, redis.DataError),
    *(KeyError, NotImplementedError, AssertionError, RuntimeError, Exception),
)


@pytest.mark.parametrize("kind", POISON)
async def test_poison_of_any_kind_is_set_aside(scripted: World, kind: type[Exception]) -> None:
    await scripted.opened()
    await scripted.client.set(f"{KEY}-poison", VALUE)
    for n in range(3):
        await scripted.client.set(f"{KEY}-{n}", n)
    script(scripted).fate = lambda method, args: (
        kind("poison") if method == "set" and args[0] == f"{KEY}-poison" else OK
    )
    for _ in range(5):
        await traffic(scripted)
    assert [x.reason for x in scripted.breaker.dead_letters] == ["error"]
    assert [key for _, key, _ in script(scripted).effects] == [f"{KEY}-{n}" for n in range(3)]


async def test_an_object_that_fails_at_everything_costs_no_entry(scripted: World) -> None:
    """A client that does not work at all: that is no fault of what is queued."""
    await scripted.opened()
    for n in range(3):
        await scripted.client.set(f"{KEY}-{n}", n)
        await scripted.client.rpush(f"{KEY}-list", n)
    script(scripted).fate = lambda method, args: RuntimeError("not initialised")
    for _ in range(5):
        await traffic(scripted)
        await scripted.breaker.flush_re_sync_queue()
    assert (scripted.breaker.dead_letters, scripted.breaker.pending) == ((), 6)
    script(scripted).fate = lambda method, args: OK
    await scripted.recovered()
    assert scripted.breaker.dead_letters == ()
    assert script(scripted).data[f"{KEY}-list"] == [b"0", b"1", b"2"]


class Breaks(Scripted):
    """Its second push takes effect, raises, and leaves an object that does not work any more."""

    async def rpush(self, name: Any, *values: Any) -> Any:
        length = await super().rpush(name, *values)
        if length == 2:
            self.fate = lambda method, args: RuntimeError("broken")
            raise RuntimeError("broken")
        return length


async def test_a_push_that_broke_the_object_is_not_made_again() -> None:
    there = Breaks()
    breaker, client = await opened(there)
    for n in range(3):
        await client.rpush(KEY, n)
    there.up = True
    clock_of(breaker).push(RECOVERY)
    await breaker.flush_re_sync_queue()
    assert breaker.pending, "it has stopped there"
    there.fate = lambda method, args: OK
    clock_of(breaker).push(RECOVERY)
    await breaker.flush_re_sync_queue()
    assert there.data[KEY] == [b"0", b"1", b"2"]
    assert [letter.reason for letter in breaker.dead_letters] == ["unknown"]


class Unreachable(redis.ConnectionError):
    """An error that cannot be made of its `args` alone, as many are."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port} is away")
        self.port = port


@pytest.mark.parametrize("method", ["set", "rpush"])
async def test_an_error_that_cannot_be_copied(method: str) -> None:
    def nobody_listens(*_: Any) -> Exception:
        error = Unreachable("localhost", 6379)
        error.__cause__ = ConnectionRefusedError()
        return error

    there = Scripted()
    there.fate = nobody_listens
    breaker = over(there)
    write = getattr(there, method)
    errors = [await outcome(breaker.execute(method, write, f"{KEY}-{n}", n)) for n in range(2)]
    assert errors[0] is not errors[1]
    assert [type(error) for error in errors] == [Unreachable] * 2
    assert [vars(error)["queued"] for error in errors] == [True] * 2


@dataclass(frozen=True)
class Frozen(redis.ConnectionError):
    """An error to which nothing can be added."""

    host: str


async def test_an_error_that_cannot_be_written_on() -> None:
    there = Scripted()
    there.fate = lambda method, args: Frozen("localhost")
    breaker = over(there, failure_threshold=2)
    errors = [await outcome(breaker.execute("get", there.get, KEY)) for _ in range(2)]
    assert [type(error) for error in errors] == [Frozen] * 2
    assert breaker.state == OPEN


async def test_a_probe_that_is_told_readonly_has_found_a_server(scripted: World) -> None:
    await scripted.opened()
    await scripted.client.set(KEY, VALUE)
    script(scripted).data["there"] = b"value"
    refusal = redis.exceptions.ReadOnlyError("You can't write against a read only replica.")
    script(scripted).fate = lambda method, args: refusal if method == "set" else OK
    scripted.probe()
    assert await elsewhere(scripted.client.set, f"{KEY}-2", VALUE) == "OK"
    assert await elsewhere(scripted.client.get, "there") == b"value"
    assert scripted.breaker.state == CLOSED


# -- memory ------------------------------------------------------------------------------------


@pytest.mark.asyncio_only("a thread calls and waits by itself: nobody else awaits for it")
async def test_a_queued_write_does_not_keep_its_task(scripted: World) -> None:
    await scripted.opened()

    async def write() -> None:
        await scripted.client.set(KEY, VALUE)

    task = asyncio.create_task(write())
    kept = weakref.ref(task)
    await task
    del task
    await asyncio.sleep(0)
    gc.collect()
    assert scripted.breaker.pending == 1
    assert kept() is None


async def test_an_object_that_fails_in_turn_is_never_lied_about(make_world: Make) -> None:
    """Away, back, away at each call, with a crowd: all that is acknowledged is there."""
    scripted: World = await make_world(SCRIPTED, journal=MemoryJournal(max_age=10_000.0))
    turn = iter(range(10**9))
    script(scripted).fate = lambda method, args: AWAY if next(turn) % 7 in (2, 3, 4, 5) else OK
    kept: dict[str, int] = {}

    async def work(task: int) -> None:
        for n in range(30):
            key = f"{KEY}-{task}"
            answer = await outcome(scripted.client.set(key, n))
            if not isinstance(answer, Exception) or vars(answer).get("queued"):
                kept[key] = n
            if n % 5 == 0:
                scripted.probe()
            await asyncio.sleep(0)

    await asyncio.gather(*(work(task) for task in range(10)))
    script(scripted).fate = lambda method, args: OK
    await scripted.recovered()
    found = {key: int(await scripted.truth.get(key)) for key in kept}
    assert found == kept
    assert scripted.breaker.dead_letters == ()
