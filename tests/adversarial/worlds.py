"""The same application over a fake, a mock, a hand-written client and two real servers.

A `World` has a client, its breaker, and a network that can be cut and healed; what it says of the
truth passes neither. So one body of an attack serves them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import fakeredis
import redis
from tenacity import wait_fixed

from resilient_redis import CommandRefused, OutcomeUnknown
from resilient_redis.cli.servers import REDIS, VALKEY
from tests.contract.helpers import CLOSED, KEY, outcome
from tests.support.flavours import (
    ConnectionPool,
    FakeRedis,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
    waits,
)
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig, Rigs

from .scripted import Scripted, mocked

Client = Any  # a client of redis-py, of which much is untyped
RECOVERY = 5.0  # s; over an object nothing but a test's clock reaches it
THRESHOLD = 3


class Clock:
    """Monotonic time that a test can push on; it never stands still, so nothing waits for ever."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def push(self, seconds: float) -> None:
        self.ahead += seconds


class Fate(Enum):
    """What a caller may conclude from what he was told."""

    ACKNOWLEDGED = "it is or will be applied, exactly once"
    HELD = "the call was raised again, and is queued"
    NOT = "nothing happened, and nothing will"
    PERHAPS = "it ran once or not at all"


def fate_of(outcome: Any) -> Fate:
    """Of a write, by what it returned or raised."""
    if not isinstance(outcome, Exception):
        return Fate.ACKNOWLEDGED
    if isinstance(outcome, CommandRefused):
        return Fate.NOT
    if isinstance(outcome, OutcomeUnknown):
        return Fate.PERHAPS
    assert isinstance(outcome, (redis.ConnectionError, redis.TimeoutError)), repr(outcome)
    queued = getattr(outcome, "queued", None)
    assert queued is not None, f"raised again, and does not say whether it is queued: {outcome!r}"
    return Fate.HELD if queued else Fate.PERHAPS


async def elsewhere(method: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
    """Calls in a task of its own: what that is told is no premise of what the test writes. Returns
    what it raises, too.
    """

    async def call() -> Any:
        return await outcome(method(*args, **options))

    return await asyncio.create_task(call())


@dataclass
class World:
    """`exact`: the guard sits at the connections, so a caller never sees the outage itself."""

    name: str
    breaker: RedisCircuitBreaker
    client: Client
    clock: Clock
    exact: bool
    cut: Callable[[], Awaitable[None]]
    heal: Callable[[], Awaitable[None]]
    truth: Client = None  # past the guard and the network; only while healed
    told: list[tuple[Any, Fate]] = field(default_factory=list)
    scripted: Scripted | None = None
    proxy: ChaosProxy | None = None
    rig: Rig | None = None

    async def opened(self) -> None:
        """Cut off, and known to be. Every call on the way is answered, or raised as it is."""
        await self.cut()
        for _ in range(200):
            if self.breaker.state != CLOSED:
                return
            await outcome(self.client.get(f"{KEY}-opening"))
        raise AssertionError("the breaker does not open")

    async def healed(self, timeout: float = 5.0) -> None:
        """The network is whole, and everything queued has been replayed."""
        await self.heal()
        await self.recovered(timeout)

    def probe(self) -> None:
        """Over an object: the next call is the probe. At the connections nobody has to call."""
        if not self.exact:
            self.clock.push(RECOVERY)

    async def recovered(self, timeout: float = 5.0) -> None:
        until = time.monotonic() + timeout
        while self.breaker.busy:
            assert time.monotonic() < until, f"it does not recover: {self.breaker.snapshot()}"
            self.probe()
            if not self.exact:
                await elsewhere(self.client.get, f"{KEY}-traffic")  # traffic probes here
            await asyncio.sleep(0.002)

    async def truth_while_cut_off(self, method: str, *args: Any) -> Any:
        """What another client does, whose network is not cut."""
        await self.heal()
        result = await getattr(self.truth, method)(*args)
        await self.cut()
        return result

    async def push(self, value: str, name: str = KEY) -> Fate:
        """RPUSH, whose list shows what was applied, how often and in what order."""
        fate = fate_of(await outcome(self.client.rpush(name, value)))
        self.told.append((value, fate))
        return fate

    async def row(self, name: str = KEY) -> list[str]:
        return [value.decode() for value in await self.truth.lrange(name, 0, -1)]

    async def check_row(self, name: str = KEY, ordered: bool = True) -> None:
        """What was promised of each push is what became of it."""
        found = await self.row(name)
        aside = self.unknown_letters()
        promised = [v for v, fate in self.told if fate in (Fate.ACKNOWLEDGED, Fate.HELD)]
        lost = [v for v in promised if v not in found and v not in aside]
        assert not lost, f"acknowledged and lost: {lost}; set aside: {aside}"
        twice = sorted({v for v in found if found.count(v) > 1})
        assert not twice, f"applied twice: {twice}"
        refused = [v for v, fate in self.told if fate is Fate.NOT and v in found]
        assert not refused, f"refused and applied: {refused}"
        assert set(found) <= {v for v, _ in self.told}
        if ordered:
            kept = [v for v in found if v in promised]
            assert kept == [v for v in promised if v in found], "applied out of order"

    def unknown_letters(self) -> str:
        """The documented limit over an object: a push whose replay failed halfway."""
        letters = self.breaker.dead_letters
        assert not (self.exact and letters), letters
        assert {letter.reason for letter in letters} <= {"unknown"}, letters
        return " ".join(letter.payload.decode() for letter in letters)


def script(world: World) -> Scripted:
    """The hand-written client behind `world`."""
    assert world.scripted is not None
    return world.scripted


async def traffic(world: World) -> None:
    """The call that probes."""
    world.probe()
    await elsewhere(world.client.get, f"{KEY}-probe")
    await asyncio.sleep(0)


class ByHand:
    """`breaker.execute(name, client.name, …)` for each method, as README writes it."""

    def __init__(self, breaker: RedisCircuitBreaker) -> None:
        self._breaker = breaker

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._breaker.client, name)
        return lambda *args, **kwargs: self._breaker.execute(name, method, *args, **kwargs)


