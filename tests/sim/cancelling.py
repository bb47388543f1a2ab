"""A call, cancelled at each turn of the loop in turn: the same run again and again.

A turn of the loop is the finest grain at which one task can cancel another. So between two turns
of a call lies each of its awaits, seen from outside: before what it waits for has happened, after
that, and when it has happened but the caller has not run yet. What the call has started in other
tasks (a handshake, a replay) is interrupted at each of its own steps as well.
"""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .swarm import no_chance
from .world import Cut, Found, World

Scenario = Callable[[World], Coroutine[Any, Any, None]]


def run(make: Callable[[int, Cut], World], scenario: Scenario, seed: int, cut: Cut) -> Found:
    """One run of `scenario`. Never raises."""
    with no_chance(seed):
        world = make(seed, cut)
        loop, found = world.loop, world.found

        try:
            loop.run_until_complete(loop.create_task(_whole(world, scenario), name="main"))
            left = [repr(task) for task in asyncio.all_tasks(loop)]
            world.check(not left, f"tasks left: {left}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            world.fail(f"{error!r}\n{traceback.format_exc()[-700:]}")
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            try:
                loop.run_until_complete(loop.shutdown_asyncgens())
            except BaseException as error:  # noqa: BLE001 - it was broken before
                world.fail(f"at the end: {error!r}")
            loop.close()
        world.clients.clear()
        world.client = None
        found.reports = loop.reports
        return found


async def _whole(world: World, scenario: Scenario) -> None:
    await scenario(world)
    await world.settle()
    await world.close()
    world.judge()


@dataclass
class Tally:
    """What the enumeration of a scenario came to."""

    name: str
    points: int = 0  # turns at which the call was cancelled
    runs: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def _young_garbage_only() -> Iterator[None]:
    """What is there already is not gone through at each collection."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def enumerate_cuts(
    name: str, make: Callable[[int, Cut], World], scenario: Scenario, seed: int = 0
) -> Tally:
    """Runs `scenario` once as it is, then once for each turn of its call, cancelled there; at every
    third once more, cancelled twice; at every fifth with a timeout instead.
    """
    tally = Tally(name)
    done: list[tuple[Cut, Found]] = []

    def one(cut: Cut) -> Found:
        found = run(make, scenario, seed, cut)
        done.append((cut, found))
        if len(done) == 10:
            book()
        return found

    def book() -> None:
        gc.collect()  # exceptions that nobody has looked at are reported now
        for cut, found in done:
            tally.runs += 1
            tally.ended[found.ended] += 1
            wrong = found.wrong + found.reports
            tally.wrong += [f"{name}, seed {seed}, {cut}: {what}" for what in wrong]
        done.clear()

    with _young_garbage_only():
        whole = one(Cut())
        tally.points = whole.turns
        for at in range(1, whole.turns + 1):
            one(Cut(at))
            if at % 3 == 0:
                one(Cut(at, again=1 + at // 3 % 5))
            if at % 5 == 0:
                scoped = at % 10 == 0 and hasattr(asyncio, "timeout")
                one(Cut(after=whole.moments[at - 1], scoped=scoped))
        book()
    return tally
