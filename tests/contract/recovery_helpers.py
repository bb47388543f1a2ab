"""What the tests of recovery, replay and fence share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tenacity import wait_fixed

from resilient_redis.events import Event
from tests.support.flavours import Redis, RedisCircuitBreaker, ResilientConnection
from tests.support.proxy import ChaosProxy, Link
from tests.support.servers import Rig

from .helpers import told

PREFIX = "resilient-redis:"
Client = Any  # redis.asyncio.Redis, of which much is untyped
E = TypeVar("E", bound=Event)


def command(*words: str | bytes | int) -> bytes:
    """One command as it stands on the wire."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


async def until(what: Callable[[], object], timeout: float = 5.0) -> None:
    """Waits for a condition that nobody announces."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not what():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError("it did not happen")
        await asyncio.sleep(0.001)


@dataclass
class Guarded:
    """A breaker, clients that share it, and what it has told."""

    breaker: RedisCircuitBreaker
    port: int
    options: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    def client(self, db: int = 0, **options: Any) -> Client:
        client = Redis.from_url(
            f"redis://127.0.0.1:{self.port}/{db}",
            connection_class=ResilientConnection,
            breaker=self.breaker,
            **{**self.options, **options},
        )
        self.clients.append(client)
        return client

    def seen(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def letters(self) -> list[tuple[str, str]]:
        """(command, reason) of each dead letter."""
        return [(letter.command, letter.reason) for letter in self.breaker.dead_letters]

    async def recovered(self, timeout: float = 10.0) -> None:
        """Closed, gate open, the watermark's DEL behind us: without any traffic of ours."""
        breaker = self.breaker
        await until(lambda: not breaker.busy and told(breaker), timeout)
        await until(lambda: breaker._recovery is None or breaker._recovery.done(), timeout)

    async def reopened(self, timeout: float = 10.0) -> None:
        """Lets go of a breaker that was forced open, and waits for its recovery."""
        self.breaker.reset()
        await self.recovered(timeout)


@contextlib.asynccontextmanager
async def guarded(
    port: int, *, client: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Guarded, Client]]:
    """A quick breaker: opens at the first failure, looks at the server every 10 ms."""
    breaker = RedisCircuitBreaker(
        **{
            "failure_threshold": 1,
            "recovery_wait": wait_fixed(0.01),
            "deadline": 0.2,
            "probe_timeout": 0.5,
            **options,
        }
    )
    guard = Guarded(breaker, port, client or {})
    breaker.add_observer(guard.events.append)
    try:
        yield guard, guard.client()
    finally:
        await breaker.aclose()
        for each in guard.clients:
            await each.aclose()


@contextlib.asynccontextmanager
async def proxied(rig: Rig, **options: Any) -> AsyncIterator[tuple[ChaosProxy, Guarded, Client]]:
    """The same behind a chaos proxy."""
    async with ChaosProxy(rig.port) as proxy, guarded(proxy.port, **options) as (guard, client):
        try:
            yield proxy, guard, client
        finally:
            proxy.clear()  # a fault in force would hold up the end


async def healthy(client: Client) -> None:
    """A first command: the connection stands, the rights are known."""
    assert await client.get("never-set") is None


def recovery_link(proxy: ChaosProxy) -> Link:
    """The connection that has carried replayed batches, the newest if there are several."""
    return [link for link in proxy.links if b"TIME" in link.sent][-1]


def watermarks(rig: Rig, db: int = 0) -> list[str]:
    """The watermark keys in a database, as an outsider sees them."""
    import redis

    with redis.Redis(port=rig.port, db=db, decode_responses=True) as outsider:
        found: list[str] = outsider.keys(PREFIX + "*")
    return found


async def read(client: Client, key: str) -> Any:
    """GET in a task of its own: what was read as neutral is no premise of the caller's writes."""
    return await asyncio.create_task(client.get(key))


async def raised(work: Awaitable[Any]) -> BaseException | None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - handed back to be looked at
        return error
    return None
