"""A breaker that outlives its event loop, and one that is closed in the middle of everything."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import fakeredis
import pytest
import redis
from tenacity import wait_fixed

from tests.contract.helpers import CLOSED, KEY, OPEN, VALUE, outcome, until
from tests.support.flavours import (
    ConnectionPool,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
)
from tests.support.servers import Rigs

from .conftest import Make
from .scripted import OK, Scripted
from .worlds import FAKE, RECOVERY, SCRIPTED, SERVERS, Client, World, clock_of, over


class Loops:
    """Each run has an event loop of its own. `careless`: it is left as many programs leave it,
    neither are its tasks cancelled nor is it closed.
    """

    def __init__(self, careless: bool) -> None:
        self.careless = careless
        self.made: list[asyncio.AbstractEventLoop] = []

    def run(self, step: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        if not self.careless:
            return asyncio.run(step(*args))
        loop = asyncio.new_event_loop()
        self.made.append(loop)
        return loop.run_until_complete(step(*args))

    def end(self) -> None:
        for loop in self.made:
            for task in asyncio.all_tasks(loop):
                task.cancel()
                loop.run_until_complete(asyncio.wait({task}))
            loop.close()


async def in_loops(body: Callable[[Loops], Any], careless: bool = False) -> None:
    """Runs `body` in a thread, where no loop is running."""
    loops = Loops(careless)

    done: Future[None] = Future()

    def work() -> None:
        try:
            try:
                body(loops)
            finally:
                loops.end()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            done.set_exception(error)
        else:
            done.set_result(None)

    # A daemon: where it hangs, the test fails, and the process can still end.
    threading.Thread(target=work, daemon=True).start()
    await asyncio.wait_for(asyncio.wrap_future(done), 15.0)


# -- several loops, one after the other --------------------------------------------------------


@pytest.mark.asyncio_only("about event loops, of which threads have none")
@pytest.mark.parametrize("careless", [False, True], ids=["asyncio.run", "careless"])
async def test_what_one_loop_queues_another_replays(careless: bool) -> None:
    server = fakeredis.FakeServer()
    breaker = over(fakeredis.FakeAsyncRedis(server=server), failure_threshold=1)
    r: Any = ResilientRedis(breaker)

    async def queue() -> None:
        await r.set(f"{KEY}-live", VALUE)
        server.connected = False
        await outcome(r.get(KEY))
        for n in range(20):
            assert await r.rpush(KEY, n) == "OK"

    async def recover() -> Any:
        server.connected = True
        clock_of(breaker).push(RECOVERY)
        assert await r.get(f"{KEY}-live") == VALUE.encode()
        return await r.lrange(KEY, 0, -1)

    def body(loops: Loops) -> None:
        loops.run(queue)
        loops.run(recover)
        assert loops.run(recover) == [b"%d" % n for n in range(20)]

    await in_loops(body, careless)
    assert (breaker.state, breaker.pending, breaker.dead_letters) == (CLOSED, 0, ())


async def test_a_read_alone_starts_the_recovery_in_another_loop() -> None:
    """Nothing else may come: whoever only reads must not be told for ever that nothing is there."""
    r: Any = ResilientRedis.from_url(
        "redis://127.0.0.1:1", failure_threshold=1, recovery_wait=wait_fixed(0.01)
    )

    def probes() -> int:
        return r.breaker.snapshot().counters.get("probes", 0)  # type: ignore[no-any-return]

    async def read() -> None:
        before = probes()
        assert await r.get(KEY) is None
        await until(lambda: probes() > before)

    def body(loops: Loops) -> None:
        loops.run(read)
        loops.run(read)
        loops.run(r.aclose)

    await in_loops(body)


async def replay_is_in_the_middle(there: Scripted, breaker: RedisCircuitBreaker) -> None:
    """The push has taken effect, and its reply is on the way."""
    there.up = False
    await outcome(breaker.execute("get", there.get, KEY))
    assert await breaker.execute("rpush", there.rpush, KEY, "once") == "OK"
    there.up = True
    real = there.rpush

    async def slow(*args: Any) -> Any:
        await real(*args)
        await asyncio.sleep(30.0)

    there.rpush = slow  # type: ignore[method-assign,assignment]
    clock_of(breaker).push(RECOVERY)
    asking = asyncio.create_task(breaker.execute("incr", there.incr, f"{KEY}-n"))
    await until(lambda: there.effects)
    there.rpush = real  # type: ignore[method-assign]
    asking.cancel()


@pytest.mark.asyncio_only("about event loops, of which threads have none")
async def test_a_push_in_the_middle_as_its_loop_ends_is_not_made_again() -> None:
    there = Scripted()
    breaker = over(there, failure_threshold=1)

    async def again() -> None:
        clock_of(breaker).push(RECOVERY)
        await breaker.flush_re_sync_queue()

    def body(loops: Loops) -> None:
        loops.run(replay_is_in_the_middle, there, breaker)
        loops.run(again)

    await in_loops(body)
    assert there.data[KEY] == [b"once"]


@pytest.mark.asyncio_only("a thread that hangs in an object is ended by its timeout alone")
async def test_a_push_in_the_middle_of_aclose_is_not_made_again() -> None:
    there = Scripted()
    breaker = over(there, failure_threshold=1)
    await replay_is_in_the_middle(there, breaker)
    await breaker.aclose()
    clock_of(breaker).push(RECOVERY)
    await breaker.flush_re_sync_queue()  # the breaker is used again
    assert there.data[KEY] == [b"once"]


@pytest.mark.asyncio_only("a thread that hangs in an object is ended by its timeout alone")
async def test_a_set_in_the_middle_of_aclose_is_kept(make_world: Make) -> None:
    world: World = await make_world(SCRIPTED)
    await world.opened()
    await world.client.set(KEY, VALUE)
    assert world.scripted is not None
    world.scripted.latency = 5.0
    await world.heal()
    world.probe()
    asking = asyncio.create_task(outcome(world.client.incr(f"{KEY}-n")))
    await until(lambda: world.scripted and "set" in world.scripted.calls)
    asking.cancel()
    assert await world.breaker.aclose() == 1
    world.scripted.latency = 0.0
    await world.recovered()
    assert await world.truth.get(KEY) == VALUE.encode()


@pytest.mark.asyncio_only("about event loops, of which threads have none")
@pytest.mark.parametrize("what", ["object", "server"])
async def test_closing_in_another_loop_comes_back(what: str) -> None:
    """The loop in which the recovery or the replay ran is not running any more."""
    there = Scripted()
    breaker = over(there, failure_threshold=1)
    if what == "server":
        breaker = RedisCircuitBreaker(failure_threshold=1)

    async def queue() -> None:
        if what == "object":
            await replay_is_in_the_middle(there, breaker)
            return
        pool = ConnectionPool(
            connection_class=ResilientConnection, breaker=breaker, host="127.0.0.1", port=1
        )
        client: Client = Redis(connection_pool=pool)
        assert await client.set(KEY, VALUE) is True

    async def close() -> Any:
        return await asyncio.wait_for(breaker.aclose(), 1.0)

    def body(loops: Loops) -> None:
        loops.run(queue)
        assert loops.run(close) == 1

    await in_loops(body, careless=True)


@pytest.mark.asyncio_only("about event loops, of which threads have none")
@pytest.mark.server
async def test_two_loops_over_a_server(rigs: Rigs) -> None:
    """Each loop has its client; the breaker is the same, and what it holds."""
    rig = rigs.get("valkey")
    breaker = RedisCircuitBreaker(failure_threshold=1, recovery_timeout=0.02, deadline=0.3)

    def client() -> Client:
        pool = ConnectionPool(
            connection_class=ResilientConnection, breaker=breaker, host="127.0.0.1", port=rig.port
        )
        return Redis(connection_pool=pool)

    async def queue() -> None:
        r = client()
        await r.ping()
        rig.kill()
        for n in range(20):
            await outcome(r.get(KEY))
            await r.rpush(KEY, n)
        await r.aclose()

    async def recover() -> None:
        r = client()
        await r.get(KEY)
        await until(lambda: not breaker.busy, timeout=5.0)
        await r.aclose()
        await breaker.aclose(drain_timeout=1.0)

    def body(loops: Loops) -> None:
        loops.run(queue)
        assert breaker.pending == 20
        rig.restart()
        loops.run(recover)

    await in_loops(body)
    assert rig.admin.lrange(KEY, 0, -1) == [f"{n}" for n in range(20)]


# -- the end -----------------------------------------------------------------------------------


@pytest.mark.asyncio_only("a thread that hangs in an object is ended by its timeout alone")
async def test_an_object_that_hangs_does_not_hold_up_the_end(make_world: Make) -> None:
    world: World = await make_world(SCRIPTED)
    await world.opened()
    await world.client.set(KEY, VALUE)
    assert world.scripted is not None
    world.scripted.latency = 30.0
    await world.heal()
    started = time.monotonic()
    assert await world.breaker.aclose(drain_timeout=0.1) == 1
    assert time.monotonic() - started < 0.6
    world.scripted.latency = 0.0


async def test_closing_twice_and_using_it_again(make_world: Make) -> None:
    world: World = await make_world(FAKE)
    await world.opened()
    await world.client.set(KEY, VALUE)
    assert await world.breaker.aclose() == 1
    assert await world.breaker.aclose() == 1
    await world.healed()
    assert await world.truth.get(KEY) == VALUE.encode()


@pytest.mark.server
@pytest.mark.parametrize("name", SERVERS)
async def test_a_closed_breaker_that_is_used_again_recovers(make_world: Make, name: str) -> None:
    """README's main() run twice with a breaker of the module's: a second loop, a reload."""
    world: World = await make_world(name)
    for n in range(2):
        await world.breaker.aclose()
        await world.client.aclose()
        await world.opened()
        assert await world.client.set(KEY, n) is True
        await world.heal()
        await world.recovered(timeout=0.5)
        assert await world.truth.get(KEY) == b"%d" % n


@pytest.mark.server
@pytest.mark.parametrize("name", SERVERS)
async def test_what_is_left_at_the_end_is_replayed_when_it_is_used_again(
    make_world: Make, name: str
) -> None:
    world: World = await make_world(name)
    await world.opened()
    assert await world.client.set(KEY, VALUE) is True
    assert await world.breaker.aclose() == 1
    assert world.breaker.reported
    await world.heal()
    await outcome(world.client.get(KEY))
    await world.recovered(timeout=0.5)
    assert await world.truth.get(KEY) == VALUE.encode()
    await world.opened()
    assert await world.client.set(KEY, VALUE) is True
    assert not world.breaker.reported, "what is left now has not been told of"


async def test_the_facade_closes_a_client_that_cannot_be_closed() -> None:
    class Bare:
        async def get(self, name: str) -> None:
            raise redis.ConnectionError("away")

        set = get

    r: Any = ResilientRedis(over(Bare(), failure_threshold=1))
    assert isinstance(await outcome(r.get(KEY)), redis.ConnectionError)
    await r.set(KEY, VALUE)
    assert r.breaker.state == OPEN
    assert await r.aclose() == 1


@pytest.mark.server
@pytest.mark.parametrize("name", SERVERS)
async def test_closing_waits_for_the_replay_and_no_longer(make_world: Make, name: str) -> None:
    world: World = await make_world(name)
    await world.opened()
    await world.client.set(KEY, VALUE)
    await world.heal()
    started = time.monotonic()
    assert await world.breaker.aclose(drain_timeout=0.8) == 0
    assert time.monotonic() - started < 0.6


async def test_breakers_that_are_dropped_with_writes_in_them_leave_nothing() -> None:
    """No warning, no task: 100 of them, each with a queue and a replay that has failed."""
    for _ in range(100):
        there = Scripted()
        breaker = over(there, failure_threshold=1)
        there.up = False
        await outcome(breaker.execute("get", there.get, KEY))
        await breaker.execute("set", there.set, KEY, VALUE)
        await breaker.flush_re_sync_queue()
        there.fate = lambda *_: OK
    del breaker, there
    gc.collect()
    assert [task for task in asyncio.all_tasks() if "replay" in task.get_name()] == []
