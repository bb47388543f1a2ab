"""Clients, crowds of tasks and clocks for the tests of the contract."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from resilient_redis.events import Event, StateChanged
from tests.support.flavours import ConnectionPool, Redis, RedisCircuitBreaker, ResilientConnection
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

SECRET = "s3cret"  # part of every key and value, so that a log line which holds one is found
PASSWORD = "pa55word"
KEY = f"key-{SECRET}"
VALUE = f"value-{SECRET}"

OPEN, HALF_OPEN, CLOSED = "OPEN", "HALF-OPEN", "CLOSED"

# A client of redis-py, of which much is untyped.
Client = Any


@dataclass
class Connects:
    """When connections were opened, and when one failed to."""

    started: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        self.started.append(time.monotonic())
        try:
            yield
        except OSError:
            self.failed.append(time.monotonic())
            raise

    def most_in_a_second(self, since: float) -> int:
        """The most attempts in any one second after `since`."""
        later = [at for at in self.started if at >= since]
        return max((sum(at <= x < at + 1.0 for x in later) for at in later), default=0)


@asynccontextmanager
async def guarded(
    port: int, breaker: RedisCircuitBreaker, size: int = 100, **options: Any
) -> AsyncIterator[Client]:
    """`Redis()` with a pool of `size`: redis-py's own retry of 10. Closes the breaker as well."""
    pool = ConnectionPool(
        connection_class=ResilientConnection,
        breaker=breaker,
        host="127.0.0.1",
        port=port,
        max_connections=size,
        retry=Redis().get_retry(),
        **options,
    )
    async with using(Redis.from_pool(pool), breaker) as client:
        yield client


@asynccontextmanager
async def from_url(
    port: int, breaker: RedisCircuitBreaker, size: int = 100, **options: Any
) -> AsyncIterator[Client]:
    """`Redis.from_url()`: no retry of redis-py at all."""
    url = f"redis://127.0.0.1:{port}/0"
    made = Redis.from_url(
        url,
        connection_class=ResilientConnection,
        breaker=breaker,
        max_connections=size,
        **options,
    )
    async with using(made, breaker) as client:
        yield client


@asynccontextmanager
async def using(client: Client, breaker: RedisCircuitBreaker) -> AsyncIterator[Client]:
    try:
        yield client
    finally:
        await client.aclose()
        await breaker.aclose()


def events_of(breaker: RedisCircuitBreaker) -> list[Event]:
    """What `breaker` tells its observers from now on."""
    events: list[Event] = []
    breaker.add_observer(events.append)
    return events


def opened(events: Sequence[Event]) -> list[float]:
    """When the breaker opened, from closed."""
    moves = [event for event in events if isinstance(event, StateChanged)]
    return [event.at for event in moves if (event.old, event.new) == (CLOSED, OPEN)]


@asynccontextmanager
async def never_opens(breaker: RedisCircuitBreaker) -> AsyncIterator[None]:
    events = events_of(breaker)
    yield
    assert opened(events) == []
    assert (breaker.state, breaker.failures, breaker.pending) == (CLOSED, 0, 0)
    assert "neutral" not in breaker.snapshot().counters


def sent(proxy: ChaosProxy, word: bytes) -> int:
    """How often `word` went over `proxy`."""
    return sum(link.sent.count(word) for link in proxy.links)


async def until(condition: Callable[[], object], timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.001)


async def recovered(breaker: RedisCircuitBreaker, timeout: float = 5.0) -> None:
    await until(lambda: not breaker.busy and told(breaker), timeout)


def told(breaker: RedisCircuitBreaker) -> bool:
    """Whether the observers know of all that has happened: among threads that comes after it."""
    lock = breaker.lock
    return lock is None or (not lock._events and lock._teller() is None)


async def warm(client: Client, connections: int) -> None:
    """As many connections in the pool, each of which has carried a command."""
    pool = client.connection_pool
    taken = [await pool.get_connection() for _ in range(connections)]
    for connection in taken:
        await connection.send_command("EXISTS", "warm")
        await connection.read_response()
        await pool.release(connection)


async def timed(call: Awaitable[Any]) -> float:
    """Seconds until `call` is answered."""
    started = time.monotonic()
    await call
    return time.monotonic() - started


async def outcome(call: Awaitable[Any]) -> Any:
    """The result of `call`, or the error that it raised."""
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - what is raised is what is asked for
        return error


async def goes_away(rig: Rig, client: Client, breaker: RedisCircuitBreaker) -> None:
    """Kill the server; the breaker is open when this returns."""
    rig.kill()
    while breaker.state == CLOSED:
        assert await client.get(KEY) is None


async def goes_away_in_use(client: Client, rig: Rig, breaker: RedisCircuitBreaker) -> None:
    """As `goes_away`, of a server that `client` has just used."""
    await client.get("k")
    rig.kill()
    await client.get("other")
    await until(lambda: breaker.state == OPEN)
