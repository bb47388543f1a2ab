"""`slave_for`: reads that any replica answers, and writes that none takes."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest
from redis.exceptions import ReadOnlyError

from resilient_redis.asyncio import CommandRefused
from tests.contract.recovery_helpers import raised, until
from tests.sentinel.helpers import Service
from tests.support.sentinels import unused_port
from tests.support.servers import Rig

pytestmark = pytest.mark.server
BOTH = {b"old", b"new"}


@pytest.fixture(autouse=True)
def names(old: Rig, new: Rig) -> None:
    for name, rig in (("old", old), ("new", new)):
        rig.admin.set("where", name)
        rig.admin.sadd("both", "old", "new")


async def test_reads_are_spread(service: Service) -> None:
    client, breaker = service.replicas()
    found = await asyncio.gather(*(client.get("where") for _ in range(6)))
    assert set(found) == BOTH
    assert breaker.state == "CLOSED"


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_one_replica_is_away(service: Service, old: Rig, how: str) -> None:
    """It is no outage of the service: each read has its real answer, and soon."""
    client, breaker = service.replicas(failure_threshold=5)
    await asyncio.gather(*(client.get("where") for _ in range(6)))
    if how == "killed":
        old.kill()
    else:
        old.server.freeze()
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        found = await asyncio.gather(*(client.smembers("both") for _ in range(6)))
        assert found == [BOTH] * 6
    assert await client.get("where") == b"new"
    assert asyncio.get_running_loop().time() - began < 3 * breaker.deadline
    assert "neutral" not in breaker.snapshot().counters
    assert breaker.outages == 0


async def test_a_fresh_client_finds_the_replica_that_answers(service: Service, old: Rig) -> None:
    old.server.freeze()
    for _ in range(2):  # one of the two begins with the frozen one
        client, breaker = service.replicas()
        assert await client.get("where") == b"new"
        assert breaker.outages == 0


async def test_no_replica_is_there(service: Service, old: Rig, new: Rig) -> None:
    """Reads are neutral, nothing is queued, and the first that is back serves."""
    client, breaker = service.replicas()
    await client.get("where")
    old.kill()
    new.kill()
    assert await client.get("where") is None
    assert breaker.state == "OPEN"
    for write in (client.set("k", "v"), client.rpush("l", 1), client.lpop("l"), client.incr("n")):
        assert isinstance(await raised(write), CommandRefused)
    assert breaker.pending == 0
    old.restart()
    await until(lambda: not breaker.busy)
    assert await client.get("where") == b"old"


async def test_no_replica_is_known(service: Service, old: Rig) -> None:
    """As in redis-py: then the master does; and that nobody is there is not remembered."""
    service.sentinel.replicas, service.sentinel.master = (), None
    client, breaker = service.replicas()
    assert await client.get("where") is None
    assert breaker.state == "OPEN"
    service.sentinel.master = old.port
    await until(lambda: not breaker.busy)
    assert await client.get("where") == b"old"


async def test_a_write_is_the_callers_mistake(service: Service, old: Rig, new: Rig) -> None:
    """As in redis-py. It is not held until a replica takes writes."""
    old.read_only()
    new.read_only()
    client, breaker = service.replicas()
    for write in (client.set("k", "v"), client.lpop("both"), client.incr("n")):
        assert isinstance(await raised(write), ReadOnlyError)
    async with client.pipeline() as pipe:
        assert isinstance(await raised(pipe.set("k", "v").execute()), ReadOnlyError)
    assert await client.smembers("both") == BOTH
    assert breaker.pending == 0
    assert breaker.snapshot().writes_held is None
    assert breaker.live


async def test_a_replica_that_is_gone_is_passed_by(service: Service, new: Rig) -> None:
    service.sentinel.replicas = (unused_port(), new.port)
    for _ in range(2):
        client, breaker = service.replicas()
        assert await client.get("where") == b"new"
        assert breaker.failures == 0


async def test_a_replica_whose_host_is_gone_is_passed_by(service: Service, new: Rig) -> None:
    """Not even a connection is refused there."""
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # its queue is full: what comes now is dropped
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(deaf.getsockname())
        service.sentinel.replicas = (deaf.getsockname()[1], new.port)
        for _ in range(2):
            client, breaker = service.replicas()
            assert await client.get("where") == b"new"
            assert breaker.outages == 0
