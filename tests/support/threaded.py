"""The synchronous flavour in the shape of `redis.asyncio`, so that one test body drives both.

Each call runs in a thread that belongs to the calling asyncio task, and is awaited. One thread for
one task: what a breaker knows of a thread (whose read it was, who does the handshake) is then what
it knows of a task on asyncio. The classes are the real ones inside; here is only the way to them.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import fakeredis
import pytest
import redis

import resilient_redis
from resilient_redis import Queued, RedisCircuitBreaker

from .task_threads import PATIENCE, end_all, in_thread, steps_of


class Proxy:
    """Methods are awaited, everything else is as it is."""

    at_once: ClassVar[frozenset[str]] = frozenset()
    renamed: ClassVar[dict[str, str]] = {"aclose": "close"}

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, self.renamed.get(name, name))
        if not callable(found) or name in self.at_once:
            return found
        return partial(in_thread, found)

    async def __aenter__(self) -> Any:
        await in_thread(self.real.__enter__)
        return self

    async def __aexit__(self, *error: object) -> None:
        await in_thread(self.real.__exit__, *error)


class Connection(Proxy):
    """One of a pool's."""


class ConnectionPool(Proxy):
    made: ClassVar[Any] = redis.ConnectionPool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(self.made(*args, **kwargs))

    @classmethod
    def of(cls, real: Any) -> Any:
        blocks = isinstance(real, redis.BlockingConnectionPool)
        shape = BlockingConnectionPool if blocks else cls
        pool = shape.__new__(shape)
        pool.real = real
        return pool

    @classmethod
    def from_url(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.of(cls.made.from_url(*args, **kwargs))

    @property
    def _available_connections(self) -> list[Connection]:
        return [Connection(connection) for connection in self.real._available_connections]

    async def get_connection(self) -> Connection:
        return Connection(await in_thread(self.real.get_connection))

    async def release(self, connection: Connection) -> None:
        await in_thread(self.real.release, connection.real)

    at_once = frozenset({"make_connection", "set_retry", "get_encoder"})


class BlockingConnectionPool(ConnectionPool):
    made = redis.BlockingConnectionPool

    def _idle(self) -> list[Any]:
        return [connection for connection in list(self.real.pool.queue) if connection is not None]

    @property
    def _available_connections(self) -> list[Connection]:
        return [Connection(connection) for connection in self._idle()]

    @property
    def _in_use_connections(self) -> set[Any]:
        return set(self.real._connections) - set(self._idle())


class Pipeline(Proxy):
    """Commands are collected; under WATCH they are awaited."""

    renamed: ClassVar[dict[str, str]] = {"aclose": "reset"}
    waits = frozenset({"execute", "watch", "unwatch", "reset", "aclose", "discard"})

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, self.renamed.get(name, name))
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            immediate = getattr(self.real, "watching", False) and not getattr(
                self.real, "explicit_transaction", False
            )
            if name in self.waits or (immediate and name != "multi"):
                return in_thread(found, *args, **kwargs)
            result = found(*args, **kwargs)
            return self if result is self.real else result

        return call

    def __len__(self) -> int:
        return len(self.real)

    def __bool__(self) -> bool:
        return True


class PubSub(Proxy):
    def listen(self) -> AsyncIterator[Any]:
        return steps_of(self.real.listen(), self._wake)

    def _wake(self) -> None:
        """Who listens waits at a socket without a timeout, or for the end of an outage."""
        connection = self.real.connection
        if (sock := connection._sock) is not None:
            sock.shutdown(socket.SHUT_RDWR)
        connection.breaker.wake()

    async def run(self, *, poll_timeout: float = 1.0) -> None:
        """`run_in_thread`, until this is cancelled."""
        thread = self.real.run_in_thread(sleep_time=poll_timeout, daemon=True)
        try:
            await asyncio.Event().wait()
        finally:
            thread.stop()
            thread.join(PATIENCE)
            assert not thread.is_alive()


class Monitor(Proxy):
    def listen(self) -> AsyncIterator[Any]:
        return steps_of(self.real.listen())


class Script(Proxy):
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await in_thread(self.real, *args, **kwargs)


def _client_of(real: Any) -> Any:
    return Redis.of(real)


class Redis(Proxy):
    """`redis.Redis`, awaited."""

    made: ClassVar[Any] = redis.Redis
    at_once = frozenset(
        {"get_retry", "set_retry", "get_encoder", "get_connection_kwargs", "set_response_callback"}
    )
    inside: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "client": _client_of,
        "json": Proxy,
        "pipeline": Pipeline,
        "pubsub": PubSub,
        "monitor": Monitor,
        "lock": Proxy,
        "register_script": Script,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(self.made(*args, **kwargs))

    @classmethod
    def of(cls, real: Any) -> Any:
        client = cls.__new__(cls)
        client.real = real
        return client

    @classmethod
    def from_url(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.of(cls.made.from_url(*args, **kwargs))

    @classmethod
    def from_pool(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.of(cls.made.from_pool(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        if (shape := self.inside.get(name)) is not None:
            make = getattr(self.real, name)
            return lambda *args, **kwargs: shape(make(*args, **kwargs))
        if name.endswith("scan_iter"):
            scan = getattr(self.real, name)
            return lambda *args, **kwargs: steps_of(scan(*args, **kwargs))
        return super().__getattr__(name)

    @property
    def connection_pool(self) -> Any:
        return ConnectionPool.of(self.real.connection_pool)


class ResilientRedis(Redis):
    made = resilient_redis.ResilientRedis

    @property
    def client(self) -> Any:
        client = self.real.client
        return Redis.of(client) if isinstance(client, redis.Redis) else client


class FakeRedis(Redis):
    made = fakeredis.FakeRedis


# fakeredis names it in an error, and has set it only where it was given a host.
fakeredis.FakeRedisConnection.server_key = "fake"


def blocking(function: Callable[..., Any]) -> Callable[..., Any]:
    """A coroutine function, for threads: it runs on the loop, and is waited for."""
    return partial(_wait_for, asyncio.get_running_loop(), function)


def _wait_for(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    async def told() -> tuple[bool, Any]:
        try:
            return True, await function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised below, as the very object that it is
            return False, error

    succeeded, value = asyncio.run_coroutine_threadsafe(told(), loop).result()
    if succeeded:
        return value
    raise value


class Blocking:
    """An object with coroutine functions, for threads."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return partial(_wait_for, self._loop, found)


@contextmanager
def awaited(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Breakers and receipts are made in many places, and given to observers and callers as they
    are: what waits of theirs is awaited on a loop, and waits in any other thread.
    """
    monkeypatch.setattr(RedisCircuitBreaker, "aclose", _either(RedisCircuitBreaker.close), False)
    take = RedisCircuitBreaker.take_client
    monkeypatch.setattr(
        RedisCircuitBreaker,
        "take_client",
        lambda breaker, client: take(breaker, client.real if isinstance(client, Proxy) else client),
    )
    for owner, name in (
        (RedisCircuitBreaker, "flush_re_sync_queue"),
        (RedisCircuitBreaker, "execute"),
        (Queued, "outcome"),
    ):
        monkeypatch.setattr(owner, name, _either(getattr(owner, name)))
    yield
    end_all()


def _either(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return method(*args, **kwargs)
        return in_thread(method, *map(_as_called, args), **kwargs)

    return call


def _as_called(value: Any) -> Any:
    """What a breaker is to call: the method itself, not what is awaited here."""
    if isinstance(value, partial) and value.func is in_thread:
        return value.args[0]
    return blocking(value) if inspect.iscoroutinefunction(value) else value
