"""Locks and scripts: whoever is told that he holds a lock holds it; nothing of either is queued."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, LockNotOwnedError, NoScriptError, RedisError, ResponseError

from resilient_redis.asyncio import (
    CommandRefused,
    OutcomeUnknown,
    Policy,
    Rule,
)
from tests.breadth.story import by_class, by_facade, every_way, goes_down, in_use
from tests.contract.helpers import OPEN, outcome, recovered, until
from tests.contract.recovery_helpers import guarded
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig
from tests.surface.helpers import aside

pytestmark = pytest.mark.server

COUNTS = "return redis.call('INCR', KEYS[1])"


# -- locks -----------------------------------------------------------------------------------------


@every_way
async def test_nobody_is_given_a_lock_while_redis_is_away(rig: Rig, way: Any) -> None:
    async with way(rig.url) as (client, breaker):
        await goes_down(rig, client, breaker)
        for options in (
            {"blocking": False},
            {"blocking_timeout": 5},
            {"timeout": 10},
            {"timeout": 10, "blocking_timeout": 5, "sleep": 0.01},
        ):
            lock = client.lock("lock", **options)
            started = time.monotonic()
            with pytest.raises(CommandRefused):
                await lock.acquire()
            with pytest.raises(CommandRefused):
                async with client.lock("lock", **options):
                    raise AssertionError("nobody granted it")
            assert time.monotonic() - started < 0.5  # at once, whatever time it was given
            assert lock.local.token is None
            with pytest.raises(LockError):
                await lock.release()
        # One task of many, with a retry of its own, gets it when it is to be had.
        assert breaker.pending == 0

        async def patient(number: int) -> int:
            while True:
                try:
                    if await client.lock("lock", timeout=60).acquire(blocking=False):
                        return number
                    return -1
                except CommandRefused as refused:
                    await asyncio.sleep(min(refused.retry_after or 0.01, 0.05))

        waiting = [asyncio.create_task(patient(n)) for n in range(20)]
        await asyncio.sleep(0)
        rig.restart()
        winners = [n for n in await asyncio.gather(*waiting) if n >= 0]
        assert len(winners) == 1
        assert rig.admin.exists("lock") == 1
        assert not in_use(client)


@every_way
async def test_a_lock_that_is_held_through_an_outage(rig: Rig, way: Any) -> None:
    async with way(rig.url) as (client, breaker):
        lock: Lock = client.lock("lock", timeout=60)
        assert await lock.acquire()
        token = rig.admin.get("lock")
        await lock.extend(10)
        await lock.reacquire()
        await goes_down(rig, client, breaker)
        for call in (lock.release, lambda: lock.extend(10), lock.reacquire):
            with pytest.raises(CommandRefused):
                await call()
            lock.local.token = token.encode()  # before version 8 a failed release forgets it
        assert await aside(lock.owned) is False  # who asks is not told that he may go on
        with pytest.raises(CommandRefused):
            async with client.lock("lock", timeout=60, blocking_timeout=0.1):
                pass
        assert breaker.pending == 0
        rig.restart()
        await recovered(breaker)
        # It is as it was: no DEL, no PEXPIRE came late.
        assert rig.admin.get("lock") == token
        assert 0 < rig.admin.pttl("lock") <= 60_000
        assert await aside(lock.owned) is True
        assert await client.lock("lock", blocking=False).acquire() is False
        await lock.extend(10)
        assert rig.admin.pttl("lock") > 60_000
        await lock.release()
        assert rig.admin.exists("lock") == 0


async def test_locked_is_a_read(rig: Rig) -> None:
    """A neutral "not locked" is wrong for a lock, as README says of locks: a rule refuses it."""
    policy = Policy([Rule(keys="lock:*", answer="refuse")])
    async with by_class(rig.url, policy=policy) as (client, breaker):
        lock = client.lock("lock:a", timeout=60)
        assert await lock.acquire()
        await goes_down(rig, client, breaker)
        for call in (lock.locked, lock.owned, lambda: client.delete("lock:a")):
            with pytest.raises(CommandRefused):
                await call()
        assert breaker.pending == 0


@every_way
async def test_an_acquisition_whose_reply_is_lost(rig: Rig, way: Any) -> None:
    """Nobody knows whether he has it; it is not asked for a second time, which would say no."""
    async with (
        ChaosProxy(rig.port) as proxy,
        way(proxy.url, failure_threshold=3) as (client, breaker),
    ):
        await client.get("k")
        before = rig.calls("set")  # the rights were tried
        proxy.cut_on_reply(b"lock")
        lock = client.lock("lock", timeout=60)
        with pytest.raises(OutcomeUnknown):
            await lock.acquire(blocking_timeout=1)
        assert lock.local.token is None
        assert rig.admin.exists("lock") == 1
        assert rig.calls("set") == before + 1
        assert breaker.pending == 0


@every_way
async def test_a_release_whose_reply_is_lost(rig: Rig, way: Any) -> None:
    """It may be another's by the time of a second one: the caller is asked."""
    async with (
        ChaosProxy(rig.port) as proxy,
        way(proxy.url, failure_threshold=3) as (client, _),
    ):
        lock = client.lock("lock", timeout=60)
        assert await lock.acquire(token=b"mine")
        other = client.lock("other", timeout=60)
        assert await other.acquire()
        await other.release()  # the script is loaded now
        proxy.cut_on_reply(b"EVALSHA")
        with pytest.raises(OutcomeUnknown):
            await lock.release()
        assert rig.admin.exists("lock") == 0
        lock.local.token = b"mine"  # before version 8 a failed release forgets it
        with pytest.raises(LockNotOwnedError):
            await lock.release()


