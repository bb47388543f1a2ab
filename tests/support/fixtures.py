"""Servers for tests: one process per flavour and session, made empty and healthy for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resilient_redis.cli.servers import REDIS, VALKEY

from .servers import Rig, Rigs


@pytest.fixture(scope="session")
def rigs() -> Iterator[Rigs]:
    """The session's servers."""
    all_rigs = Rigs()
    yield all_rigs
    all_rigs.stop()


@pytest.fixture(params=[VALKEY, REDIS])
def rig(request: pytest.FixtureRequest, rigs: Rigs) -> Rig:
    """An empty, healthy server: the test runs once with Valkey and once with Redis."""
    return rigs.get(request.param)


@pytest.fixture
def valkey_rig(rigs: Rigs) -> Rig:
    """As `rig`, Valkey only: for what does not differ between the two."""
    return rigs.get(VALKEY)


@pytest.fixture
def redis_rig(rigs: Rigs) -> Rig:
    """As `rig`, Redis only."""
    return rigs.get(REDIS)
