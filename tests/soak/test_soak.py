"""The soak as CI runs it: on both servers, long enough for its counts; see `__main__` for more."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from resilient_redis.cli.servers import REDIS, VALKEY, available

from .report import diagnosis, dump, summary
from .soak import Report, Soak

SECONDS = 34.0  # of faults, for each server; recovery and verdict come on top
FAULTS, KINDS, ACKNOWLEDGED = 60, 12, 40_000
# So many of the other shapes are in it: of each server.
SHAPES = {"transactions": 200, "taken": 60, "heard": 200, "gaps": 5}


def _soak(flavour: str) -> Report:
    """By another seed each time: what it finds is told with the seed that did it."""
    seed = f"ci-{random.SystemRandom().randrange(10**6)}"
    # A loop of its own: the soak reports what its loop's exception handler is told.
    return asyncio.run(Soak(flavour, SECONDS, seed).run())


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(150)
def test_no_fault_breaks_the_contract() -> None:
    flavours = [flavour for flavour in (VALKEY, REDIS) if flavour in available()]
    if not flavours:
        pytest.skip("neither Valkey nor Redis can be started here")
    reports = [_soak(flavour) for flavour in flavours]
    for report in reports:
        print(summary(report))
        if not report.ok:
            path = Path(tempfile.gettempdir()) / f"soak-{report.server}-{report.seed}.txt"
            dump(report, path)
            print(f"{diagnosis(report)}\nthe whole story is in {path}")
    assert all(report.ok for report in reports)
    share = len(flavours) / 2  # where one server is missing, half of it must do
    assert sum(report.faults.total() for report in reports) >= FAULTS * share
    assert len({kind for report in reports for kind in report.faults}) >= KINDS
    assert sum(report.acknowledged for report in reports) >= ACKNOWLEDGED * share
    for report in reports:
        scarce = {shape: n for shape, n in report.shapes.items() if n < SHAPES.get(shape, 0)}
        assert not scarce
        assert report.shapes["over TLS"] >= 2000 or shutil.which("openssl") is None
