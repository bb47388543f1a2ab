"""python -m tests.sim.cancelled SEED [NAME...]: the cancellations of some or all scenarios."""

from __future__ import annotations

import logging
import sys
import time

from . import scenarios_object as _objects  # noqa: F401 - it adds to them
from . import scenarios_shapes as _shapes  # noqa: F401
from .cancelling import Tally, enumerate_cuts
from .scenarios import ALL

SHOWN = 4


def enumerated(name: str, seed: int) -> Tally:
    """All cancellations of one scenario."""
    world, scenario = ALL[name]
    log = logging.getLogger("resilient_redis")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        return enumerate_cuts(name, world, scenario, seed)
    finally:
        log.setLevel(before)  # the tests that come after it read the log


def line(tally: Tally) -> str:
    ended = ", ".join(f"{count} {how}" for how, count in tally.ended.most_common())
    return f"{tally.name:42} {tally.points:4} points {tally.runs:4} runs: {ended}"


def main(seed: int, names: list[str]) -> int:
    points = runs = wrong = 0
    started = time.monotonic()
    for name in names or ALL:
        tally = enumerated(name, seed)
        points, runs, wrong = points + tally.points, runs + tally.runs, wrong + len(tally.wrong)
        print(line(tally), flush=True)
        for what in tally.wrong[:SHOWN]:
            print(f"    {what}")
    seconds = time.monotonic() - started
    print(f"{points} cancel points, {runs} runs in {seconds:.0f} s, {wrong} wrong")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
