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


@pytest.mark.xfail(
    strict=True,
    reason="where the object has no ping nothing is asked before a push: it is the probe again, "
    "and each probe of a dead object costs one acknowledged push",
)
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
@pytest.mark.xfail(
    strict=True,
    reason="a ping that cannot be awaited (a plain one, AsyncMock(spec=Redis)'s) is taken for an "
    "object that is no fault of the entry: a push is never replayed, the breaker never closes",
)
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
SPELLED = pytest.mark.xfail(
    strict=True,
    reason="the caller's own spelling of a key is looked for among positional arguments only, and "
    "at the replay only: elsewhere an object with text for keys is asked for bytes, has nothing "
    "under them, and its data are written over",
)


@pytest.mark.parametrize(
    "how", ["positional", *(pytest.param(how, marks=SPELLED) for how in ("keyword", "mapping"))]
)
async def test_a_queued_default_goes_over_no_text_key(how: str) -> None:
    there = Words()
    breaker, client = await opened(there)
    assert await client.get(KEY) is None
    await WRITES[how](client)
    there.up = True
    clock_of(breaker).push(RECOVERY)
    await breaker.flush_re_sync_queue()
    assert there.data[KEY] == "precious"


@SPELLED
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


@pytest.mark.xfail(
    strict=True,
    reason="a pipeline over any object has no keys for the premise: what its task was told during "
    "the outage does not keep it from writing over real data",
)
async def test_a_pipeline_after_the_outage_goes_over_nothing(make_world: Make) -> None:
    world: World = await make_world(FAKE)
    await world.truth.set(KEY, "precious")
    await world.opened()
    assert await world.client.get(KEY) is None
    await world.healed()
    async with world.client.pipeline() as pipe:
        answer = await outcome(pipe.set(KEY, "default").execute())
    assert await world.truth.get(KEY) == b"precious"
    assert isinstance(answer, CommandRefused)


# -- errors of any kind ------------------------------------------------------------------------


BLOCKS = pytest.mark.xfail(
    strict=True,
    reason="is_of_the_command knows six names: whatever else one entry raises blocks all behind it "
    "until they are too old (DESIGN: 'one that fails otherwise is a dead letter'), and nobody is "
    "served meanwhile",
)
POISON: list[Any] = [TypeError, ValueError, AttributeError, redis.DataError] + [
    pytest.param(kind, marks=BLOCKS)
    for kind in (KeyError, NotImplementedError, AssertionError, RuntimeError, Exception)
]


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


class Unreachable(redis.ConnectionError):
    """An error that cannot be made of its `args` alone, as many are."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port} is away")
        self.port = port


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="copy() makes an exception of its args: a class whose __init__ takes others raises "
    "TypeError in place of the outage, and the write is not kept",
)
async def test_an_error_that_cannot_be_copied() -> None:
    there = Scripted()
    there.fate = lambda method, args: Unreachable("localhost", 6379)
    breaker = over(there)
    errors = [await outcome(breaker.execute("set", there.set, f"{KEY}-{n}", n)) for n in range(2)]
    assert [type(error) for error in errors] == [Unreachable] * 2
    assert [vars(error)["queued"] for error in errors] == [True] * 2


@dataclass(frozen=True)
class Frozen(redis.ConnectionError):
    """An error to which nothing can be added."""

    host: str


@pytest.mark.xfail(
    strict=True,
    reason="`error.queued = …` raises where the error is frozen: FrozenInstanceError in place of "
    "the outage, which is not even counted, so that a dead object never opens the breaker",
)
async def test_an_error_that_cannot_be_written_on() -> None:
    there = Scripted()
    there.fate = lambda method, args: Frozen("localhost")
    breaker = over(there, failure_threshold=2)
    errors = [await outcome(breaker.execute("get", there.get, KEY)) for _ in range(2)]
    assert [type(error) for error in errors] == [Frozen] * 2
    assert breaker.state == OPEN


@pytest.mark.xfail(
    strict=True,
    reason="READONLY to the first entry gives the permit back as failed: the breaker is open, and "
    "reads are answered with nothing by a server that answers them",
)
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
@pytest.mark.xfail(
    strict=True,
    reason="a queued call keeps the task that made it: a task per write, frames and all, for as "
    "long as the outage lasts",
)
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
