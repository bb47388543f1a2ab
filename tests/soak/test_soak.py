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
from .threads import ThreadSoak

SECONDS = 34.0  # of faults, for each server; recovery and verdict come on top
FAULTS, KINDS, ACKNOWLEDGED = 60, 12, 40_000
SECONDS_OF_THREADS = 10.0  # as above
# So many of the other shapes are in it: of each server.
SHAPES = {"transactions": 200, "taken": 60, "heard": 200, "gaps": 5}


def _soak(kind: type[Soak], server: str, seconds: float) -> Report:
    """By another seed each time: what it finds is told with the seed that did it."""
    seed = f"ci-{random.SystemRandom().randrange(10**6)}"
    soak = kind(server, seconds, seed)
    soak.wanted = ACKNOWLEDGED // 2
    # A loop of its own: the soak reports what its loop's exception handler is told.
    report = asyncio.run(soak.run())
    print(summary(report))
    if not report.ok:
        path = Path(tempfile.gettempdir()) / f"soak-{report.server}-{report.seed}.txt"
        dump(report, path)
        print(f"{diagnosis(report)}\nthe whole story is in {path}")
    return report


def _servers() -> list[str]:
    servers = [server for server in (VALKEY, REDIS) if server in available()]
    if not servers:
        pytest.skip("neither Valkey nor Redis can be started here")
    return servers


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(150)
def test_no_fault_breaks_the_contract() -> None:
    reports = [_soak(Soak, server, SECONDS) for server in _servers()]
    assert all(report.ok for report in reports)
    share = len(reports) / 2  # where one server is missing, half of it must do
    assert sum(report.faults.total() for report in reports) >= FAULTS * share
    assert len({kind for report in reports for kind in report.faults}) >= KINDS
    assert sum(report.acknowledged for report in reports) >= ACKNOWLEDGED * share
    for report in reports:
        scarce = {shape: n for shape, n in report.shapes.items() if n < SHAPES.get(shape, 0)}
        assert not scarce
        assert report.shapes["over TLS"] >= 2000 or shutil.which("openssl") is None


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(150)
def test_no_fault_breaks_the_contract_among_threads() -> None:
    reports = [_soak(ThreadSoak, server, SECONDS_OF_THREADS) for server in _servers()]
    assert all(report.ok for report in reports)
    for report in reports:
        assert report.acknowledged >= ACKNOWLEDGED / 2
        assert report.faults.total() >= 5
        assert report.shapes["transactions"] >= 100
        assert report.shapes["over TLS"] >= 500 or shutil.which("openssl") is None
