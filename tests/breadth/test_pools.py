"""Pools, and what several clients share: limits that are not Redis's, one breaker for many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.exceptions import ConnectionError, MaxConnectionsError, NoPermissionError

from resilient_redis.asyncio import (
    CommandRefused,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
)
from tests.breadth.story import goes_down, in_use, nothing_is_left, quick
from tests.contract.helpers import CLOSED, OPEN, PASSWORD, events_of, opened, recovered, until
from tests.contract.recovery_helpers import watermarks
from tests.support.servers import Rig
from tests.surface.helpers import aside

pytestmark = pytest.mark.server


def pool(rig: Rig, breaker: RedisCircuitBreaker, kind: Any = ConnectionPool, **options: Any) -> Any:
    return kind(
        connection_class=ResilientConnection,
        breaker=breaker,
        host="127.0.0.1",
        port=rig.port,
        **options,
    )


@asynccontextmanager
async def over(made: Any, breaker: RedisCircuitBreaker) -> AsyncIterator[Any]:
    client = Redis.from_pool(made)
    try:
        yield client
    finally:
        await client.aclose()
        await breaker.aclose()


# -- limits of the pool ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, options, message",
    [
        (BlockingConnectionPool, {"timeout": 0.05}, "No connection available"),
        (ConnectionPool, {}, "Too many connections"),
    ],
)
async def test_a_pool_that_has_none_left_is_no_outage(
    valkey_rig: Rig, kind: Any, options: dict[str, Any], message: str
) -> None:
    """Healthy, open, and after: it is redis-py's error, and nothing is counted or queued."""
    rig, breaker = valkey_rig, quick()
    events = events_of(breaker)
    made = pool(rig, breaker, kind, max_connections=1, **options)
    async with over(made, breaker) as client:

        async def none_left() -> None:
            before = breaker.snapshot()
            for call in (client.get("k"), client.set("k", "v"), client.rpush("l", 1)):
                with pytest.raises(ConnectionError, match=message):
                    await call
            after = breaker.snapshot()
            assert (after.failures, after.pending) == (before.failures, before.pending)
            assert after.last_error == before.last_error

        blocked = asyncio.create_task(client.xread({"x": "0"}, block=0))
        await until(lambda: rig.admin.info("clients")["blocked_clients"])
        await none_left()
        assert (breaker.state, breaker.failures) == (CLOSED, 0)
        rig.kill()
        await until(lambda: breaker.state == OPEN)
        await none_left()
        assert breaker.state != CLOSED
        rig.restart()
        await recovered(breaker)
        await none_left()
        assert breaker.state == CLOSED
        rig.admin.xadd("x", {"f": "v"})
        assert await blocked
        assert await client.get("k") is None
        assert not in_use(client)
    assert len(opened(events)) == 1


async def test_many_tasks_on_one_connection(rig: Rig) -> None:
    """They wait for the connection, not for Redis: nobody is told anything but his own answer."""
    breaker = quick()
    made = pool(rig, breaker, BlockingConnectionPool, max_connections=1, timeout=5)
    async with over(made, breaker) as client:
        started = asyncio.Event()

        async def works(number: int) -> None:
            for n in range(20):
                await client.rpush(f"list:{number}", n)
                word = f"{number}-{n}"
                assert await aside(client.get, "never-set") is None
                if n == 10:
                    started.set()
                    await asyncio.sleep(0)
                assert await client.set(f"key:{number}", word) is True

        tasks = [asyncio.create_task(works(n)) for n in range(10)]
        await started.wait()
        rig.kill()
        await until(lambda: breaker.state == OPEN)
        rig.restart()
        await asyncio.gather(*tasks)
        await recovered(breaker)
        assert breaker.dead_letters == ()
        for number in range(10):
            found = await client.lrange(f"list:{number}", 0, -1)
            assert found == [b"%d" % n for n in range(20)]
            assert await client.get(f"key:{number}") == f"{number}-19".encode()
        assert made._in_use_connections == set()
    await nothing_is_left(rig)


