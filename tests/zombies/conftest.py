"""The two namespaces, and a server in one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from resilient_redis.cli.aof import Effect, read_effects
from resilient_redis.cli.servers import REDIS, VALKEY, ServerError, ServerProcess

from .namespaces import SERVER_ADDRESS, Network, network


@dataclass
class Island:
    """A server behind a cable that can be cut; the test itself is on the other side."""

    network: Network
    server: ServerProcess

    def effects(self) -> list[Effect]:
        return read_effects(self.server.directory)


@pytest.fixture(params=[VALKEY, REDIS])
def island(request: pytest.FixtureRequest) -> Iterator[Island]:
    with network() as cable:
        bind = ("--bind", "127.0.0.1", SERVER_ADDRESS, "--protected-mode", "no")
        try:
            server = ServerProcess(request.param, *bind)
        except ServerError as error:
            pytest.skip(str(error))
        try:
            with cable.inside(cable.server):
                server.start()
            with cable.inside(cable.client):
                yield Island(cable, server)
        finally:
            server.stop()
