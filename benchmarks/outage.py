"""Writes that are queued while the server is away, and replayed when it is back."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from dataclasses import dataclass

import resilient_redis
from resilient_redis.asyncio import MemoryJournal, ResilientRedis
from resilient_redis.cli.servers import ServerProcess
from resilient_redis.events import Event, ReplayFinished, ReplayStarted

from .setting import resident
from .subjects import VALUE

PATIENCE = 120.0  # seconds for a replay


@dataclass(frozen=True, slots=True)
class Replayed:
    """Seconds to queue, and from the start of the replay to its end; bytes that the queued held."""

    queued: float
    replayed: float
    resident: int | None


def big_journal(entries: int) -> MemoryJournal:
    """More than fits into the default of 100,000 entries and 64 MiB."""
    return MemoryJournal(max_entries=2 * entries, max_bytes=1 << 30)


async def open_breaker(client: ResilientRedis) -> None:
    """Calls until the outage is noticed."""
    while client.breaker.state == "CLOSED":
        await client.get("key")


async def queue_and_replay(running: ServerProcess, number: int) -> Replayed:
    """`number` SETs while the server is down, then its restart."""
    client = ResilientRedis.from_url(running.url, journal=big_journal(number), recovery_timeout=0.2)
    started: list[float] = []
    finished: asyncio.Future[ReplayFinished] = asyncio.get_running_loop().create_future()

    def observe(event: Event) -> None:
        if isinstance(event, ReplayStarted):
            started.append(event.at)
        elif isinstance(event, ReplayFinished):
            finished.set_result(event)

    client.breaker.add_observer(observe)
    running.restart()
    await client.ping()
    running.kill()
    await open_breaker(client)
    gc.collect()
    before = resident()
    began = time.monotonic()
    for n in range(number):
        await client.set(f"key:{n}", VALUE)
    queued = time.monotonic() - began
    after = resident()
    assert client.breaker.pending == number
    running.start(wait=False)
    end = await asyncio.wait_for(finished, PATIENCE)
    # A figure counts only if every write has arrived.
    found = (await client.dbsize(), end.applied, end.dead_letters)
    assert found == (number, number, 0), found
    await client.aclose()
    held = None if before is None or after is None else after - before
    return Replayed(queued, end.at - started[0], held)


def queue_and_replay_sync(running: ServerProcess, number: int) -> Replayed:
    """The same in a thread; without the memory."""
    journal = big_journal(number)
    client = resilient_redis.ResilientRedis.from_url(
        running.url, journal=journal, recovery_timeout=0.2
    )
    started: list[float] = []
    ends: list[ReplayFinished] = []
    finished = threading.Event()

    def observe(event: Event) -> None:
        if isinstance(event, ReplayStarted):
            started.append(event.at)
        elif isinstance(event, ReplayFinished):
            ends.append(event)
            finished.set()

    client.breaker.add_observer(observe)
    running.restart()
    client.ping()
    running.kill()
    while client.breaker.state == "CLOSED":
        client.get("key")
    gc.collect()
    began = time.monotonic()
    for n in range(number):
        client.set(f"key:{n}", VALUE)
    queued = time.monotonic() - began
    assert client.breaker.pending == number
    running.start(wait=False)
    assert finished.wait(PATIENCE)
    found = (client.dbsize(), ends[0].applied, ends[0].dead_letters)
    assert found == (number, number, 0), found
    client.close()
    return Replayed(queued, ends[0].at - started[0], None)
