"""`python -m tests.soak --seconds 60 --server both`: exit code 1 if anything is wrong."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from resilient_redis.cli.servers import REDIS, VALKEY

from .report import diagnosis, dump, summary
from .soak import Soak
from .threads import ThreadSoak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults, for each server")
    parser.add_argument("--flavour", choices=("asyncio", "threads"), default="asyncio")
    parser.add_argument("--server", choices=(VALKEY, REDIS, "both"), default="both")
    parser.add_argument("--seed", help="what is done follows from it; not when it happens")
    parser.add_argument("--rate", type=float, help="operations per second and task, or thread")
    parser.add_argument("--plain", action="store_true", help="no live line, the verdict only")
    parser.add_argument(
        "--dump", action="store_true", help="the course of events, also if all is well"
    )
    options = parser.parse_args()
    seed = options.seed or f"{random.SystemRandom().randrange(10**6)}"
    servers = (VALKEY, REDIS) if options.server == "both" else (options.server,)
    kind = ThreadSoak if options.flavour == "threads" else Soak
    failed = False
    for server in servers:
        print(f"soak of {server}, seed {seed}", flush=True)
        soak = kind(server, options.seconds, seed, options.rate)
        report = asyncio.run(soak.run(_mute if options.plain else _tell))
        print(summary(report), flush=True)
        if options.dump or not report.ok:
            path = Path(tempfile.gettempdir()) / f"soak-{server}-{seed}.txt"
            dump(report, path)
            print(diagnosis(report))
            failed = failed or not report.ok
            again = f"--flavour {options.flavour} --server {server} --seed {seed}"
            print(f"the whole story is in {path}; again with {again}")
    return 1 if failed else 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _mute(_: str) -> None:
    """Nobody wants to know."""


if __name__ == "__main__":
    sys.exit(main())
