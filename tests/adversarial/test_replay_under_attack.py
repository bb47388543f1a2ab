"""The server dies, refuses, hangs or lies while the queue is being replayed to it."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
import redis

from resilient_redis import CommandRefused
from tests.contract.helpers import CLOSED, KEY, OPEN, VALUE, outcome
from tests.support.flavours import called, waits

from .conftest import Make
from .scripted import AWAY, HANG, LOST, OK
from .worlds import FAKE, OBJECTS, SCRIPTED, THRESHOLD, Fate, World, script, traffic


@pytest.fixture
async def scripted(make_world: Make) -> World:
    made: World = await make_world(SCRIPTED)
    return made


# -- a replay that fails ----------------------------------------------------------------------


async def test_a_failed_replay_goes_back_to_the_front(any_object: World) -> None:
    """The third of six fails: two are gone, four wait in their order, the breaker is open."""
    world = any_object
    breaker = world.breaker
    await world.opened()
    for n in range(6):
        await world.client.set(f"{KEY}-{n}", n)
    client, seen = breaker.client, []
    real = client.set

    async def fails(*args: Any, **kwargs: Any) -> Any:
        seen.append(args[0])
        if len(seen) == 3:
            raise redis.ConnectionError("in the middle")
        return await called(real, *args, **kwargs)

    async def by_hand(name: str, *args: Any, **kwargs: Any) -> Any:
        return await fails(*(name, *args), **kwargs)

    client.set = waits(fails)
    # fakeredis is given the wire form where there is an expiry; these have none.
    await world.heal()
    world.probe()
    await breaker.flush_re_sync_queue()
    assert seen == [f"{KEY}-{n}" for n in range(3)], "it goes on behind a failure"
    assert (breaker.state, breaker.failures, breaker.pending) == (OPEN, THRESHOLD, 4)
    await world.recovered()
    assert seen == [f"{KEY}-{n}" for n in (0, 1, 2, 2, 3, 4, 5)]
    assert [await world.truth.get(f"{KEY}-{n}") for n in range(6)] == [b"%d" % n for n in range(6)]
    assert breaker.dead_letters == ()


async def test_a_poisoned_entry_is_set_aside_and_the_rest_applied(world: World) -> None:
    await world.truth.rpush(f"{KEY}-row", "a list")
    await world.opened()
    for n in range(3):
        await world.client.set(f"{KEY}-{n}", VALUE)
    if world.name in OBJECTS and world.scripted is not None:
        world.scripted.fate = poisoned(world)
    await world.client.hset(f"{KEY}-row", mapping={"no": "hash"})
    for n in range(3, 6):
        await world.client.set(f"{KEY}-{n}", VALUE)
    await world.healed()
    assert [(x.command, x.reason) for x in world.breaker.dead_letters] == [("HSET", "error")]
    assert await world.truth.exists(*(f"{KEY}-{n}" for n in range(6))) == 6
    assert world.breaker.state == CLOSED


def poisoned(world: World) -> Any:
    def fate(method: str, args: tuple[Any, ...]) -> Any:
        if not script(world).up:
            return AWAY
        return redis.ResponseError("WRONGTYPE") if method == "hset" else OK

    return fate


async def test_a_push_whose_replay_loses_its_reply_is_not_made_again(scripted: World) -> None:
    await scripted.opened()
    for n in range(3):
        await scripted.push(f"{n}")
    lost = iter([OK, LOST])
    script(scripted).fate = lambda method, args: next(lost, OK) if method == "rpush" else OK
    await scripted.healed()
    assert await scripted.row() == ["0", "1", "2"]
    assert [x.reason for x in scripted.breaker.dead_letters] == ["unknown"]


async def test_a_live_push_whose_reply_is_lost_is_neither_queued_nor_repeated(
    scripted: World,
) -> None:
    script(scripted).fate = lambda method, args: LOST if method == "rpush" else OK
    error = await outcome(scripted.client.rpush(KEY, "once"))
    assert isinstance(error, redis.TimeoutError)
    assert vars(error)["queued"] is False
    script(scripted).fate = lambda method, args: OK
    await scripted.recovered()
    assert await scripted.row() == ["once"]


async def test_a_live_set_whose_reply_is_lost_is_queued_and_says_so(scripted: World) -> None:
    script(scripted).fate = lambda method, args: LOST if method == "set" else OK
    error = await outcome(scripted.client.set(KEY, VALUE))
    assert vars(error)["queued"] is True
    script(scripted).fate = lambda method, args: OK
    assert await scripted.client.delete(KEY) == 1, "the queued write came after what follows it"
    assert await scripted.truth.get(KEY) is None


async def test_a_probe_of_a_dead_server_costs_no_acknowledged_push(make_world: Make) -> None:
    world: World = await make_world(FAKE)
    await world.opened()
    for n in range(5):
        assert await world.push(f"{n}") is Fate.ACKNOWLEDGED
    for _ in range(5):
        world.probe()  # still cut off; a read would be sent itself, what is no read sends the queue
        assert isinstance(await outcome(world.client.incr(f"{KEY}-n")), Exception)
    assert world.breaker.dead_letters == ()
    await world.healed()
    assert await world.row() == [f"{n}" for n in range(5)]


# -- errors that say nothing about the entry -----------------------------------------------------


def out_of_files() -> Exception:
    error = redis.ConnectionError("Error 24 connecting to localhost:6379")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    return error


NOT_THE_ENTRYS_FAULT = [
    pytest.param(redis.MaxConnectionsError("Too many connections"), id="MaxConnectionsError"),
    pytest.param(redis.AuthenticationError("WRONGPASS"), id="AuthenticationError"),
    pytest.param(
        redis.exceptions.ReadOnlyError("You can't write against a replica"), id="READONLY"
    ),
    pytest.param(redis.exceptions.OutOfMemoryError("command not allowed"), id="OOM"),
    pytest.param(redis.ResponseError("NOREPLICAS Not enough good replicas"), id="NOREPLICAS"),
    pytest.param(redis.ResponseError("MISCONF Redis is configured to save"), id="MISCONF"),
    pytest.param(redis.BusyLoadingError("Redis is loading the dataset"), id="LOADING"),
    pytest.param(redis.exceptions.MasterDownError("Link with MASTER is down"), id="MASTERDOWN"),
    pytest.param(redis.exceptions.ClusterDownError("The cluster is down"), id="CLUSTERDOWN"),
    *[
        pytest.param(error, id=name)
        for name, error in {
            "max number of clients": redis.ConnectionError("max number of clients reached"),
            "EMFILE": out_of_files(),
            "BUSY": redis.ResponseError("BUSY Redis is busy running a script"),
            "TRYAGAIN": redis.exceptions.TryAgainError("Multiple keys request during rehashing"),
            "CommandRefused": CommandRefused("SET", "another breaker's"),
            "closed loop": RuntimeError("Event loop is closed"),
        }.items()
    ],
]


@pytest.mark.parametrize("error", NOT_THE_ENTRYS_FAULT)
async def test_an_error_that_is_not_the_entrys_fault_costs_no_entry(
    scripted: World, error: Exception
) -> None:
    breaker = scripted.breaker
    await scripted.opened()
    for n in range(5):
        await scripted.client.set(f"{KEY}-{n}", n)
    script(scripted).fate = lambda method, args: error if method == "set" else OK
    for _ in range(3):
        await traffic(scripted)
    assert breaker.dead_letters == ()
    assert breaker.pending == 5
    assert script(scripted).effects == []
    script(scripted).fate = lambda method, args: OK
    await scripted.recovered()
    assert [value for _, _, value in script(scripted).effects] == list(range(5))
    assert (breaker.state, breaker.dead_letters) == (CLOSED, ())


class _Foreign(Exception):
    """Another client's classes under redis-py's names (valkey-py, coredis)."""


ForeignResponseError = type("ResponseError", (_Foreign,), {})
ForeignConnectionError = type("ConnectionError", (_Foreign,), {})
ReadOnly = type("ReadOnlyError", (ForeignResponseError,), {})
MasterDown = type("MasterDownError", (ForeignResponseError,), {})


@pytest.mark.parametrize("refusal", [ReadOnly, MasterDown])
async def test_another_clients_refusal_of_writes_costs_no_entry(
    scripted: World, refusal: type[Exception]
) -> None:
    script(scripted).fate = lambda method, args: ForeignConnectionError("away")
    await scripted.opened()
    for n in range(5):
        await scripted.client.set(f"{KEY}-{n}", n)
    script(scripted).fate = lambda method, args: refusal("x") if method == "set" else OK
    await traffic(scripted)
    assert scripted.breaker.dead_letters == ()
    assert scripted.breaker.pending == 5


async def test_another_clients_error_reply_shows_that_the_server_is_there(scripted: World) -> None:
    script(scripted).fate = lambda method, args: ForeignConnectionError("away")
    await scripted.opened()
    script(scripted).fate = lambda method, args: ForeignResponseError("WRONGTYPE")
    scripted.probe()
    assert isinstance(await outcome(scripted.client.get(KEY)), ForeignResponseError)
    assert scripted.breaker.state == CLOSED


# -- a replayed call that never returns ------------------------------------------------------------


@pytest.mark.asyncio_only("a thread that hangs in an object is ended by its timeout alone")
async def test_one_hung_call_does_not_keep_a_healthy_object_down(make_world: Make) -> None:
    """A client without a timeout of its own, and one lost reply."""
    world: World = await make_world(SCRIPTED, probe_timeout=0.02, deadline=0.05, drain_wait=0.05)
    await world.opened()
    await world.client.set(KEY, VALUE)
    fates = iter([HANG])
    script(world).fate = lambda method, args: next(fates, OK) if method == "set" else OK
    for _ in range(10):  # 0.5 s; the permit of the hung call lapses after 0.2 s
        await traffic(world)
        await asyncio.sleep(0.05)
    assert (world.breaker.state, world.breaker.pending) == (CLOSED, 0)
    assert await world.truth.get(KEY) == VALUE.encode()


@pytest.mark.asyncio_only("a thread that hangs in an object is ended by its timeout alone")
async def test_callers_do_not_wait_for_a_hung_replay(scripted: World) -> None:
    await scripted.opened()
    await scripted.client.set(KEY, VALUE)
    script(scripted).fate = lambda method, args: HANG if method == "set" else OK
    scripted.probe()
    started = scripted.clock()
    answers = await asyncio.gather(
        *(outcome(scripted.client.get(f"{KEY}-{n}")) for n in range(50)),
        *(outcome(scripted.client.set(f"{KEY}-{n}", n)) for n in range(50)),
    )
    assert scripted.clock() - started < scripted.breaker.drain_wait + 0.5
    assert answers == [None] * 50 + ["OK"] * 50
    assert script(scripted).effects == []
