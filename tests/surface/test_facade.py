"""`ResilientRedis`: a thin client with its breaker."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import DataError

from resilient_redis import CommandRefused, Policy
from tests.contract.helpers import CLOSED, OPEN, outcome, recovered
from tests.support.flavours import (
    ConnectionPool,
    Queued,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
    real,
)
from tests.support.servers import Rig
from tests.surface.helpers import QUICK, Store, aside, facade, goes_down, guarded, quick

URL = "redis://127.0.0.1:1/0"


# -- thin: "attributes pass straight through"; "`.client` is the real one"


def test_it_is_a_redis_for_whoever_asks() -> None:
    client = ResilientRedis.from_url(URL)
    assert isinstance(client, Redis)
    assert isinstance(client, ResilientRedis)
    assert isinstance(client.client, Redis)
    assert not isinstance(client.client, ResilientRedis)
    assert client.breaker.client is client.client


def test_attributes_are_those_of_the_client() -> None:
    client: Any = ResilientRedis.from_url(URL)
    real = client.client
    assert client.connection_pool is real.connection_pool
    assert client.response_callbacks is real.response_callbacks
    assert client.get.__self__ is real
    assert client.execute_command.__self__ is real
    assert client.pipeline.__self__ is real
    with pytest.raises(AttributeError, match="frobnicate"):
        client.frobnicate  # noqa: B018 - that is the point
    passed = [name for name in dir(real) if not name.startswith("_")]
    own = {"client", "breaker", "aclose", "close", "from_url", "from_pool", "initialize"}
    for name in passed:
        if name not in own and callable(getattr(real, name)):
            assert getattr(client, name) == getattr(real, name), name
    assert len(passed) > 300


def test_its_repr_says_who_it_is_and_no_password() -> None:
    client = ResilientRedis.from_url("redis://somebody:pa55word@127.0.0.1:1/0", name="billing")
    assert repr(client).startswith("<ResilientRedis ")
    assert "billing CLOSED pending=0" in repr(client)
    assert "pa55word" not in repr(client.breaker)
    if "REDACTED" in repr(client.connection_pool):  # redis-py's own, which is in the façade's
        assert "pa55word" not in repr(client)
        assert "pa55word" not in str(client)


def test_nor_with_a_redis_py_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_in_6_4(pool: ConnectionPool) -> str:
        return f"<ConnectionPool({pool.connection_kwargs})>"

    monkeypatch.setattr(ConnectionPool, "__repr__", as_in_6_4)
    client = ResilientRedis.from_url("redis://somebody:pa55word@127.0.0.1:1/0")
    assert "pa55word" not in repr(client)


# -- how it is made


def test_from_url_takes_the_options_of_both() -> None:
    client: Any = ResilientRedis.from_url(
        URL, failure_threshold=2, recovery_timeout=0.5, decode_responses=True, max_connections=7
    )
    assert client.breaker.recovery_timeout == 0.5
    assert client.connection_pool.max_connections == 7
    assert client.get_encoder().decode_responses


def test_it_takes_the_arguments_of_redis() -> None:
    client: Any = ResilientRedis(
        host="127.0.0.1", port=1, db=3, deadline=0.25, retry=Retry(NoBackoff(), 2), name="billing"
    )
    assert (client.breaker.deadline, client.breaker.name) == (0.25, "billing")
    connection = client.connection_pool.make_connection()
    assert (connection.port, connection.db) == (1, 3)
    assert connection.breaker is client.breaker


def test_from_pool() -> None:
    pool = ConnectionPool.from_url(URL)
    client = ResilientRedis.from_pool(pool, failure_threshold=1)
    assert client.connection_pool is pool
    assert pool.connection_class is real(ResilientConnection)


@pytest.mark.parametrize("way", ["from_url", "from_pool", "arguments"])
def test_a_breaker_of_ones_own(way: str) -> None:
    breaker = RedisCircuitBreaker(deadline=0.5)
    ways: dict[str, Any] = {
        "from_url": lambda: ResilientRedis.from_url(URL, breaker=breaker),
        "from_pool": lambda: ResilientRedis.from_pool(ConnectionPool(), breaker=breaker),
        "arguments": lambda: ResilientRedis(breaker, host="127.0.0.1"),
    }
    made = ways[way]
    client = made()
    assert client.breaker is breaker
    assert breaker.client is client.client
    with pytest.raises((TypeError, ValueError), match="client"):
        made()  # it has one now


def test_what_is_no_breaker_is_a_type_error() -> None:
    for wrong in (URL, Redis.from_url(URL), Store()):
        with pytest.raises(TypeError, match=r"ResilientRedis\(RedisCircuitBreaker\(client\)\)"):
            ResilientRedis(wrong)  # type: ignore[arg-type]  # that is the point


def test_an_option_given_twice_or_to_nobody_is_a_type_error() -> None:
    breaker = RedisCircuitBreaker()
    with pytest.raises(TypeError, match="deadline: the breaker is given already"):
        ResilientRedis.from_url(URL, breaker=breaker, deadline=0.5)
    with pytest.raises(TypeError, match="no more options"):
        ResilientRedis(RedisCircuitBreaker(Redis()), host="127.0.0.1")
    with pytest.raises(TypeError, match="failure_treshold"):
        ResilientRedis(failure_treshold=3)
    with pytest.raises(ValueError, match="deadline"):
        ResilientRedis.from_url(URL, deadline=-1)


# -- "with a fast path at `execute_command` while open"


@pytest.mark.server
async def test_while_open_no_connection_is_taken(
    valkey_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with facade(valkey_rig) as client:
        await client.set("k", "v")
        client.breaker.force_open()

        async def forbidden(*_: Any, **__: Any) -> Any:
            raise AssertionError("a connection was taken")

        with monkeypatch.context() as patch:
            patch.setattr(client.connection_pool, "get_connection", forbidden)
            assert await aside(client.get, "k") is None
            assert await client.set("k", "w") is True
            assert isinstance(await client.rpush("l", 1), Queued)
            with pytest.raises(CommandRefused):
                await client.incr("n")
        client.breaker.reset()
        await recovered(client.breaker)
        assert await client.get("k") == b"w"


ASKED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("get", ("k",), {}),
    ("mget", (["a", "b"],), {}),
    ("hgetall", ("h",), {}),
    ("smembers", ("s",), {}),
    ("zrange", ("z", 0, -1), {"withscores": True}),
    ("zscore", ("z", "m"), {}),
    ("ttl", ("k",), {}),
    ("type", ("k",), {}),
    ("dump", ("k",), {}),
    ("lpop", ("l",), {}),
    ("spop", ("s", 2), {}),
    ("publish", ("c", "x"), {}),
    ("xrange", ("x",), {}),
    ("xread", ({"x": "0"},), {}),
    ("geopos", ("g", "m"), {}),
    ("set", ("k", "v"), {"px": 5000}),
    ("set", ("k", b"\xff\x00"), {}),
    ("set", ("k", "v"), {"nx": True}),
    ("mset", ({"a": 1},), {}),
    ("delete", ("a", "b"), {}),
    ("expire", ("k", 100), {}),
    ("hset", ("h", "f", "v"), {}),
    ("xadd", ("x", {"f": "v"}), {}),
    ("zadd", ("z", {"m": 1.5}), {}),
    ("incrbyfloat", ("n", 1.5), {}),
    ("keys", (), {}),
    ("ping", (), {}),
    ("echo", ("x",), {}),
    ("eval", ("return 1", 0), {}),
    ("execute_command", ("GET", "k"), {}),
    ("execute_command", ("NO.SUCH", "k"), {}),
    ("execute_command", ("CONFIG GET", "maxmemory"), {}),
]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
async def test_the_fast_path_answers_as_the_connection_does(protocol: int, decode: bool) -> None:
    """The same results and errors, the same journal, the same counts."""
    options: dict[str, Any] = {"protocol": protocol, "decode_responses": decode}
    by_facade = ResilientRedis.from_url(URL, **options)
    breaker = RedisCircuitBreaker()
    by_connection: Any = Redis.from_url(
        URL, connection_class=ResilientConnection, breaker=breaker, **options
    )
    found = {}
    for client, guard in ((by_facade, by_facade.breaker), (by_connection, breaker)):
        guard.force_open()
        answers = []
        for method, args, more in ASKED:
            answer = await outcome(aside(getattr(client, method), *args, **more))
            # How long until the next look at the server is not the same in both.
            shown = answer.reason if isinstance(answer, CommandRefused) else repr(answer)
            answers.append((method, type(answer), shown))
        entries = list(guard.outbox.journal.read(0))
        found[client] = (answers, [entry.payload for entry in entries], guard.snapshot().counters)
        await client.aclose()
        await guard.aclose()
    assert found[by_facade] == found[by_connection]
    counters = found[by_facade][2]
    assert counters["neutral"] + counters["queued"] + counters["refused"] == len(ASKED)


@pytest.mark.server
async def test_a_wrong_argument_is_redis_pys_error_while_open_too(valkey_rig: Rig) -> None:
    async with facade(valkey_rig) as client, guarded(valkey_rig) as (other, breaker):
        client.breaker.force_open()
        breaker.force_open()
        each: Any
        for each in (client, other):
            with pytest.raises(DataError):
                await each.set("k", object())
            with pytest.raises(DataError):
                await each.set("k", None)
        assert client.breaker.pending == breaker.pending == 0
        client.breaker.reset()
        breaker.reset()


# -- "async with", `aclose` closes both


@pytest.mark.server
async def test_async_with_opens_and_closes(valkey_rig: Rig) -> None:
    made = ResilientRedis.from_url(valkey_rig.url, **QUICK)
    async with made as client:
        assert client is made
        assert await client.set("k", "v") is True
        assert valkey_rig.connections() == 1
    assert valkey_rig.connections() == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.asyncio_only("redis.Redis is not awaited")
@pytest.mark.server
async def test_it_can_be_awaited_like_redis(valkey_rig: Rig) -> None:
    client = await ResilientRedis.from_url(valkey_rig.url)
    assert isinstance(client, ResilientRedis)
    assert await client.ping()
    await client.aclose()


@pytest.mark.asyncio_only("counts tasks; no thread is left, say the fixtures")
@pytest.mark.server
async def test_aclose_returns_what_is_left_and_leaks_nothing(
    valkey_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    client = ResilientRedis.from_url(valkey_rig.url, **QUICK)
    await goes_down(valkey_rig, client, client.breaker)
    await client.set("k", "v")
    await client.rpush("l", 1)
    assert len(asyncio.all_tasks()) > 1  # the recovery
    assert await client.aclose() == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert lines == ["redis: closed with 2 acknowledged writes unapplied"]


@pytest.mark.server
async def test_aclose_waits_for_the_replay(valkey_rig: Rig) -> None:
    client = ResilientRedis.from_url(valkey_rig.url, **QUICK)
    await goes_down(valkey_rig, client, client.breaker)
    await client.set("k", "v")
    closing = asyncio.create_task(client.aclose(drain_timeout=5.0))
    await asyncio.sleep(0.02)
    valkey_rig.restart()
    assert await closing == 0
    assert valkey_rig.admin.get("k") == "v"
    assert valkey_rig.connections() == 0


@pytest.mark.server
async def test_close_is_aclose(valkey_rig: Rig) -> None:
    client = ResilientRedis.from_url(valkey_rig.url)
    await client.set("k", "v")
    assert await client.close() == 0
    assert valkey_rig.connections() == 0


@pytest.mark.asyncio_only("about an object whose methods are coroutines")
async def test_aclose_over_an_object_closes_it_if_it_can_be_closed() -> None:
    class Closable(Store):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    class ByItsOldName(Store):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    for store in (Closable(), ByItsOldName()):
        async with ResilientRedis(quick(store)) as client:
            await client.set("k", "v")
        assert store.closed == 1
    async with ResilientRedis(quick(Store())):
        pass


@pytest.mark.server
async def test_the_breakers_policy_holds_in_the_fast_path(valkey_rig: Rig) -> None:
    async with facade(valkey_rig, policy=Policy.store()) as client:
        await client.set("k", "v")
        assert await client.get("k") == b"v"
        client.breaker.force_open()
        assert client.breaker.state == OPEN
        with pytest.raises(CommandRefused, match="policy"):
            await client.get("k")
        assert await client.set("k", "w") is True
        client.breaker.reset()
        await recovered(client.breaker)
        assert client.breaker.state == CLOSED
