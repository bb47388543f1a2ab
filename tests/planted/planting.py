"""Plants a bug in a copy of the product, and runs the tests there which must find it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests")
PROCESSES = 2
# A run that takes longer has hung, and was not stopped by its own timeout.
LIMIT = 120
SEEDS = "tests/sim/test_simulation.py::test_what_a_seed_has_found_stays_mended"

GREEN, RED = 0, 1  # exit codes of pytest: all passed, some failed
HUNG = -1  # it was ended by us: not caught, and no proof of being green either


@dataclass(frozen=True)
class Plant:
    """A bug: in `file` (under src/resilient_redis) `old`, which stands there once, becomes `new`.

    `caught_by`: pytest's node ids, of which one must fail. `seeds`: of the simulation, instead or
    besides; a bug that one seed in twenty shows needs a hundred, as the numbers that a seed draws
    change with the product. `promise`: what it breaks, in a sentence.
    """

    name: str
    promise: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...] = ()
    seeds: range = range(0)

    @property
    def selection(self) -> tuple[str, ...]:
        return (*self.caught_by, SEEDS) if self.seeds else self.caught_by


@dataclass(frozen=True)
class Run:
    """What became of one run of pytest."""

    code: int
    failed: tuple[str, ...]
    seconds: float
    output: str

    @property
    def caught(self) -> bool:
        """Tests have failed: neither was none found, nor did the product not even import."""
        return self.code == RED and bool(self.failed)

    @property
    def by(self) -> str:
        """The test that has failed, without its directory."""
        return self.failed[0].rpartition("/")[2] if self.failed else "nobody"


class DoesNotFit(Exception):
    """The product has moved on: the plant must be written anew."""


def sow(plant: Plant, root: Path) -> None:
    """Plants the bug in the product under `root`."""
    path = root / "src" / "resilient_redis" / plant.file
    if not path.exists():
        raise DoesNotFit(f"{plant.name}: there is no {plant.file}")
    text = path.read_text(encoding="utf-8")
    if (times := text.count(plant.old)) != 1:
        raise DoesNotFit(f"{plant.name}: {plant.file} has this {times} times:\n{plant.old}")
    if plant.old == plant.new:
        raise DoesNotFit(f"{plant.name}: changes nothing")
    changed = text.replace(plant.old, plant.new)
    compile(changed, path.name, "exec")  # a bug that no interpreter takes proves nothing
    path.write_text(changed, encoding="utf-8")


@contextmanager
def copy() -> Iterator[Path]:
    """The product and its tests, to be spoiled."""
    with tempfile.TemporaryDirectory(prefix="planted-") as place:
        root = Path(place).resolve()
        for name in COPIED:
            # With what is compiled of it, which halves the time; a changed file is compiled anew.
            shutil.copytree(ROOT / name, root / name)
        shutil.copy(ROOT / "pyproject.toml", root)
        yield root


def run(root: Path, selection: Iterable[str], seeds: Iterable[int], *options: str) -> Run:
    """Runs `selection` in the copy under `root`."""
    lines = "".join(f"{seed}\n" for seed in sorted(seeds))
    (root / "tests" / "sim" / "seeds.txt").write_text(lines, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    environment["PYTHONPATH"] = os.pathsep.join([str(root / "src"), str(root)])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE"]
    # The import of these two takes longer than most of the runs: 0.6 s of 1.1.
    command += ["-p", "no:hypothesispytest", "-p", "no:xdist"]
    command += ["-p", "tests.planted.inside", f"--rootdir={root}", "--timeout=20", "--tb=short"]
    started = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *options, *selection],
            check=False,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        # Of this one nothing is known; what the others have shown is not to be lost for it.
        return Run(HUNG, (), time.monotonic() - started, f"not done after {LIMIT} s")
    output = done.stdout + done.stderr
    failed = tuple(
        re.findall(r"^(?:FAILED|ERROR) (tests/.+?::.+?)(?: - .*)?$", output, re.MULTILINE)
    )
    return Run(done.returncode, failed, time.monotonic() - started, output)


def try_plant(plant: Plant) -> Run:
    """The run that must be red. Raises `DoesNotFit`."""
    with copy() as root:
        sow(plant, root)
        return run(root, plant.selection, plant.seeds, "-x")


def try_nothing(plants: Iterable[Plant]) -> Run:
    """All that `plants` ask for, on the product as it is, in one run: that must be green.

    A test that fails is given a second chance, alone: the machine may have been busy.
    """
    plants = list(plants)
    selection = dict.fromkeys(name for plant in plants for name in plant.selection)
    seeds = {seed for plant in plants for seed in plant.seeds}
    with copy() as root:
        first = run(root, selection, seeds)
        return first if not first.failed else run(root, first.failed, seeds)


@dataclass(frozen=True)
class Harvest:
    """What became of some plants, by name, and of the product as it is."""

    runs: dict[str, Run | DoesNotFit]
    control: Run


def harvest(plants: Iterable[Plant]) -> Harvest:
    """Tries `plants` side by side."""
    plants = list(plants)

    def attempt(plant: Plant) -> Run | DoesNotFit:
        try:
            return try_plant(plant)
        except DoesNotFit as error:
            return error

    with ThreadPoolExecutor(PROCESSES) as pool:
        control = pool.submit(try_nothing, plants)
        runs = list(pool.map(attempt, plants))
        return Harvest({p.name: r for p, r in zip(plants, runs, strict=True)}, control.result())
