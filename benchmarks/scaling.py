"""Whether more tasks and longer outages cost more than their share."""

from __future__ import annotations

import asyncio

from resilient_redis.cli.servers import ServerProcess

from .figures import Figure, Result, ratios, spread
from .outage import Replayed, queue_and_replay
from .rounds import Contest
from .setting import NO_DISK, one_core, server
from .subjects import OURS, PLAIN
from .work import Work

TASKS = (1, 10, 100, 1000)
QUEUE, REPLAY, HELD = "queue a write", "replay a write", "hold a write, RSS"
# Queued writes -> repeats. The largest first, because a heap that has once been larger than that
# would hide what it holds.
SIZES = {1_000_000: 1, 100_000: 1, 10_000: 5, 1_000: 9}


def run(quick: bool) -> Result:
    result = Result("scaling", "Scaling: tasks at once, and writes in an outage")
    result.notes = [
        "GETs per second: client and server on two cores, ours beside redis-py's (more is better). "
        "CPU of a GET: both on one core (less is better). Writes: microseconds for each of N in "
        "one outage (flat is linear).",
    ]
    _tasks(result, (1, 10) if quick else TASKS, 2 if quick else 15, 200 if quick else 500)
    asyncio.run(_writes(result, {2_000: 1, 1_000: 1} if quick else SIZES))
    return result


def _tasks(result: Result, counts: tuple[int, ...], rounds: int, times: int) -> None:
    subjects = (PLAIN, *OURS)
    with server(*NO_DISK) as running:
        free = _contest(running, subjects, counts, rounds, times)
        with one_core(running):
            bound = _contest(running, subjects, counts, rounds, times)
    result.absent |= free.absent
    for count in counts:
        column = _column(count)
        stock = [1 / seconds for seconds in free.wall[PLAIN, column]]
        result.figures.append(spread(f"{PLAIN}, GETs per second", column, stock, "/s"))
        cpu = bound.cpu[PLAIN, column]
        microseconds = [1e6 * each for each in cpu]
        result.figures.append(spread(f"{PLAIN}, CPU of a GET", column, microseconds, "µs"))
        for subject in OURS:
            if subject not in free.absent:
                mine = [1 / seconds for seconds in free.wall[subject, column]]
                faster, dearer = ratios(mine, stock), ratios(bound.cpu[subject, column], cpu)
                result.figures.append(spread(f"{subject}, GETs per second", column, faster, "x"))
                result.figures.append(spread(f"{subject}, CPU of a GET", column, dearer, "x"))


def _contest(
    running: ServerProcess,
    subjects: tuple[str, ...],
    counts: tuple[int, ...],
    rounds: int,
    times: int,
) -> Contest:
    with Contest(dict.fromkeys(subjects, running.url)) as contest:
        for count in counts:
            work = Work("get", max(times, 2 * count), tasks=count)
            contest.rounds(rounds, _column(count), dict.fromkeys(subjects, work))
    return contest


def _column(count: int) -> str:
    return "1 task" if count == 1 else f"{count:,} tasks"


async def _writes(result: Result, sizes: dict[int, int]) -> None:
    found: dict[int, list[Replayed]] = {}
    with server(*NO_DISK) as running:
        for number, repeats in sizes.items():
            found[number] = [await queue_and_replay(running, number) for _ in range(repeats)]
    for number in sorted(sizes):
        column, runs = f"{number:,} writes", found[number]
        each = 1e6 / number
        result.figures.append(spread(QUEUE, column, [run.queued * each for run in runs], "µs"))
        result.figures.append(spread(REPLAY, column, [run.replayed * each for run in runs], "µs"))
        if number == max(sizes) and runs[0].resident is not None:
            result.figures.append(Figure(HELD, column, runs[0].resident / number, "B"))
