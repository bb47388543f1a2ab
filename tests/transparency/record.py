"""A pytest plugin: what became of each test, as JSON in the file that TRANSPARENCY_OUTCOMES names.

For redis-py's own tests, with `-p record`. A test has failed if its setup, call or teardown has.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

outcomes: dict[str, tuple[str, str]] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A timeout by thread ends the process, and what became of the others with it."""
    for item in items:
        mark = item.get_closest_marker("timeout")
        if mark is not None and mark.kwargs.get("method") == "thread":
            item.add_marker(pytest.mark.timeout(*mark.args, method="signal"), append=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    said = report.longreprtext.strip().splitlines()[-1:] if report.failed else []
    if report.failed:
        outcomes[report.nodeid] = ("failed", "".join(said))
    elif report.when == "call" or report.skipped:
        outcomes.setdefault(report.nodeid, (report.outcome, ""))


def pytest_sessionfinish() -> None:
    Path(os.environ["TRANSPARENCY_OUTCOMES"]).write_text(json.dumps(outcomes), encoding="utf-8")
