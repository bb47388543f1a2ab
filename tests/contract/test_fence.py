"""No write that was sent before the outage lands after one that was replayed."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
import redis

from resilient_redis import OutcomeUnknown
from resilient_redis.core.fence import Identity, still_there
from resilient_redis.events import FenceDenied
from tests.contract.recovery_helpers import command, guarded, healthy, proxied, raised, until
from tests.support.servers import Rig, own_rig

KILL = "client|kill"


async def test_frozen_and_thawed(rig: Rig) -> None:
    """The old write waits in the server's own buffer, and is executed when it wakes up."""
    stop = time.monotonic() + 8.0
    async with guarded(rig.port, deadline=0.04, probe_timeout=0.04) as (guard, client):
        runs = 0
        while runs < 50 and time.monotonic() < stop:
            key = f"k{runs}"
            await client.set(key, "before")
            rig.freeze()
            assert await client.set(key, "old") is True  # in flight, cut off at the trip, queued
            assert not guard.breaker.closed
            assert await client.set(key, "new") is True
            rig.thaw()
            await guard.recovered()
            assert rig.admin.get(key) == "new"
            runs += 1
        values: dict[str, list[bytes]] = {f"k{run}": [] for run in range(runs)}
        for effect in rig.effects():
            if effect.name == b"SET" and effect.args[1].decode() in values:
                values[effect.args[1].decode()].append(effect.args[2])
        for key, written in values.items():
            assert written.count(b"new") == 1
            assert written[-1] == b"new", f"{key}: {written}"
    assert runs >= 20


async def test_delayed_by_the_network(rig: Rig) -> None:
    async with proxied(rig, client={"socket_timeout": 0.05}) as (proxy, guard, client):
        await healthy(client)
        other = guard.client()
        await healthy(other)
        kills = rig.calls(KILL)
        held = proxy.stall(match=b"held-back")
        assert await client.set("k", "held-back") is True  # no answer within 50 ms: queued
        old = await proxy.seen(b"held-back")
        held.match = lambda link: link is old  # its replay is not held back
        assert await other.set("k", "new") is True
        await guard.recovered()
        assert rig.calls(KILL) == kills + 1
        assert rig.admin.get("k") == "new"
        held.end()
        await until(lambda: old.server is not None and old.server.is_closing())
        assert rig.admin.get("k") == "new"
        assert [e.args[2] for e in rig.effects() if e.args[:2] == (b"SET", b"k")] == [
            b"held-back",
            b"new",
        ]
        assert not guard.breaker.snapshot().fence_denied


async def test_a_counter_in_flight_is_cut_off_before_the_replay(rig: Rig) -> None:
    """It waits for its own reply beyond the trip, and the fence ends that."""
    async with proxied(rig) as (proxy, guard, client):
        await healthy(client)
        other = guard.client(socket_timeout=0.05)
        await healthy(other)
        kills = rig.calls(KILL)
        held = proxy.stall(match=b"held-back")
        counter = asyncio.create_task(raised(client.incrby("held-back", 1)))
        await proxy.seen(b"held-back")
        dropped = proxy.drop_requests(match=b"trips", times=1)
        assert await other.set("trips", "it") is True
        await guard.recovered()
        assert dropped.fired == 1
        assert isinstance(await asyncio.wait_for(counter, 3.0), OutcomeUnknown)
        assert rig.calls(KILL) > kills
        held.end()
        assert await client.incrby("held-back", 1) == 1
        assert rig.admin.get("trips") == "it"


async def test_another_connections_fence_is_not_ours(rig: Rig) -> None:
    """A client connects while recovery still waits, and takes the fence upon itself. Its CLIENT
    KILL is slow, and the replay must not count on it.
    """
    async with proxied(rig, drain_wait=3.0) as (proxy, guard, client):
        await healthy(client)
        quick = guard.client(socket_timeout=0.05)
        await healthy(quick)
        write = proxy.stall(match=b"held-back")
        counter = proxy.stall(match=b"INCRBY")
        # An INCR goes on waiting at the trip: recovery waits for it before it puts up its fence …
        waiting = asyncio.create_task(raised(client.incrby("c", 1)))
        await proxy.seen(b"INCRBY")
        assert await quick.set("k", "held-back") is True
        old = await proxy.seen(b"held-back")
        write.match = lambda link: link is old  # its replay is not held back
        assert await quick.set("k", "new") is True
        first = len(proxy.links)
        await until(lambda: guard.breaker.closed)
        # … and meanwhile somebody connects, whose CLIENT LIST comes nowhere.
        clients = set(range(len(proxy.links), len(proxy.links) + 10)) - {first}
        slow = proxy.stall(match=lambda link: link.number in clients and b"LIST" in link.sent)
        reader = asyncio.create_task(raised(guard.client().get("k")))
        await until(lambda: rig.admin.get("k") == "new")
        write.end()
        await until(lambda: old.server is not None and old.server.is_closing())
        await asyncio.sleep(0.01)
        assert rig.admin.get("k") == "new"
        slow.end()
        counter.end()
        await asyncio.gather(reader, waiting)
        await guard.recovered()


