"""How long the first caller of an outage waits, and after how long the breaker is open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from resilient_redis.asyncio import RedisCircuitBreaker, ResilientRedis
from resilient_redis.cli.servers import ServerProcess
from resilient_redis.events import Event, StateChanged

from .figures import Figure, Result, spread
from .setting import NO_DISK, server
from .subjects import BY_CLASS, BY_FACADE, KEY, PLAIN, guarded_client

FIRST, OPENED = "first command", "breaker open"
# What happens to the server -> how.
FAULTS: dict[str, Callable[[ServerProcess], None]] = {
    "killed": ServerProcess.kill,
    "frozen": ServerProcess.freeze,
}


def run(quick: bool) -> Result:
    result = Result("detection", "Detection: the first command of an outage, with all defaults")
    cap = 0.3 if quick else 8.0
    result.notes = [
        "A GET on a connection that was in use, right after `kill -9` (the port refuses) or "
        "SIGSTOP (nothing answers). redis-py is `Redis()`, and not watched for longer than "
        f"{cap:g} s.",
    ]
    with server(*NO_DISK) as running:
        for fault, strike in FAULTS.items():
            for row in (PLAIN, BY_CLASS, BY_FACADE):
                repeats = 1 if quick else 5
                asyncio.run(_measure(result, row, fault, strike, running, repeats, cap))
    return result


async def _measure(
    result: Result,
    row: str,
    fault: str,
    strike: Callable[[ServerProcess], None],
    running: ServerProcess,
    repeats: int,
    cap: float,
) -> None:
    """Adds the figures of `row`."""
    if row == PLAIN:
        waits = await _plain(strike, running, repeats, cap)
        figure = spread(row, f"{fault}: {FIRST}", waits, "s")
        if figure.value >= cap:
            figure = Figure(row, figure.column, cap, "s", at_least=True)
        result.figures.append(figure)
        return
    both = [await _ours(row, strike, running) for _ in range(repeats)]
    result.figures.append(spread(row, f"{fault}: {FIRST}", [first for first, _ in both], "s"))
    result.figures.append(spread(row, f"{fault}: {OPENED}", [opened for _, opened in both], "s"))


async def _plain(
    strike: Callable[[ServerProcess], None], running: ServerProcess, number: int, cap: float
) -> list[float]:
    """The clients wait at the same time, each for itself: they do next to nothing meanwhile."""
    running.restart()
    clients = [Redis(host="127.0.0.1", port=running.port) for _ in range(number)]
    for client in clients:
        await client.get(KEY)
    strike(running)
    began = time.monotonic()

    async def wait(client: Redis) -> float:
        try:
            await asyncio.wait_for(client.get(KEY), cap)
        except asyncio.TimeoutError:  # not the built-in one in Python 3.10
            return cap
        except RedisError:
            pass
        return time.monotonic() - began

    waits = await asyncio.gather(*map(wait, clients))
    for client in clients:
        await client.aclose()
    return list(waits)


async def _ours(
    row: str, strike: Callable[[ServerProcess], None], running: ServerProcess
) -> tuple[float, float]:
    running.restart()
    if row == BY_CLASS:
        breaker = RedisCircuitBreaker()
        client = guarded_client(running.url, breaker)
    else:
        client = ResilientRedis.from_url(running.url)
        breaker = client.breaker
    opened: list[float] = []

    def observe(event: Event) -> None:
        if isinstance(event, StateChanged) and event.new == "OPEN":
            opened.append(event.at)

    breaker.add_observer(observe)
    await client.get(KEY)
    strike(running)
    began = time.monotonic()
    await client.get(KEY)
    first = time.monotonic() - began
    while not opened:
        await client.get(KEY)
    await client.aclose()
    await breaker.aclose()
    return first, opened[0] - began