# -- what closes a pool ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["disconnect", "idle", "reset"])
async def test_a_pool_is_emptied_during_an_outage(rig: Rig, how: str) -> None:
    breaker = quick()
    made = pool(rig, breaker)
    async with over(made, breaker) as client:

        async def emptied() -> None:
            if how == "reset":
                made.reset()  # what it had is forgotten, and closes as it is collected
            else:
                await made.disconnect(inuse_connections=how == "disconnect")

        await asyncio.gather(*(client.rpush("before", n) for n in range(3)))
        for connection in made._available_connections if how == "reset" else ():
            await connection.disconnect()  # redis-py warns of one that is forgotten open
        await emptied()
        assert await client.rpush("l", 0) == 1
        await goes_down(rig, client, breaker)
        await client.rpush("l", 1)
        waiting = asyncio.create_task(client.blpop("other", 0))
        await asyncio.sleep(0)
        if how == "reset":
            waiting.cancel()  # redis-py raises KeyError as one comes back that was in use
            await asyncio.wait({waiting})
        await emptied()
        assert await aside(client.get, "k") is None
        await client.rpush("l", 2)
        rig.restart()
        await recovered(breaker)
        await client.rpush("other", "x")
        if how != "reset":
            assert await asyncio.wait_for(waiting, 2.0) == (b"other", b"x")
        assert await client.lrange("l", 0, -1) == [b"0", b"1", b"2"]
        await made.disconnect()
    await nothing_is_left(rig)


async def test_a_client_is_closed_during_an_outage(rig: Rig) -> None:
    """Its breaker is somebody else's, too: what it has queued is replayed."""
    breaker = quick()
    async with over(pool(rig, breaker), breaker) as stays:
        leaves = Redis.from_url(rig.url, connection_class=ResilientConnection, breaker=breaker)
        await leaves.rpush("l", 0)
        await goes_down(rig, stays, breaker)
        await leaves.rpush("l", 1)
        await leaves.aclose()
        rig.restart()
        await recovered(breaker)
        assert await stays.lrange("l", 0, -1) == [b"0", b"1"]
        # redis-py's closed client connects again when it is used.
        assert await leaves.get("k") is None
        await leaves.aclose()


async def test_a_facade_that_is_closed_says_what_is_left(rig: Rig) -> None:
    client = ResilientRedis.from_url(rig.url, failure_threshold=1)
    await goes_down(rig, client, client.breaker)
    await client.rpush("l", 1)
    assert await client.aclose() == 1
    rig.restart()
    await asyncio.sleep(0.1)
    assert rig.admin.exists("l") == 0


def test_two_event_loops_one_after_the_other(valkey_rig: Rig) -> None:
    """One client, made outside; its breaker's recovery starts in the second loop."""
    rig, breaker = valkey_rig, quick()
    client: Any = Redis.from_url(
        rig.url,
        connection_class=ResilientConnection,
        breaker=breaker,
        single_connection_client=True,
    )
    pooled = ResilientRedis.from_url(rig.url, failure_threshold=1)

    async def first() -> None:
        for each in (client, pooled):
            assert await each.rpush("l", 0) > 0
        await goes_down(rig, client, breaker)
        await goes_down(rig, pooled, pooled.breaker)
        for each in (client, pooled):
            await each.rpush("l", 1)
        # As whoever uses a client in two loops has to, with stock redis-py, too.
        await client.aclose()
        await pooled.connection_pool.disconnect()

    async def second() -> None:
        for each in (client, pooled):
            assert await aside(each.get, "k") is None
        await recovered(breaker)
        await recovered(pooled.breaker)
        assert sorted(await client.lrange("l", 0, -1)) == [b"0", b"0", b"1", b"1"]
        await client.aclose()
        await pooled.aclose()
        await breaker.aclose()

    asyncio.run(first())
    assert (breaker.pending, pooled.breaker.pending) == (1, 1)
    rig.restart()
    asyncio.run(second())


# -- one breaker for several -----------------------------------------------------------------------


async def test_several_databases_on_one_breaker(rig: Rig) -> None:
    """Each write lands in the database of the client that it was given to, in the order of all."""
    breaker = quick(batch_size=4)  # which one client's pair of writes does not fill
    clients: list[Any] = [
        Redis.from_url(
            f"redis://127.0.0.1:{rig.port}/{db}",
            connection_class=ResilientConnection,
            breaker=breaker,
        )
        for db in (0, 3, 9)
    ]
    try:
        for client in clients:
            await client.rpush("l", "-1")
        await goes_down(rig, clients[0], breaker)
        for n in range(10):
            await clients[n % 3].rpush("l", n)
            await clients[n % 3].pipeline().rpush("t", n).hset("h", str(n), n).execute()
        rig.restart()
        await recovered(breaker)
        assert breaker.dead_letters == ()
        for place, client in enumerate(clients):
            mine = [b"%d" % n for n in range(10) if n % 3 == place]
            assert await client.lrange("l", 0, -1) == [b"-1", *mine]
            assert await client.lrange("t", 0, -1) == mine
            assert sorted(await client.hkeys("h")) == mine
        for db in (0, 3, 9):
            await until(lambda db=db: not watermarks(rig, db))  # type: ignore[misc]  # a default that binds
        assert set(rig.admin.info("keyspace")) == {"db0", "db3", "db9"}
    finally:
        for client in clients:
            await client.aclose()
        await breaker.aclose()


