"""Fixtures that every test may ask for, and the figures at the end of a run."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.support.fixtures", "tests.support.flavours"]

# What these print when they pass are counts that a reader of CI wants to see.
SHOWN = ("sim", "soak", "zombies", "cost", "premise", "breadth", "sentinel", "apps")
FIGURES = tuple(f"tests/{name}/" for name in SHOWN)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and report.nodeid.startswith(FIGURES) and report.capstdout.strip()
    ]
    if reports:
        terminalreporter.section("figures")
    for report in sorted(reports, key=lambda report: report.nodeid):  # workers end in any order
        terminalreporter.write_line(report.nodeid)
        for line in report.capstdout.strip().splitlines()[:20]:
            terminalreporter.write_line(f"    {line[:300]}")
