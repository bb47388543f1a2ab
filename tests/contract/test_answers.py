"""What callers are answered while Redis is away: neutral, acknowledged or refused."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError

from resilient_redis import CommandRefused, ReplyUnknown
from tests.contract.helpers import (
    KEY,
    VALUE,
    Client,
    from_url,
    goes_away,
    guarded,
    recovered,
)
from tests.support.flavours import (
    ConnectionPool,
    HiredisParser,
    PythonParser,
    Queued,
    Redis,
    RedisCircuitBreaker,
    threads,
)
from tests.support.servers import Rig

pytestmark = pytest.mark.server

PYTHON = PythonParser  # redis-py takes the RESP3 one where that is spoken
HIREDIS = HiredisParser
KINDS = [
    pytest.param(
        {"protocol": protocol, "parser_class": parser, "decode_responses": decode},
        id=f"{protocol}-{parser.__name__}-{'str' if decode else 'bytes'}",
    )
    for protocol, parser, decode in itertools.product((2, 3), (PYTHON, HIREDIS), (False, True))
]

FEW_KINDS = pytest.mark.among_threads(kind=[kind.values[0] for kind in KINDS[::3]])


def stock_client(rig: Rig, kind: dict[str, Any]) -> Client:
    return Redis.from_pool(ConnectionPool(port=rig.port, **kind))


@asynccontextmanager
async def away(
    rig: Rig, breaker: RedisCircuitBreaker | None = None, make: Any = guarded, **options: Any
) -> AsyncIterator[tuple[Client, RedisCircuitBreaker]]:
    """A client whose server has been killed under it, and its open breaker."""
    breaker = breaker or RedisCircuitBreaker(recovery_timeout=0.1)
    async with make(rig.port, breaker, **options) as client:
        await client.echo("warm")
        await goes_away(rig, client, breaker)
        assert breaker.pending == 0
        yield client, breaker


# -- neutral --------------------------------------------------------------------------------------

NEUTRAL: dict[str, tuple[Callable[[Client], Any], Any]] = {
    "GET": (lambda c: c.get(KEY), None),
    "MGET": (lambda c: c.mget([KEY, "b"]), [None, None]),
    "STRLEN": (lambda c: c.strlen(KEY), 0),
    "EXISTS": (lambda c: c.exists(KEY, "b"), 0),
    "TTL": (lambda c: c.ttl(KEY), -2),
    "HGETALL": (lambda c: c.hgetall(KEY), {}),
    "HMGET": (lambda c: c.hmget(KEY, ["a", "b"]), [None, None]),
    "LRANGE": (lambda c: c.lrange(KEY, 0, -1), []),
    "SMEMBERS": (lambda c: c.smembers(KEY), set()),
    "SISMEMBER": (lambda c: c.sismember(KEY, "a"), 0),
    "ZSCORE": (lambda c: c.zscore(KEY, "a"), None),
    "ZRANGE": (lambda c: c.zrange(KEY, 0, -1, withscores=True), []),
    "XRANGE": (lambda c: c.xrange(KEY), []),
    "XREAD": (lambda c: c.xread({KEY: "0"}), []),
    "LPOP": (lambda c: c.lpop(KEY), None),
    "SPOP": (lambda c: c.spop(KEY), None),
    "ZPOPMIN": (lambda c: c.zpopmin(KEY), []),
    "PUBLISH": (lambda c: c.publish("channel", VALUE), 0),
    "TYPE": (lambda c: c.type(KEY), None),  # what it is depends on decoding; see `stock`
}


@FEW_KINDS
@pytest.mark.parametrize("kind", KINDS)
async def test_neutral_answers_are_an_empty_servers(rig: Rig, kind: dict[str, Any]) -> None:
    """The same value and type as redis-py's own client gets from an empty server."""
    async with stock_client(rig, kind) as stock:
        live = {name: await call(stock) for name, (call, _) in NEUTRAL.items()}
        pipe = stock.pipeline(transaction=False)
        for call, _ in NEUTRAL.values():
            call(pipe)
        live_pipe = await pipe.execute()
    async with away(rig, **kind) as (client, breaker):
        for name, (call, answer) in NEUTRAL.items():
            says = await call(client)
            assert (name, says, type(says)) == (name, live[name], type(live[name]))
            assert name in ("TYPE", "XREAD") or says == answer
        pipe = client.pipeline(transaction=False)
        for call, _ in NEUTRAL.values():
            call(pipe)
        assert await pipe.execute() == live_pipe
        assert breaker.pending == 0


