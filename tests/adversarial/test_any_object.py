"""Calls of any object: what is queued is what was given, and what is said of it is true."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock

import pytest
import redis
import redis.asyncio

from resilient_redis import COUNTERS, WRITE_COMMANDS, CommandRefused, Policy, Rule, track
from tests.contract.helpers import CLOSED, KEY, OPEN, VALUE, outcome, until
from tests.support.flavours import RedisCircuitBreaker, ResilientRedis

from .conftest import Make
from .scripted import AWAY, LOST, OK, Scripted
from .worlds import BY_HAND, FAKE, SCRIPTED, World, elsewhere, over, script


@pytest.fixture
async def fake(make_world: Make) -> World:
    made: World = await make_world(FAKE)
    return made


@pytest.fixture
async def scripted(make_world: Make) -> World:
    made: World = await make_world(SCRIPTED)
    return made


# -- error.queued --------------------------------------------------------------------------------


CALLS: dict[str, tuple[Any, ...]] = {
    "set": (KEY, VALUE),
    "delete": (KEY,),
    "rpush": (KEY, "x"),
    "incr": (KEY,),
    "get": (KEY,),
    "ping": (),
}
SAFE_TWICE = {"set", "delete"}


@pytest.mark.parametrize("fate", [AWAY, LOST])
@pytest.mark.parametrize("method", CALLS)
async def test_error_queued_is_the_truth(scripted: World, fate: str, method: str) -> None:
    """True: it is applied later, once. False: it is not applied later."""
    script(scripted).fate = lambda *_: fate
    error = await outcome(getattr(scripted.client, method)(*CALLS[method]))
    before = len(script(scripted).effects)
    assert before == (fate == LOST and method not in ("get", "ping"))
    assert vars(error)["queued"] is (method in SAFE_TWICE)
    script(scripted).fate = lambda *_: OK
    await scripted.recovered()
    later = [method for method, _, _ in script(scripted).effects[before:]]
    assert later == [method] * (method in SAFE_TWICE)


async def test_nobody_listened_so_a_push_is_queued(scripted: World) -> None:
    """ConnectionRefusedError underneath: it cannot have run."""
    refused = redis.ConnectionError("Error 111")
    refused.__cause__ = ConnectionRefusedError(111, "refused")
    script(scripted).fate = lambda method, args: refused
    error = await outcome(scripted.client.rpush(KEY, "x"))
    assert vars(error)["queued"] is True
    script(scripted).fate = lambda method, args: OK
    await scripted.recovered()
    assert await scripted.row() == ["x"]


@pytest.mark.parametrize("name", [FAKE, BY_HAND])
async def test_each_caller_is_told_of_his_own_write(make_world: Make, name: str) -> None:
    world: World = await make_world(name, failure_threshold=10)
    await world.cut()
    await outcome(world.client.set(f"{KEY}-first", VALUE))
    answers = await asyncio.gather(
        world.client.set(f"{KEY}-1", VALUE),
        world.client.incr(f"{KEY}-n"),
        world.client.set(f"{KEY}-2", VALUE),
        world.client.incr(f"{KEY}-n"),
        return_exceptions=True,
    )
    assert [vars(answer)["queued"] for answer in answers] == [True, False, True, False]


@pytest.mark.parametrize("what", ["refused", "pool", "password"])
async def test_every_connection_error_of_execute_says_whether_it_is_queued(
    scripted: World, what: str
) -> None:
    if what == "refused":
        await scripted.opened()
    else:
        error: Exception = redis.MaxConnectionsError("Too many connections")
        if what == "password":
            error = redis.AuthenticationError("WRONGPASS")
        script(scripted).fate = lambda method, args: error
    found = await outcome(scripted.client.incr(KEY))
    assert isinstance(found, redis.ConnectionError)
    assert getattr(found, "queued", "missing") is False


async def test_what_only_the_object_takes_does_not_hide_its_outage() -> None:
    class Other:
        async def hset(self, name: str, mapping: list[tuple[str, str]]) -> None:
            raise redis.ConnectionError("away")

    other = Other()
    with pytest.raises(redis.ConnectionError):
        await over(other).execute("hset", other.hset, KEY, mapping=[("a", "b")])


# -- reads ---------------------------------------------------------------------------------------


async def test_a_read_sees_what_this_caller_was_told_is_queued() -> None:
    class Slow(Scripted):
        async def get(self, name: Any) -> Any:
            value = await super().get(name)
            await asyncio.sleep(0.01)
            return value

    there = Slow()
    breaker = over(there)
    there.up = False
    assert vars(await outcome(breaker.execute("set", there.set, KEY, VALUE)))["queued"] is True
    there.up = True
    value, _ = await asyncio.gather(
        breaker.execute("get", there.get, KEY), breaker.execute("set", there.set, "other", 1)
    )
    assert value == VALUE.encode()


async def test_neutral_answers_have_redis_pys_types(fake: World) -> None:
    await fake.opened()
    c = fake.client
    assert await c.get(KEY) is None
    assert await c.mget([KEY, f"{KEY}-2"]) == [None, None]
    assert await c.hgetall(KEY) == {}
    assert await c.smembers(KEY) == set()
    assert await c.lrange(KEY, 0, -1) == []
    assert await c.zrange(KEY, 0, -1, withscores=True) == []
    assert await c.exists(KEY) == 0
    assert await c.lpop(KEY) is None
    assert await c.publish("channel", VALUE) == 0
    assert await c.execute_command("GET", KEY) is None


# -- what is refused -----------------------------------------------------------------------------


REFUSED: dict[str, Callable[[Any], Any]] = {
    "set nx": lambda c: c.set(KEY, VALUE, nx=True),
    "set xx": lambda c: c.set(KEY, VALUE, xx=True),
    "set get": lambda c: c.set(KEY, VALUE, get=True),
    "setnx": lambda c: c.setnx(KEY, VALUE),
    "incr": lambda c: c.incr(KEY),
    "hincrby": lambda c: c.hincrby(KEY, "f", 1),
    "append": lambda c: c.append(KEY, VALUE),
    "eval": lambda c: c.eval("return 1", 0),
    "ping": lambda c: c.ping(),
    "info": lambda c: c.info(),
    "keys": lambda c: c.keys("*"),
    "scan": lambda c: c.scan(),
    "rename": lambda c: c.rename(KEY, f"{KEY}-2"),
    "lset": lambda c: c.lset(KEY, 0, VALUE),
    "flushall": lambda c: c.flushall(),
    "execute_command": lambda c: c.execute_command("SET", KEY, VALUE, "NX"),
    "unknown": lambda c: c.execute_command("NO.SUCH", KEY),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", [FAKE, BY_HAND])
async def test_what_cannot_be_promised_is_refused(make_world: Make, name: str, what: str) -> None:
    world: World = await make_world(name)
    await world.truth.set(KEY, "there")
    await world.opened()
    error = await outcome(REFUSED[what](world.client))
    assert isinstance(error, CommandRefused)
    assert KEY not in str(error)
    assert VALUE not in str(error)
    assert world.breaker.pending == 0
    await world.healed()
    assert await world.truth.get(KEY) == b"there"
    assert await world.truth.keys("*") == [KEY.encode()]


async def test_a_rule_queues_counters_and_each_is_applied_once(make_world: Make) -> None:
    rule = Rule(commands=COUNTERS, answer="queue")
    world: World = await make_world(FAKE, policy=Policy([rule]))
    await world.opened()
    for _ in range(10):
        assert await world.client.incr(KEY) == "OK"
    await world.healed()
    assert await world.truth.get(KEY) == b"10"


async def test_a_rule_refuses_what_stands_between_a_user_and_his_session(make_world: Make) -> None:
    rule = Rule(keys="session:*", answer="refuse")
    world: World = await make_world(FAKE, policy=Policy([rule]))
    await world.cut()
    error = await outcome(world.client.set("session:1", VALUE))
    assert vars(error)["queued"] is False
    await world.opened()
    assert isinstance(await outcome(world.client.get("session:1")), CommandRefused)
    assert isinstance(await outcome(world.client.set("session:1", VALUE)), CommandRefused)
    await world.healed()
    assert await world.truth.get("session:1") is None


# What redis-py's methods need, where it is not simply keys and numbers.
NEEDED: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "mset": ([{KEY: VALUE}], {}),
    "hset": ([KEY, "f", "v"], {}),
    "hmset": ([KEY, {"f": "v"}], {}),
    "zadd": ([KEY, {"m": 1}], {}),
    "xadd": ([KEY, {"f": "v"}], {}),
    "geoadd": ([KEY, (1.0, 2.0, "m")], {}),
    "msetex": ([{KEY: VALUE}], {}),
    "hsetex": ([KEY, "f", "v"], {}),
    "bitop": (["AND", KEY, f"{KEY}-2"], {}),
    "xtrim": ([KEY, 10], {}),
    "geosearchstore": ([KEY, f"{KEY}-2"], {"member": "m", "radius": 1, "unit": "km"}),
    "pfmerge": ([KEY, f"{KEY}-2"], {}),
    "zremrangebylex": ([KEY, "[a", "[b"], {}),
    **{f"{name}store": ([KEY, [f"{KEY}-2"]], {}) for name in ("zdiff", "zinter", "zunion")},
    "restore": ([KEY, 0, b"x" * 20], {}),
}


def least(method: Any) -> tuple[list[Any], dict[str, Any]]:
    """The least arguments that redis-py's own method takes."""
    needed = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
    return [KEY if p.name in ("name", "src", "dest", "names") else 1 for p in needed], {}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # redis-py's, for its old methods
