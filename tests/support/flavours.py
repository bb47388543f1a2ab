"""One test body runs both flavours: the names that tests use, and which of the two they are now.

A test takes its clients, pools and breakers from here instead of from `redis.asyncio` and
`resilient_redis.asyncio`. It runs once as it stands on asyncio, and once with the synchronous
flavour in the same shape (`threaded.py`).

Among threads one server is enough, and a few of the parsers and protocols: the bytes are the same.
What is about asyncio alone is marked `asyncio_only`, with the reason.
"""

from __future__ import annotations

import inspect
import select
import socket
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest
import redis.asyncio
import redis.asyncio.connection
import redis.connection
from redis import _parsers

import resilient_redis
import resilient_redis.asyncio
from resilient_redis.cli.servers import REDIS

from . import threaded
from .task_threads import in_thread

__all__ = [
    "BlockingConnectionPool",
    "ConnectionPool",
    "FakeRedis",
    "HiredisParser",
    "PythonParser",
    "Queued",
    "Redis",
    "RedisCircuitBreaker",
    "ResilientConnection",
    "ResilientRedis",
    "ResilientSSLConnection",
    "ResilientUnixDomainSocketConnection",
    "called",
    "has_ended",
    "real",
    "threads",
    "waits",
]

ASYNCIO, THREADS = "asyncio", "threads"


class _Now:
    flavour = ASYNCIO


def threads() -> bool:
    """Whether the synchronous flavour is under test."""
    return _Now.flavour == THREADS


class Name:
    """A class of either flavour: that of the current one, whenever it is used."""

    def __init__(self, on_asyncio: Any, among_threads: Any) -> None:
        self._classes = {ASYNCIO: on_asyncio, THREADS: among_threads}

    @property
    def now(self) -> Any:
        return self._classes[_Now.flavour]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _called(self.now, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.now, name)
        return partial(_called, found) if callable(found) else found

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self.now)


def _called(func: Any, *args: Any, **kwargs: Any) -> Any:
    return func(*map(real, args), **{name: real(value) for name, value in kwargs.items()})


def real(value: Any) -> Any:
    """What a class of the library is given: no name, and nothing in a shape that is not its own."""
    if isinstance(value, Name):
        return value.now
    if isinstance(value, threaded.Proxy):
        return value.real
    return waits(value) if threads() and _is_written_for_asyncio(value) else value


def _is_written_for_asyncio(value: Any) -> bool:
    """Any client: by its own class, or an `AsyncMock`."""
    return any(inspect.iscoroutinefunction(getattr(value, name, None)) for name in ("get", "set"))


if TYPE_CHECKING:
    from fakeredis import FakeAsyncRedis as FakeRedis
    from redis._parsers import _AsyncHiredisParser as HiredisParser
    from redis._parsers import _AsyncRESP2Parser as PythonParser
    from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis

    from resilient_redis.asyncio import (
        Queued,
        RedisCircuitBreaker,
        ResilientConnection,
        ResilientRedis,
        ResilientSSLConnection,
        ResilientUnixDomainSocketConnection,
    )
else:
    PythonParser = Name(_parsers._AsyncRESP2Parser, _parsers._RESP2Parser)
    HiredisParser = Name(_parsers._AsyncHiredisParser, _parsers._HiredisParser)
    Redis = Name(redis.asyncio.Redis, threaded.Redis)
    FakeRedis = Name(fakeredis.FakeAsyncRedis, threaded.FakeRedis)
    ConnectionPool = Name(redis.asyncio.ConnectionPool, threaded.ConnectionPool)
    BlockingConnectionPool = Name(
        redis.asyncio.BlockingConnectionPool, threaded.BlockingConnectionPool
    )
    Queued = Name(resilient_redis.asyncio.Queued, resilient_redis.Queued)
    RedisCircuitBreaker = Name(
        resilient_redis.asyncio.RedisCircuitBreaker, resilient_redis.RedisCircuitBreaker
    )
    ResilientConnection = Name(
        resilient_redis.asyncio.ResilientConnection, resilient_redis.ResilientConnection
    )
    ResilientSSLConnection = Name(
        resilient_redis.asyncio.ResilientSSLConnection, resilient_redis.ResilientSSLConnection
    )
    ResilientUnixDomainSocketConnection = Name(
        resilient_redis.asyncio.ResilientUnixDomainSocketConnection,
        resilient_redis.ResilientUnixDomainSocketConnection,
    )
    ResilientRedis = Name(resilient_redis.asyncio.ResilientRedis, threaded.ResilientRedis)


def waits(client: Any) -> Any:
    """A client or a function written for asyncio, as one that the current flavour calls."""
    if not threads():
        return client
    if inspect.iscoroutinefunction(client) and not _is_written_for_asyncio(client):
        return threaded.blocking(client)
    return threaded.Blocking(client)


async def called(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls what belongs to the current flavour."""
    if threads():
        return await in_thread(func, *args, **kwargs)
    return await func(*args, **kwargs)


def has_ended(connection: Any) -> bool:
    """Whether this process has heard that the server has closed `connection`."""
    if not threads():
        return connection._reader is None or bool(connection._reader.at_eof())
    sock = real(connection)._sock
    if sock is None:
        return True
    readable, _, _ = select.select([sock], [], [], 0)
    return bool(readable) and not sock.recv(1, socket.MSG_PEEK)


@pytest.fixture
def flavour(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Tests whose fixtures ask for it run in both flavours."""
    _Now.flavour = getattr(request, "param", ASYNCIO)
    try:
        if threads():
            with threaded.awaited(monkeypatch):
                yield THREADS
        else:
            yield ASYNCIO
    finally:
        _Now.flavour = ASYNCIO


# -- which tests run in which ---------------------------------------------------------------------

_ASYNCIO_ONLY = pytest.StashKey[Counter[str]]()


#: The directories whose tests run in both flavours.
BOTH = ("adversarial", "contract", "premise", "surface")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is no coroutine drives no client of either."""
    marker = metafunc.definition.get_closest_marker("asyncio_only")
    if (
        "flavour" in metafunc.fixturenames
        and metafunc.definition.path.parent.name in BOTH
        and inspect.iscoroutinefunction(metafunc.function)
        and marker is None
    ):
        # Unnamed on asyncio: plants and reports name tests by their ids.
        on_asyncio = pytest.param(ASYNCIO, id=pytest.HIDDEN_PARAM)
        metafunc.parametrize("flavour", [on_asyncio, THREADS], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[_ASYNCIO_ONLY] = Counter(
        marker.args[0] for item in items if (marker := item.get_closest_marker("asyncio_only"))
    )
    kept = [item for item in items if not _is_too_many(item)]
    if len(kept) < len(items):
        left_out = set(items) - set(kept)
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = kept


def _is_too_many(item: pytest.Item) -> bool:
    """Whether the same is said among threads by another item, or it is about asyncio alone."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or callspec.params.get("flavour") != THREADS:
        return False
    if item.get_closest_marker("asyncio_only"):
        return True
    if any(f"{value} ".startswith(f"{REDIS} ") for value in callspec.params.values()):
        return True  # by itself, or the way into it: "redis by façade"
    return any(
        callspec.params[name] not in values
        for marker in item.iter_markers("among_threads")
        for name, values in marker.kwargs.items()
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Of several processes, the one that reports has collected nothing.
    left_out = terminalreporter.config.stash.get(_ASYNCIO_ONLY, Counter[str]())
    for reason, count in left_out.most_common():
        terminalreporter.write_line(f"{count} tests run on asyncio only: {reason}")
