"""A server that can be reached in every way, and the hygiene of the contract's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from resilient_redis.cli.servers import VALKEY, ServerError, find_binary
from tests.breadth.story import USER, Place
from tests.contract.conftest import hygiene, quick_collections
from tests.support.servers import Rig, own_rig
from tests.surface.tls import TlsProxy, self_signed

__all__ = ["hygiene", "quick_collections"]


@pytest.fixture(scope="session")
def unix_socket(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("u") / "redis.sock")


@pytest.fixture(scope="session")
def reachable_rig(unix_socket: str) -> Iterator[Rig]:
    """A server that listens on TCP and on a Unix socket."""
    try:
        find_binary(VALKEY)
    except ServerError as error:
        pytest.skip(str(error))
    # In its configuration: the user is there again after a restart.
    with own_rig(VALKEY, "--unixsocket", unix_socket, "--user", *USER) as rig:
        yield rig


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def place(
    reachable_rig: Rig, unix_socket: str, certificate: tuple[Path, Path]
) -> AsyncIterator[Place]:
    """The empty, healthy server by TCP, Unix socket and TLS."""
    if not reachable_rig.reset():
        reachable_rig.restart()
        assert reachable_rig.reset()
    async with TlsProxy(reachable_rig.port, *certificate) as proxy:
        yield Place(reachable_rig, unix_socket, proxy, str(certificate[0]))
