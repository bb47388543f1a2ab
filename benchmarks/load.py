"""Callers of a Redis that is killed and comes back, and what they see."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import RedisError

from resilient_redis.asyncio import ResilientRedis, track
from resilient_redis.cli.servers import ServerProcess

from .figures import percentile
from .subjects import VALUE

BUCKET = 0.1  # seconds
KINDS = ("live", "neutral", "queued", "errors")


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds since the start."""

    kill: float = 2.0
    restart: float = 7.0
    end: float = 12.0
    tasks: int = 20
    period: float = 0.01  # from one call of a task to its next, unless it still waits

    @property
    def rate(self) -> float:
        """Calls per second, if each is answered in time."""
        return self.tasks / self.period


@dataclass
class Seen:
    """What the callers saw, by the time at which a call ended."""

    title: str
    plan: Plan
    down: float = 0.0  # when the server was gone
    restart: float = 0.0  # when it was started again
    back: float = 0.0  # when it answered again
    acknowledged: int = 0
    lost: int = 0  # acknowledged writes that are not there at the end
    calls: list[tuple[float, float, str]] = field(default_factory=list)  # end, seconds, kind

    def counts(self, kind: str) -> list[int]:
        """Calls of that kind in each bucket."""
        found = [0] * round(self.plan.end / BUCKET)
        for at, _, what in self.calls:
            if what == kind and at < self.plan.end:
                found[min(len(found) - 1, int(at / BUCKET))] += 1
        return found

    def p99(self) -> list[float | None]:
        """Seconds, of the calls that ended in each bucket; None where none did."""
        ended: list[list[float]] = [[] for _ in range(round(self.plan.end / BUCKET))]
        for at, seconds, _ in self.calls:
            if at < self.plan.end:
                ended[min(len(ended) - 1, int(at / BUCKET))].append(seconds)
        return [percentile(waits, 0.99) if waits else None for waits in ended]

    def away(self) -> list[tuple[float, float, str]]:
        """The calls that were under way, or began, while the server was down."""
        return [c for c in self.calls if c[0] >= self.down and c[0] - c[1] < self.back]

    @property
    def answered_away(self) -> int:
        """Calls that began and ended, without an error, while there was no server."""
        inside = [c for c in self.calls if c[0] - c[1] >= self.down and c[0] < self.restart]
        return sum(what != "errors" for _, _, what in inside)

    @property
    def errors(self) -> int:
        return sum(what == "errors" for _, _, what in self.calls)

    @property
    def longest(self) -> float:
        """Seconds of the longest call."""
        return max(seconds for _, seconds, _ in self.calls)


@asynccontextmanager
async def plain(running: ServerProcess) -> AsyncIterator[Redis]:
    async with Redis(host="127.0.0.1", port=running.port) as client:
        yield client


@asynccontextmanager
async def ours(running: ServerProcess) -> AsyncIterator[Redis]:
    client = ResilientRedis(host="127.0.0.1", port=running.port)
    yield client
    await client.aclose()


CLIENTS = {"redis-py alone": plain, "with resilient-redis": ours}


async def outage(title: str, running: ServerProcess, plan: Plan) -> Seen:
    """One run of the plan; the server runs before and after."""
    seen = Seen(title, plan)
    async with CLIENTS[title](running) as client:
        await client.flushall()
        keys: list[str] = []
        began = time.monotonic()
        tasks = [
            asyncio.create_task(_call(client, seen, keys, n, began)) for n in range(plan.tasks)
        ]
        await asyncio.sleep(plan.kill)
        running.kill()
        seen.down = time.monotonic() - began
        await asyncio.sleep(began + plan.restart - time.monotonic())
        # Not in a thread: the kernel would end the server with the thread that has started it.
        seen.restart = time.monotonic() - began
        running.start(wait=False)
        while not await asyncio.to_thread(running.ready):  # noqa: ASYNC110 - asking is the only way
            await asyncio.sleep(0.001)
        seen.back = time.monotonic() - began
        await asyncio.gather(*tasks)
        seen.acknowledged = len(keys)
        seen.lost = await _missing(client, keys)
    return seen


async def _call(client: Redis, seen: Seen, keys: list[str], task: int, began: float) -> None:
    """Writes a new key, reads it, and so on; an error is caught, as a caller would."""
    number = 0
    due = began + seen.plan.period * task / seen.plan.tasks
    while due < began + seen.plan.end:
        await asyncio.sleep(due - time.monotonic())
        started = time.monotonic()
        key = f"task:{task}:{number // 2}"
        kind = "live"
        try:
            with track() as told:
                if number % 2:
                    await client.get(key)
                else:
                    await client.set(key, VALUE)
                    keys.append(key)
            kind = "neutral" if told.neutral else "queued" if told.queued else "live"
        except (RedisError, OSError):
            kind = "errors"
        ended = time.monotonic()
        seen.calls.append((ended - began, ended - started, kind))
        number += 1
        # What it has missed it leaves out, and keeps its place among the others: tasks that have
        # waited for the same event would else call in step from then on.
        due += seen.plan.period * max(1, math.ceil((ended - due) / seen.plan.period))


async def _missing(client: Redis, keys: list[str]) -> int:
    missing = 0
    for start in range(0, len(keys), 1000):
        missing += (await client.mget(keys[start : start + 1000])).count(None)
    return missing
