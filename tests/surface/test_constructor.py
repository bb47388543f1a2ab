"""`RedisCircuitBreaker(…)`: names, order, defaults, what is refused, and no I/O."""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import socket
from collections.abc import Callable
from importlib.metadata import metadata, requires
from inspect import Parameter
from typing import Any

import pytest
from tenacity import wait_fixed

from resilient_redis import MemoryJournal, Policy, Rule
from resilient_redis.cli.servers import free_port
from resilient_redis.events import ProbeFailed, StateChanged
from tests.contract.helpers import CLOSED, OPEN, events_of, using
from tests.support.flavours import (
    ConnectionPool,
    FakeRedis,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
    real,
)
from tests.surface.helpers import Store

POSITIONAL = {"redis_client": None, "failure_threshold": 5, "recovery_timeout": 10.0}
KEYWORDS = {
    "policy": None,
    "journal": None,
    "deadline": 1.0,
    "probe_timeout": 1.0,
    "drain_wait": 1.0,
    "failure_rate": None,
    "failure_window": 10.0,
    "minimum_calls": 20,
    "batch_size": 1000,
    "name": None,
    "watermark_prefix": "resilient-redis:",
    "recovery_wait": None,
}
URL = "redis://127.0.0.1:1/0"


def test_names_order_and_defaults() -> None:
    parameters = inspect.signature(real(RedisCircuitBreaker)).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert list(defaults.items()) == [*POSITIONAL.items(), *KEYWORDS.items()]
    for name, parameter in parameters.items():
        wanted = Parameter.POSITIONAL_OR_KEYWORD if name in POSITIONAL else Parameter.KEYWORD_ONLY
        assert parameter.kind is wanted, name
    for name, default in {**POSITIONAL, **KEYWORDS}.items():
        # An int where seconds are meant would hide a unit of another scale.
        assert type(defaults[name]) is type(default), name


def test_the_docstring_explains_each_of_them() -> None:
    text = real(RedisCircuitBreaker).__doc__ or ""
    for name in (*POSITIONAL, *KEYWORDS):
        assert f"`{name}`" in text, name
    for default in ("10.0", "1.0 s", "default 5", "(20)", "1,000", '"resilient-redis:"'):
        assert default in text, default


@pytest.mark.asyncio_only("about what is whose object: among threads the tests hold a shape of it")
async def test_the_first_three_may_be_positional() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 2, 0.5)
    assert breaker.client is store
    assert breaker.recovery_timeout == 0.5
    store.down = ConnectionError()
    for _ in range(2):
        assert breaker.state == CLOSED
        with pytest.raises(ConnectionError):
            await breaker.execute("get", store.get, "k")
    assert breaker.state == OPEN
    with pytest.raises(TypeError, match="positional"):
        RedisCircuitBreaker(store, 2, 0.5, None)  # type: ignore[call-arg]  # that is the point


async def test_the_defaults_are_in_force() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store)
    store.down = ConnectionError()
    for _ in range(4):
        with pytest.raises(ConnectionError):
            await breaker.execute("get", store.get, "k")
    assert (breaker.state, breaker.failures, breaker.name) == (CLOSED, 4, "redis")
    with pytest.raises(ConnectionError):
        await breaker.execute("get", store.get, "k")
    assert breaker.state == OPEN
    assert breaker.snapshot().retry_after == pytest.approx(10.0, abs=0.5)
    # Policy.cache(): reads are neutral. MemoryJournal(): there is room, and entries live 300 s.
    assert await breaker.execute("get", store.get, "k") is None
    assert await breaker.execute("set", store.set, "k", "v") == "OK"
    assert breaker.outbox.journal.max_age == 300.0
    await breaker.aclose()


REFUSED: list[tuple[str, Any]] = [
    *[("failure_threshold", value) for value in (0, -1)],
    *[
        (name, value)
        for name in ("recovery_timeout", "deadline", "probe_timeout", "failure_window")
        for value in (0, 0.0, -1.0)
    ],
    *[("drain_wait", value) for value in (-0.001, -1)],
    *[("failure_rate", value) for value in (0, 0.0, -0.5, 1.001, 50)],
    *[("minimum_calls", value) for value in (0, -1)],
    *[("batch_size", value) for value in (0, -1, 1001)],
]


@pytest.mark.parametrize("name, value", REFUSED)
def test_a_value_out_of_range_is_a_value_error_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name) as raised:
        RedisCircuitBreaker(**{name: value})
    assert str(value) in str(raised.value)


@pytest.mark.parametrize(
    "name", ["failure_rate", "deadline", "recovery_timeout", "probe_timeout", "drain_wait"]
)
def test_not_a_number_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        RedisCircuitBreaker(**{name: math.nan})  # type: ignore[arg-type]  # one of the floats


