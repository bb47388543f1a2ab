"""Runs redis-py's own published tests twice, as they are and with the guard put in.

A test that passes without the guard and not with it fails this, unless `listed.py` says why that is
right. REDIS_PY_TESTS names a checkout of redis-py at the version that is installed; nothing of it
is changed, and nothing of it but its tests is used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import redis

from resilient_redis.cli.servers import REDIS, ServerProcess

from .listed import ENDLESS, LISTED, reason

HERE = Path(__file__).resolve().parent
# Where the tests of each flavour are; of what is below that, none.
FLAVOURS = {"asyncio": "tests/test_asyncio", "sync": "tests"}
OTHER_SERVERS = re.compile(r"test_(cluster.*|ssl|bloom|json|search.*|timeseries)\.py")
MARKED = " and ".join(
    f"not {mark}"
    for mark in ("onlycluster", "redismod", "ssl", "cp_integration", "multidb_integration")
)
# DEBUG is how those tests have a server answer with an error of their choice.
SERVER = ("--save", "", "--appendonly", "no", "--enable-debug-command", "local")
USUAL_PORT = 6379  # written into some of those tests

Outcomes = dict[str, tuple[str, str]]


class Difference(NamedTuple):
    nodeid: str
    said: str


def main() -> int:
    given = os.environ.get("REDIS_PY_TESTS")
    if not given:
        print(
            "SKIPPED: make transparency runs redis-py's own tests: set REDIS_PY_TESTS to a checkout"
            f" of redis-py at v{redis.__version__}"
        )
        return 0
    checkout = Path(given).resolve()
    if (found := version_of(checkout)) != redis.__version__:
        print(f"{checkout} is redis-py {found}, installed is {redis.__version__}: check out that")
        return 2
    bad = 0
    with tempfile.TemporaryDirectory(prefix="resilient-redis-published-") as folder:
        copied = Path(folder)
        shutil.copytree(checkout / "tests", copied / "tests")
        shutil.copy(checkout / "pyproject.toml", copied)  # pytest's options
        for flavour, where in FLAVOURS.items():
            paths = sorted((copied / where).glob("test_*.py"))
            tests = [f"{where}/{p.name}" for p in paths if not OTHER_SERVERS.fullmatch(p.name)]
            bad += compare(flavour, copied, tests)
    return 1 if bad else 0


def version_of(checkout: Path) -> str:
    text = (checkout / "redis" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'__version__ = "([^"]+)"', text)
    return match[1] if match else "of an unknown version"


def compare(flavour: str, folder: Path, tests: list[str]) -> int:
    """The number of tests that fail with the guard, pass without, and are not listed."""
    stock, guarded = run(folder, tests, guard=False), run(folder, tests, guard=True)
    differences = between(stock, guarded)
    unlisted = [d for d in differences if reason(d.nodeid) is None]
    if unlisted:
        # Some of those tests are a matter of time: once more, alone.
        again = [d.nodeid for d in unlisted]
        stock |= run(folder, again, guard=False)
        guarded |= run(folder, again, guard=True)
        differences = between(stock, guarded)
        unlisted = [d for d in differences if reason(d.nodeid) is None]
    print(f"\nredis-py {redis.__version__}, {flavour}: {len(stock)} published tests")
    for name, outcomes in (("stock", stock), ("guarded", guarded)):
        print(
            f"  {name:8}", *(f"{count(outcomes, o)} {o} " for o in ("passed", "failed", "skipped"))
        )
    print(
        "  pass without the guard and not with it, for a reason:", len(differences) - len(unlisted)
    )
    for why in sorted({w for d in differences if (w := reason(d.nodeid)) is not None}):
        print(f"    {why}:")
        for difference in differences:
            if reason(difference.nodeid) == why:
                print(f"      {difference.nodeid}")
    print(f"  pass without the guard and not with it: {len(unlisted)}")
    for difference in unlisted:
        print(f"    {difference.nodeid}: {difference.said}")
    failing = {d.nodeid.partition("[")[0] for d in differences}
    for nodeid in sorted(LISTED.keys() - failing):
        if nodeid.partition("::")[0] in tests:
            print(f"  listed, and does not differ (any more): {nodeid}")
    if not differences:
        print("  nothing differs, not even a name: the guard was not put in, or nothing ran")
    return len(unlisted) + (not differences)


def run(folder: Path, tests: list[str], *, guard: bool) -> Outcomes:
    """What became of each of `tests`, against a server of its own."""
    port = USUAL_PORT if is_free(USUAL_PORT) else None
    if port is None:
        print(f"port {USUAL_PORT} is taken: tests that want a server there will fail in both runs")
    outcomes = folder / "outcomes.json"
    outcomes.unlink(missing_ok=True)
    plugins = ["-p", "record", *(("-p", "put_in") if guard else ())]
    with ServerProcess(REDIS, *SERVER, port=port) as server:
        options = ["-q", "--tb=native", "-rN", "-p", "no:cacheprovider", "-m", MARKED]
        # redis-py's limit; who runs into it, as those do of which `listed.py` says so, ends alone.
        options += ["--timeout-method=signal", *(f"--deselect={test}" for test in ENDLESS)]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                *options,
                *plugins,
                f"--redis-url={server.url}",
                *tests,
            ],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
                "TRANSPARENCY_OUTCOMES": str(outcomes),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=1800,
        )
    print("guarded:" if guard else "stock:  ", (done.stdout.splitlines() or ["nothing"])[-1])
    if not outcomes.exists():
        raise SystemExit(f"the published tests cannot be run:\n{done.stdout[-3000:]}")
    read: Outcomes = json.loads(outcomes.read_text(encoding="utf-8"))
    return read


def between(stock: Outcomes, guarded: Outcomes) -> list[Difference]:
    """What passes in `stock` and not in `guarded`."""
    missing = ("missing", "it did not run")
    return [
        Difference(nodeid, guarded.get(nodeid, missing)[1])
        for nodeid, (outcome, _) in stock.items()
        if outcome == "passed" and guarded.get(nodeid, missing)[0] != "passed"
    ]


def count(outcomes: Outcomes, outcome: str) -> int:
    return sum(found == outcome for found, _ in outcomes.values())


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
