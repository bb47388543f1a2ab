"""Servers' stand-ins, clients and stories that several of these tests tell."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import ConnectionError, ResponseError, TimeoutError
from tenacity import wait_fixed

from tests.contract.helpers import CLOSED, Client, using
from tests.support.flavours import Redis, RedisCircuitBreaker, ResilientConnection, ResilientRedis
from tests.support.servers import Rig

#: The quickest breaker: opens at the first failure, looks at the server every 10 ms.
QUICK: dict[str, Any] = {
    "failure_threshold": 1,
    "recovery_timeout": 0.5,
    "recovery_wait": wait_fixed(0.01),
}


def quick(client: Any = None, **options: Any) -> RedisCircuitBreaker:
    return RedisCircuitBreaker(client, **{**QUICK, **options})


@asynccontextmanager
async def guarded(
    rig: Rig, breaker: RedisCircuitBreaker | None = None, **options: Any
) -> AsyncIterator[tuple[Client, RedisCircuitBreaker]]:
    """A client by its connection class, and its breaker."""
    breaker = breaker or quick()
    client = Redis.from_url(
        rig.url, connection_class=ResilientConnection, breaker=breaker, **options
    )
    async with using(client, breaker):
        yield client, breaker


@asynccontextmanager
async def facade(rig: Rig, **options: Any) -> AsyncIterator[ResilientRedis]:
    """A façade over a client of redis-py."""
    async with ResilientRedis.from_url(rig.url, **{**QUICK, **options}) as client:
        yield client


async def aside(func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Calls in a task of its own: what is read as neutral there is no premise of our writes."""

    async def call() -> Any:
        return await func(*args, **kwargs)

    return await asyncio.create_task(call())


async def goes_down(rig: Rig, client: Client, breaker: RedisCircuitBreaker) -> None:
    """Kills the server; the breaker is not closed when this returns."""
    rig.kill()
    while breaker.state == CLOSED:
        assert await aside(client.get, "never-set") is None


class Store:
    """A stranger with redis-py's method names: no pool, no connection, no types of redis-py.

    `down` is what its calls raise, if anything; `calls` all that reached it, failed ones too.
    """

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.down: Exception | None = None
        self.runs_all_the_same = False  # what fails has been done: only its reply was lost

    def _begin(self, *call: Any) -> None:
        self.calls.append(call)
        if self.down is not None and not self.runs_all_the_same:
            raise self.down

    def _end(self, result: Any) -> Any:
        if self.down is not None:
            raise self.down
        return result

    async def get(self, key: str) -> Any:
        self._begin("get", key)
        return self._end(self.data.get(key))

    async def set(self, key: str, value: Any, ex: int | None = None) -> bool:
        self._begin("set", key, value, *(() if ex is None else (ex,)))
        if value == "poison":
            raise ResponseError("ERR this value is refused")
        self.data[key] = value
        return bool(self._end(True))

    async def incr(self, key: str) -> int:
        self._begin("incr", key)
        self.data[key] = int(self.data.get(key, 0)) + 1
        return int(self._end(self.data[key]))

    async def rpush(self, key: str, *values: Any) -> int:
        self._begin("rpush", key, *values)
        self.data.setdefault(key, []).extend(values)
        return int(self._end(len(self.data[key])))

    async def lpop(self, key: str) -> Any:
        self._begin("lpop", key)
        found = self.data.get(key) or [None]
        return self._end(found.pop(0))

    async def delete(self, *keys: str) -> int:
        self._begin("delete", *keys)
        return int(self._end(sum(self.data.pop(key, None) is not None for key in keys)))

    async def keys(self, pattern: str = "*") -> list[str]:
        self._begin("keys", pattern)
        found: list[str] = self._end(fnmatch.filter(self.data, pattern))
        return found

    async def exists(self, *keys: str) -> int:
        self._begin("exists", *keys)
        return int(self._end(sum(key in self.data for key in keys)))

    async def frobnicate(self, key: str) -> str:
        self._begin("frobnicate", key)
        return str(self._end("done"))

    def writes(self) -> list[tuple[Any, ...]]:
        """What changed or would have changed its data, in order."""
        return [call for call in self.calls if call[0] in ("set", "incr", "rpush", "delete")]


def nobody_listens() -> ConnectionError:
    """As redis-py raises it: the command was certainly not sent."""
    error = ConnectionError("Error 111 connecting to localhost:6379. Connection refused.")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    return error


def no_answer() -> TimeoutError:
    """The command may have been executed."""
    return TimeoutError("Timeout reading from localhost:6379")
