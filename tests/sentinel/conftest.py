"""Two servers, of which a scripted Sentinel calls one the master, and a breaker over them."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator

import pytest

from resilient_redis.cli.servers import VALKEY
from tests.sentinel.helpers import Service
from tests.support.servers import Rig, Rigs


@pytest.fixture(scope="package")
def second_rigs() -> Iterator[Rigs]:
    rigs = Rigs()
    yield rigs
    rigs.stop()


@pytest.fixture
def old(valkey_rig: Rig) -> Rig:
    """The master at first."""
    return valkey_rig


@pytest.fixture
def new(second_rigs: Rigs) -> Rig:
    """The master after the failover. What it holds is what the test says was replicated."""
    return second_rigs.get(VALKEY)


@pytest.fixture
async def service(old: Rig, new: Rig) -> AsyncIterator[Service]:
    service = Service(old, new)
    yield service
    await service.aclose()
    gc.collect()  # a socket that was left open is told here, and not in the next test
