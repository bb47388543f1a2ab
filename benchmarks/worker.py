"""The process of one subject: `python -m benchmarks.worker SUBJECT URL`."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import Any

from redis.exceptions import RedisError

from .children import serve
from .peers import PEERS
from .subjects import BY_CLASS, BY_FACADE, CONTROL, PLAIN, Call, Opened, by_class, by_facade, plain
from .work import Work

SUBJECTS = {PLAIN: plain, CONTROL: plain, BY_CLASS: by_class, BY_FACADE: by_facade, **PEERS}
PATIENCE = 30.0  # seconds for a breaker to open


async def measure(opened: Opened, work: Work) -> dict[str, float]:
    """CPU and wall seconds per call."""
    call = opened.calls[work.call]
    each = work.times // work.tasks
    if work.rejected:
        runs = [repeat_rejected(opened, call, each) for _ in range(work.tasks)]
    else:
        runs = [repeat(call, each) for _ in range(work.tasks)]
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await (asyncio.gather(*runs) if len(runs) > 1 else runs[0])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if opened.breaker is not None and (opened.breaker.state == "CLOSED") is work.away:
        raise AssertionError(f"the breaker was {opened.breaker.state}")
    times = each * work.tasks
    return {"cpu": cpu / times, "wall": wall / times}


async def repeat(call: Call, times: int) -> None:
    for _ in range(times):
        await call()


async def repeat_rejected(opened: Opened, call: Call, times: int) -> None:
    answered = 0
    for _ in range(times):
        try:
            await call()
            answered += 1
        except opened.rejection:
            pass
    if answered:
        raise AssertionError(f"{answered} of {times} calls were not rejected")


async def trip(opened: Opened) -> str:
    """Calls until the breaker is open."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            await opened.calls["get"]()
        except opened.rejection:
            return "open"
        except (RedisError, OSError):
            continue
        if opened.breaker is not None and opened.breaker.state == "OPEN":
            return "open"
    raise AssertionError(f"not open after {PATIENCE:.0f} s")


async def main(subject: str, url: str) -> None:
    async with SUBJECTS[subject](url) as opened:
        gc.freeze()  # a collection then takes microseconds, not milliseconds

        async def handle(job: dict[str, Any]) -> Any:
            return await (trip(opened) if job.get("trip") else measure(opened, Work(**job)))

        await serve(handle)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
