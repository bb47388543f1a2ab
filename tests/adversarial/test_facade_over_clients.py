"""The guard put into a client of redis-py that is at work already, and the fast path in front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
import redis.asyncio
from tenacity import wait_fixed

from resilient_redis import CommandRefused, JournalFull, MemoryJournal
from resilient_redis.asyncio.connection import GuardedConnection as AsyncGuardedConnection
from resilient_redis.sync.connection import GuardedConnection
from tests.contract.helpers import CLOSED, KEY, OPEN, VALUE, outcome, recovered, until
from tests.support.flavours import (
    BlockingConnectionPool,
    ConnectionPool,
    Redis,
    RedisCircuitBreaker,
    ResilientRedis,
    real,
)
from tests.support.servers import Rig

from .worlds import Client

pytestmark = pytest.mark.server

Made = dict[str, Any]
GUARDED = (GuardedConnection, AsyncGuardedConnection)


def quick(client: Client, **options: Any) -> RedisCircuitBreaker:
    made: Made = {
        "failure_threshold": 1,
        "recovery_wait": wait_fixed(0.01),
        "deadline": 0.3,
        "probe_timeout": 0.3,
        **options,
    }
    return RedisCircuitBreaker(client, **made)


@asynccontextmanager
async def using(client: Client, **options: Any) -> AsyncIterator[Client]:
    r = ResilientRedis(quick(client, **options))
    try:
        yield r
    finally:
        await r.aclose()


def all_guarded(client: Client) -> bool:
    pool = client.connection_pool
    found = [*pool._available_connections, *pool._in_use_connections]
    return all(isinstance(real(connection), GUARDED) for connection in found)


# -- a client at work --------------------------------------------------------------------------


async def test_a_client_with_commands_in_flight(rig: Rig) -> None:
    """Those go on and are answered; then their connections are gone, as the idle ones at once."""
    client: Client = Redis(port=rig.port)
    await asyncio.gather(*(client.get(KEY) for _ in range(10)))
    blocked = [asyncio.create_task(client.blpop([KEY], 5)) for _ in range(3)]
    await until(lambda: len(client.connection_pool._in_use_connections) == 3)
    async with using(client) as r:
        await until(lambda: rig.connections() == 3)
        await r.rpush(KEY, "1", "2", "3")
        assert sorted(await asyncio.gather(*blocked)) == [
            (KEY.encode(), b"%d" % n) for n in (1, 2, 3)
        ]
        assert all_guarded(client)
        await until(lambda: rig.connections() == 1)
        rig.kill()
        assert await r.get(KEY) is None
        assert await r.set(KEY, VALUE) is True
        rig.restart()
        await recovered(r.breaker)
        assert await r.get(KEY) == VALUE.encode()
    await until(lambda: rig.connections() == 0)


async def test_a_client_with_a_subscriber(rig: Rig) -> None:
    client: Client = Redis(port=rig.port)
    pubsub = client.pubsub()
    await pubsub.subscribe("channel")
    assert (await pubsub.get_message(timeout=2.0))["type"] == "subscribe"
    async with using(client) as r:
        await r.publish("channel", VALUE)
        message = await pubsub.get_message(timeout=2.0)
        assert message["data"] == VALUE.encode()
        await pubsub.aclose()
        assert all_guarded(client)


async def test_a_pool_on_which_others_wait(rig: Rig) -> None:
    """Both connections are in use and five tasks wait for one: all get theirs, guarded."""
    pool = BlockingConnectionPool(port=rig.port, max_connections=2, timeout=5)
    client: Client = Redis.from_pool(pool)
    blocked = [asyncio.create_task(client.blpop([f"{KEY}-row"], 0.2)) for _ in range(2)]
    await until(lambda: len(pool._in_use_connections) == 2)
    waiting = [asyncio.create_task(client.set(f"{KEY}-{n}", n)) for n in range(5)]
    await asyncio.sleep(0.02)
    async with using(client) as r:
        assert await asyncio.gather(*waiting) == [True] * 5
        assert await asyncio.gather(*blocked) == [None, None]
        assert all_guarded(client)
        assert await r.exists(*(f"{KEY}-{n}" for n in range(5))) == 5
    assert rig.connections() == 0


@pytest.mark.asyncio_only(
    "redis-py's threads take the connection in hand before they take its lock"
)
async def test_a_single_connection_under_contention(rig: Rig) -> None:
    client: Client = Redis(port=rig.port, single_connection_client=True)
    wrong: list[Any] = []

    async def work() -> None:
        for _ in range(40):
            answer = await outcome(client.get(KEY))
            if answer is not None:
                wrong.append(answer)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for _ in range(5):
        await client.ping()  # with this it is between two commands
    try:
        breaker = quick(client)
    except ValueError:  # somebody waits: before or after, but not now
        await asyncio.gather(*workers)
        breaker = quick(client)
    await asyncio.gather(*workers)
    await client.get(KEY)
    try:
        assert wrong == []
        assert isinstance(real(client.connection), GUARDED)
    except AssertionError:
        for error in wrong:
            if isinstance(error, KeyError):
                await error.args[0].disconnect()  # the old one: opened anew, and in no pool
        await breaker.aclose()
        await client.aclose()
        raise
    breaker.force_open()
    assert await client.set(KEY, VALUE) is True
    breaker.reset()
    await recovered(breaker)
    assert await client.get(KEY) == VALUE.encode()
    await breaker.aclose()
    await client.aclose()
    await until(lambda: rig.connections() == 0)


async def test_a_client_that_another_breaker_guards(valkey_rig: Rig) -> None:
    client: Client = Redis(port=valkey_rig.port)
    async with using(client) as r:
        with pytest.raises(ValueError, match="another breaker"):
            quick(client)
        sharing: Client = Redis(connection_pool=client.connection_pool)
        with pytest.raises(ValueError, match="another breaker"):
            quick(sharing)
        assert await r.get(KEY) is None


async def test_two_clients_on_one_pool_share_the_breaker(rig: Rig) -> None:
    """The one that was not given to it has no fast path, and the same guard."""
    pool = ConnectionPool(port=rig.port)
    first: Client = Redis.from_pool(pool)
    second: Client = Redis(connection_pool=pool)
    async with using(first) as r:
        rig.kill()
        assert await r.set(f"{KEY}-1", VALUE) is True
        assert await second.set(f"{KEY}-2", VALUE) is True
        assert r.breaker.pending == 2
        rig.restart()
        await recovered(r.breaker)
        assert await second.exists(f"{KEY}-1", f"{KEY}-2") == 2


# -- classes of the user's own -----------------------------------------------------------------


class Prefixed(redis.asyncio.Redis):
    """A client that puts every key under its application's name, as many do."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if len(args) > 1:
            args = (args[0], f"app:{args[1]}", *args[2:])
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


