"""The process whose memory is measured: `python -m benchmarks.holder`."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import deque
from typing import Any

from resilient_redis.asyncio import ResilientRedis
from resilient_redis.cli.servers import free_port

from .children import serve
from .outage import big_journal, open_breaker
from .setting import resident

WARM_UP = 64  # writes before the first look


class Calls:
    """What a queue without a journal holds: a name, arguments and options a write."""

    def __init__(self) -> None:
        self._held: deque[tuple[str, tuple[str, str], dict[str, Any]]] = deque()

    async def set(self, key: str, value: str, **options: Any) -> None:
        self._held.append(("set", (key, value), options))


async def hold(job: dict[str, Any]) -> float | None:
    """Bytes per queued write: what Python allocated, or what the process has grown by."""
    number = int(job["number"])
    holder: Calls | ResilientRedis = Calls()
    if job["journal"]:
        url = f"redis://127.0.0.1:{free_port()}"
        holder = ResilientRedis.from_url(url, journal=big_journal(number + WARM_UP))
        await open_breaker(holder)
    await fill(holder, -WARM_UP, 0)
    if job["traced"]:
        tracemalloc.start()
    before = look(job["traced"])
    await fill(holder, 0, number)
    after = look(job["traced"])
    return None if before is None or after is None else (after - before) / number


def look(traced: bool) -> int | None:
    gc.collect()
    return tracemalloc.get_traced_memory()[0] if traced else resident()


async def fill(holder: Calls | ResilientRedis, start: int, end: int) -> None:
    for n in range(start, end):
        await holder.set(f"key:{n}", f"{n:0100}")  # no two values share their memory


if __name__ == "__main__":
    asyncio.run(serve(hold))