@FEW_KINDS
@pytest.mark.parametrize("kind", KINDS)
async def test_neutral_answers_on_a_connection_that_never_was_one(
    valkey_rig: Rig, kind: dict[str, Any]
) -> None:
    """The first command of a process whose Redis is away; its parser has seen no handshake."""
    async with stock_client(valkey_rig, kind) as stock:
        live = [await call(stock) for call, _ in NEUTRAL.values()]
    valkey_rig.kill()
    breaker = RedisCircuitBreaker()
    async with guarded(valkey_rig.port, breaker, **kind) as client:
        assert await client.get(KEY) is None
        assert breaker.state != "CLOSED"
        assert [await call(client) for call, _ in NEUTRAL.values()] == live


# -- acknowledged ---------------------------------------------------------------------------------

ACKNOWLEDGED: dict[str, tuple[Callable[[Client], Any], Any]] = {
    "SET": (lambda c: c.set(KEY, VALUE), True),
    "SET EX": (lambda c: c.set("ex", VALUE, ex=100), True),
    "SETEX": (lambda c: c.execute_command("SETEX", "setex", 100, VALUE), True),
    "MSET": (lambda c: c.mset({"a": VALUE, "b": VALUE}), True),
    "EXPIRE": (lambda c: c.expire(KEY, 100), True),
    "PERSIST": (lambda c: c.persist(KEY), True),
    "DEL": (lambda c: c.delete("gone", "too"), 2),
    "UNLINK": (lambda c: c.unlink("gone"), 1),
}
RECEIPTS: dict[str, tuple[Callable[[Client], Any], Any]] = {
    "HSET": (lambda c: c.hset("hash", mapping={"f": VALUE, "g": VALUE}), 2),
    "RPUSH": (lambda c: c.rpush("list", VALUE, VALUE), 2),
    "LPUSH": (lambda c: c.lpush("list", VALUE), 3),
    "SADD": (lambda c: c.sadd("set", "a", "b"), 2),
    "SREM": (lambda c: c.srem("set", "a"), 1),
    "ZADD": (lambda c: c.zadd("zset", {"a": 1.5}), 1),
    "ZREM": (lambda c: c.zrem("zset", "a"), 1),
    "HDEL": (lambda c: c.hdel("hash", "g"), 1),
    "XADD": (lambda c: c.xadd("stream", {"f": VALUE}, id="5-1"), b"5-1"),
    "LTRIM": (lambda c: c.ltrim("list", 0, 0), b"OK"),
}


def is_receipt(says: Any, name: str) -> bool:
    if name == "LTRIM":  # a constant status
        return says is True
    if not isinstance(says, Queued) or says.command != name or says.settled:
        return False
    with pytest.raises(ReplyUnknown):
        bool(says)
    with pytest.raises(ReplyUnknown):
        int(says)
    return says == "OK" and not isinstance(says, (int, str, bytes))


async def nothing_is_left_unread(client: Client) -> None:
    """The next replies on each connection are the right ones."""
    for n in range(5):
        said = await client.echo(f"{VALUE}-{n}")
        assert said in (f"{VALUE}-{n}", f"{VALUE}-{n}".encode())
    assert client.connection_pool._in_use_connections == set()
    for connection in client.connection_pool._available_connections:
        # redis-py's asynchronous connections have it under another name before version 8.
        before_8 = getattr(AbstractConnection, "can_read", None) is None and not threads()
        can_read = connection.can_read_destructive if before_8 else connection.can_read
        assert await can_read() is False


