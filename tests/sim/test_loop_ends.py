"""The loop ends: `asyncio.run` cancels all tasks at once, at each turn of a call in turn."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.sim import scenarios_object as _objects  # noqa: F401 - it adds to ALL
from tests.sim.scenarios import ALL
from tests.sim.scenarios_shapes import Listening
from tests.sim.swarm import no_chance
from tests.sim.world import Cut

LIMIT = 300  # turns, more than any of these scenarios takes


class Ending:
    """One run, in which everything is cancelled at turn `at`."""

    def __init__(self, name: str, at: int) -> None:
        make, self.scenario = ALL[name]
        self.at = at
        self.turns = 0
        self.hit: set[asyncio.Task[Any]] = set()
        self.left: set[asyncio.Task[Any]] = set()
        self.world = make(0, Cut())
        self.loop = self.world.loop

    async def call(self, call: Coroutine[Any, Any, Any]) -> Any:
        """In the place of `World.victim`."""
        self.loop.clockwork.on_turn = self.turn
        try:
            return await call
        finally:
            self.loop.clockwork.on_turn = None

    def turn(self) -> bool:
        self.turns += 1
        if self.turns == self.at:
            self.hit = asyncio.all_tasks(self.loop)
            for task in self.hit:
                task.cancel()
        return self.turns == self.at

    def run(self) -> None:
        self.world.victim = self.call  # type: ignore[method-assign]
        main = self.loop.create_task(self.scenario(self.world), name="main")
        try:
            self.loop.run_until_complete(main)
        except asyncio.CancelledError:
            pass  # it was asked to end, like all others
        if self.hit:
            self.loop.run_until_complete(asyncio.wait(self.hit, timeout=10.0))
            self.left = asyncio.all_tasks(self.loop)
        self.loop.run_until_complete(self.close())
        self.loop.close()

    async def close(self) -> None:
        """So that redis-py has nothing to complain of."""
        if isinstance(self.world, Listening):
            await self.world.pubsub.aclose()
        for client in self.world.clients:
            await client.aclose()
            await client.connection_pool.disconnect()
        await self.world.breaker.aclose()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "name",
    [
        "connect",
        "hang_check",
        "listen",
        "lost_reply_of_a_read",
        "object_probe_by_a_write",
        "pop_in_vain",
        "pop_that_waits_at_the_server",
        "write_waits_for_its_entry",
    ],
)
def test_no_task_is_left_over(name: str) -> None:
    """Nor one that asks whether the server hangs because a caller had waited so long."""
    found = []
    for at in range(1, LIMIT):
        with no_chance(at):
            ending = Ending(name, at)
            ending.run()
        found += [f"turn {at}: {task}" for task in ending.left] + ending.loop.reports
        if not ending.hit:
            break
    gc.collect()
    assert at > 3, "it was over before anything was cancelled"
    assert not found, "\n".join(found[:5])
