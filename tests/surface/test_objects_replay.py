"""`execute` over any object: probing by traffic, and the replay of what was queued."""

from __future__ import annotations

import asyncio
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError

from resilient_redis import CommandRefused
from resilient_redis.events import ReplayFinished, StateChanged
from tests.contract.helpers import CLOSED, HALF_OPEN, OPEN, events_of, until
from tests.support.flavours import FakeRedis, RedisCircuitBreaker, ResilientRedis
from tests.surface.helpers import Store, aside, no_answer, nobody_listens
from tests.surface.test_objects import call, fails


async def down(store: Store, threshold: int = 3) -> Any:
    """A breaker that has opened over `store`, by failed reads."""
    breaker = RedisCircuitBreaker(store, threshold, 60.0)
    store.down = nobody_listens()
    for _ in range(threshold):
        await fails(breaker, "get", "never-set")
    assert breaker.state == OPEN
    return breaker


def later(breaker: RedisCircuitBreaker) -> None:
    """The wait between two probes is over."""
    clock = breaker.clock
    breaker.clock = lambda: clock() + 61.0


def moves(events: list[Any]) -> list[tuple[str, str]]:
    return [(e.old, e.new) for e in events if isinstance(e, StateChanged)]


# -- "a success resets the count"


async def test_a_success_resets_the_count() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 3)
    for _ in range(4):
        store.down = nobody_listens()
        await fails(breaker, "get", "k")
        await fails(breaker, "get", "k")
        assert breaker.failures == 2
        store.down = None
        await call(breaker, "get", "k")
        assert (breaker.failures, breaker.state) == (0, CLOSED)


# -- "Probing here is by traffic"


async def test_nobody_asks_the_object_but_the_callers() -> None:
    store = Store()
    breaker = await down(store)
    calls = len(store.calls)
    store.down = None
    later(breaker)
    await asyncio.sleep(0.05)
    assert (breaker.state, len(store.calls)) == (OPEN, calls)
    assert len(asyncio.all_tasks()) == 1
    await call(breaker, "get", "k")
    assert (breaker.state, len(store.calls)) == (CLOSED, calls + 1)


async def test_before_recovery_timeout_nobody_probes() -> None:
    store = Store()
    breaker = await down(store)
    calls = len(store.calls)
    store.down = None
    for _ in range(20):
        assert await call(breaker, "get", "k") is None
    assert (breaker.state, len(store.calls)) == (OPEN, calls)
    assert 59 < breaker.snapshot().retry_after <= 60


async def test_half_open_lets_one_call_through() -> None:
    store = Store()
    breaker = await down(store)
    store.down = None
    later(breaker)
    gate = asyncio.Event()
    inside = 0

    async def slow(key: str) -> str:
        nonlocal inside
        inside += 1
        await gate.wait()
        return "real"

    probe = asyncio.create_task(breaker.execute("get", slow, "k"))
    await until(lambda: breaker.state == HALF_OPEN)
    assert await asyncio.gather(*(breaker.execute("get", slow, "k") for _ in range(50))) == (
        [None] * 50
    )
    assert inside == 1
    gate.set()
    assert await probe == "real"
    assert breaker.state == CLOSED


# -- "trips at the threshold or from half-open"


async def test_a_failed_probe_opens_at_once() -> None:
    store = Store()
    breaker = await down(store)
    events = events_of(breaker)
    later(breaker)
    assert (await fails(breaker, "set", "k", "v")).queued is True
    assert breaker.state == OPEN
    assert moves(events) == [(OPEN, HALF_OPEN), (HALF_OPEN, OPEN)]
    calls = len(store.calls)
    assert await call(breaker, "get", "other") is None  # the wait begins anew
    assert len(store.calls) == calls


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
async def test_a_cancelled_probe_gives_its_permit_back() -> None:
    store = Store()
    breaker = await down(store)
    later(breaker)

    async def hang(key: str) -> None:
        await asyncio.sleep(60)

    probe = asyncio.create_task(breaker.execute("get", hang, "k"))
    await asyncio.sleep(0.01)
    probe.cancel()
    await asyncio.wait({probe})
    store.down = None
    later(breaker)
    await call(breaker, "get", "k")
    assert breaker.state == CLOSED