ALLOWED: list[dict[str, Any]] = [
    {"failure_threshold": 1},
    {"recovery_timeout": 0.001, "deadline": 0.001, "probe_timeout": 0.001},
    {"drain_wait": 0},
    {"failure_rate": 1, "failure_window": 0.1, "minimum_calls": 1},
    {"failure_rate": 0.01},
    {"batch_size": 1},
    {"batch_size": 1000},
    {"name": "billing", "watermark_prefix": "billing:"},
    {"policy": Policy.store(), "journal": MemoryJournal(), "recovery_wait": wait_fixed(1)},
    {"policy": Policy([Rule(answer="refuse")])},
]


@pytest.mark.parametrize("options", ALLOWED)
def test_the_ends_of_the_ranges_are_in_them(options: dict[str, Any]) -> None:
    assert RedisCircuitBreaker(**options).state == CLOSED


def test_an_option_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="failure_treshold"):
        RedisCircuitBreaker(failure_treshold=3)  # type: ignore[call-arg]  # that is the point


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("I/O at construction")

    monkeypatch.setattr(socket.socket, "__init__", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)


MADE: dict[str, Callable[[], Any]] = {
    "bare": RedisCircuitBreaker,
    "over a client": lambda: RedisCircuitBreaker(Redis.from_url(URL)),
    "over fakeredis": lambda: RedisCircuitBreaker(FakeRedis()),
    "over anything": lambda: RedisCircuitBreaker(Store()),
    "facade by URL": lambda: ResilientRedis.from_url(URL, failure_threshold=5),
    "facade by arguments": lambda: ResilientRedis(host="127.0.0.1", port=1),
    "facade by client": lambda: ResilientRedis(RedisCircuitBreaker(Redis.from_url(URL))),
    "connection class": lambda: Redis.from_url(
        URL, connection_class=ResilientConnection, breaker=RedisCircuitBreaker()
    ),
    "pool": lambda: ConnectionPool(
        connection_class=ResilientConnection, breaker=RedisCircuitBreaker()
    ),
    "connection": lambda: ResilientConnection(host="127.0.0.1", port=1),
}


@pytest.mark.parametrize("way", MADE)
async def test_no_io_at_construction(way: str, no_network: None) -> None:
    before = asyncio.all_tasks()
    MADE[way]()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def test_no_event_loop_is_needed_at_construction() -> None:
    """In a module, where most clients are made."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    for make in MADE.values():
        make()


# -- "Python 3.10 to 3.13, redis-py ≥ 6.4" ---------------------------------------------------------


def test_what_it_is_made_for() -> None:
    about = metadata("resilient-redis")
    assert about["Requires-Python"] == ">=3.10"
    versions = [
        match[1]
        for line in about.get_all("Classifier") or ()
        if (match := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    ]
    assert versions == ["3.10", "3.11", "3.12", "3.13"]
    assert "redis>=6.4" in (requires("resilient-redis") or ())


# -- "`recovery_timeout` caps the wait between probes; probing starts sooner" ----------------------


async def waits(**options: Any) -> list[float]:
    """Seconds from the opening to the first probe, and between the probes of a second."""
    breaker = RedisCircuitBreaker(failure_threshold=1, **options)
    events = events_of(breaker)
    url = f"redis://127.0.0.1:{free_port()}/0"
    client = Redis.from_url(url, connection_class=ResilientConnection, breaker=breaker)
    async with using(client, breaker):
        assert await client.get("k") is None
        await asyncio.sleep(1.0)
    opened = next(e.at for e in events if isinstance(e, StateChanged))
    probes = [e.at for e in events if isinstance(e, ProbeFailed)]
    return [later - earlier for earlier, later in zip([opened, *probes], probes, strict=False)]


async def test_the_first_probe_comes_soon_and_the_waits_grow_up_to_the_cap() -> None:
    found = await waits(recovery_timeout=0.3)
    first, second, third = found[:3]
    # 50, 100, 200 ms, each with up to 25 ms of jitter; 40 ms for a busy machine.
    assert 0.05 <= first < 0.115
    assert 0.1 <= second < 0.165
    assert 0.2 <= third < 0.265
    assert max(found) < 0.34


async def test_the_waits_have_jitter() -> None:
    """So that a fleet does not come back in step."""
    sequences = [[RedisCircuitBreaker().next_wait() for _ in range(1)] for _ in range(20)]
    assert len({round(wait, 6) for (wait,) in sequences}) > 10


def test_the_cap_holds_for_any_strategy_and_the_default_reaches_it() -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.3)
    grown = [breaker.next_wait() for _ in range(12)]
    assert max(grown) <= 0.3
    assert grown[-1] == 0.3
    slow = RedisCircuitBreaker(recovery_timeout=0.3, recovery_wait=wait_fixed(60))
    assert slow.next_wait() == 0.3


async def test_recovery_wait_takes_another_strategy() -> None:
    found = await waits(recovery_wait=wait_fixed(0.02))
    assert len(found) > 10
    assert min(found) >= 0.019