def over(obj: Any, **options: Any) -> RedisCircuitBreaker:
    """A breaker over any object whose time a test moves."""
    breaker = RedisCircuitBreaker(
        obj,
        **{
            "failure_threshold": THRESHOLD,
            "recovery_timeout": RECOVERY,
            "drain_wait": 0.5,
            **options,
        },
    )
    breaker.clock = Clock()
    return breaker


def clock_of(breaker: RedisCircuitBreaker) -> Clock:
    assert isinstance(breaker.clock, Clock)
    return breaker.clock


FAKE, BY_HAND = "fakeredis", "fakeredis by execute"
SCRIPTED, MOCK = "scripted client", "AsyncMock(spec=Redis)"
OBJECTS = (FAKE, BY_HAND, SCRIPTED, MOCK)
SERVERS = tuple(
    f"{flavour} by {way}" for flavour in (VALKEY, REDIS) for way in ("connection class", "façade")
)


@contextlib.asynccontextmanager
async def fake_world(name: str = FAKE, **options: Any) -> AsyncIterator[World]:
    server = fakeredis.FakeServer()
    fake = FakeRedis(server=server, max_connections=10_000)
    breaker = over(fake, **options)
    client: Client = ResilientRedis(breaker) if name == FAKE else ByHand(breaker)

    async def switch(on: bool) -> None:
        server.connected = on

    truth = FakeRedis(server=server)
    world = World(
        name,
        breaker,
        client,
        clock_of(breaker),
        False,
        lambda: switch(False),
        lambda: switch(True),
        truth,
    )
    try:
        yield world
    finally:
        server.connected = True
        await breaker.aclose()
        await truth.aclose()
        await fake.aclose()


@contextlib.asynccontextmanager
async def scripted_world(name: str = SCRIPTED, **options: Any) -> AsyncIterator[World]:
    scripted = Scripted()
    breaker = over(waits(scripted) if name == SCRIPTED else mocked(scripted), **options)

    async def switch(on: bool) -> None:
        scripted.up = on

    world = World(
        name,
        breaker,
        ResilientRedis(breaker),
        clock_of(breaker),
        False,
        lambda: switch(False),
        lambda: switch(True),
        scripted,
        scripted=scripted,
    )
    try:
        yield world
    finally:
        await breaker.aclose()


@contextlib.asynccontextmanager
async def real_world(name: str, rigs: Rigs, **options: Any) -> AsyncIterator[World]:
    flavour, _, way = name.partition(" by ")
    rig = rigs.get(flavour)
    made: dict[str, Any] = {
        "failure_threshold": THRESHOLD,
        "recovery_wait": wait_fixed(0.01),
        "deadline": 0.3,
        "probe_timeout": 0.3,
        "drain_wait": 0.5,
        **options,
    }
    async with ChaosProxy(rig.port) as proxy:
        if way == "façade":
            there = Redis(host="127.0.0.1", port=proxy.port)
            await there.ping()  # a client that is in use
            breaker = RedisCircuitBreaker(there, **made)
            client: Client = ResilientRedis(breaker)
        else:
            breaker = RedisCircuitBreaker(**made)
            client = Redis.from_pool(
                ConnectionPool(
                    connection_class=ResilientConnection,
                    breaker=breaker,
                    host="127.0.0.1",
                    port=proxy.port,
                )
            )
        truth = Redis(host="127.0.0.1", port=rig.port)

        async def cut() -> None:
            await proxy.refuse()
            proxy.cut_all()

        world = World(
            name,
            breaker,
            client,
            Clock(),
            True,
            cut,
            proxy.accept,
            truth,
            proxy=proxy,
            rig=rig,
        )
        try:
            await client.get(KEY)  # the rights are known, the pool is warm
            yield world
        finally:
            proxy.clear()
            await breaker.aclose()
            await client.aclose()
            await truth.aclose()


def world_of(
    name: str, rigs: Rigs, **options: Any
) -> contextlib.AbstractAsyncContextManager[World]:
    if name in (FAKE, BY_HAND):
        return fake_world(name, **options)
    if name in (SCRIPTED, MOCK):
        return scripted_world(name, **options)
    return real_world(name, rigs, **options)


async def gather(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*calls, return_exceptions=True))