@FEW_KINDS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["directly", "in a pipeline", "in one pipeline with reads"])
async def test_acknowledgements(rig: Rig, kind: dict[str, Any], how: str) -> None:
    async with away(rig, **kind) as (client, breaker):
        calls = {**ACKNOWLEDGED, **RECEIPTS}
        if how == "directly":
            says = [await call(client) for call, _ in calls.values()]
        else:
            pipe = client.pipeline(transaction=False)
            for call, _ in calls.values():
                call(pipe)
                if how.endswith("reads"):
                    pipe.get("a").hgetall("hash")
            says = await pipe.execute()
            if how.endswith("reads"):
                assert says[1::3] == [None] * len(calls)
                assert says[2::3] == [{}] * len(calls)
                says = says[0::3]
        told = dict(zip(calls, says, strict=True))
        for name, (_, answer) in ACKNOWLEDGED.items():
            assert (name, told[name]) == (name, answer)
            assert type(told[name]) is type(answer)
        for name in RECEIPTS:
            assert is_receipt(told[name], name), (name, told[name])
        assert breaker.pending == len(calls)
        rig.restart()
        for name, (_, reply) in RECEIPTS.items():
            if name != "LTRIM":
                assert (name, await told[name].outcome(5.0)) == (name, reply)
        await recovered(breaker)
        assert breaker.dead_letters == ()
        assert await client.llen("list") == 1
        assert await client.xlen("stream") == 1
        await nothing_is_left_unread(client)


# -- refused --------------------------------------------------------------------------------------


async def watch(client: Client) -> None:
    async with client.pipeline() as pipe:
        await pipe.watch(KEY)


REFUSED: dict[str, Callable[[Client], Any]] = {
    "INCR": lambda c: c.incr("n"),
    "HINCRBY": lambda c: c.hincrby("h", "f", 1),
    "APPEND": lambda c: c.append(KEY, VALUE),
    "SET NX": lambda c: c.set(KEY, VALUE, nx=True),
    "SET XX": lambda c: c.set(KEY, VALUE, xx=True),
    "SET GET": lambda c: c.set(KEY, VALUE, get=True),
    "SETNX": lambda c: c.setnx(KEY, VALUE),
    "ZADD NX": lambda c: c.zadd("z", {"a": 1}, nx=True),
    "EXPIRE NX": lambda c: c.expire(KEY, 100, nx=True),
    "RENAME": lambda c: c.rename("a", "b"),
    "LOCK": lambda c: c.lock("lock", timeout=1, blocking=False).acquire(),
    "EVAL": lambda c: c.eval("return 1", 0),
    "KEYS": lambda c: c.keys("*"),
    "SCAN": lambda c: c.scan(0),
    "DBSIZE": lambda c: c.dbsize(),
    "PING": lambda c: c.ping(),
    "INFO": lambda c: c.info(),
    "CONFIG SET": lambda c: c.config_set("hz", "10"),
    "NOSUCH": lambda c: c.execute_command("NOSUCH", KEY),
    "BLMOVE": lambda c: c.blmove("a", "b", 1),
    "BLPOP in a pipeline": lambda c: (
        c.pipeline(transaction=False).get(KEY).execute_command("BLPOP", "l", 1).execute()
    ),
    "WATCH": watch,
    "MULTI mixed": lambda c: c.pipeline().get(KEY).delete(KEY).execute(),
    "MULTI with INCR": lambda c: c.pipeline().set(KEY, VALUE).incr("n").execute(),
    "pipeline with INCR": lambda c: (
        c.pipeline(transaction=False).set(KEY, VALUE).incr("n").rpush("l", VALUE).execute()
    ),
    "pipeline with PING, errors kept": lambda c: (
        c.pipeline(transaction=False).set(KEY, VALUE).ping().execute(raise_on_error=False)
    ),
}


@pytest.mark.parametrize("make", [guarded, from_url])
async def test_refused_at_once_and_nothing_is_queued(valkey_rig: Rig, make: Any) -> None:
    rig = valkey_rig
    async with away(rig, make=make) as (client, breaker):
        for name, call in REFUSED.items():
            started = time.monotonic()
            with pytest.raises(CommandRefused) as raised:
                await call(client)
            assert time.monotonic() - started < 0.05, name
            assert isinstance(raised.value, ConnectionError)  # what handlers for outages catch
            assert raised.value.reason
            assert breaker.pending == 0, name
            assert await client.get(KEY) is None
        assert await client.set(KEY, "kept") is True
        assert breaker.pending == 1
        rig.restart()
        await recovered(breaker)
        effects = [effect.args[0].upper() for effect in rig.effects()]
        assert b"RPUSH" not in effects
        assert await client.get(KEY) == b"kept"
        assert await client.ping() is True
        await nothing_is_left_unread(client)
