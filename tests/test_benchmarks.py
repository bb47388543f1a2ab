"""`python -m benchmarks` runs, tells what is missing, writes its figures and compares them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.figures import Figure, Result, ratios, spread
from benchmarks.load import Plan, Seen
from benchmarks.picture import svg
from benchmarks.report import compare, show, written
from resilient_redis.cli.servers import available

ROOT = Path(__file__).resolve().parent.parent

needs_a_server = pytest.mark.skipif(
    not available(), reason="no server out of a wheel for this platform"
)


def bench(*args: str, path: Path | None = None) -> str:
    env = {**os.environ, "PYTHONPATH": str(path)} if path else None
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", *args, "--quick"],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


# name -> figures that it must have
FIGURES = {
    "away": {
        "redis-py / neutral GET",
        "ours, connection class / neutral GET",
        "ours, façade / queued SET",
        "ours, façade / refused INCR",
        "redis-py, sync / neutral GET",
        "ours, sync, façade / queued SET",
    },
    "detection": {
        "redis-py / killed: first command",
        "redis-py / frozen: first command",
        "ours, connection class / killed: breaker open",
        "ours, façade / frozen: breaker open",
    },
    "replay": {
        "ours, replay / writes per second",
        "ours, sync, replay / writes per second",
        "ours, replay / beside redis-py, pipeline(1000)",
        "ours, replay / beside bare socket, packed before",
    },
    "scaling": {
        "redis-py, GETs per second / 1 task",
        "ours, façade, GETs per second / 10 tasks",
        "ours, connection class, CPU of a GET / 10 tasks",
        "queue a write / 2,000 writes",
        "replay a write / 1,000 writes",
    },
    "timeline": {
        "redis-py alone / errors",
        "with resilient-redis / answered while down",
        "with resilient-redis / of them lost",
    },
}


def figures_of(file: Path, name: str) -> dict[str, Any]:
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["quick"] is True
    assert {"python", "packages", "server", "processor", "cores"} <= set(found["setting"])
    assert found["setting"]["packages"]["redis"]
    figures: dict[str, Any] = found["benchmarks"][name]["figures"]
    for key, figure in figures.items():
        assert isinstance(figure["value"], float | int), key
        assert figure["value"] >= 0, key
    return figures


@pytest.mark.server
@pytest.mark.slow
@needs_a_server
@pytest.mark.parametrize("name", FIGURES)
def test_it_measures(name: str, tmp_path: Path) -> None:
    file, picture = tmp_path / "figures.json", tmp_path / "outage.svg"
    bench(name, "--json", str(file), "--picture", str(picture))
    assert figures_of(file, name).keys() >= FIGURES[name]
    assert picture.exists() is (name == "timeline")


@pytest.mark.server
@pytest.mark.slow
@needs_a_server
def test_a_peer_that_is_missing_is_told(tmp_path: Path) -> None:
    peer = "pybreaker"
    error = f"raise ModuleNotFoundError(\"No module named '{peer}'\")\n"
    (tmp_path / f"{peer}.py").write_text(error)
    file = tmp_path / "figures.json"
    said = bench("healthy", "--json", str(file), path=tmp_path)
    assert f"{peer}: NOT INSTALLED" in said
    assert "pip install 'resilient-redis[bench]'" in said
    figures = figures_of(file, "healthy")
    assert f"{peer} / GET" not in figures
    for row in (
        *("redis-py, once more", "ours, connection class", "ours, façade"),
        *("redis-py, sync", "ours, sync, connection class", "ours, sync, façade"),
    ):
        assert {f"{row} / {what}" for what in ("GET", "SET", "pipeline(100)")} <= figures.keys()


@pytest.mark.slow
def test_a_later_run_is_compared(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    bench("memory", "--json", str(file))
    stored = json.loads(file.read_text(encoding="utf-8"))
    key = "ours, MemoryJournal, traced / 1,000"
    stored["benchmarks"]["memory"]["figures"][key]["value"] *= 2
    file.write_text(json.dumps(stored))
    said = bench("memory", "--compare", str(file))
    (line,) = [line for line in said.splitlines() if key in line]
    change = int(line.split("|")[-2].strip().rstrip("%"))
    assert -60 < change < -40


def test_an_unknown_name_is_an_error() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing"],
        cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "healthy, away, detection, replay, memory, scaling, timeline" in ran.stderr


# -- without a server


def recording() -> Console:
    return Console(record=True, width=160, file=io.StringIO())


def test_a_spread_is_the_median_between_the_quartiles() -> None:
    figure = spread("row", "column", [4.0, 1.0, 3.0, 2.0, 5.0], "x")
    assert (figure.low, figure.value, figure.high) == (2.0, 3.0, 4.0)
    assert ratios([2.0, 3.0], [1.0, 6.0]) == [2.0, 0.5]


@pytest.mark.parametrize(
    "claim,value,holds",
    [("<= 1.0", 1.0, True), ("<= 1.0", 1.01, False), (">= 5", 5.0, True), (">= 5", 4.9, False)],
)
def test_a_claim_is_held_against_its_figure(claim: str, value: float, holds: bool) -> None:
    figure = Figure("ours", "column", value, "x", claim=claim)
    assert figure.holds is holds
    out = recording()
    show(out, Result("name", "title", figures=[figure]))
    assert ("NOT HELD: ours / column" in out.export_text()) is not holds


@pytest.mark.parametrize(
    "value,unit,told",
    [
        (0.0791, "s", "79.1 ms"),
        (3.5, "s", "3.50 s"),
        (0.0456, "x", "0.046 x"),
        (1.066, "x", "1.07 x"),
        (150_300.0, "/s", "150,300/s"),
        (57.97, "µs", "58.0 µs"),
    ],
)
def test_a_figure_is_written_for_people(value: float, unit: str, told: str) -> None:
    assert written(value, unit) == told


def test_a_change_is_marked_where_the_quartiles_do_not_meet() -> None:
    def run(*figures: Figure) -> dict[str, Any]:
        found = Result("name", "title", figures=list(figures)).as_json()
        setting = dict.fromkeys(("python", "server", "processor", "packages"), "same")
        return {"setting": setting, "benchmarks": {"name": found}}

    out = recording()
    compare(
        out,
        run(Figure("a", "x", 1.0, "x", 0.9, 1.1), Figure("b", "x", 1.0, "x", 0.9, 1.3)),
        run(Figure("a", "x", 1.5, "x", 1.4, 1.6), Figure("b", "x", 1.2, "x", 1.1, 1.4)),
    )
    lines = {
        line.split("|")[2].strip(): line for line in out.export_text().splitlines() if " / " in line
    }
    assert "+50% *" in lines["a / x"]
    assert "+20% " in lines["b / x"]
    assert "*" not in lines["b / x"]


def test_the_picture_shows_what_was_seen() -> None:
    seen = Seen("ours <&>", Plan(kill=1.0, restart=2.0, end=3.0, tasks=1))
    seen.down, seen.restart, seen.back = 1.0, 2.0, 2.1
    seen.calls = [(0.5, 0.001, "live"), (1.5, 0.0001, "neutral"), (1.6, 0.5, "errors")]
    drawn = svg([seen])
    assert "ours &lt;&amp;&gt;" in drawn
    assert "prefers-color-scheme: dark" in drawn
    assert "1 calls answered while down · 1 errors · longest call 500 ms" in drawn
    for kind in ("live", "neutral", "errors"):
        assert f'<path class="{kind}"' in drawn
    assert '<path class="queued"' not in drawn
