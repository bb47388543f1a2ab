"""Each planted bug is caught, and what catches it is green without the bug."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planted.planting import GREEN, DoesNotFit, Harvest, Plant, harvest, sow
from tests.planted.plants import PLANTS

#: Of all plants together, on a machine that does a lot else besides.
TIMEOUT = 400


@pytest.fixture(scope="session")
def harvested(request: pytest.FixtureRequest) -> Harvest:
    """All bugs that this session asks for, tried side by side."""
    asked = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
    return harvest([plant for plant in PLANTS if plant.name in asked] or PLANTS)


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_it_is_caught(plant: Plant, harvested: Harvest) -> None:
    run = harvested.runs[plant.name]
    assert not isinstance(run, DoesNotFit), run
    print(f"\n{plant.name}: caught by {run.by} in {run.seconds:.1f} s")
    assert run.caught, f"survives; broken is: {plant.promise}\n{run.output[-3000:]}"


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(TIMEOUT)
def test_without_a_bug_the_same_tests_are_green(harvested: Harvest) -> None:
    assert harvested.control.code == GREEN, harvested.control.output[-3000:]


def test_names_are_unique() -> None:
    assert len({plant.name for plant in PLANTS}) == len(PLANTS) >= 21


def test_a_plant_in_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit):
        sow(Plant("name", "promise", "file.py", "x = 1", "x = 2", ("tests",)), tmp_path)


@pytest.mark.parametrize("text", ["", "x = 1\nx = 1\n"])
def test_a_plant_that_does_not_fit_is_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "src" / "resilient_redis" / "file.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(DoesNotFit):
        sow(Plant("name", "promise", "file.py", "x = 1", "x = 2", ("tests",)), tmp_path)
    assert path.read_text() == text