async def test_each_write_command_is_queued_by_its_least_arguments(fake: World) -> None:
    await fake.opened()
    names = sorted(WRITE_COMMANDS - {"restore"})
    for place, name in enumerate(names, 1):
        args, options = NEEDED.get(name) or least(getattr(fake.breaker.client, name))
        answer = await outcome(getattr(fake.client, name)(*args, **options))
        assert (answer, fake.breaker.pending) == ("OK", place), (name, args)
    fake.clock.push(301)  # most of them mean nothing to the server
    await fake.healed()
    assert {letter.reason for letter in fake.breaker.dead_letters} == {"age"}


async def test_restore_without_replace_is_no_unconditional_write(fake: World) -> None:
    assert "restore" not in WRITE_COMMANDS
    await fake.opened()
    answer = await outcome(fake.client.restore(KEY, 0, b"x" * 10))
    assert isinstance(answer, CommandRefused)


async def test_no_warning_of_ours_for_a_method_that_the_object_does_not_deprecate() -> None:
    mock = AsyncMock()
    breaker = over(mock)
    breaker.force_open()
    assert await breaker.execute("setex", mock.setex, KEY, 10, VALUE) == "OK"


# -- several loops, the end ----------------------------------------------------------------------


async def test_what_is_tracked_is_what_was_answered(fake: World) -> None:
    with track() as seen:
        await outcome(fake.client.get(KEY))
        assert not seen.degraded
        await fake.opened()
        await elsewhere(fake.client.get, KEY)
        await fake.client.set(KEY, VALUE)
        await outcome(fake.client.incr(KEY))
    assert (seen.neutral, seen.queued, seen.refused, seen.unknown) == (1, 1, 1, 0)
    assert seen.commands == ["GET", "SET", "INCRBY"]
    await fake.heal()
    fake.probe()
    with track() as after:
        assert await elsewhere(fake.client.get, KEY) == VALUE.encode()
    assert not after.degraded


@pytest.mark.asyncio_only("about an object whose methods are coroutines")
async def test_a_plain_mock_of_a_test_suite(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """AsyncMock without more: what it answers is passed on, what it raises decides."""
    mock = AsyncMock(spec=redis.asyncio.Redis)
    breaker = RedisCircuitBreaker(mock, failure_threshold=2, recovery_timeout=0.01)
    r = ResilientRedis(breaker)
    mock.get.side_effect = AsyncMock(return_value=VALUE)
    assert await r.get(KEY) == VALUE
    mock.get.side_effect = AsyncMock(side_effect=redis.ConnectionError("away"))
    for _ in range(2):
        with contextlib.suppress(redis.ConnectionError):  # that is what it is to do
            await r.get(KEY)
    assert breaker.state == OPEN
    assert await r.set(KEY, VALUE) == "OK"
    mock.set.side_effect = AsyncMock(return_value=True)
    mock.get.side_effect = AsyncMock(return_value=VALUE)
    await asyncio.sleep(0.02)
    assert await r.get(f"{KEY}-2") == VALUE
    await until(lambda: breaker.pending == 0)
    assert breaker.state == CLOSED
    mock.set.assert_called_once_with(KEY, VALUE)
    await breaker.aclose()