# -- "from half-open closes the breaker and starts the replay: first in, first out, getattr"


async def test_a_success_from_half_open_closes_and_replays_in_order() -> None:
    store = Store()
    breaker = await down(store)
    events = events_of(breaker)
    for n in range(20):
        assert await call(breaker, "rpush", "l", n) == "OK"
        assert await call(breaker, "set", "k", n, ex=1000) == "OK"
    assert breaker.pending == 40
    before = len(store.writes())
    store.down = None
    later(breaker)
    await call(breaker, "get", "other")
    assert (breaker.state, breaker.pending, breaker.failures) == (CLOSED, 0, 0)
    assert moves(events) == [(OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]
    # A time to live counts from the call, 61 s ago.
    wanted = [c for n in range(20) for c in (("rpush", "l", n), ("set", "k", n, 939))]
    assert store.writes()[before:] == wanted
    (finished,) = [e for e in events if isinstance(e, ReplayFinished)]
    assert (finished.applied, finished.dead_letters) == (40, 0)


async def test_the_replay_takes_the_methods_that_the_client_has_then() -> None:
    """By name, `getattr` on the client: not the function that was given."""
    store = Store()
    breaker = await down(store)

    async def given(*_: Any) -> None:
        raise AssertionError("not this one")

    assert await breaker.execute("set", given, "k", "v") == "OK"
    seen: list[tuple[Any, ...]] = []

    async def replaced(*args: Any) -> bool:
        seen.append(args)
        return True

    store.set = replaced  # type: ignore[assignment,method-assign]  # that is the point
    store.down = None
    assert await breaker.flush_re_sync_queue() == 1
    assert seen == [("k", "v")]


async def test_nothing_overtakes_what_is_queued() -> None:
    """Also the write that is the probe."""
    store = Store()
    breaker = await down(store)
    assert await call(breaker, "set", "k", "old") == "OK"
    store.down = None
    later(breaker)
    assert await call(breaker, "set", "k", "new") is True
    assert store.writes() == [("set", "k", "old"), ("set", "k", "new")]
    assert await call(breaker, "get", "k") == "new"


async def test_a_read_after_the_outage_is_not_older_than_the_callers_write() -> None:
    store = Store()
    breaker = await down(store)
    store.data["k"] = "before"
    assert await call(breaker, "set", "k", "during") == "OK"
    store.down = None
    later(breaker)
    assert await call(breaker, "get", "k") == "during"


# -- "an entry that fails by an outage goes back to the front, the breaker opens with `failures` at
#     the threshold and the flush stops"


@pytest.mark.parametrize("safe_twice", [True, False])
async def test_an_entry_that_fails_by_an_outage_stays_at_the_front(safe_twice: bool) -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 5, 60.0)
    breaker.force_open()
    method, key = ("set", "k") if safe_twice else ("rpush", "l")
    for n in range(3):
        assert await call(breaker, method, key, n) == "OK"
    breaker.reset()
    assert breaker.failures == 0
    store.down = nobody_listens()
    assert await breaker.flush_re_sync_queue() == 0
    assert store.calls == [(method, key, 0)], "the flush went on"
    assert (breaker.state, breaker.failures, breaker.pending) == (OPEN, 5, 3)
    store.down = None
    later(breaker)
    assert await breaker.flush_re_sync_queue() == 3
    question = [] if safe_twice else [("exists", key)]  # a push is never the probe
    assert store.calls[1:] == question + [(method, key, n) for n in range(3)]
    assert (breaker.state, breaker.dead_letters) == (CLOSED, ())


