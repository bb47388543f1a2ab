"""The server answers, but takes no writes: OOM, READONLY, NOREPLICAS, MISCONF; and LOADING."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
import redis.exceptions
from redis.exceptions import OutOfMemoryError

from resilient_redis import CommandRefused, Policy, Rule
from resilient_redis.events import StateChanged, WritesHeld
from tests.contract.recovery_helpers import command, guarded, healthy, proxied, raised, until
from tests.support.flavours import Queued
from tests.support.servers import Rig


async def test_out_of_memory_while_closed(rig: Rig) -> None:
    """As in redis-py: reads and removals are live, what grows raises, nothing is queued."""
    async with guarded(rig.port) as (guard, client):
        await client.set("k", "v")
        rig.out_of_memory()
        assert await client.get("k") == b"v"
        for grows in (client.set("x", "1"), client.rpush("l", "1"), client.incrby("c", 1)):
            assert isinstance(await raised(grows), OutOfMemoryError)
        assert await client.get("k") == b"v"
        assert await client.delete("k") == 1
        assert (guard.breaker.state, guard.breaker.pending) == ("CLOSED", 0)
        assert guard.breaker.live
        rig.enough_memory()
        assert await client.set("x", "1") is True


async def test_out_of_memory_after_an_outage(rig: Rig) -> None:
    """Removals drain, although the watermark cannot be set; what grows waits in its place."""
    async with guarded(rig.port) as (guard, client):
        for key in "abcd":
            await client.set(key, "old")
        guard.breaker.force_open()
        await client.delete("a")
        await client.expire("b", 1000)
        await client.set("c", "new")
        await client.delete("d")
        receipt = await client.rpush("l", 1)
        rig.out_of_memory()
        guard.breaker.reset()
        await until(lambda: not rig.admin.exists("a"))
        await until(lambda: rig.admin.ttl("b") > 0)
        await until(lambda: guard.breaker.pending == 3)
        assert guard.breaker.state == "CLOSED"
        assert guard.breaker.snapshot().writes_held == "OOM"
        assert [event.reason for event in guard.seen(WritesHeld)] == ["OOM"]
        assert await client.get("c") == b"old"  # reads are live
        assert isinstance(await raised(client.set("x", "1")), OutOfMemoryError)
        assert guard.breaker.pending == 3
        assert await client.delete("x") == 1  # removals are taken, behind what waits
        assert rig.admin.get("d") == "old"  # nothing overtakes
        rig.enough_memory()
        await guard.recovered()
        assert rig.admin.get("c") == "new"
        assert rig.admin.exists("d") == 0
        assert isinstance(receipt, Queued)
        assert receipt.result() == 1
        assert not guard.letters()
        assert guard.breaker.outages == 1
        assert await client.rpush("l", 2) == 2


async def test_out_of_memory_in_the_middle_of_a_drain(rig: Rig) -> None:
    async with proxied(rig, batch_size=1) as (proxy, guard, client):
        await client.set("gone", "v")
        guard.breaker.force_open()
        for n in range(10):
            await client.rpush("l", n)
        await client.delete("gone")
        slow = proxy.latency(0.02, match=b"TIME", direction="down")
        guard.breaker.reset()
        await until(lambda: rig.admin.llen("l") >= 2)
        rig.out_of_memory()
        await until(lambda: guard.breaker.snapshot().writes_held == "OOM")
        assert rig.admin.exists("gone")  # it stands behind what waits
        slow.end()
        rig.enough_memory()
        await guard.recovered()
        assert rig.admin.lrange("l", 0, -1) == [str(n) for n in range(10)]
        assert rig.admin.exists("gone") == 0
        assert guard.breaker.outages == 1


def misconf(rig: Rig) -> None:
    """`MISCONF` for writes: the last background save failed."""
    place = rig.server.directory / "dump.rdb"  # where the file would have to go
    if place.is_file():  # of an earlier test's server
        place.unlink()
    place.mkdir(exist_ok=True)
    rig.admin.config_set("save", "3600 1")
    rig.admin.bgsave()
    stop = time.monotonic() + 5.0
    while rig.admin.info("persistence")["rdb_last_bgsave_status"] == "ok":
        assert time.monotonic() < stop


def misconf_over(rig: Rig) -> None:
    rig.admin.config_set("save", "")
    stop = time.monotonic() + 5.0
    while rig.admin.info("persistence")["rdb_bgsave_in_progress"]:  # it would write its file yet
        assert time.monotonic() < stop
    place = rig.server.directory / "dump.rdb"
    if place.is_dir():
        place.rmdir()
    else:
        place.unlink(missing_ok=True)


Outage = tuple[str, Callable[[Rig], None], Callable[[Rig], None]]
OUTAGES: dict[str, Outage] = {
    "READONLY": ("READONLY", Rig.read_only, Rig.writable),
    "NOREPLICAS": ("NOREPLICAS", Rig.no_replicas, lambda rig: rig.no_replicas(False)),
    "MISCONF": ("MISCONF", misconf, misconf_over),
}


@pytest.fixture(params=OUTAGES)
def outage(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Outage]:
    found = OUTAGES[request.param]
    yield found
    misconf_over(rig)


async def test_a_client_that_starts_meanwhile_reads(rig: Rig, outage: Outage) -> None:
    """What its user may do cannot be tried then: that is no answer to anybody's command."""
    code, begin, end = outage
    rig.admin.set("k", "before")
    begin(rig)
    async with guarded(rig.port) as (guard, client):
        assert await client.get("k") == b"before"
        assert await client.set("k", "after") is True
        receipt = await client.rpush("l", 1)
        assert (guard.breaker.state, guard.breaker.snapshot().writes_held) == ("CLOSED", code)
        assert await client.get("k") == b"before"
        assert bool(guard.breaker.rights_known) is False
        end(rig)
        await guard.recovered()
        assert (rig.admin.get("k"), receipt.result()) == ("after", 1)
        # The replay has asked, or, if writes came back just behind its question, the next to come.
        assert await guard.client().get("k") == b"after"
        assert guard.breaker.rights_known
        assert guard.breaker.outages == 0


