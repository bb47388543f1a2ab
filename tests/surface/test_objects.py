"""`execute` over any object with async methods: what a call is answered, and what it changes."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    MaxConnectionsError,
    RedisError,
    ResponseError,
)

from resilient_redis import COUNTERS, CommandRefused, JournalFull, MemoryJournal, Policy, Rule
from tests.contract.helpers import CLOSED, OPEN
from tests.support.flavours import RedisCircuitBreaker
from tests.surface.helpers import Store, no_answer, nobody_listens, quick


async def call(breaker: RedisCircuitBreaker, method: str, *args: Any, **kwargs: Any) -> Any:
    return await breaker.execute(method, getattr(breaker.client, method), *args, **kwargs)


async def fails(breaker: RedisCircuitBreaker, method: str, *args: Any) -> Any:
    """The error that the object raised."""
    with pytest.raises(RedisError) as raised:
        await call(breaker, method, *args)
    assert not isinstance(raised.value, CommandRefused)
    return raised.value


def opened(store: Any, **options: Any) -> RedisCircuitBreaker:
    breaker = quick(store, **options)
    breaker.force_open()
    return breaker


# -- "guards any object with async methods … by the same catalog and policy"


async def test_closed_it_just_calls() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store)
    assert breaker.guards_object
    assert await call(breaker, "set", "k", "v", ex=7) is True
    assert await call(breaker, "get", "k") == "v"
    assert await call(breaker, "frobnicate", "k") == "done"
    assert store.calls == [("set", "k", "v", 7), ("get", "k"), ("frobnicate", "k")]
    assert breaker.snapshot().counters == {}


# -- "while open, an unconditional write is queued as `(method_name, args, kwargs)`, answered "OK" "


async def test_open_a_write_is_queued_and_answered_ok() -> None:
    store = Store()
    breaker = opened(store)
    assert await call(breaker, "set", "k", "v", ex=1000) == "OK"
    assert await call(breaker, "rpush", "l", 1, 2) == "OK"
    assert await call(breaker, "delete", "a", "b") == "OK"
    assert (store.calls, breaker.pending) == ([], 3)
    breaker.reset()
    assert await breaker.flush_re_sync_queue() == 3
    assert store.calls == [("set", "k", "v", 1000), ("rpush", "l", 1, 2), ("delete", "a", "b")]
    await breaker.aclose()


async def test_what_is_queued_is_what_was_given() -> None:
    """The caller may change his dictionary afterwards."""
    mock = AsyncMock()
    breaker = opened(mock)
    fields = {"a": 1}
    assert await call(breaker, "hset", "h", mapping=fields) == "OK"
    fields["a"] = 2
    breaker.reset()
    await breaker.flush_re_sync_queue()
    mock.hset.assert_awaited_once_with("h", mapping={"a": 1})
    await breaker.aclose()


# -- "a read or pop gets the neutral answer, the rest is refused"

NEUTRAL: list[tuple[str, tuple[Any, ...], Any]] = [
    ("get", ("k",), None),
    ("mget", (["a", "b"],), [None, None]),
    ("hgetall", ("k",), {}),
    ("smembers", ("k",), set()),
    ("lrange", ("k", 0, -1), []),
    ("exists", ("k",), 0),
    ("ttl", ("k",), -2),
    ("type", ("k",), b"none"),
    ("lpop", ("k",), None),
    ("spop", ("k",), None),
    ("zpopmin", ("k",), []),
    ("publish", ("channel", "x"), 0),
]
REFUSED: list[tuple[str, tuple[Any, ...]]] = [
    ("incr", ("n",)),
    ("setnx", ("k", "v")),
    ("rename", ("a", "b")),
    ("keys", ()),
    ("ping", ()),
    ("info", ()),
    ("eval", ("return 1", 0)),
    ("frobnicate", ("k",)),
    ("flushall", ()),
]


@pytest.mark.parametrize("method, args, answer", NEUTRAL)
async def test_open_a_read_or_pop_is_neutral(
    method: str, args: tuple[Any, ...], answer: Any
) -> None:
    mock = AsyncMock()
    breaker = opened(mock)
    found = await call(breaker, method, *args)
    assert found == answer
    assert type(found) is type(answer)
    assert mock.mock_calls == []
    assert breaker.pending == 0


@pytest.mark.parametrize("method, args", REFUSED)
async def test_open_the_rest_is_refused(method: str, args: tuple[Any, ...]) -> None:
    mock = AsyncMock()
    breaker = opened(mock)
    with pytest.raises(CommandRefused) as raised:
        await call(breaker, method, *args)
    sent = "INCRBY" if method == "incr" else method.upper()  # which is what redis-py sends
    assert raised.value.command == sent
    assert (mock.mock_calls, breaker.pending) == ([], 0)


async def test_a_condition_is_seen_in_the_arguments() -> None:
    breaker = opened(AsyncMock())
    for options in ({"nx": True}, {"xx": True}, {"get": True}):
        with pytest.raises(CommandRefused):
            await call(breaker, "set", "k", "v", **options)
    assert await call(breaker, "set", "k", "v", px=1000) == "OK"
    with pytest.raises(CommandRefused):
        await call(breaker, "zadd", "z", {"a": 1}, nx=True)
    assert await call(breaker, "zadd", "z", {"a": 1}) == "OK"
    await breaker.flush_re_sync_queue()
    assert await breaker.aclose() == 2


async def test_the_policy_holds_here_too() -> None:
    store = opened(Store(), policy=Policy.store())
    with pytest.raises(CommandRefused, match="policy"):
        await call(store, "get", "k")
    assert await call(store, "set", "k", "v") == "OK"
    rules = Policy([Rule("views:*", COUNTERS, "queue"), Rule("session:*", answer="refuse")])
    ruled = opened(Store(), policy=rules)
    assert await call(ruled, "incr", "views:1") == "OK"
    for method, key in (("incr", "other"), ("get", "session:1"), ("delete", "session:1")):
        with pytest.raises(CommandRefused):
            await call(ruled, method, key)
    assert (ruled.pending, store.pending) == (1, 1)


async def test_a_full_journal_refuses_here_too() -> None:
    breaker = opened(Store(), journal=MemoryJournal(max_entries=1))
    assert await call(breaker, "set", "k", "v") == "OK"
    with pytest.raises(JournalFull):
        await call(breaker, "set", "k", "w")
    assert breaker.pending == 1


# -- "a call that fails by an outage counts, queues the write unless …, and is re-raised"


async def test_a_call_that_fails_by_an_outage_counts_and_trips_at_the_threshold() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 3)
    store.down = nobody_listens()
    for n in range(3):
        assert (breaker.state, breaker.failures) == (CLOSED, n)
        assert await fails(breaker, "get", "k") is store.down
    assert (breaker.state, breaker.failures) == (OPEN, 3)
    assert await call(breaker, "get", "k") is None
    assert len(store.calls) == 3


# error, method, arguments, whether it is queued: (set is safe twice, rpush is not)
FAILED = [
    (nobody_listens(), "set", ("k", "v"), True),
    (nobody_listens(), "rpush", ("l", 1), True),
    (BusyLoadingError("loading"), "rpush", ("l", 1), True),
    (no_answer(), "set", ("k", "v"), True),
    (no_answer(), "delete", ("k",), True),
    (no_answer(), "rpush", ("l", 1), False),
    (ConnectionError("Connection closed by server."), "rpush", ("l", 1), False),
    (nobody_listens(), "incr", ("n",), False),
    (nobody_listens(), "get", ("k",), False),
    (nobody_listens(), "lpop", ("l",), False),
    (nobody_listens(), "frobnicate", ("k",), False),
    (OSError(104, "reset"), "set", ("k", "v"), True),
    (asyncio.TimeoutError(), "set", ("k", "v"), True),
]


@pytest.mark.parametrize("error, method, args, queued", FAILED)
async def test_it_is_raised_again_and_says_whether_it_is_queued(
    error: Exception, method: str, args: tuple[Any, ...], queued: bool
) -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store)
    store.down = error
    with pytest.raises(type(error)) as raised:
        await call(breaker, method, *args)
    assert raised.value is error
    assert error.queued is queued  # type: ignore[attr-defined]  # that is the point
    assert (breaker.failures, breaker.pending) == (1, int(queued))
    store.down = None
    await breaker.flush_re_sync_queue()
    assert store.calls.count((method, *args)) == 1 + queued
    await breaker.aclose()


async def test_a_failed_call_that_has_no_room_in_the_journal_is_not_queued() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, journal=MemoryJournal(max_entries=1))
    store.down = nobody_listens()
    assert (await fails(breaker, "set", "a", 1)).queued is True
    store.down = nobody_listens()
    assert (await fails(breaker, "set", "b", 1)).queued is False
    assert breaker.pending == 1


@pytest.mark.parametrize(
    "error",
    [
        ResponseError("WRONGTYPE"),
        AuthenticationError("invalid password"),
        MaxConnectionsError("Too many connections"),
    ],
)
async def test_what_is_no_outage_passes_as_it_is(error: Exception) -> None:
    store = Store()
    breaker = quick(store)
    store.down = error
    assert await fails(breaker, "set", "k", "v") is error
    assert (breaker.state, breaker.failures, breaker.pending) == (CLOSED, 0, 0)
    assert getattr(error, "queued", False) is False


@pytest.mark.asyncio_only("a thread cannot be cancelled; see tests/sync/test_interrupted.py")
async def test_a_mistake_of_the_callers_and_a_cancellation_are_no_outage() -> None:
    store = Store()
    breaker = quick(store)
    with pytest.raises(TypeError):
        await call(breaker, "get")

    async def slow() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(breaker.execute("get", slow))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (breaker.state, breaker.failures) == (CLOSED, 0)


# -- "(fakeredis, a mock, another client)"


async def test_another_client_with_errors_of_its_own() -> None:
    """valkey-py and coredis have classes of their own under redis-py's names."""
    foreign = type("ConnectionError", (Exception,), {"__module__": "valkey.exceptions"})
    wrong_password = type("AuthenticationError", (foreign,), {})
    store = Store()
    breaker = RedisCircuitBreaker(store, 1)
    store.down = wrong_password("no")
    with pytest.raises(wrong_password):
        await call(breaker, "set", "k", "v")
    assert (breaker.state, breaker.failures, breaker.pending) == (CLOSED, 0, 0)
    store.down = foreign("gone")
    with pytest.raises(foreign) as raised:
        await call(breaker, "set", "k", "v")
    assert raised.value.queued is True  # type: ignore[attr-defined]  # that is the point
    assert (breaker.state, breaker.pending) == (OPEN, 1)
    assert await call(breaker, "get", "other") is None