async def test_an_outage_in_the_middle_of_the_replay() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 5, 60.0)
    breaker.force_open()
    for n in range(6):
        await call(breaker, "rpush", "l", n)
    breaker.reset()
    real = store.rpush

    async def breaks_down(key: str, *values: Any) -> int:
        if values == (3,):
            store.down = nobody_listens()
        return await real(key, *values)

    store.rpush = breaks_down  # type: ignore[method-assign]  # an outage at this very moment
    assert await breaker.flush_re_sync_queue() == 3
    assert (breaker.state, breaker.failures, breaker.pending) == (OPEN, 5, 3)
    store.rpush, store.down = real, None  # type: ignore[method-assign]  # and back
    later(breaker)
    assert await breaker.flush_re_sync_queue() == 3
    assert store.data["l"] == [0, 1, 2, 3, 4, 5]


async def test_an_entry_of_which_nobody_knows_whether_it_ran_is_not_made_twice() -> None:
    """README: no watermark here, so it is a dead letter (`unknown`)."""
    store = Store()
    breaker = RedisCircuitBreaker(store, 5, 60.0)
    breaker.force_open()
    await call(breaker, "rpush", "l", 1)
    await call(breaker, "rpush", "l", 2)
    breaker.reset()
    store.down, store.runs_all_the_same = no_answer(), True
    assert await breaker.flush_re_sync_queue() == 0
    assert breaker.state == OPEN
    store.down = None
    later(breaker)
    assert await breaker.flush_re_sync_queue() == 1
    assert store.data["l"] == [1, 2]
    assert [(letter.seq, letter.reason) for letter in breaker.dead_letters] == [(1, "unknown")]


# -- "one that fails otherwise is a dead letter"


async def test_an_entry_that_fails_otherwise_is_a_dead_letter() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store)
    breaker.force_open()
    for value in ("first", "poison", "last"):
        assert await call(breaker, "set", value, value) == "OK"
    breaker.reset()
    assert await breaker.flush_re_sync_queue() == 2
    (letter,) = breaker.dead_letters
    assert (letter.seq, letter.command, letter.reason) == (2, "SET", "error")
    assert store.data == {"first": "first", "last": "last"}
    assert (breaker.state, breaker.pending, breaker.failures) == (CLOSED, 0, 0)


async def test_a_method_that_the_client_does_not_have_is_a_dead_letter() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store)
    breaker.force_open()

    async def hset(*_: Any) -> int:
        return 1

    assert await breaker.execute("hset", hset, "h", "f", "v") == "OK"
    breaker.reset()
    await breaker.flush_re_sync_queue()
    assert [letter.command for letter in breaker.dead_letters] == ["HSET"]


# -- the whole story over fakeredis, by the façade


@pytest.mark.parametrize("decode", [False, True])
async def test_fakeredis_goes_away_and_comes_back(decode: bool) -> None:
    server = fakeredis.FakeServer()
    fake = FakeRedis(server=server, decode_responses=decode)
    client: Any = ResilientRedis(
        RedisCircuitBreaker(fake, failure_threshold=2, recovery_timeout=60.0)
    )
    await client.set("k", "before")
    server.connected = False
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await client.get("k")
    assert client.breaker.state == OPEN
    assert await aside(client.get, "k") is None
    assert await client.set("k", "during") == "OK"
    assert await client.hset("h", mapping={"f": "v"}) == "OK"
    with pytest.raises(CommandRefused):
        await client.incr("n")
    pipe = client.pipeline(transaction=False)
    pipe.set("p", 1)
    with pytest.raises(CommandRefused):
        await pipe.execute()
    server.connected = True
    later(client.breaker)
    value = "during" if decode else b"during"
    assert await client.get("k") == value
    assert client.breaker.state == CLOSED
    assert await client.hget("h", "f") == ("v" if decode else b"v")
    assert await client.pipeline(transaction=False).set("p", 1).get("p").execute() == [
        True,
        "1" if decode else b"1",
    ]
    await client.aclose()
