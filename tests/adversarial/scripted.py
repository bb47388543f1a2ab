"""A client written by hand, with a server behind it that does what a test's script says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, Mock

import redis
import redis.asyncio

from tests.support.flavours import threads, waits

OK, AWAY, LOST, HANG = "ok", "away", "lost", "hang"


class Scripted:
    """The methods of redis-py that the attacks use, over two dictionaries.

    `fate(method, args)` says what becomes of a call: OK; AWAY, it never gets there; LOST, it takes
    effect and its reply does not come; HANG, neither; or an exception that the server answers with.
    `effects` is what took effect, in order; `calls` what was tried; `most` how many at a time.
    """

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.expiry: dict[str, float] = {}
        self.effects: list[tuple[str, str, Any]] = []
        self.calls: list[str] = []
        self.latency = 0.0
        self.now, self.most = 0, 0
        self.up = True
        self.fate: Callable[[str, tuple[Any, ...]], str | Exception] = self._by_default

    def _by_default(self, method: str, args: tuple[Any, ...]) -> str:
        return OK if self.up else AWAY

    async def _do(self, method: str, effect: Callable[[], Any], *args: Any) -> Any:
        self.calls.append(method)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.latency)
            fate = self.fate(method, args)
            if isinstance(fate, Exception):
                raise fate
            if fate == AWAY:
                raise redis.ConnectionError("nobody is there")
            if fate == HANG:
                await asyncio.Event().wait()
            result = effect()
            if fate == LOST:
                raise redis.TimeoutError("the reply did not come")
            return result
        finally:
            self.now -= 1

    def _write(self, method: str, key: str, value: Any, effect: Callable[[], Any]) -> Any:
        self.effects.append((method, key, value))
        return effect()

    async def ping(self) -> Any:
        return await self._do("ping", lambda: True)

    async def get(self, name: Any) -> Any:
        return await self._do("get", lambda: self.data.get(_text(name)), name)

    async def exists(self, *names: Any) -> Any:
        return await self._do("exists", lambda: sum(_text(n) in self.data for n in names), *names)

    async def set(self, name: Any, value: Any, nx: bool = False, ex: Any = None) -> Any:
        def effect() -> Any:
            if nx and name in self.data:
                return None
            self.expiry.pop(name, None)
            if ex is not None:
                self.expiry[name] = time.monotonic() + ex
            return self._write("set", name, value, lambda: self._put(name, value))

        return await self._do("set", effect, name, value)

    def _put(self, name: str, value: Any) -> bool:
        self.data[name] = value if isinstance(value, bytes) else str(value).encode()
        return True

    async def delete(self, *names: Any) -> Any:
        def effect() -> Any:
            return sum(
                self._write("delete", n, None, lambda n=n: self.data.pop(n, None)) is not None  # type: ignore[misc]  # mypy does not infer the default
                for n in names
            )

        return await self._do("delete", effect, *names)

    async def rpush(self, name: Any, *values: Any) -> Any:
        def push() -> int:
            row = self.data.setdefault(name, [])
            row.extend(str(value).encode() for value in values)
            return len(row)

        return await self._do(
            "rpush", lambda: self._write("rpush", name, values, push), name, *values
        )

    async def lrange(self, name: Any, start: int, end: int) -> Any:
        return await self._do("lrange", lambda: list(self.data.get(name, [])), name)

    async def incr(self, name: Any) -> Any:
        def add() -> int:
            self._put(name, int(self.data.get(name, b"0")) + 1)
            return int(self.data[name])

        return await self._do("incr", lambda: self._write("incr", name, 1, add), name)

    async def hset(self, name: Any, mapping: dict[str, Any]) -> Any:
        given = dict(mapping)

        def put() -> int:
            self.data.setdefault(name, {}).update(given)
            return len(given)

        return await self._do("hset", lambda: self._write("hset", name, given, put), name)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def mocked(scripted: Scripted) -> AsyncMock | Mock:
    """`AsyncMock(spec=Redis)`, the mock of a test suite, with `scripted` behind its methods; among
    threads a `Mock`.
    """
    mock = Mock(spec=redis.Redis) if threads() else AsyncMock(spec=redis.asyncio.Redis)
    scripted = waits(scripted)
    for name in ("ping", "get", "exists", "set", "delete", "rpush", "lrange", "incr", "hset"):
        getattr(mock, name).side_effect = getattr(scripted, name)
    return mock
