"""MULTI … EXEC: answered, queued, replayed or refused as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ResponseError, WatchError

from resilient_redis import CommandRefused, OutcomeUnknown
from tests.contract.helpers import (
    CLOSED,
    OPEN,
    from_url,
    goes_away_in_use,
    guarded,
    recovered,
    until,
)
from tests.contract.test_unknown import CutAfter
from tests.support.faults import FIN
from tests.support.flavours import Queued, RedisCircuitBreaker
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

pytestmark = pytest.mark.server


@pytest.fixture
async def proxy(rig: Rig) -> AsyncIterator[ChaosProxy]:
    async with ChaosProxy(rig.port) as proxy:
        yield proxy


@pytest.mark.parametrize("make", [guarded, from_url])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_writes_are_one_entry_and_one_atomic_replay(
    rig: Rig, make: Any, protocol: int
) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    async with make(rig.port, breaker, protocol=protocol) as client:
        await goes_away_in_use(client, rig, breaker)
        pipe = client.pipeline()  # a transaction is redis-py's default
        pipe.set("a", 1, ex=100).hset("h", "f", "v").expire("h", 50).delete("x", "y").rpush("l", 1)
        done, hset, expired, deleted, rpush = await pipe.execute()
        assert (done, expired, deleted) == (True, True, 2)
        assert isinstance(hset, Queued)
        assert isinstance(rpush, Queued)
        assert breaker.pending == 1
        assert await client.set("after", "it") is True
        rig.restart()
        await recovered(breaker)
        assert await hset.outcome() == 1
        assert await rpush.outcome() == 1
        assert await client.mget("a", "after") == [b"1", b"it"]
        assert await client.hgetall("h") == {b"f": b"v"}
        assert 90 < await client.ttl("a") <= 100
        assert 40 < await client.ttl("h") <= 50
        assert await client.lrange("l", 0, -1) == [b"1"]
    assert not breaker.dead_letters


async def test_reads_find_nothing(valkey_rig: Rig) -> None:
    breaker = RedisCircuitBreaker()
    async with from_url(valkey_rig.port, breaker) as client:
        await goes_away_in_use(client, valkey_rig, breaker)
        pipe = client.pipeline().get("a").hgetall("h").mget("a", "b").lpop("l")
        assert await pipe.execute() == [None, {}, [None, None], None]
        assert breaker.pending == 0


async def test_a_mixed_one_is_refused(valkey_rig: Rig) -> None:
    breaker = RedisCircuitBreaker()
    async with from_url(valkey_rig.port, breaker) as client:
        await goes_away_in_use(client, valkey_rig, breaker)
        for pipe in (
            client.pipeline().lrange("l", 0, -1).delete("l"),
            client.pipeline().set("a", 1).incr("n"),
            client.pipeline().set("a", 1, nx=True),
            client.pipeline().set("a", 1).eval("return 1", 0),
        ):
            with pytest.raises(CommandRefused, match="MULTI refused"):
                await pipe.execute()
        assert breaker.pending == 0


async def test_an_error_of_one_command_spares_the_others(rig: Rig) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    async with from_url(rig.port, breaker) as client:
        await client.set("string", "s")
        await goes_away_in_use(client, rig, breaker)
        wrong, right = await client.pipeline().rpush("string", 1).rpush("list", 1).execute()
        rig.restart()
        await recovered(breaker)
        assert await right.outcome() == 1
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await wrong.outcome()
        assert await client.lrange("list", 0, -1) == [b"1"]
        (letter,) = breaker.dead_letters
        assert (letter.command, letter.reason) == ("MULTI", "error")


async def test_a_premise_sets_the_whole_aside(rig: Rig) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    async with from_url(rig.port, breaker) as client:
        await client.set("profile", "real")
        await goes_away_in_use(client, rig, breaker)
        value = await client.get("profile") or "default"
        await client.pipeline().set("profile", value).sadd("seen", "profile").execute()
        rig.restart()
        await recovered(breaker)
        assert await client.get("profile") == b"real"
        assert await client.exists("seen") == 0
        assert [letter.reason for letter in breaker.dead_letters] == ["premise"]


@pytest.mark.parametrize("lines", range(5))
async def test_the_replies_are_lost_at_any_place(proxy: ChaosProxy, rig: Rig, lines: int) -> None:
    """`MULTI · SET · DEL · EXEC` answers +OK, +QUEUED, +QUEUED, *2 …: cut behind each line."""
    breaker = RedisCircuitBreaker()
    async with from_url(proxy.port, breaker) as client:
        await client.mset({"a": 0, "b": 0})
        proxy.add(CutAfter(lines, FIN, b"MULTI"))
        assert await client.pipeline().set("a", 1).delete("b").execute() in ([True, 1], [True, 0])
        assert await client.get("a") == b"1"
        assert await client.exists("b") == 0
        assert await client.echo("clean") == b"clean"
        assert breaker.state == CLOSED


@pytest.mark.parametrize("lines", range(5))
async def test_what_is_not_safe_twice_is_never_repeated(
    proxy: ChaosProxy, rig: Rig, lines: int
) -> None:
    breaker = RedisCircuitBreaker()
    async with guarded(proxy.port, breaker) as client:
        await client.set("a", 0)
        proxy.add(CutAfter(lines, FIN, b"MULTI"))
        with pytest.raises(OutcomeUnknown):
            await client.pipeline().set("a", 1).rpush("l", "x").execute()
        assert await client.llen("l") == 1
        assert await client.echo("clean") == b"clean"


async def test_cut_while_it_is_sent_it_runs_once_or_not_at_all(
    proxy: ChaosProxy, valkey_rig: Rig
) -> None:
    breaker = RedisCircuitBreaker()
    async with from_url(proxy.port, breaker) as client:
        unknown = 0
        for k in range(0, 120, 7):
            await client.delete("l")
            proxy.cut_at(k, b"MULTI")
            try:
                await client.pipeline().rpush("l", k).rpush("l", k + 1).execute()
            except OutcomeUnknown:
                unknown += 1
                assert await client.lrange("l", 0, -1) in ([], [b"%d" % k, b"%d" % (k + 1)])
            else:
                assert await client.lrange("l", 0, -1) == [b"%d" % k, b"%d" % (k + 1)]
            proxy.clear()
        assert unknown


async def test_under_watch_nothing_is_queued_and_no_update_is_lost(rig: Rig) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    async with from_url(rig.port, breaker) as client:
        await client.set("n", 1)
        pipe = client.pipeline()
        await pipe.watch("n")
        seen = int(await pipe.get("n"))
        rig.kill()
        await client.get("x")
        await until(lambda: breaker.state == OPEN)
        pipe.multi()
        pipe.set("n", seen + 1)
        with pytest.raises((WatchError, CommandRefused)):
            await pipe.execute()
        assert breaker.pending == 0
        rig.restart()
        await recovered(breaker)
        # The same with the outage over before EXEC: somebody else was faster.
        await pipe.watch("n")
        seen = int(await pipe.get("n"))
        rig.kill()
        rig.restart()
        rig.admin.set("n", 100)
        pipe.multi()
        pipe.set("n", seen + 1)
        with pytest.raises(WatchError):
            await pipe.execute()
        await pipe.reset()
        await recovered(breaker)
        assert await client.get("n") == b"100"


async def test_while_the_journal_drains_a_transaction_gets_its_real_reply(rig: Rig) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2, drain_wait=5.0)
    async with from_url(rig.port, breaker) as client:
        await goes_away_in_use(client, rig, breaker)
        for n in range(3000):
            await client.set(f"k{n}", n)
        rig.restart()
        await until(lambda: breaker.state == CLOSED)
        one, two = await asyncio.gather(
            client.pipeline().set("k0", "new").incr("n").execute(),
            client.pipeline().rpush("l", 1).sadd("s", "a").execute(),
        )
        assert one == [True, 1]
        assert two == [1, 1]
        await recovered(breaker)
        assert await client.get("k0") == b"new"