@pytest.mark.parametrize("rules", [("-client|kill",), ("-client|list",), ("-client",)])
async def test_where_the_fence_is_forbidden(rig: Rig, rules: tuple[str, ...]) -> None:
    """-@dangerous takes CLIENT KILL away in many a production."""
    rig.acl("default", *rules)
    async with proxied(rig, client={"socket_timeout": 0.05}) as (proxy, guard, client):
        await healthy(client)
        held = proxy.stall(match=b"k0")
        await client.set("k0", 0)
        old = await proxy.seen(b"k0")
        held.match = lambda link: link is old
        for n in range(1, 5):
            await client.set(f"k{n}", n)
        await client.rpush("l", 1)
        await guard.recovered()
        assert rig.admin.mget([f"k{n}" for n in range(5)]) == ["0", "1", "2", "3", "4"]
        assert rig.admin.lrange("l", 0, -1) == ["1"]
        assert [event.connections for event in guard.seen(FenceDenied)] == [1]
        assert guard.breaker.snapshot().fence_denied
        held.end()


async def test_an_innocent_client_with_an_old_id_lives() -> None:
    """Ids start again with the server."""
    with own_rig("valkey") as rig, contextlib.ExitStack() as innocents:
        for _ in range(30):  # so that the suspect's id is not used up by the restart itself
            redis.Redis(port=rig.port).close()
            with redis.Redis(port=rig.port) as passing:
                passing.ping()
        async with guarded(rig.port, deadline=0.04, probe_timeout=0.2) as (guard, client):
            await healthy(client)
            rig.freeze()
            await client.set("k", "v")
            guard.breaker.force_open()  # no probe until we say so
            (suspect,) = guard.breaker.suspects
            rig.kill()
            rig.restart()
            for _ in range(200):
                innocent = innocents.enter_context(
                    redis.Redis(port=rig.port, single_connection_client=True)
                )
                if innocent.client_id() >= suspect.client_id:
                    break
            assert innocent.client_id() == suspect.client_id
            await guard.reopened()
            assert rig.admin.get("k") == "v"
            assert innocent.client_id() == suspect.client_id, "it was killed, and has come back"
            assert rig.calls("client|list") == 1
            assert rig.calls(KILL) == 0


@pytest.mark.parametrize(
    "line, same",
    [
        ("id=7 addr=127.0.0.1:5000 laddr=127.0.0.1:1 age=100 name=x", True),
        ("id=7 addr=127.0.0.1:5000 age=104", True),
        ("id=7 addr=127.0.0.1:5000 age=3", False),  # came after the restart, by the same port
        ("id=7 addr=127.0.0.1:5000 age=300", False),
        ("id=7 addr=127.0.0.1:5001 age=100", False),
        ("id=8 addr=127.0.0.1:5000 age=100", False),
        ("", False),
    ],
)
def test_who_is_killed(line: str, same: bool) -> None:
    suspect = Identity(7, "127.0.0.1:5000", since=1000.0)
    assert still_there(line, {7: suspect}, now=1100.0) == (suspect if same else None)


async def test_a_recovery_connection_that_died_is_fenced_itself(rig: Rig) -> None:
    """Its batches may be as late as anybody's writes."""
    async with proxied(rig, probe_timeout=0.1) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        await client.rpush("l", 1)
        held = proxy.stall(match=command("RPUSH", "l", 1))
        guard.breaker.reset()
        old = await proxy.seen(b"RPUSH")
        await until(lambda: guard.breaker.outages == 2)
        held.match = lambda link: link is old
        await guard.recovered()
        assert rig.calls(KILL) == 1
        held.end()
        await until(lambda: old.server is not None and old.server.is_closing())
        assert rig.admin.lrange("l", 0, -1) == ["1"]
