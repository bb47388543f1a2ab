"""What counts as a failure, and when it is too much."""

from __future__ import annotations

import pytest
import redis

from tests.contract.helpers import CLOSED, KEY, OPEN, VALUE, outcome

from .conftest import Make
from .scripted import AWAY, OK
from .worlds import OBJECTS, SCRIPTED, World, script


@pytest.fixture
async def world(make_world: Make) -> World:
    """The hand-written client, which counts."""
    made: World = await make_world(SCRIPTED)
    return made


# -- the threshold ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1, 2, 5])
@pytest.mark.parametrize("name", OBJECTS)
async def test_opens_at_the_threshold_and_not_before(
    make_world: Make, name: str, threshold: int
) -> None:
    world: World = await make_world(name, failure_threshold=threshold)
    await world.cut()
    for n in range(1, threshold + 1):
        assert isinstance(await outcome(world.client.get(KEY)), redis.ConnectionError)
        assert world.breaker.failures == n
        assert world.breaker.state == (OPEN if n == threshold else CLOSED)
    assert await world.client.get(KEY) is None


@pytest.mark.parametrize("name", OBJECTS)
async def test_failing_writes_count_one_each_and_are_all_kept(make_world: Make, name: str) -> None:
    """From the second on the write that is queued already is tried first, and is the failure."""
    world: World = await make_world(name, failure_threshold=4)
    await world.cut()
    for n in range(1, 5):
        error = await outcome(world.client.set(f"{KEY}-{n}", n))
        assert vars(error)["queued"] is True
        assert (world.breaker.failures, world.breaker.pending) == (n, n)
    assert world.breaker.state == OPEN
    await world.healed()
    assert await world.truth.exists(*(f"{KEY}-{n}" for n in range(1, 5))) == 4


async def test_a_success_sets_the_count_back(any_object: World) -> None:
    for _ in range(4):
        await any_object.cut()
        await outcome(any_object.client.get(KEY))
        await outcome(any_object.client.get(KEY))
        assert any_object.breaker.failures == 2
        await any_object.heal()
        await any_object.client.get(KEY)
        assert (any_object.breaker.failures, any_object.breaker.state) == (0, CLOSED)


async def test_an_error_reply_is_a_success(world: World) -> None:
    await world.cut()
    await outcome(world.client.get(KEY))
    await world.heal()
    script(world).fate = lambda method, args: redis.ResponseError("WRONGTYPE")
    assert isinstance(await outcome(world.client.get(KEY)), redis.ResponseError)
    assert world.breaker.failures == 0


NOT_OUTAGES = [
    redis.MaxConnectionsError("Too many connections"),
    redis.AuthenticationError("WRONGPASS"),
    redis.exceptions.AuthorizationError("denied"),
    redis.exceptions.NoPermissionError("NOPERM"),
    redis.ResponseError("WRONGTYPE"),
    redis.DataError("no such type"),
    redis.ConnectionError("max number of clients reached"),
    TypeError("a bug of the caller"),
    ValueError("another"),
]


@pytest.mark.parametrize("error", NOT_OUTAGES, ids=repr)
async def test_what_is_no_outage_is_not_counted(world: World, error: Exception) -> None:
    script(world).fate = lambda method, args: error
    for _ in range(10):
        assert await outcome(world.client.set(KEY, VALUE)) is error
    assert (world.breaker.state, world.breaker.failures, world.breaker.pending) == (CLOSED, 0, 0)


@pytest.mark.parametrize("error", NOT_OUTAGES, ids=repr)
async def test_what_is_no_outage_does_not_put_off_the_next_probe(
    world: World, error: Exception
) -> None:
    await world.opened()
    script(world).fate = lambda method, args: error
    world.probe()
    assert await outcome(world.client.get(KEY)) is error
    script(world).fate = lambda method, args: OK
    assert await world.client.get(KEY) is None
    assert world.breaker.state == CLOSED


# -- the rate --------------------------------------------------------------------------------------


async def test_half_of_the_calls_fail(make_world: Make) -> None:
    """Never two in a row: the count says nothing, the share does."""
    world: World = await make_world(SCRIPTED, failure_rate=0.5, minimum_calls=10)
    turn = iter([OK, AWAY] * 50)
    script(world).fate = lambda method, args: next(turn)
    calls = 0
    while world.breaker.state == CLOSED:
        await outcome(world.client.get(KEY))
        calls += 1
    assert calls == 10
    assert world.breaker.failures < 3 or world.breaker.state == OPEN