async def test_several_users_have_a_breaker_each(rig: Rig) -> None:
    """They share a server, and an outage; each one's writes are replayed as himself."""
    for name in ("alice", "bob"):
        rig.acl(*user(name))
    made = {
        name: ResilientRedis.from_url(
            f"redis://{name}:{PASSWORD}@127.0.0.1:{rig.port}/0",
            failure_threshold=1,
            watermark_prefix=f"{name}:w:",
        )
        for name in ("alice", "bob")
    }
    try:
        for name, client in made.items():
            await client.rpush(f"{name}:l", 0)
            # No right is missing where the prefix is the user's own.
            assert client.breaker.snapshot().replay_mode == "in-band guard script"
        for name, client in made.items():
            client.breaker.force_open()
            await client.rpush(f"{name}:l", 1)
            await client.rpush("shared", name)  # nobody may: it is set aside
        for client in made.values():
            client.breaker.reset()
            await recovered(client.breaker)
        for name, client in made.items():
            assert await client.lrange(f"{name}:l", 0, -1) == [b"0", b"1"]
            letters = [(letter.command, letter.reason) for letter in client.breaker.dead_letters]
            assert letters == [("RPUSH", "error")]
            with pytest.raises(NoPermissionError):
                await client.rpush("shared", name)
        alice, bob = made.values()
        with pytest.raises(ValueError, match="one endpoint and one user"):
            alice.breaker.bind(("127.0.0.1", "bob"))
        second = Redis.from_url(
            f"redis://bob:{PASSWORD}@127.0.0.1:{rig.port}/0",
            connection_class=ResilientConnection,
            breaker=alice.breaker,
        )
        with pytest.raises(ValueError, match="one endpoint and one user"):
            await second.get("k")
        assert bob.breaker.state == alice.breaker.state == CLOSED
    finally:
        for client in made.values():
            await client.aclose()


def user(name: str) -> tuple[str, ...]:
    return (name, "reset", "on", f">{PASSWORD}", f"~{name}:*", "&*", "+@all")


async def test_one_user_by_two_names(valkey_rig: Rig) -> None:
    """Who gives no name is "default": that is one user, and one breaker serves both."""
    breaker = quick()
    clients = [
        Redis.from_url(url, connection_class=ResilientConnection, breaker=breaker)
        for url in (
            valkey_rig.url,
            f"redis://default:any@127.0.0.1:{valkey_rig.port}/0",
        )
    ]
    for client in clients:
        assert await client.get("k") is None
        await client.aclose()
    await breaker.aclose()


@pytest.mark.parametrize("rules", ["-set", "-eval -script", "-watch", "resetkeys ~l ~h ~gone"])
async def test_a_user_without_a_right_that_replay_needs(rig: Rig, rules: str) -> None:
    """Without SET or its key the watermark cannot stand, and what is not safe twice is refused from
    the start; without EVAL the replay is slower and exactly once all the same.
    """
    rig.acl("app", "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all", *rules.split())
    once = rules.startswith("-eval")
    client: Any = ResilientRedis.from_url(
        f"redis://app:{PASSWORD}@127.0.0.1:{rig.port}/0", failure_threshold=1
    )
    breaker = client.breaker
    try:
        await client.rpush("l", 0)
        breaker.force_open()
        if once:
            assert await client.rpush("l", 1) == "OK"
        else:
            with pytest.raises(CommandRefused, match="ACL"):
                await client.rpush("l", 1)
        assert await client.hset("h", "f", "v") == "OK"
        assert await client.delete("gone") == 1
        breaker.reset()
        await recovered(breaker)
        assert breaker.dead_letters == ()
        assert await client.lrange("l", 0, -1) == [b"0", b"1"][: 1 + once]
        assert await client.hget("h", "f") == b"v"
    finally:
        await client.aclose()


async def test_max_connections_is_a_local_limit(valkey_rig: Rig) -> None:
    breaker = quick()
    async with over(pool(valkey_rig, breaker, max_connections=2), breaker) as client:
        await goes_down(valkey_rig, client, breaker)
        results = await asyncio.gather(
            *(client.rpush("l", n) for n in range(20)), return_exceptions=True
        )
        errors = [result for result in results if isinstance(result, Exception)]
        assert {type(error) for error in errors} <= {MaxConnectionsError}
        # What raised is not queued, and what is queued did not raise.
        assert breaker.pending == 20 - len(errors)
        valkey_rig.restart()
        await recovered(breaker)
        assert await client.llen("l") == 20 - len(errors)