async def test_out_of_memory_as_a_client_starts(rig: Rig) -> None:
    rig.admin.mset({"k": "v", "gone": "v"})
    rig.out_of_memory()
    async with guarded(rig.port) as (guard, client):
        assert await client.get("k") == b"v"
        assert await client.delete("gone") == 1
        assert isinstance(await raised(client.set("x", "1")), OutOfMemoryError)
    async with guarded(rig.port) as (guard, client):
        guard.breaker.force_open()
        assert await client.delete("k") == 1  # nothing was ever asked of this server
        assert await client.set("x", "1") is True
        guard.breaker.reset()
        await until(lambda: not rig.admin.exists("k"))  # a removal is let through
        await until(lambda: guard.breaker.snapshot().writes_held == "OOM")
        rig.enough_memory()
        await guard.recovered()
        assert rig.admin.get("x") == "1"
        assert await guard.client().get("x") == b"1"  # see above
        assert guard.breaker.rights_known
        assert guard.breaker.outages == 1


async def test_writes_are_held_and_reads_live(rig: Rig, outage: Outage) -> None:
    code, begin, end = outage
    async with guarded(rig.port) as (guard, client):
        await client.rpush("l", "before")
        await client.set("k", "before")
        begin(rig)
        receipts = [await client.rpush("l", n) for n in range(20)]
        assert await client.set("k", "after") is True
        assert all(isinstance(receipt, Queued) for receipt in receipts)
        assert guard.breaker.state == "CLOSED"
        assert guard.breaker.snapshot().writes_held == code
        assert guard.breaker.pending == 21
        assert [event.reason for event in guard.seen(WritesHeld)] == [code]
        assert await client.lrange("l", 0, -1) == [b"before"]
        assert isinstance(await raised(client.incr("c")), CommandRefused)
        end(rig)
        await guard.recovered()
        assert await client.lrange("l", 0, -1) == [b"before", *(b"%d" % n for n in range(20))]
        assert await client.get("k") == b"after"
        assert await client.rpush("l", "live") == 22
        assert not guard.seen(StateChanged)
        assert not guard.letters()


async def test_writes_are_held_after_an_outage(rig: Rig, outage: Outage) -> None:
    code, begin, end = outage
    async with guarded(rig.port) as (guard, client):
        await client.set("k", "before")
        guard.breaker.force_open()
        for n in range(5):
            await client.rpush("l", n)
        begin(rig)
        guard.breaker.reset()
        await until(lambda: guard.breaker.snapshot().writes_held == code)
        assert guard.breaker.state == "CLOSED"
        assert await client.get("k") == b"before"
        await client.rpush("l", 5)
        end(rig)
        await guard.recovered()
        assert rig.admin.lrange("l", 0, -1) == [str(n) for n in range(6)]
        assert guard.breaker.outages == 1


