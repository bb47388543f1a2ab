"""Pipelines, locks, scripts and iterators of the façade over fakeredis, while writes are queued."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import fakeredis
import pytest
import redis

from resilient_redis import CommandRefused
from tests.contract.helpers import CLOSED, KEY, OPEN, VALUE, outcome
from tests.support.flavours import FakeRedis, ResilientRedis, called, threads, waits

from .conftest import Make
from .scripted import Scripted
from .worlds import FAKE, World, elsewhere, over


@pytest.fixture
async def world(make_world: Make) -> World:
    made: World = await make_world(FAKE)
    return made


async def queued(world: World) -> None:
    """A write waits, the network is whole again, and nobody has probed yet."""
    await world.truth.set(KEY, "before")
    await world.opened()
    await world.client.set(KEY, "queued")
    await world.heal()
    world.probe()


# -- pipelines ---------------------------------------------------------------------------------


async def test_a_pipeline_comes_after_what_is_queued(world: World) -> None:
    await queued(world)
    async with world.client.pipeline() as pipe:
        answers = await pipe.get(KEY).set(KEY, "newer").get(KEY).execute()
    assert answers == [b"queued", True, b"newer"]
    await world.recovered()
    assert await world.truth.get(KEY) == b"newer"


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_pipeline_is_refused_as_a_whole_while_open(world: World, transaction: bool) -> None:
    await world.opened()
    async with world.client.pipeline(transaction=transaction) as pipe:
        pipe.set(KEY, VALUE).incr(f"{KEY}-n").get(KEY)
        error = await outcome(pipe.execute())
    assert isinstance(error, CommandRefused)
    assert world.breaker.pending == 0
    await world.healed()
    assert await world.truth.exists(KEY, f"{KEY}-n") == 0


async def test_a_pipeline_that_meets_the_cut_is_not_queued_and_says_so(world: World) -> None:
    await world.cut()
    async with world.client.pipeline() as pipe:
        error = await outcome(pipe.set(KEY, VALUE).execute())
    assert vars(error)["queued"] is False
    assert world.breaker.failures == 1
    await world.healed()
    assert await world.truth.get(KEY) is None


async def test_what_a_pipeline_was_refused_is_not_in_its_next_execute(world: World) -> None:
    pipe = world.client.pipeline()
    await world.opened()
    assert isinstance(await outcome(pipe.incr(f"{KEY}-refused").execute()), CommandRefused)
    await world.healed()
    assert await pipe.set(KEY, VALUE).execute() == [True]
    assert await world.truth.exists(f"{KEY}-refused") == 0


@pytest.mark.asyncio_only("what is given to transaction() is a coroutine function")
async def test_a_transaction_comes_after_what_is_queued(world: World) -> None:
    """WATCH, read, MULTI, EXEC of redis-py's own `transaction`."""
    await queued(world)

    async def more(pipe: Any) -> None:
        value = await pipe.get(KEY)
        pipe.multi()
        pipe.set(KEY, value + b"+1")

    assert await world.client.transaction(more, KEY) == [True]
    assert await world.truth.get(KEY) == b"queued+1"


async def test_what_a_pipeline_runs_at_once_does_not_pass_the_queue(world: World) -> None:
    await queued(world)
    async with world.client.pipeline() as pipe:
        await outcome(pipe.watch(f"{KEY}-another"))
        newer = await outcome(pipe.set(KEY, "newer"))
    await world.recovered()
    assert isinstance(newer, Exception) or await world.truth.get(KEY) == b"newer"


def test_an_empty_pipeline_is_true_as_redis_pys_is() -> None:

    fake = fakeredis.FakeAsyncRedis()
    assert bool(fake.pipeline()) is True
    assert bool(ResilientRedis(over(fake)).pipeline()) is True


@pytest.mark.asyncio_only("a pipeline of redis.Redis is not awaited")
async def test_a_pipeline_can_be_awaited_as_redis_pys_can(world: World) -> None:
    pipe = await world.client.pipeline()
    assert await pipe.set(KEY, VALUE).execute() == [True]


@pytest.mark.asyncio_only("about an object whose methods are coroutines")
async def test_another_clients_pipeline_is_refused_too() -> None:
    class Pipeline:
        def __init__(self, there: Scripted) -> None:
            self.there = there
            self.sets: list[tuple[str, str]] = []

        def set(self, name: str, value: str) -> Pipeline:
            self.sets.append((name, value))
            return self

        async def execute(self, raise_on_error: bool = True) -> list[Any]:
            return [await self.there.set(*args) for args in self.sets]

    class Other(Scripted):
        def pipeline(self, *args: Any, **kwargs: Any) -> Pipeline:
            return Pipeline(self)

    there = Other()
    there.up = False
    r: Any = ResilientRedis(over(there, failure_threshold=1))
    await outcome(r.get("another"))
    await r.set(KEY, "queued")
    there.up = True
    assert isinstance(await outcome(r.pipeline().set(KEY, "newer").execute()), CommandRefused)
    assert there.data == {}


# -- locks, scripts, iterators -----------------------------------------------------------------


async def test_nobody_gets_a_lock_while_open(world: World) -> None:
    await world.opened()
    lock = world.client.lock(KEY, timeout=5)
    assert isinstance(await outcome(lock.acquire(blocking=False)), CommandRefused)
    assert isinstance(await outcome(lock.acquire(blocking_timeout=0.01)), CommandRefused)
    await world.healed()
    assert await world.truth.exists(KEY) == 0
    async with world.client.lock(KEY, timeout=5):
        assert await world.truth.exists(KEY) == 1
    assert await world.truth.exists(KEY) == 0


