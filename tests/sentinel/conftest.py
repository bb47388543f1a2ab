"""Two servers, of which a scripted Sentinel calls one the master, and a breaker over them."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from resilient_redis.cli.servers import VALKEY
from tests.sentinel.helpers import Service
from tests.support.sentinels import unused_port
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


@pytest.fixture(params=["refuses", "hangs"])
def away(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a sentinel that is not there, or that nothing comes from."""
    if request.param == "refuses":
        yield unused_port()
        return
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        yield deaf.getsockname()[1]
