"""A caller's cancellation at each turn of the loop, on each path of the shell.

CANCEL_SEEDS (default 1) sets with how many networks each scenario is gone through.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.sim.cancelled import enumerated, line
from tests.sim.scenarios import ALL

SEEDS = int(os.environ.get("CANCEL_SEEDS", "1"))
# A scenario that no longer gets where it should shrinks. Python 3.12 and later take fewer turns:
# their `wait_for` makes no task (1,990 points in all; 2,900 before).
SCENARIOS, POINTS = 68, 1900


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(60 + 60 * SEEDS)
def test_nothing_is_left_of_a_call_that_was_cancelled() -> None:
    started = time.monotonic()
    names = [name for _ in range(SEEDS) for name in ALL]
    seeds = [seed for seed in range(SEEDS) for _ in ALL]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tallies = list(pool.map(enumerated, names, seeds))
    print(f"\n{len(ALL)} scenarios:")
    print(*map(line, tallies), sep="\n")
    points, runs = sum(t.points for t in tallies), sum(t.runs for t in tallies)
    print(f"{points} cancel points, {runs} runs in {time.monotonic() - started:.0f} s")
    wrong = [what for tally in tallies for what in tally.wrong]
    assert not wrong, f"{len(wrong)} findings:\n" + "\n".join(wrong[:10])
    assert len(ALL) >= SCENARIOS
    assert points >= POINTS * SEEDS
    assert all(tally.points for tally in tallies)


@pytest.mark.parametrize(
    "name",
    [
        "connect",
        "fence_on_another_connection",
        "object_probe_with_nothing_queued",
        "one_write_and_then_an_outage",
    ],
)
def test_some_of_it_at_once(name: str) -> None:
    """What the planted bugs are caught by."""
    tally = enumerated(name, 0)
    assert not tally.wrong, "\n".join(tally.wrong[:5])