async def test_one_holder_at_a_time_through_outages(rig: Rig) -> None:
    """Twelve tasks, one lock, four outages."""
    holders: set[int] = set()
    granted: list[int] = []
    async with by_facade(rig.url, drain_wait=0.2) as (client, breaker):
        over = asyncio.Event()

        async def works(number: int) -> None:
            while not over.is_set():
                lock = client.lock("lock", timeout=60, blocking_timeout=0.2, sleep=0.005)
                token = f"{number}-{len(granted)}".encode()
                told = await outcome(lock.acquire(token=token))
                if told is True:
                    assert not holders, (number, holders)
                    holders.add(number)
                    await asyncio.sleep(0.001)
                    holders.remove(number)
                    granted.append(number)
                elif not isinstance(told, OutcomeUnknown):
                    assert told is False or isinstance(told, RedisError), told
                    await asyncio.sleep(0.005)
                    continue
                # Where nobody knows, too: it is let go of if it is his.
                while not over.is_set():
                    lock.local.token = token  # before version 8 a failed release forgets it
                    left = await outcome(lock.release())
                    if left is None or isinstance(left, LockNotOwnedError):
                        break
                    assert isinstance(left, RedisError), left
                    await asyncio.sleep(0.005)

        tasks = [asyncio.create_task(works(n)) for n in range(12)]
        try:
            for outage in range(4):
                await until(lambda n=outage: len(granted) > 10 * n or any(t.done() for t in tasks))  # type: ignore[misc]  # a default that binds
                rig.kill()
                await until(lambda: breaker.state == OPEN)
                rig.restart()
                await recovered(breaker)
            await until(lambda: len(granted) > 50 or any(task.done() for task in tasks))
        finally:
            over.set()
            await asyncio.gather(*tasks)
        assert breaker.pending == 0


# -- scripts ---------------------------------------------------------------------------------------


@every_way
async def test_a_script_object_through_an_outage(rig: Rig, way: Any) -> None:
    async with way(rig.url) as (client, breaker):
        script = client.register_script(COUNTS)
        assert await script(keys=["n"]) == 1
        await goes_down(rig, client, breaker)
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: script(keys=["n"]),
            lambda: client.eval(COUNTS, 1, "n"),
            lambda: client.evalsha(script.sha, 1, "n"),
            lambda: client.script_load(COUNTS),
            lambda: client.script_exists(script.sha),
            lambda: client.eval_ro("return 1", 0),
            lambda: client.fcall("f", 1, "n"),
        ]
        for call in calls:
            with pytest.raises(CommandRefused):
                await call()
        assert breaker.pending == 0
        rig.restart()
        await recovered(breaker)
        # The server has forgotten it: NOSCRIPT, and redis-py loads it again.
        assert await client.script_exists(script.sha) == [False]
        assert await script(keys=["n"]) == 2
        rig.admin.script_flush()
        assert type(await outcome(client.evalsha(script.sha, 1, "n"))) is NoScriptError
        assert await client.get("n") == b"2"


@every_way
@pytest.mark.parametrize("transaction", [False, True])
async def test_a_script_in_a_pipeline(rig: Rig, way: Any, transaction: bool) -> None:
    """Refused as a whole while open: nothing of it is queued."""
    async with way(rig.url) as (client, breaker):
        script = client.register_script(COUNTS)

        async def both() -> Any:
            # `async with`: redis-py keeps the connection where its own SCRIPT EXISTS fails.
            async with client.pipeline(transaction=transaction) as pipe:
                pipe.rpush("l", "x")
                await script(keys=["n"], client=pipe)
                return await pipe.set("k", "v").execute()

        async def plain() -> Any:
            pipe = client.pipeline(transaction=transaction)
            return await pipe.rpush("l", "x").evalsha(script.sha, 1, "n").execute()

        assert await both() == [1, 1, True]
        assert await plain() == [2, 2]
        await goes_down(rig, client, breaker)
        for call in (both, plain):
            with pytest.raises(CommandRefused):
                await call()
        assert breaker.pending == 0
        rig.restart()
        await recovered(breaker)
        # The first of them finds no script, which is one reply among the others.
        failed = await outcome(plain())
        assert isinstance(failed, ResponseError)
        assert await client.llen("l") == 3
        assert await both() == [4, 3, True]
        assert await client.echo("in step") == b"in step"
        assert not in_use(client)


@every_way
async def test_a_script_whose_reply_is_lost_runs_once(rig: Rig, way: Any) -> None:
    """redis-py by itself runs it again up to ten times."""
    async with (
        ChaosProxy(rig.port) as proxy,
        way(proxy.url, failure_threshold=3) as (client, breaker),
    ):
        script = client.register_script(COUNTS)
        assert await script(keys=["n"]) == 1
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: script(keys=["n"]),
            lambda: client.eval(COUNTS, 1, "n"),
        ]
        for n, call in enumerate(calls, start=2):
            proxy.cut_on_reply(b"EVAL")
            with pytest.raises(OutcomeUnknown):
                await call()
            assert rig.admin.get("n") == str(n)
        assert breaker.pending == 0


async def test_a_script_waits_for_the_drain(rig: Rig) -> None:
    """What it reads is what was acknowledged before it."""
    async with guarded(rig.port, drain_wait=5.0) as (guard, client):
        script = client.register_script("return redis.call('LLEN', KEYS[1])")
        assert await script(keys=["l"]) == 0
        guard.breaker.force_open()
        for n in range(100):
            await client.rpush("l", n)
        guard.breaker.reset()
        assert await script(keys=["l"]) == 100
