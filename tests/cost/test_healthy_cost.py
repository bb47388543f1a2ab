"""The healthy path costs what redis-py costs, in instructions: the same figure every time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_redis.cli.servers import ServerProcess, pick
from tests.cost import counting
from tests.cost.relay import relay

pytestmark = [
    pytest.mark.cost,
    pytest.mark.alone,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        shutil.which("valgrind") is None,
        reason="THE HEALTHY COST IS NOT HELD: valgrind is not installed",
    ),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    flavour = pick()
    if flavour is None:
        pytest.skip("THE HEALTHY COST IS NOT HELD: no server out of a wheel for this platform")
    with ServerProcess(flavour) as server, relay("127.0.0.1", server.port) as relayed:
        yield relayed


@pytest.fixture(scope="module", params=list(counting.SCRIPTS))
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stock(
    flavour: str, url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[float]]:
    return counting.count(flavour, "stock", url, tmp_path_factory.mktemp("stock"))


def show(flavour: str, kind: str, ratios: dict[str, float]) -> None:
    print(f"\n{flavour}, {kind}, times stock ({counting.setting()}):", ratios)


def test_ours_costs_what_it_did(
    flavour: str, url: str, stock: dict[str, list[float]], tmp_path: Path
) -> None:
    ours = counting.ratios(counting.count(flavour, "ours", url, tmp_path), stock)
    show(flavour, "ours", ours)
    if os.environ.get("UPDATE_COST"):
        counting.store(flavour, ours)
    stored = counting.stored()
    before = stored["figures"].get(flavour, {}).get(counting.setting())
    faults = counting.judge(ours, before, stored["tolerance"], stored["ceiling"][flavour])
    assert not faults, "\n".join(faults)
    if before is None:
        pytest.skip(f"ONLY THE CEILING WAS HELD: no figure is stored for {counting.setting()}")


def test_a_careless_guard_is_seen(
    flavour: str, url: str, stock: dict[str, list[float]], tmp_path: Path
) -> None:
    """On asyncio two more coroutines a command, among threads a lock that is taken twice."""
    planted = counting.ratios(counting.count(flavour, "planted", url, tmp_path), stock)
    show(flavour, "planted", planted)
    like_stock = dict.fromkeys(planted, 1.0)
    ceiling = dict.fromkeys(planted, 2.0)
    faults = counting.judge(planted, like_stock, counting.stored()["tolerance"], ceiling)
    assert len(faults) == len(planted), faults
