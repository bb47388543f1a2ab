"""The process of one synchronous subject: `python -m benchmarks.worker_sync SUBJECT URL`."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import Any

from redis.exceptions import RedisError

from .children import serve
from .subjects_sync import (
    BY_CLASS_SYNC,
    BY_FACADE_SYNC,
    PLAIN_SYNC,
    Call,
    SyncOpened,
    by_class,
    by_facade,
    plain,
)
from .work import Work
from .worker import PATIENCE

SUBJECTS = {PLAIN_SYNC: plain, BY_CLASS_SYNC: by_class, BY_FACADE_SYNC: by_facade}


def measure(opened: SyncOpened, work: Work) -> dict[str, float]:
    """CPU and wall seconds per call, in one thread."""
    call = opened.calls[work.call]
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    if work.rejected:
        repeat_rejected(opened, call, work.times)
    else:
        for _ in range(work.times):
            call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if opened.breaker is not None and (opened.breaker.state == "CLOSED") is work.away:
        raise AssertionError(f"the breaker was {opened.breaker.state}")
    return {"cpu": cpu / work.times, "wall": wall / work.times}


def repeat_rejected(opened: SyncOpened, call: Call, times: int) -> None:
    answered = 0
    for _ in range(times):
        try:
            call()
            answered += 1
        except opened.rejection:
            pass
    if answered:
        raise AssertionError(f"{answered} of {times} calls were not rejected")


def trip(opened: SyncOpened) -> str:
    """Calls until the breaker is open."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            opened.calls["get"]()
        except (RedisError, OSError):
            continue
        if opened.breaker is not None and opened.breaker.state == "OPEN":
            return "open"
    raise AssertionError(f"not open after {PATIENCE:.0f} s")


async def main(subject: str, url: str) -> None:
    with SUBJECTS[subject](url) as opened:
        gc.freeze()

        async def handle(job: dict[str, Any]) -> Any:
            return trip(opened) if job.get("trip") else measure(opened, Work(**job))

        await serve(handle)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
