"""Some of the sentinels are away, or all of them."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import ConnectionError, TimeoutError

from resilient_redis.asyncio import ResilientSentinelManagedConnection
from tests.contract.recovery_helpers import until
from tests.sentinel.helpers import Service, quick
from tests.support.sentinels import SERVICE, close
from tests.support.servers import Rig

pytestmark = pytest.mark.server


class OneByOne(Sentinel):
    """Asks like redis-py's: one after the other, each with all its retries."""

    def __init__(self, ports: list[int], master: int) -> None:
        super().__init__([("127.0.0.1", port) for port in ports])  # type: ignore[no-untyped-call]  # redis-py
        self._master = master

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        for client in list(self.sentinels):
            try:
                await client.execute_command("PING")  # type: ignore[no-untyped-call]  # redis-py
            except (ConnectionError, TimeoutError):
                continue
            return "127.0.0.1", self._master
        raise MasterNotFoundError(service_name)

    async def discover_slaves(self, service_name: str) -> list[tuple[str, int]]:
        return [await self.discover_master(service_name)]


@pytest.mark.parametrize("role", ["master", "replicas"])
async def test_a_sentinel_that_is_away_delays_nobody_for_long(
    old: Rig, new: Rig, away: int, role: str
) -> None:
    """redis-py gives it eleven attempts, and callers do not wait for that. `new` stands for one
    that is there: it answers a PING.
    """
    old.admin.set("k", "v")
    sentinel = OneByOne([away, new.port], old.port)
    breaker = quick()
    find = sentinel.master_for if role == "master" else sentinel.slave_for
    client = find(SERVICE, connection_class=ResilientSentinelManagedConnection, breaker=breaker)
    began = asyncio.get_running_loop().time()
    assert await client.get("k") == b"v"
    assert asyncio.get_running_loop().time() - began < breaker.deadline
    assert breaker.outages == 0
    # The recovery finds it as well; and from now on the other one is asked first.
    client.connection_pool.sentinel_manager.sentinels.reverse()
    breaker.force_open()
    if role == "master":
        assert await client.set("k", "new") is True
    breaker.reset()
    await until(lambda: not breaker.busy)
    assert await client.get("k") == (b"new" if role == "master" else b"v")
    first: Redis = sentinel.sentinels[0]
    assert first.connection_pool.connection_kwargs["port"] == new.port
    await breaker.aclose()
    await client.aclose()
    await close(sentinel)


async def test_no_sentinel_is_there(service: Service, old: Rig, away: int) -> None:
    """Open connections go on; where a new one is needed, it is an outage."""
    sentinel = OneByOne([old.port], old.port)
    client = service._keep(
        sentinel.master_for(
            SERVICE, connection_class=ResilientSentinelManagedConnection, breaker=service.breaker
        )
    )
    assert await client.set("k", "v") is True
    there, gone = sentinel.sentinels[0], Redis(port=away)
    sentinel.sentinels[0] = gone
    assert await client.get("k") == b"v"
    await client.connection_pool.disconnect()
    assert await asyncio.create_task(client.get("k")) is None
    assert await client.set("k", "new") is True
    assert service.breaker.state == "OPEN"
    assert service.breaker.pending == 1
    sentinel.sentinels[0] = there
    await service.recovered()
    assert old.admin.get("k") == "new"
    await close(sentinel)
    await gone.aclose()
