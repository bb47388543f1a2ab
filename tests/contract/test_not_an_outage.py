"""What is not an outage: redis-py's own error or result, and the breaker stays closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    DataError,
    MaxConnectionsError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from resilient_redis import OutcomeUnknown
from tests.contract.helpers import (
    KEY,
    PASSWORD,
    VALUE,
    Client,
    events_of,
    from_url,
    guarded,
    never_opens,
    opened,
    outcome,
    until,
    warm,
)
from tests.support.flavours import Redis, RedisCircuitBreaker, has_ended, threads
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

pytestmark = pytest.mark.server


async def replies_are_right(client: Client) -> None:
    """No reply is off by one: each of many concurrent commands gets its own."""
    words = [f"{VALUE}-{n}" for n in range(50)]
    assert await asyncio.gather(*map(client.echo, words)) == [word.encode() for word in words]


# -- this process ---------------------------------------------------------------------------------


async def test_an_exhausted_pool(rig: Rig) -> None:
    breaker = RedisCircuitBreaker()
    async with guarded(rig.port, breaker, 10) as client, never_opens(breaker):
        pool = client.connection_pool
        taken = [await pool.get_connection() for _ in range(10)]
        results = await asyncio.gather(*(outcome(client.get(KEY)) for _ in range(200)))
        assert [type(result) for result in results] == [MaxConnectionsError] * 200
        for connection in taken:
            await pool.release(connection)
        assert await client.get(KEY) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.set(KEY, object()),
        lambda client: client.pipeline(transaction=False).set(KEY, object()).get(KEY).execute(),
    ],
    ids=["single", "pipeline"],
)
async def test_a_value_that_has_no_bytes(rig: Rig, call: Callable[[Client], Any]) -> None:
    """The caller's mistake is the caller's alone: the connection serves the next one."""
    breaker = RedisCircuitBreaker(deadline=0.1)
    async with guarded(rig.port, breaker) as client, never_opens(breaker):
        await client.set(KEY, VALUE)
        received = rig.connections_received()
        for _ in range(10):
            with pytest.raises(DataError):
                await call(client)
            assert await client.get(KEY) == VALUE.encode()
        assert rig.connections_received() == received
        await until(lambda: threads() or breaker.timer is None)


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
@pytest.mark.parametrize("delay", [0.02, 0.08])
async def test_a_callers_own_timeout(rig: Rig, delay: float) -> None:
    """On a server that is slow because the way is long: a round trip of twice `delay`."""
    breaker = RedisCircuitBreaker()
    async with (
        ChaosProxy(rig.port) as proxy,
        guarded(proxy.port, breaker) as client,
        never_opens(breaker),
    ):
        await client.set(KEY, VALUE)
        await warm(client, 5)
        proxy.latency(delay)
        for _ in range(2):
            for call in (client.get(KEY), client.incr("n"), client.lrange("l", 0, 9)):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(call, 1.5 * delay)
        assert breaker.failures == 0
        # A hang is asked for on a second connection, over the same long way.
        assert await client.get(KEY) == VALUE.encode()
        await until(lambda: breaker._hang_check is None or breaker._hang_check.done())
        proxy.clear()
        await replies_are_right(client)
        assert await client.get(KEY) == VALUE.encode()


async def test_a_server_that_is_a_quarter_of_a_second_away(valkey_rig: Rig) -> None:
    """A handshake is five round trips, more than a deadline; each reply comes well within it."""
    breaker = RedisCircuitBreaker()
    async with (
        ChaosProxy(valkey_rig.port) as proxy,
        from_url(proxy.port, breaker) as client,
        never_opens(breaker),
    ):
        proxy.latency(0.12)
        assert await client.incr("n") == 1
        assert await client.get("n") == b"1"


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
async def test_a_cancelled_caller_leaves_a_clean_connection(rig: Rig) -> None:
    breaker = RedisCircuitBreaker()
    async with (
        ChaosProxy(rig.port) as proxy,
        guarded(proxy.port, breaker, 5) as client,
        never_opens(breaker),
    ):
        await client.set(KEY, VALUE)
        pipe = client.pipeline(transaction=False).get(KEY).echo("a").echo("b")
        for coroutine in (client.get(KEY), pipe.execute()):
            stall = proxy.stall(KEY.encode(), "down")
            task = asyncio.ensure_future(coroutine)
            await until(lambda: stall.fired > 0)  # noqa: B023 - awaited here
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stall.end()
            await replies_are_right_on(client, 5)
        assert await client.get(KEY) == VALUE.encode()


async def replies_are_right_on(client: Client, connections: int) -> None:
    for _ in range(2 * connections):
        words = [f"{VALUE}-{n}" for n in range(connections)]
        assert await asyncio.gather(*map(client.echo, words)) == [word.encode() for word in words]


# -- commands that wait ---------------------------------------------------------------------------


async def test_blpop_longer_than_every_timeout(rig: Rig) -> None:
    breaker = RedisCircuitBreaker(deadline=0.2)
    async with (
        from_url(rig.port, breaker, socket_timeout=0.3) as client,
        Redis.from_url(rig.url, socket_timeout=0.3) as stock,
        never_opens(breaker),
    ):
        stock_says = await outcome(stock.blpop("list", 1))
        assert type(stock_says) is TimeoutError
        results = await asyncio.gather(*(outcome(client.blpop("list", 1)) for _ in range(6)))
        assert {type(result) for result in results} == {OutcomeUnknown}  # a TimeoutError, too
        assert await client.get(KEY) is None


async def test_blpop_waits_as_long_as_the_socket_may(rig: Rig) -> None:
    breaker = RedisCircuitBreaker(deadline=0.2)
    async with from_url(rig.port, breaker, socket_timeout=None) as client, never_opens(breaker):
        assert await client.blpop("list", 1) is None
        waiting = asyncio.create_task(client.blpop("list", 0))
        started = time.monotonic()
        await until(lambda: time.monotonic() > started + 0.5)  # more than two deadlines
        await client.rpush("list", VALUE)
        assert await waiting == (b"list", VALUE.encode())


async def test_a_slow_script_that_ends_before_the_deadline(rig: Rig) -> None:
    breaker = RedisCircuitBreaker(deadline=3.0)  # far more: a script counts processor time
    async with guarded(rig.port, breaker) as client, never_opens(breaker):
        await client.set(KEY, VALUE)
        await warm(client, 5)
        rig.busy(0.3)
        assert await asyncio.gather(*(client.get(KEY) for _ in range(5))) == [VALUE.encode()] * 5
    rig.reset()  # closes the script's socket


async def test_a_standstill_that_ends_before_the_deadline(rig: Rig) -> None:
    """Long enough for the question whether the server hangs; the answer comes in time."""
    breaker = RedisCircuitBreaker(deadline=1.0)
    async with guarded(rig.port, breaker) as client, never_opens(breaker):
        await client.set(KEY, VALUE)
        await warm(client, 5)
        rig.freeze()
        asyncio.get_running_loop().call_later(0.65, rig.thaw)
        assert await asyncio.gather(*(client.get(KEY) for _ in range(5))) == [VALUE.encode()] * 5


# -- errors that the server answers with ----------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_wrong_password(rig: Rig, protocol: int) -> None:
    rig.acl("app", "on", f">{PASSWORD}", "~*", "+@all")
    breaker = RedisCircuitBreaker()
    wrong: dict[str, Any] = {
        "username": "app",
        "password": f"{PASSWORD}-wrong",
        "protocol": protocol,
    }
    async with from_url(rig.port, breaker, **wrong) as client, never_opens(breaker):
        for _ in range(20):
            with pytest.raises(AuthenticationError):
                await client.get(KEY)
    async with Redis.from_url(rig.url, **wrong) as stock:
        stock_says = await outcome(stock.get(KEY))
    async with guarded(rig.port, breaker, **wrong) as client, never_opens(breaker):
        says = await outcome(client.get(KEY))
        assert (type(says), str(says)) == (type(stock_says), str(stock_says))


async def test_a_password_that_was_changed(rig: Rig) -> None:
    rig.acl("app", "on", f">{PASSWORD}", "~*", "+@all")
    breaker = RedisCircuitBreaker()
    async with (
        from_url(rig.port, breaker, username="app", password=PASSWORD) as client,
        never_opens(breaker),
    ):
        await warm(client, 10)
        rig.acl("app", "resetpass", ">another")
        rig.kill_clients()
        for _ in range(20):
            with pytest.raises(AuthenticationError):
                await client.get(KEY)
        rig.acl("app", f">{PASSWORD}")
        assert await client.get(KEY) is None


@pytest.mark.parametrize("rules", ["+@all -set", "-@all +get +hello +auth"], ids=["-set", "+get"])
async def test_a_missing_permission(rig: Rig, rules: str) -> None:
    rig.acl("app", "on", f">{PASSWORD}", "~*", *rules.split())
    breaker = RedisCircuitBreaker()
    async with (
        guarded(rig.port, breaker, username="app", password=PASSWORD) as client,
        never_opens(breaker),
    ):
        for _ in range(20):
            with pytest.raises(NoPermissionError):
                await client.set(KEY, VALUE)
        assert await client.get(KEY) is None
        pipe = client.pipeline(transaction=False).get(KEY).set(KEY, VALUE).get(KEY)
        results = await pipe.execute(raise_on_error=False)
        assert [type(result) for result in results] == [
            type(None),
            NoPermissionError,
            type(None),
        ]


WRONG: dict[str, Callable[[Client], Any]] = {
    "wrong type": lambda client: client.lpush("string", VALUE),
    "bad argument": lambda client: client.execute_command("SET", KEY, VALUE, "PX", "soon"),
    "unknown command": lambda client: client.execute_command("NOSUCH", KEY),
    "script error": lambda client: client.eval("return redis.error_reply('ERR no')", 0),
    "in a pipeline": lambda client: (
        client.pipeline(transaction=False).get("string").lpush("string", VALUE).execute()
    ),
    "in a transaction": lambda client: client.pipeline().lpush("string", VALUE).execute(),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_command_that_is_wrong(rig: Rig, name: str) -> None:
    breaker = RedisCircuitBreaker()
    async with (
        guarded(rig.port, breaker) as client,
        Redis(port=rig.port) as stock,
        never_opens(breaker),
    ):
        await client.set("string", VALUE)
        stock_says = await outcome(WRONG[name](stock))
        for _ in range(20):
            says = await outcome(WRONG[name](client))
            assert isinstance(says, ResponseError)
            assert (type(says), str(says)) == (type(stock_says), str(stock_says))
        await replies_are_right(client)


# -- what the server closes -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [guarded, from_url])
@pytest.mark.parametrize("connections", [5, 50])
async def test_idle_sockets_that_the_server_closed(rig: Rig, connections: int, make: Any) -> None:
    breaker = RedisCircuitBreaker()
    async with make(rig.port, breaker) as client, never_opens(breaker):
        await client.set(KEY, VALUE)
        for seen in (False, True):
            await warm(client, connections)
            assert rig.kill_clients() >= connections
            if seen:
                await until(lambda: all_closed(client))
            for _ in range(2):
                calls = [client.get(KEY), client.set("other", VALUE), client.hset("h", "f", "v")]
                calls += [client.get(KEY) for _ in range(connections - 3)]
                results = await asyncio.gather(*calls)
                assert [results[0], results[1], *results[3:]] == [
                    VALUE.encode(),
                    True,
                    *[VALUE.encode()] * (connections - 3),
                ]


def all_closed(client: Client) -> bool:
    """Whether this process has heard of the end of all its idle connections."""
    idle = client.connection_pool._available_connections
    return all(map(has_ended, idle))


async def test_a_counter_on_an_idle_socket_that_the_server_closed(rig: Rig) -> None:
    """Once this process has heard of it, the command cannot have been sent there."""
    breaker = RedisCircuitBreaker()
    async with from_url(rig.port, breaker) as client, never_opens(breaker):
        for n in range(1, 11):
            await warm(client, 5)
            rig.kill_clients()
            await until(lambda: all_closed(client))
            assert await client.incr("n") == n


async def test_maxclients(rig: Rig) -> None:
    """Who is in goes on; who is not gets the server's own error."""
    breaker = RedisCircuitBreaker()
    async with guarded(rig.port, breaker) as inside, never_opens(breaker):
        await inside.set(KEY, VALUE)
        rig.max_clients(0)
        async with from_url(rig.port, breaker) as outside:
            for _ in range(20):
                says = await outcome(outside.get(KEY))
                assert (type(says), str(says)) == (ConnectionError, "max number of clients reached")
                assert await inside.get(KEY) == VALUE.encode()


async def test_one_command_that_always_costs_its_connection(rig: Rig) -> None:
    """A value beyond the server's output limit: the caller gets an error, and soon.

    Everybody else is served meanwhile, which takes the failures back; so nothing but `deadline`
    ends the repeats.
    """
    breaker = RedisCircuitBreaker(deadline=0.3)
    async with ChaosProxy(rig.port) as proxy, guarded(proxy.port, breaker) as client:
        events = events_of(breaker)
        await client.set(KEY, VALUE)
        await warm(client, 5)
        proxy.cut_on_reply(b"poison", times=None)
        stop = asyncio.Event()

        async def others() -> None:
            while not stop.is_set():
                assert await client.get(KEY) == VALUE.encode()
                await asyncio.sleep(0.001)

        crowd = [asyncio.create_task(others()) for _ in range(3)]
        says = await outcome(asyncio.wait_for(client.get("poison"), 3.0))
        stop.set()
        await asyncio.gather(*crowd)
        assert opened(events) == []
        assert isinstance(says, RedisError)
        assert sum(link.sent.count(b"poison") for link in proxy.links) <= 50