@pytest.mark.asyncio_only("of classes made of redis.asyncio.Redis")
async def test_a_subclass_that_changes_its_commands(rig: Rig) -> None:
    async with using(Prefixed(port=rig.port)) as r:
        await r.set(f"{KEY}-1", VALUE)
        r.breaker.force_open()
        await r.set(f"{KEY}-2", VALUE)
        r.breaker.reset()
        await recovered(r.breaker)
        assert sorted(rig.admin.keys("*")) == [f"app:{KEY}-1", f"app:{KEY}-2"]


class Counting(redis.asyncio.Redis):
    """One that only looks on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[Any] = []

    async def parse_response(self, *args: Any, **options: Any) -> Any:
        self.seen.append(args[1])
        return await super().parse_response(*args, **options)

    def greet(self) -> str:
        return "hello"


@pytest.mark.asyncio_only("of classes made of redis.asyncio.Redis")
async def test_a_subclass_keeps_what_it_adds(rig: Rig) -> None:
    client = Counting(port=rig.port)
    async with using(client) as r:
        assert r.greet() == "hello"
        assert isinstance(r, Counting)
        await r.get(KEY)
        rig.kill()
        assert [await r.hgetall(KEY) for _ in range(3)] == [{}] * 3
        assert client.seen == ["GET", *["HGETALL"] * 3]


@pytest.mark.parametrize(
    "clone",
    [
        pytest.param(lambda client: client.client(), id="client()"),
        pytest.param(lambda c: type(c).from_url("redis://127.0.0.1:1"), id="type(client)"),
    ],
)
async def test_a_client_that_is_made_of_a_guarded_one(
    rig: Rig, clone: Callable[[Client], Client]
) -> None:
    async with using(Redis(port=rig.port)) as r:
        other = clone(r.client)
        try:
            answer = await outcome(other.get(KEY))
        finally:
            await other.aclose()
        assert answer is None or isinstance(answer, redis.ConnectionError)


# -- pool and password: no outage --------------------------------------------------------------


async def test_an_exhausted_pool_is_no_outage(rig: Rig) -> None:
    client: Client = Redis.from_pool(ConnectionPool(port=rig.port, max_connections=2))
    async with using(client) as r:
        blocked = [asyncio.create_task(r.blpop([KEY], 1)) for _ in range(2)]
        await until(lambda: len(client.connection_pool._in_use_connections) == 2)
        for _ in range(5):
            assert isinstance(await outcome(r.set(KEY, VALUE)), redis.MaxConnectionsError)
        assert (r.breaker.state, r.breaker.failures, r.breaker.pending) == (CLOSED, 0, 0)
        await r.client.connection_pool.disconnect()
        await asyncio.gather(*blocked, return_exceptions=True)


async def test_an_exhausted_pool_is_no_hindrance_while_open(rig: Rig) -> None:
    """Answers without a connection: 100 at once over a pool of two."""
    client: Client = Redis.from_pool(ConnectionPool(port=rig.port, max_connections=2))
    async with using(client) as r:
        rig.kill()
        assert await r.get(KEY) is None
        answers = await asyncio.gather(*(r.set(f"{KEY}-{n}", n) for n in range(100)))
        assert answers == [True] * 100
        rig.restart()
        await recovered(r.breaker)
        assert await r.exists(*(f"{KEY}-{n}" for n in range(100))) == 100


async def test_a_wrong_password_is_no_outage(rig: Rig) -> None:
    rig.acl("default", "resetpass", ">right")
    async with using(Redis(port=rig.port, password="wr0ng-s3cret")) as r:
        for _ in range(3):
            error = await outcome(r.set(KEY, VALUE))
            assert isinstance(error, redis.AuthenticationError), repr(error)
        assert (r.breaker.state, r.breaker.pending) == (CLOSED, 0)


# -- the fast path -----------------------------------------------------------------------------


@pytest.mark.asyncio_only("among threads a call begins when it is made")
async def test_the_breaker_closes_between_the_decision_and_the_answer(rig: Rig) -> None:
    """A coroutine made while open and awaited after the recovery goes to the server."""
    async with using(Redis(port=rig.port)) as r:
        await r.set(KEY, VALUE)
        r.breaker.force_open()
        coroutines = [r.get(KEY), r.incr(f"{KEY}-n"), r.set(f"{KEY}-1", 1), r.ping()]
        r.breaker.reset()
        await recovered(r.breaker)
        answers = [await outcome(each) for each in coroutines]
        assert answers == [VALUE.encode(), 1, True, True]
        assert r.breaker.pending == 0


async def test_the_breaker_opens_between_the_decision_and_the_answer(rig: Rig) -> None:
    async with using(Redis(port=rig.port)) as r:
        await r.set(KEY, VALUE)
        coroutines = [r.get(f"{KEY}-2"), r.set(f"{KEY}-1", 1), r.incr(f"{KEY}-n")]
        rig.kill()
        r.breaker.force_open()
        answers = [await outcome(each) for each in coroutines]
        assert answers[:2] == [None, True]
        assert isinstance(answers[2], CommandRefused)


async def test_the_state_flickers_under_a_crowd(rig: Rig) -> None:
    """The breaker is opened and closed every millisecond: what is acknowledged is there, once."""
    async with using(Redis(port=rig.port, max_connections=1000)) as r:
        stop = False
        told: dict[int, list[int]] = {n: [] for n in range(20)}

        async def work(task: int) -> None:
            number = 0
            while not stop:
                answer = await outcome(r.rpush(f"{KEY}-{task}", number))
                if not isinstance(answer, Exception):
                    told[task].append(number)
                number += 1
                await asyncio.sleep(0)

        workers = [asyncio.create_task(work(n)) for n in range(20)]
        for _ in range(40):
            r.breaker.force_open()
            await asyncio.sleep(0.001)
            r.breaker.reset()
            await asyncio.sleep(0.004)
        stop = True
        await asyncio.gather(*workers)
        await recovered(r.breaker)
        for task, numbers in told.items():
            assert [int(v) for v in await r.lrange(f"{KEY}-{task}", 0, -1)] == numbers
        assert r.breaker.dead_letters == ()


async def test_a_full_journal_refuses_on_the_fast_path(rig: Rig) -> None:
    async with using(Redis(port=rig.port), journal=MemoryJournal(max_entries=2)) as r:
        r.breaker.force_open()
        answers = [await outcome(r.set(f"{KEY}-{n}", n)) for n in range(4)]
        assert answers[:2] == [True, True]
        assert [type(error) for error in answers[2:]] == [JournalFull] * 2
        r.breaker.reset()
        await recovered(r.breaker)
        assert await r.exists(*(f"{KEY}-{n}" for n in range(4))) == 2


async def test_the_fast_path_remembers_what_it_has_told(rig: Rig) -> None:
    rig.admin.set(KEY, "precious")
    async with using(Redis(port=rig.port)) as r:
        rig.kill()
        while r.breaker.state != OPEN:
            await r.get(f"{KEY}-opening")
        assert await r.get(KEY) is None
        assert await r.set(KEY, "default") is True
        rig.restart()
        await recovered(r.breaker)
        assert rig.admin.get(KEY) == "precious"
        assert [letter.reason for letter in r.breaker.dead_letters] == ["premise"]


async def test_single_commands_and_pipelines_keep_their_order(rig: Rig) -> None:
    """One by the fast path, one by a connection: one queue."""
    async with using(Redis(port=rig.port)) as r:
        rig.kill()
        await r.get(KEY)
        for n in range(0, 30, 3):
            await r.rpush(KEY, n)
            async with r.pipeline(transaction=False) as pipe:
                await pipe.rpush(KEY, n + 1).rpush(KEY, n + 2).execute()
        rig.restart()
        await recovered(r.breaker)
        assert [int(v) for v in await r.lrange(KEY, 0, -1)] == list(range(30))
