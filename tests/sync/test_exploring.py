"""Of the equipment: with the reduction everything is found that is found without it."""

from __future__ import annotations

import inspect
import random
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

import tests.sync.test_interleavings as worlds
import tests.sync.world
from tests.planted.planting import Plant
from tests.planted.plants import PLANTS, THREADS
from tests.sync.interleaving import Condition, Lock, Scheduler, Stuck, all_schedules
from tests.sync.sharing import looked_at

PROGRAMS = 400 if worlds.FULL else 80
# Which have found mistakes: what needs a point is read twice under the lock.
FOUND = (126,)
# Schedules of one without the reduction; where there are more it is left out.
MANY = 2000 if worlds.FULL else 300


class Cells:
    """What small programs share."""

    def __init__(self) -> None:
        self.a = self.b = self.told = 0
        self.row: list[int] = []


class TooMany(Exception):
    """It would take too long."""


class Program:
    """Two or three threads that read and write cells, with and without the lock."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.threads = [
            [self._operation(draw) for _ in range(draw.choice((1, 1, 2)))]
            for _ in range(draw.choice((2, 2, 3)))
        ]

    def _operation(self, draw: random.Random) -> tuple[str, list[tuple[str, str]]]:
        kind = draw.choice(("free", "free", "locked", "locked", "locked", "waiting"))
        return kind, [
            (draw.choice(("read", "write", "add", "append", "pop")), draw.choice("aab"))
            for _ in range(1 if kind == "free" else draw.choice((1, 2)))
        ]

    def outcomes(self, *, reduced: bool, most: int = sys.maxsize) -> tuple[set[Any], int]:
        """What there is to be seen at its end, in all schedules, and how many those were; raises
        `TooMany` after `most`.
        """
        found: set[Any] = set()
        count = 0

        def once(scheduler: Scheduler) -> None:
            nonlocal count
            count += 1
            if count > most:
                raise TooMany
            found.add(self._run(scheduler))

        all_schedules(once, len(self.threads), reduced=reduced)
        return found, count

    def _run(self, scheduler: Scheduler) -> Any:
        cells = Cells()
        read: list[list[Any]] = [[] for _ in self.threads]
        lock = Lock(scheduler)
        condition = Condition(scheduler, lock)

        def do(number: int, what: str, cell: str) -> None:
            if what == "read":
                read[number].append(getattr(cells, cell))
            elif what == "write":
                setattr(cells, cell, number + 1)
            elif what == "add":
                setattr(cells, cell, getattr(cells, cell) + 1)
            elif what == "append":
                cells.row.append(number)
            elif cells.row:
                read[number].append(cells.row.pop())

        def works(number: int) -> None:
            for kind, steps in self.threads[number]:
                if kind == "free":
                    do(number, *steps[0])
                    continue
                with lock:
                    if kind == "waiting":
                        condition.wait_for(lambda: cells.told > 0)
                    for step in steps:
                        do(number, *step)
                    if kind == "locked" and number == 0:
                        cells.told += 1
                        condition.notify_all()

        def work(number: int) -> Callable[[], None]:
            return lambda: works(number)

        try:
            scheduler.run(*((str(n), work(n)) for n in range(len(self.threads))))
        except (Stuck, IndexError) as error:  # the row was emptied after the look at it
            return type(error).__name__
        return cells.a, cells.b, tuple(cells.row), str(read)


def test_all_outcomes_are_found() -> None:
    compared = several = 0
    with looked_at(Cells):
        for seed in (*FOUND, *range(PROGRAMS)):
            program = Program(seed)
            try:
                most = 5000 if seed in FOUND else MANY
                every, many = program.outcomes(reduced=False, most=most)
            except TooMany:
                continue
            some, few = program.outcomes(reduced=True)
            assert some == every, f"program {seed}: {program.threads}"
            assert few <= many + 5
            compared += 1
            several += len(every) > 1
    assert compared >= PROGRAMS // 2
    assert several >= PROGRAMS // 5


@pytest.fixture(params=[p for p in PLANTS if THREADS in "".join(p.caught_by)], ids=lambda p: p.name)
def test_of_a_plant(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """The test that finds a planted bug, with that bug in this process."""
    plant: Plant = request.param
    function, names = function_of(plant)
    made: dict[str, Any] = {}
    source = inspect.getsource(function).replace(plant.old, plant.new)
    exec(textwrap.dedent(source), names, made)
    monkeypatch.setattr(function, "__code__", made[function.__name__].__code__)
    test = getattr(worlds, plant.caught_by[0].rpartition("::")[2])
    return lambda: test(monkeypatch)


def function_of(plant: Plant) -> tuple[Any, dict[str, Any]]:
    """The function that it changes, and the names there."""
    module = sys.modules["resilient_redis." + plant.file.removesuffix(".py").replace("/", ".")]
    owners = [module, *(kind for kind in vars(module).values() if isinstance(kind, type))]
    for owner in owners:
        for function in filter(inspect.isfunction, vars(owner).values()):
            here = function.__module__ == module.__name__
            if here and plant.old in inspect.getsource(function):
                return function, vars(module)
    raise AssertionError(f"no function has this: {plant.old}")


def test_a_bug_that_is_found_without_the_reduction_is_found_with_it(
    test_of_a_plant: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BaseException, match="schedule:"):
        test_of_a_plant()
    # All of them would be too many. One of the bugs is not found with one.
    monkeypatch.setattr(tests.sync.world, "preemptions", 2)
    with pytest.raises(BaseException, match="schedule:"):
        test_of_a_plant()
