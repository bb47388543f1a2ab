"""A plugin of the pytest that runs in a copy: makes sure that it is the copy that is tested."""

from __future__ import annotations

from pathlib import Path

import pytest

import resilient_redis

#: What a run ends with that would have tested something else.
ELSEWHERE = 70


def pytest_sessionstart(session: pytest.Session) -> None:
    tested, copy = Path(resilient_redis.__file__).resolve(), session.config.rootpath.resolve()
    if not tested.is_relative_to(copy):
        pytest.exit(f"{tested} is tested, not the copy in {copy}", returncode=ELSEWHERE)
