"""What the rehearsal shows: samples, notes and a verdict; here as lines for a log."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol, TextIO

from .verdict import ANOMALIES, Verdict


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval. Counts are of operations that ended in it; latencies are in ms."""

    at: float  # seconds since the start
    span: float  # length of the interval in seconds
    server: str  # "up", "down", "frozen"
    state: str  # of the breaker; "DRAINING" while closed with a journal that is not empty
    live: int
    neutral: int
    queued: int
    refused: int
    unknown: int
    errors: int
    journal: int
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Title:
    """What is rehearsed."""

    server: str
    tasks: int
    seconds: float
    guarded: bool


@dataclass(frozen=True, slots=True)
class Result:
    """How it ended."""

    verdict: Verdict
    witness: str  # what the verdict was read from
    ok: bool
    remarks: tuple[str, ...] = ()
    guarded: bool = True

    @property
    def conclusion(self) -> str:
        if not self.ok:
            return "FAIL: a promise was broken" if self.guarded else "FAIL"
        return "PASS: every promise was kept" if self.guarded else "no guard, no promise"


class Display(Protocol):
    """Where the rehearsal shows itself."""

    interval: float  # seconds between samples

    def begin(self, title: Title) -> None: ...
    def sample(self, sample: Sample) -> None: ...
    def note(self, at: float, text: str) -> None: ...
    def end(self, result: Result) -> None: ...
    def close(self) -> None: ...


class Plain:
    """A line per second."""

    interval = 1.0
    _COLUMNS = ("live", "neutral", "queued", "refused", "unknown", "errors")

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def begin(self, title: Title) -> None:
        guard = "guarded" if title.guarded else "plain redis-py, no guard"
        self._print(f"rehearsal: {title.server}, {title.tasks} tasks, {guard}")
        columns = "".join(f"{name:>9}" for name in self._COLUMNS)
        self._print(
            f"{'time':>7}  {'server':<7} {'breaker':<10}{columns}"
            f"{'journal':>9}{'p50 ms':>9}{'p99 ms':>9}"
        )

    def sample(self, sample: Sample) -> None:
        span = sample.span or 1.0
        rates = "".join(f"{getattr(sample, name) / span:>9.0f}" for name in self._COLUMNS)
        self._print(
            f"{sample.at:>5.1f} s  {sample.server:<7} {sample.state:<10}{rates}"
            f"{sample.journal:>9}{_ms(sample.p50):>9}{_ms(sample.p99):>9}"
        )

    def note(self, at: float, text: str) -> None:
        self._print(f"{at:>5.1f} s  -- {text}")

    def end(self, result: Result) -> None:
        for line in verdict_lines(result):
            self._print(line)

    def close(self) -> None:
        self._out.flush()

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def verdict_lines(result: Result) -> list[str]:
    """The verdict as text."""
    verdict = result.verdict
    told = ", ".join(f"{count:,} {name}" for name, count in sorted(verdict.outcomes.items()))
    lines = [
        "",
        f"verdict, from {result.witness}",
        f"  {verdict.operations:,} operations: {told}",
        f"  {'acknowledged':<22}{verdict.acknowledged:>9,}",
    ]
    for name, meaning in ANOMALIES.items():
        lines.append(f"  {name.replace('_', ' '):<22}{getattr(verdict, name):>9,}   {meaning}")
    lines += [f"  e.g. {example}" for example in verdict.examples]
    lines += [f"  not visible here: {what}" for what in verdict.blind]
    lines += [f"  {remark}" for remark in result.remarks]
    lines.append(result.conclusion)
    return lines


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"
