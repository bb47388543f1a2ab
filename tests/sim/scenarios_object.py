"""What is cancelled: a call through `execute` over any object, which is probed by traffic."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ConnectionError

from resilient_redis.asyncio import ResilientRedis
from resilient_redis.cli.history import Outcome

from .cancelling import Scenario
from .scenarios import scenario
from .swarm import SimBreaker
from .world import Cut, World


class Thing:
    """An object with asynchronous methods, which is sometimes away."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.log: list[tuple[bytes, ...]] = []
        self.away = False
        self.pause = 0.003

    async def _trip(self) -> None:
        await asyncio.sleep(self.pause)
        if self.away:
            raise ConnectionError("away")

    async def ping(self) -> bool:
        await self._trip()
        return True

    async def get(self, key: str) -> Any:
        await self._trip()
        return self.data.get(key)

    async def exists(self, key: str) -> int:
        await self._trip()
        return int(key in self.data)

    async def set(self, key: str, value: Any) -> bool:
        await self._trip()
        self.data[key] = value
        self.log.append((b"SET", key.encode(), value))
        await asyncio.sleep(self.pause)
        return True

    async def rpush(self, key: str, value: Any) -> int:
        await self._trip()
        self.data.setdefault(key, []).append(value)
        self.log.append((b"RPUSH", key.encode(), value))
        await asyncio.sleep(self.pause)
        return len(self.data[key])


class OverObject(World):
    """The breaker guards an object; probing is by traffic."""

    def __init__(self, seed: int, cut: Cut, **options: Any) -> None:
        self.thing = Thing()
        super().__init__(seed, cut, **options)
        self.breaker.rights_known = True  # nobody asks an object
        self.clients.clear()
        self.client = ResilientRedis(self.breaker)

    def make_breaker(self, **options: Any) -> SimBreaker:
        return super().make_breaker(redis_client=self.thing, **options)

    async def outage(self, queued: int = 0) -> None:
        self.thing.away = True
        while self.breaker.state == "CLOSED":
            try:
                await self.client.get("warm")
            except ConnectionError:
                pass  # raised again, and counted
        for _ in range(queued):
            await self.push()

    def back(self) -> None:
        self.thing.away = False

    async def early(self) -> None:
        try:
            await self.push()
        except ConnectionError:
            pass  # the outage goes on

    async def traffic(self) -> None:
        try:
            await self.client.get("traffic")
        except ConnectionError:
            pass  # it probes

    async def told(self, tokens: list[bytes], call: Any) -> Any:
        try:
            return await super().told(tokens, call)
        except ConnectionError as error:
            queued = getattr(error, "queued", False)
            fate = Outcome.ACKNOWLEDGED if queued else Outcome.UNKNOWN
            self.tokens.update(dict.fromkeys(tokens, fate))
            raise

    async def follow(self) -> None:
        await self.client.set("next", b"next")
        got = await self.client.get("next")
        self.check(got == b"next", f"GET was answered {got!r}")

    def effects(self) -> list[tuple[bytes, ...]]:
        return self.thing.log


def over_object(function: Any) -> Scenario:
    return scenario(function, OverObject)


@over_object
async def object_call(w: OverObject) -> None:
    await w.victim(w.push())


@over_object
async def object_call_that_fails(w: OverObject) -> None:
    w.thing.away = True
    await w.victim(w.put())


@over_object
async def object_queues(w: OverObject) -> None:
    await w.outage()

    async def writes() -> None:
        for _ in range(40):
            await w.push()

    await w.victim(writes())


@over_object
async def object_probe_by_a_read(w: OverObject) -> None:
    await w.outage(queued=3)
    await asyncio.sleep(0.3)
    w.back()
    await w.victim(w.client.get("warm"))


@over_object
async def object_probe_by_a_write(w: OverObject) -> None:
    """The first entry of the queue is the probe; the write waits for the drain."""
    await w.outage(queued=6)
    await asyncio.sleep(0.3)
    w.back()
    await w.victim(w.push())


@over_object
async def object_probe_with_nothing_queued(w: OverObject) -> None:
    await w.outage()
    await asyncio.sleep(0.3)
    w.back()
    await w.victim(w.push())


@over_object
async def object_probe_that_fails(w: OverObject) -> None:
    await w.outage(queued=2)
    await asyncio.sleep(0.3)
    await w.victim(w.client.get("warm"))


@over_object
async def object_flush(w: OverObject) -> None:
    await w.outage(queued=5)
    await asyncio.sleep(0.3)
    w.back()
    await w.victim(w.breaker.flush_re_sync_queue())


@over_object
async def object_write_beside_a_replay(w: OverObject) -> None:
    await w.outage(queued=6)
    await asyncio.sleep(0.3)
    w.back()
    flush = w.loop.create_task(w.breaker.flush_re_sync_queue())
    await asyncio.sleep(0.012)  # the first entry is through: closed, and draining
    await w.victim(w.push())
    await flush


@over_object
async def object_aclose(w: OverObject) -> None:
    await w.outage(queued=5)
    await asyncio.sleep(0.3)
    w.back()
    left = await w.victim(w.breaker.aclose(drain_timeout=3.0))
    if left != 0:
        left = await w.breaker.aclose(drain_timeout=30.0)
    w.check(left == 0, f"left: {left}")