async def test_a_lock_that_cannot_be_released_says_so(world: World) -> None:
    lock = world.client.lock(KEY, timeout=50)
    assert await lock.acquire()
    await world.opened()
    assert isinstance(await outcome(lock.release()), CommandRefused)
    # redis-py's synchronous lock has forgotten its token by then, whatever came of it.
    error = redis.exceptions.LockError if threads() else CommandRefused
    assert isinstance(await outcome(lock.extend(10)), error)
    await world.healed()
    assert await world.truth.exists(KEY) == 1


async def test_a_script_is_refused_while_open_and_waits_for_the_queue(world: World) -> None:
    script = world.client.register_script("return redis.call('GET', KEYS[1])")
    await world.opened()
    await world.client.set(KEY, "queued")
    assert isinstance(await outcome(script(keys=[KEY])), CommandRefused)
    await world.heal()
    world.probe()
    assert await script(keys=[KEY]) == b"queued"


async def test_iterators_see_what_is_queued_or_refuse(world: World) -> None:
    await world.truth.set(f"{KEY}-1", VALUE)
    await world.opened()
    await world.client.set(f"{KEY}-2", VALUE)
    await world.client.hset(f"{KEY}-h", "field", VALUE)

    async def keys() -> list[bytes]:
        return [key async for key in world.client.scan_iter()]

    async def fields() -> list[Any]:
        return [pair async for pair in world.client.hscan_iter(f"{KEY}-h")]

    assert isinstance(await outcome(keys()), CommandRefused)
    assert await elsewhere(fields) == []
    await world.heal()
    world.probe()
    assert sorted(await keys()) == sorted(f"{KEY}-{n}".encode() for n in (1, 2, "h"))
    assert await fields() == [(b"field", VALUE.encode())]


def test_what_redis_py_answers_at_once_is_no_coroutine() -> None:
    fake = fakeredis.FakeAsyncRedis()
    assert not inspect.isawaitable(fake.bitfield(KEY))
    answer: Any = ResilientRedis(over(fake)).bitfield(KEY)
    coroutine = inspect.iscoroutine(answer)
    if coroutine:
        answer.close()
    assert not coroutine


async def test_a_module_command_does_not_pass_the_queue(world: World) -> None:
    sent: list[str] = []
    real = world.breaker.client.execute_command

    async def seen(*args: Any, **options: Any) -> Any:
        sent.append(str(args[0]))
        return True if args[0] == "JSON.SET" else await called(real, *args, **options)

    world.breaker.client.execute_command = waits(seen)
    await world.opened()
    await world.client.set(KEY, "queued")
    await world.heal()
    sent.clear()
    error = await outcome(world.client.json().set(KEY, "$", {"newer": 1}))
    assert isinstance(error, CommandRefused)
    assert "JSON.SET" not in sent


@pytest.mark.asyncio_only("about an object whose methods are coroutines")
async def test_what_is_no_command_passes_through(world: World) -> None:
    client = world.client
    assert isinstance(client, type(world.breaker.client))
    assert client.get_encoder() is not None
    assert client.connection_pool is world.breaker.client.connection_pool
    client.set_response_callback("GET", lambda value, **_: ("seen", value))
    await world.truth.set(KEY, VALUE)
    assert await client.get(KEY) == ("seen", VALUE.encode())
    await world.opened()
    assert await client.get(KEY) == ("seen", None)
    with pytest.raises(AttributeError):
        _ = client.no_such_thing


async def test_a_decoding_client_is_answered_in_text(make_world: Make) -> None:

    server = fakeredis.FakeServer()
    fake = FakeRedis(server=server, decode_responses=True)
    breaker = over(fake, failure_threshold=1)
    r: Any = ResilientRedis(breaker)
    server.connected = False
    await outcome(r.get(KEY))
    assert await r.type(KEY) == "none"
    assert await r.set(KEY, VALUE) == "OK"
    server.connected = True
    assert await breaker.flush_re_sync_queue() == 1
    assert await elsewhere(r.get, KEY) == VALUE
    assert breaker.state == CLOSED
    await r.aclose()


async def test_the_facade_in_the_middle_of_it_all(world: World) -> None:
    """Fifty tasks with pipelines, locks, sets and reads; the network comes and goes under them."""
    stop = False
    written: dict[str, int] = {}
    wrong: list[str] = []

    async def work(task: int) -> None:
        number = 0
        key = f"{KEY}-{task}"
        while not stop:
            number += 1
            answer = await outcome(world.client.set(key, number))
            if answer is True or answer == "OK" or getattr(answer, "queued", False):
                written[key] = number
            async with world.client.pipeline() as pipe:
                answer = await outcome(pipe.set(key, number + 0.5).incr(f"{key}-n").execute())
            if isinstance(answer, list):
                written[key] = number
                if answer[0] is not True:
                    wrong.append(repr(answer))
            elif not isinstance(answer, (redis.ConnectionError, redis.TimeoutError)):
                wrong.append(repr(answer))
            await asyncio.sleep(0.001)

    tasks = [asyncio.create_task(work(n)) for n in range(50)]
    for _ in range(5):
        await asyncio.sleep(0.02)
        await world.cut()
        await asyncio.sleep(0.02)
        await world.heal()
        world.probe()
    stop = True
    await asyncio.gather(*tasks)
    await world.healed()
    assert wrong == []
    found = {key: float(await world.truth.get(key)) for key in written}
    assert {k: v for k, v in found.items() if int(v) != written[k]} == {}
    assert world.breaker.state != OPEN
