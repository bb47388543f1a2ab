"""What a benchmark finds: figures in a table of rows and columns, and who is missing from it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell. `low` and `high` are the quartiles of what was measured, where it was repeated."""

    row: str
    column: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    at_least: bool = False  # the measurement was ended at `value`
    claim: str | None = None  # what the project says of it: "<= 1.05" or ">= 5"

    @property
    def key(self) -> str:
        return f"{self.row} / {self.column}"

    @property
    def holds(self) -> bool | None:
        """Whether the claim does; None where nothing is claimed."""
        if self.claim is None:
            return None
        sign, limit = self.claim.split()
        return self.value <= float(limit) if sign == "<=" else self.value >= float(limit)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"value": self.value, "unit": self.unit}
        if self.low is not None:
            found |= {"low": self.low, "high": self.high}
        if self.at_least:
            found["at_least"] = True
        if self.claim is not None:
            found |= {"claim": self.claim, "holds": self.holds}
        return found


@dataclass
class Result:
    """What one benchmark found."""

    name: str
    title: str
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)  # row -> why there are no figures
    drawing: RenderableType | None = None
    picture: str | None = None  # SVG
    series: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "title": self.title,
            "figures": {figure.key: figure.as_json() for figure in self.figures},
            "absent": self.absent,
        }
        if self.series:
            found["series"] = self.series
        return found


def spread(
    row: str, column: str, values: Sequence[float], unit: str, claim: str | None = None
) -> Figure:
    """The median of `values` between its quartiles."""
    middle = statistics.median(values)
    if len(values) < 2:
        return Figure(row, column, middle, unit, claim=claim)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(row, column, middle, unit, low, high, claim=claim)


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Round by round: what was slow for both alike is not in them."""
    return [mine / theirs for mine, theirs in zip(of, to, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lies; `values` is not empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def on_log_scale(value: float, low: float, high: float) -> float:
    """Where `value` stands between `low` (0) and `high` (1)."""
    share = math.log(max(value, low) / low) / math.log(high / low)
    return min(1.0, share)


def keyed(benchmarks: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The figures of a JSON file by benchmark and key."""
    return {
        (name, key): figure
        for name, found in benchmarks.items()
        for key, figure in found["figures"].items()
    }
