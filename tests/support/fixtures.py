"""Servers for tests: one process per flavour and session, made empty and healthy for each test.

TEST_SERVERS names the flavours that a run is of, separated by commas (default: valkey,redis).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from resilient_redis.cli import servers
from resilient_redis.cli.servers import REDIS, REDIS_6, VALKEY

from .servers import Rig, Rigs

SERVERS = os.environ.get("TEST_SERVERS", f"{VALKEY},{REDIS}").split(",")

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # A server that comes back finds its port free: no other worker takes it meanwhile.
    first, step = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    servers.ports = servers.ports[first::step]


@pytest.fixture(scope="session")
def rigs() -> Iterator[Rigs]:
    """The session's servers."""
    all_rigs = Rigs()
    yield all_rigs
    all_rigs.stop()


@pytest.fixture(params=SERVERS)
def rig(request: pytest.FixtureRequest, rigs: Rigs) -> Rig:
    """An empty, healthy server: the test runs once with Valkey and once with Redis."""
    return rigs.get(request.param)


@pytest.fixture
def valkey_rig(rigs: Rigs) -> Rig:
    """As `rig`, Valkey only: for what does not differ between the servers."""
    return rigs.get(VALKEY if VALKEY in SERVERS else SERVERS[0])


@pytest.fixture
def redis_rig(rigs: Rigs) -> Rig:
    """As `rig`, Redis only."""
    for flavour in (REDIS, REDIS_6):
        if flavour in SERVERS:
            return rigs.get(flavour)
    pytest.skip(f"for Redis, and this run is of {', '.join(SERVERS)}")
