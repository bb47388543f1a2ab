"""The workloads whose instructions are counted. `counting.py` runs this file under valgrind.

    python healthy.py stock|ours|planted URL

Before and after each round it calls `os.getppid()`, at which callgrind writes out what it has
counted since the last time; nothing else in here calls it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from redis.asyncio import Connection, Redis

ROUNDS = 3  # the median of them is the figure; an odd number
PIPELINE = 100
# Workload -> (operations in a round, operations to warm up the interpreter's caches).
WORKLOADS = {"get": (40, 60), "set": (40, 60), "pipeline": (3, 5)}
VALUE = "v" * 100


class Planted(Connection):
    """Stock with a careless guard on top: two more coroutines a command. The gate must see it."""

    watchers: ClassVar[dict[int, int]] = {}

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        self.watchers[id(self)] = len(args)
        await super().send_command(*args, **kwargs)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        self.watchers[id(self)] = 0
        await super().send_packed_command(command, check_health)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        finally:
            self.watchers.pop(id(self), None)


def client(kind: str, url: str) -> Redis:
    if kind == "stock":
        return Redis.from_url(url)
    if kind == "planted":
        return Redis.from_url(url, connection_class=Planted)
    from resilient_redis.asyncio import RedisCircuitBreaker, ResilientConnection

    # Everything is fifty times slower under valgrind: the deadline must not notice.
    breaker = RedisCircuitBreaker(deadline=60.0)
    return Redis.from_url(url, connection_class=ResilientConnection, breaker=breaker)


async def main(kind: str, url: str) -> None:
    redis = client(kind, url)

    async def get() -> None:
        assert await redis.get("key") == VALUE.encode()

    async def set_() -> None:
        assert await redis.set("key", VALUE) is True

    async def pipeline() -> None:
        pipe = redis.pipeline(transaction=False)
        for _ in range(PIPELINE):
            pipe.get("key")
        assert len(await pipe.execute()) == PIPELINE

    await set_()
    for name, run in {"get": get, "set": set_, "pipeline": pipeline}.items():
        number, warm_up = WORKLOADS[name]
        await repeat(run, warm_up)
        for _ in range(ROUNDS):
            # A garbage collection is as long as several commands: none within a round.
            gc.collect()
            gc.disable()
            os.getppid()
            await repeat(run, number)
            os.getppid()
            gc.enable()
    await redis.aclose()


async def repeat(run: Callable[[], Awaitable[None]], number: int) -> None:
    for _ in range(number):
        await run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
