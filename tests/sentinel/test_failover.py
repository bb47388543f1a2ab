"""The master is another server from one moment on: nothing goes to the old one any more."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest

from resilient_redis.asyncio import (
    CommandRefused,
    OutcomeUnknown,
    ResilientSentinelManagedConnection,
)
from resilient_redis.cli.servers import free_port
from resilient_redis.events import StateChanged, SubscriptionGap, WritesHeld
from tests.contract.recovery_helpers import raised, until
from tests.sentinel.helpers import Service, later
from tests.support.servers import Rig

pytestmark = pytest.mark.server
OLD, NEW = b"old", b"new"


@pytest.fixture
def names(old: Rig, new: Rig) -> None:
    """`where` tells which server answers."""
    old.admin.set("where", "old")
    new.admin.set("where", "new")


# -- an outage without a failover ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_an_ordinary_outage(service: Service, old: Rig, how: str) -> None:
    """The whole service is away and comes back: as over a plain server."""
    client = service.master()
    assert await client.rpush("l", 0) == 1
    if how == "killed":
        old.kill()
        service.sentinel.master = None  # the sentinels say so, sooner or later
    else:
        old.server.freeze()
    assert await asyncio.create_task(client.get("l2")) is None
    assert service.breaker.state == "OPEN"
    for n in range(1, 4):
        await client.rpush("l", n)
    assert await client.set("k", "v") is True
    assert isinstance(await raised(client.incr("n")), CommandRefused)
    assert service.breaker.pending == 4
    if how == "killed":
        old.restart()
        await asyncio.sleep(0.05)
        assert service.breaker.state != "CLOSED"
        service.sentinel.master = old.port
    else:
        old.server.thaw()
    await service.recovered()
    assert await client.lrange("l", 0, -1) == [b"0", b"1", b"2", b"3"]
    assert old.admin.get("k") == "v"
    assert service.breaker.outages == 1


async def test_that_no_master_is_named_is_not_remembered(service: Service) -> None:
    client = service.master()
    service.sentinel.master = None
    assert await client.set("k", "v") is True
    assert service.breaker.state == "OPEN"
    asked = service.sentinel.asked
    await until(lambda: service.sentinel.asked > asked + 3)
    service.sentinel.master = service.old.port
    await service.recovered()
    assert await client.get("k") == b"v"


# -- the failover ----------------------------------------------------------------------------------


async def test_what_is_queued_goes_to_the_master_of_now(
    service: Service, old: Rig, new: Rig
) -> None:
    client = service.master()
    await client.rpush("l", 0)
    new.admin.rpush("l", 0)  # replicated
    old.kill()
    assert await asyncio.create_task(client.get("k")) is None
    receipts = [await client.rpush("l", n) for n in range(1, 50)]
    service.fail_over()
    await service.recovered()
    assert await client.lrange("l", 0, -1) == [b"%d" % n for n in range(50)]
    assert new.admin.lrange("l", 0, -1) == [str(n) for n in range(50)]
    assert receipts[-1].result() == 50


async def test_it_is_replayed_when_the_client_is_gone(service: Service, new: Rig) -> None:
    client = service.master()
    await client.get("k")
    service.old.kill()
    assert await client.set("k", "v") is True
    await client.aclose()
    service._clients.clear()
    del client
    gc.collect()
    service.fail_over()
    await service.recovered()
    assert new.admin.get("k") == "v"


@pytest.mark.usefixtures("names")
async def test_nothing_goes_to_the_old_master_any_more(service: Service, old: Rig) -> None:
    """It lives, and would answer. Connections of two clients are open to it."""
    client, other = service.master(), service.master(db=1)
    await asyncio.gather(*(client.get("where") for _ in range(5)), other.get("where"))
    waiting = await later(client.xread({"s": "$"}, block=0))
    popping = await later(client.blpop("queue", 0))
    before = old.calls("get") + old.calls("set")
    service.fail_over()
    # Nobody has heard of it yet. The first that connects hears it, and all do.
    await client.connection_pool.disconnect(inuse_connections=False)
    assert await client.get("where") == NEW
    assert await asyncio.gather(*(client.get("where") for _ in range(5))) == [NEW] * 5
    assert await other.set("k", "v") is True
    assert old.calls("get") + old.calls("set") == before
    # What waits there waits for nothing: a read goes on at the new one, a pop is unknown.
    assert isinstance(await raised(popping), OutcomeUnknown)
    service.new.admin.xadd("s", {"f": "v"})
    assert (await waiting) is not None
    assert service.breaker.state == "CLOSED"
    assert not service.seen(StateChanged)


async def test_who_waits_at_a_frozen_old_master_is_called_away(
    service: Service, old: Rig, new: Rig
) -> None:
    new.admin.set("where", "new")
    client, other = service.master(), service.master(db=1)
    await client.get("where")
    old.server.freeze()
    began = asyncio.get_running_loop().time()
    waiting = await later(client.get("where"))
    service.fail_over()
    assert await other.get("where") is None
    assert await waiting == NEW
    assert asyncio.get_running_loop().time() - began < service.breaker.deadline / 2
    assert not service.seen(StateChanged)


@pytest.mark.usefixtures("names")
async def test_what_sentinel_said_later_is_right(service: Service) -> None:
    """Who is told of the old master, and reaches it when others are at the new one already."""
    sentinel: Any = service.sentinel
    asked, said, told = asyncio.Event(), asyncio.Event(), sentinel.discover_master

    async def slowly(name: str) -> Any:
        sentinel.discover_master = told  # once
        address = await told(name)
        asked.set()
        await said.wait()
        return address

    sentinel.discover_master = slowly
    slow = asyncio.create_task(service.master(db=1).get("where"))
    await asked.wait()
    service.fail_over()
    client = service.master()
    assert await client.get("where") == NEW
    said.set()
    assert await slow is None  # nothing stands in that database of the new one
    assert await client.get("where") == NEW
    assert not service.old.calls("get")
    assert not service.seen(StateChanged)


async def test_a_subscriber_moves(service: Service, new: Rig) -> None:
    client = service.master()
    async with client.pubsub() as pubsub:
        await pubsub.subscribe("news")
        assert (await pubsub.get_message(timeout=1.0))["type"] == "subscribe"
        message = await later(
            pubsub.get_message(ignore_subscribe_messages=True, timeout=5.0),
        )
        service.fail_over()
        assert await service.master().get("k") is None
        await until(lambda: new.admin.pubsub_numsub("news")[0][1] == 1)
        new.admin.publish("news", "of the new master")
        found = await message
        if found is None:  # redis-py answers None to the subscription's own message
            found = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5.0)
        assert found["data"] == b"of the new master"
    assert [event.channels for event in service.seen(SubscriptionGap)] == [(b"news",)]


# -- READONLY: the master has been demoted ---------------------------------------------------------


async def test_a_command_to_a_demoted_master_goes_to_the_new_one(
    service: Service, old: Rig, new: Rig
) -> None:
    """It did not run, so it is no matter whether it is safe to send twice."""
    client = service.master()

    async def singles() -> None:
        for n in range(3):
            old.writable()
            service.sentinel.master = old.port
            await client.connection_pool.disconnect()
            assert await client.get("x") is None  # a used connection of the old master
            old.read_only()
            service.fail_over()
            if n == 0:
                assert await client.incr("n") == 1
            elif n == 1:
                assert await client.rpush("l", 1) == 1
            else:
                assert await client.lpop("l") == b"1"

    await singles()
    assert new.admin.get("n") == "1"
    assert service.breaker.outages == 0
    assert not service.seen(WritesHeld)


@pytest.mark.parametrize("transaction", [False, True], ids=["pipeline", "MULTI"])
async def test_a_pipeline_to_a_demoted_master(
    service: Service, old: Rig, new: Rig, transaction: bool
) -> None:
    client = service.master()
    old.admin.set("k", "old")
    new.admin.set("k", "new")
    await client.get("k")
    old.read_only()
    service.fail_over()
    async with client.pipeline(transaction=transaction) as pipe:
        pipe.get("k").incr("n").rpush("l", 1, 2).get("k").lpop("l")
        found = await pipe.execute()
    # What came before the first refusal had its answer.
    assert found in ([OLD, 1, 2, NEW, b"1"], [NEW, 1, 2, NEW, b"1"])
    assert new.admin.get("n") == "1"
    assert new.admin.lrange("l", 0, -1) == ["2"]
    assert await client.get("k") == NEW
    assert service.breaker.outages == 0


async def test_of_a_pipeline_that_ran_in_part_nobody_knows(
    service: Service, old: Rig, new: Rig
) -> None:
    """A master again between two of its commands: the second push ran."""
    client = service.master()
    await client.get("k")
    old.read_only()
    service.fail_over()
    async with client.pipeline(transaction=False) as pipe:
        pipe.rpush("l", 1)
        pipe.execute_command("REPLICAOF", "NO", "ONE")
        pipe.rpush("l", 2)
        assert isinstance(await raised(pipe.execute()), OutcomeUnknown)
    assert new.admin.exists("l") == 0
    assert await client.rpush("l", 3) == 1  # at the new one


async def test_writes_are_held_while_the_named_master_takes_none(
    service: Service, old: Rig, new: Rig
) -> None:
    """And no longer: each attempt asks Sentinel."""
    client = service.master()
    old.admin.set("k", "old")
    await client.get("k")
    old.read_only()  # and Sentinel has not heard of it
    for n in range(5):
        await client.rpush("l", n)
    assert await client.set("k", "new") is True
    assert service.breaker.snapshot().writes_held == "READONLY"
    assert await client.get("k") == OLD
    await asyncio.sleep(0.1)
    assert service.breaker.pending == 6
    service.fail_over()
    await service.recovered()
    assert new.admin.lrange("l", 0, -1) == [str(n) for n in range(5)]
    assert await client.get("k") == NEW
    assert not service.breaker.dead_letters


# -- the fence -------------------------------------------------------------------------------------


class FromPorts(ResilientSentinelManagedConnection):
    """Connects from these ports first."""

    ports: ClassVar[list[int]] = []

    def _connection_arguments(self) -> Mapping[str, Any]:
        found = dict(super()._connection_arguments())
        if self.ports:
            found["local_addr"] = ("127.0.0.1", self.ports.pop())
        return found


async def test_an_id_of_the_old_master_is_nobody_on_the_new_one(
    service: Service, old: Rig, new: Rig
) -> None:
    """Same id, same address, same age: an innocent client of the new master is not killed."""
    with ExitStack() as dummies:
        for _ in range(40):  # ids that the new master has not given out yet
            dummies.enter_context(socket.create_connection(("127.0.0.1", old.port)))
        FromPorts.ports = [port := free_port()]
        client = service.master(connection_class=FromPorts)
        await client.get("k")
        (mine,) = service.breaker.connections
        assert mine.identity is not None
        ahead = mine.identity.client_id - _next_id(new)
        assert ahead >= 0, "the new master has given out more ids than the old one"
        for _ in range(ahead):
            dummies.enter_context(socket.create_connection(("127.0.0.1", new.port)))
        old.server.freeze()
        assert await client.set("k", "v") is True  # answered at the deadline: in flight for ever
        (suspect,) = service.breaker.suspects
        assert suspect.addr == f"127.0.0.1:{port}"
        here = ("127.0.0.1", port)
        innocent = dummies.enter_context(
            socket.create_connection(("127.0.0.1", new.port), 2.0, source_address=here)
        )
        innocent.sendall(b"CLIENT ID\r\n")
        found = re.match(rb":(\d+)", innocent.recv(64))
        assert found is not None
        assert int(found[1]) == suspect.client_id
        service.fail_over()
        await service.recovered()
        assert new.admin.get("k") == "v"
        assert not service.breaker.suspects
        innocent.sendall(b"PING\r\n")
        assert innocent.recv(64) == b"+PONG\r\n"


def _next_id(rig: Rig) -> int:
    """The id that the next connection will be given."""
    with socket.create_connection(("127.0.0.1", rig.port), timeout=2.0) as probe:
        probe.sendall(b"CLIENT ID\r\n")
        found = re.match(rb":(\d+)", probe.recv(64))
    assert found is not None
    return int(found[1]) + 1


async def test_the_fence_stands_at_the_server_of_the_ids(service: Service, old: Rig) -> None:
    """No failover: what was in flight at this master is killed at it, as over a plain server."""
    client = service.master()
    await client.get("k")
    old.server.freeze()
    assert await client.set("k", "late") is True
    assert len(service.breaker.suspects) == 1
    assert await client.set("k", "new") is True
    old.server.thaw()
    await service.recovered()
    assert old.calls("client|list") >= 1
    assert await client.get("k") == b"new"


# -- a slow master, and no sentinel ----------------------------------------------------------------


async def test_a_slow_master_is_not_an_outage_because_sentinel_is_away(
    service: Service, old: Rig
) -> None:
    client = service.master()
    await client.get("k")
    service.sentinel.master = None
    asked = service.sentinel.asked
    old.admin.client_pause(700, all=False)  # writes wait; PING is answered
    assert await client.set("k", "v") is True
    assert not service.seen(StateChanged)
    assert service.sentinel.asked == asked
    assert old.admin.get("k") == "v"