@pytest.mark.parametrize("first", ["connection", "recovery"])
async def test_no_server_was_met_before_that_took_writes(
    rig: Rig, outage: Outage, first: str
) -> None:
    """What this user may do cannot be tried yet; reads are live, and writes are held."""
    code, begin, end = outage
    rig.admin.set("k", "old")
    begin(rig)
    async with guarded(rig.port) as (guard, client):
        if first == "recovery":
            guard.breaker.force_open()
            assert await client.set("k", "new") is True
            guard.breaker.reset()
        else:
            assert await client.get("k") == b"old"
            assert await client.set("k", "new") is True
        await until(lambda: guard.breaker.snapshot().writes_held == code)
        assert await client.get("k") == b"old"
        end(rig)
        await guard.recovered()
        assert rig.admin.get("k") == "new"
        assert guard.breaker.rights_known
        assert guard.breaker.outages == (1 if first == "recovery" else 0)


async def test_a_write_that_a_rule_refuses(rig: Rig, outage: Outage) -> None:
    """It is not held: nothing may be queued for it. The server's own error is the answer."""
    code, begin, end = outage
    policy = Policy([Rule(keys="session:*", answer="refuse")])
    async with guarded(rig.port, policy=policy) as (guard, client):
        await healthy(client)
        begin(rig)
        found = await asyncio.wait_for(raised(client.set("session:1", "v")), 5.0)
        assert isinstance(found, redis.exceptions.ResponseError)
        assert guard.breaker.snapshot().writes_held is None
        assert await client.set("k", "v") is True
        assert guard.breaker.snapshot().writes_held == code
        found = await asyncio.wait_for(raised(client.set("session:1", "v")), 5.0)
        assert isinstance(found, redis.exceptions.ResponseError)
        end(rig)
        await guard.recovered()
        assert rig.admin.mget("k", "session:1") == ["v", None]


async def test_a_pipeline_meets_read_only(rig: Rig) -> None:
    """Nobody knows what the rest of a pipeline would say: redis-py's errors, nothing queued."""
    async with guarded(rig.port) as (guard, client):
        await healthy(client)
        rig.read_only()
        pipe = client.pipeline(transaction=False)
        pipe.set("a", 1).rpush("l", 1)
        found = await pipe.execute(raise_on_error=False)
        assert all(isinstance(error, redis.exceptions.ReadOnlyError) for error in found)
        assert guard.breaker.pending == 0
        await client.set("a", 1)  # from the first single write on it is known
        pipe.set("a", 2).rpush("l", 1)
        first, second = await pipe.execute()
        assert first is True
        assert isinstance(second, Queued)
        rig.writable()
        await guard.recovered()
        assert rig.admin.get("a") == "2"
        assert rig.admin.lrange("l", 0, -1) == ["1"]


async def test_read_only_in_the_middle_of_a_drain(rig: Rig) -> None:
    async with proxied(rig, batch_size=1) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        for n in range(12):
            await client.rpush("l", n)
        slow = proxy.latency(0.02, match=b"TIME", direction="down")
        guard.breaker.reset()
        await until(lambda: rig.admin.llen("l") >= 2)
        rig.no_replicas()
        await until(lambda: guard.breaker.snapshot().writes_held == "NOREPLICAS")
        assert guard.breaker.pending
        slow.end()
        rig.no_replicas(False)
        await guard.recovered()
        assert rig.admin.lrange("l", 0, -1) == [str(n) for n in range(12)]
        assert not guard.letters()


async def test_killed_while_writes_are_held(rig: Rig) -> None:
    async with guarded(rig.port) as (guard, client):
        await client.rpush("l", 0)
        rig.no_replicas()
        await client.rpush("l", 1)
        rig.kill()
        await until(lambda: not guard.breaker.closed)
        await client.rpush("l", 2)
        assert await client.get("k") is None
        rig.restart()  # the setting is gone with the process
        await guard.recovered()
        assert rig.admin.lrange("l", 0, -1) == ["0", "1", "2"]


@pytest.mark.parametrize("where", [command("TIME"), command("RPUSH", "l", 0)])
async def test_loading_stops_the_drain(rig: Rig, where: bytes) -> None:
    """As good as no answer: the breaker opens, and it begins again later."""
    async with proxied(rig, batch_size=1) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        for n in range(6):
            await client.rpush("l", n)
        fault = proxy.inject_error(
            "LOADING Redis is loading the dataset in memory", match=where, times=1
        )
        guard.breaker.reset()
        await guard.recovered()
        assert fault.fired == 1
        assert guard.breaker.outages == 2
        assert rig.admin.lrange("l", 0, -1) == [str(n) for n in range(6)]
        assert not guard.letters()
