"""Redis goes away under load, by kill and by freezing: who notices when, and what callers see."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.contract.helpers import (
    CLOSED,
    KEY,
    OPEN,
    VALUE,
    Client,
    Connects,
    events_of,
    from_url,
    goes_away,
    guarded,
    opened,
    outcome,
    recovered,
    timed,
    until,
    warm,
)
from tests.support.flavours import RedisCircuitBreaker, threads
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

pytestmark = [pytest.mark.server, pytest.mark.alone]

MakeClient = Callable[..., AbstractAsyncContextManager[Client]]
DEADLINE = 0.3
SLACK = 0.05
TASKS = 200


def runs() -> int:
    """A figure is the median of so many."""
    return 5 if threads() else 11


# Reads and writes that are safe to send twice: nobody who calls one of these sees an outage.
CALLS: tuple[Callable[[Client, str], Any], ...] = (
    lambda client, key: client.set(key, VALUE),
    lambda client, key: client.get(f"{key}-read"),
    lambda client, key: client.hset(f"{key}-hash", "field", VALUE),
    lambda client, key: client.expire(key, 100),
    lambda client, key: client.delete(key),
)


# -- killed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [guarded, from_url])
async def test_nobody_sees_a_kill(rig: Rig, make: MakeClient) -> None:
    breaker = RedisCircuitBreaker()
    done = [0] * TASKS
    stop = asyncio.Event()

    async def work(task: int, client: Client) -> None:
        for call in itertools.cycle(CALLS):
            await call(client, f"{KEY}-{task}")
            done[task] += 1
            if stop.is_set():
                return
            await asyncio.sleep(0.01)  # else a hundred thousand writes are queued in a second

    async def everybody(rounds: int) -> None:
        goal = [count + rounds for count in done]
        await until(
            lambda: (
                any(task.done() for task in tasks)
                or all(count >= enough for count, enough in zip(done, goal, strict=True))
            ),
            timeout=20.0,
        )

    async with make(rig.port, breaker, TASKS) as client:
        tasks = [asyncio.create_task(work(n, client)) for n in range(TASKS)]
        try:
            await everybody(2)
            rig.kill()
            await until(lambda: breaker.state == OPEN)
            await everybody(2 * len(CALLS))
            assert breaker.state != CLOSED
            assert breaker.pending > TASKS
            rig.restart()
            await everybody(len(CALLS))
            await recovered(breaker)
        finally:
            stop.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [result for result in results if result is not None] == []
        assert breaker.dead_letters == ()


async def test_open_within_50_ms_of_the_refusal_that_meets_the_threshold(
    rig: Rig, connects: Connects
) -> None:
    took = []
    for _ in range(runs()):
        breaker = RedisCircuitBreaker()
        events = events_of(breaker)
        async with guarded(rig.port, breaker, 20) as client:
            await warm(client, 20)
            connects.failed.clear()
            rig.kill()
            assert await asyncio.gather(*(client.get(KEY) for _ in range(20))) == [None] * 20
            assert breaker.state != CLOSED
            (at,) = opened(events)
            took.append(at - connects.failed[4])
        rig.restart()
    assert statistics.median(took) < 0.05


async def test_one_caller_alone_opens_it_as_quickly(valkey_rig: Rig, connects: Connects) -> None:
    """Its own five refusals are enough: no exception, and no long pauses between them."""
    took = []
    for _ in range(runs()):
        breaker = RedisCircuitBreaker()
        events = events_of(breaker)
        async with guarded(valkey_rig.port, breaker) as client:
            await warm(client, 1)
            connects.failed.clear()
            valkey_rig.kill()
            assert await client.get(KEY) is None
            assert breaker.state != CLOSED
            (at,) = opened(events)
            assert at - connects.failed[4] < SLACK
            took.append(at - connects.failed[0])
        valkey_rig.restart()
    assert statistics.median(took) < 0.2


@pytest.mark.parametrize("make", [guarded, from_url])
async def test_a_neutral_get_takes_less_than_1_ms(valkey_rig: Rig, make: MakeClient) -> None:
    breaker = RedisCircuitBreaker()
    async with make(valkey_rig.port, breaker) as client:
        await client.set(KEY, VALUE)
        await goes_away(valkey_rig, client, breaker)
        took = [await timed(client.get(KEY)) for _ in range(1000)]
    assert statistics.median(took) < 0.001


@pytest.mark.parametrize("recovery_timeout", [10.0, 0.2])
async def test_at_most_20_connection_attempts_a_second_while_open(
    valkey_rig: Rig, connects: Connects, recovery_timeout: float
) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=recovery_timeout)
    events = events_of(breaker)
    async with guarded(valkey_rig.port, breaker) as client:
        await warm(client, 50)
        await goes_away(valkey_rig, client, breaker)
        (since,) = opened(events)
        while time.monotonic() < since + 1.3:
            await asyncio.gather(*(client.get(KEY) for _ in range(50)))
            await asyncio.sleep(0.01)
        assert breaker.state != CLOSED
    assert 3 <= connects.most_in_a_second(since) <= 20


async def test_at_most_20_attempts_a_second_where_connecting_works_and_no_reply_comes(
    valkey_rig: Rig,
) -> None:
    """A port that accepts and closes: counted there, not by us."""
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    async with ChaosProxy(valkey_rig.port) as proxy, guarded(proxy.port, breaker) as client:
        await warm(client, 20)
        await goes_away(valkey_rig, client, breaker)
        links, since = len(proxy.links), time.monotonic()
        while time.monotonic() < since + 1.0:
            await asyncio.gather(*(client.get(KEY) for _ in range(20)))
            await asyncio.sleep(0.01)
        assert 3 <= len(proxy.links) - links <= 20


# -- frozen -----------------------------------------------------------------------------------


async def test_frozen_waiting_callers_are_answered_within_the_deadline(valkey_rig: Rig) -> None:
    took = []
    for _ in range(runs()):
        breaker = RedisCircuitBreaker(deadline=DEADLINE, recovery_timeout=0.1)
        async with guarded(valkey_rig.port, breaker) as client:
            await warm(client, 10)
            valkey_rig.freeze()
            calls = [call(client, KEY) for call in CALLS for _ in range(2)]
            took.append(max(await asyncio.gather(*map(timed, calls))))
            assert breaker.state != CLOSED
            valkey_rig.thaw()
            await recovered(breaker)
    assert DEADLINE / 2 < statistics.median(took) < DEADLINE + SLACK


@pytest.mark.parametrize("socket_timeout", [5.0, None, 0.1])
@pytest.mark.parametrize("connections", [0, 1])
async def test_frozen_a_caller_alone_is_answered_too(
    valkey_rig: Rig, connections: int, socket_timeout: float | None
) -> None:
    """Also one who must connect first, and one whose socket_timeout is shorter than `deadline`."""
    breaker = RedisCircuitBreaker(deadline=DEADLINE, recovery_timeout=0.1)
    async with from_url(valkey_rig.port, breaker, socket_timeout=socket_timeout) as client:
        for call, answer in ((CALLS[0], True), (CALLS[1], None)):
            await warm(client, connections)
            valkey_rig.freeze()
            started = time.monotonic()
            assert await call(client, KEY) is answer
            assert time.monotonic() - started < DEADLINE + SLACK
            valkey_rig.thaw()
            await recovered(breaker)
            await client.delete(KEY)
            await client.connection_pool.disconnect()


UNSAFE: dict[str, tuple[Callable[[Client], Any], str, Callable[[Client], Any]]] = {
    "INCR": (lambda c: c.incr("n"), "incrby", lambda c: c.get("n")),
    "RPUSH": (lambda c: c.rpush("n", VALUE), "rpush", lambda c: c.llen("n")),
}


@pytest.mark.parametrize("socket_timeout", [5.0, 0.1])
@pytest.mark.parametrize("name", UNSAFE)
async def test_frozen_what_is_not_safe_twice_runs_at_most_once(
    rig: Rig, name: str, socket_timeout: float
) -> None:
    call, command, count = UNSAFE[name]
    breaker = RedisCircuitBreaker(deadline=DEADLINE, recovery_timeout=0.1)
    before = rig.calls(command)
    async with guarded(rig.port, breaker, socket_timeout=socket_timeout) as client:
        await warm(client, 2)
        rig.freeze()
        pushing = asyncio.create_task(outcome(call(client)))
        assert await client.get(KEY) is None  # the breaker has opened
        rig.thaw()
        result = await pushing
        await recovered(breaker)
        executed = int(await count(client) or 0)
        assert rig.calls(command) - before == executed
        if socket_timeout > DEADLINE:
            assert (result, executed) == (1, 1)  # the late reply was delivered
        else:
            assert type(result).__name__ == "OutcomeUnknown"
            assert executed <= 1
