"""A batch that is cut at any byte, or arrives twice, or loses its watermark, counts once."""

from __future__ import annotations

import asyncio

import pytest

from resilient_redis.events import ServerLostData
from tests.contract.recovery_helpers import (
    Client,
    Guarded,
    command,
    guarded,
    healthy,
    proxied,
    recovery_link,
    until,
    watermarks,
)
from tests.support.faults import FIN, RST
from tests.support.flavours import Queued, threads
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

WATCH = b"*2\r\n$5\r\nWATCH"  # the first command of a batch
LANES = 6  # breakers that work side by side, on keys of their own
GUARDED, CHECKED = "in-band guard script", "WATCH and GET before each batch"


def restrict(rig: Rig, mode: str) -> None:
    if mode == CHECKED:
        rig.acl("default", "-eval", "-evalsha")


async def length_of_a_drain(rig: Rig, batch_size: int, entries: int) -> int:
    """Bytes from the first batch on that a recovery connection sends for so many entries."""
    async with proxied(rig, batch_size=batch_size) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        for n in range(entries):
            await client.rpush("l0", n)
        await client.set("k0", "v0")
        await guard.reopened()
        sent = recovery_link(proxy).sent_from(WATCH)
        rig.admin.flushall()
        return sent.rindex(command("EXEC")) + len(command("EXEC"))


async def cut_everywhere(
    rig: Rig, mode: str, *, batch_size: int, entries: int, step: int = 1
) -> int:
    """Drains the same writes again and again, cut after 0, 1, 2 … bytes. How often it was cut."""
    restrict(rig, mode)
    length = await length_of_a_drain(rig, batch_size, entries)
    positions = iter(range(0, length + 1, step))
    expected = [str(n) for n in range(entries)]
    cuts = 0
    errors: list[Exception] = []

    async def lane(name: str) -> None:
        nonlocal cuts
        async with proxied(rig, batch_size=batch_size) as (proxy, guard, client):
            await healthy(client)
            for k in positions:
                if errors:
                    return
                guard.breaker.force_open()
                for n in range(entries):
                    await client.rpush(f"l{name}", n)
                await client.set(f"k{name}", f"v{k}")
                fault = proxy.cut_at(k, match=WATCH, how=RST if k % 2 else FIN)
                await guard.reopened()
                fault.end()
                cuts += fault.fired
                assert guard.breaker.snapshot().replay_mode == mode
                found = rig.admin.lrange(f"l{name}", 0, -1)
                assert found == expected, f"cut after {k} bytes: {found}"
                assert rig.admin.getdel(f"k{name}") == f"v{k}", f"cut after {k} bytes"
                assert not guard.letters()
                rig.admin.delete(f"l{name}")

    async def guarded_lane(name: str) -> None:
        try:
            await lane(name)
        except Exception as error:  # noqa: BLE001 - raised when all lanes have ended
            errors.append(error)

    await asyncio.gather(*(guarded_lane(str(n)) for n in range(LANES)))
    for error in errors:
        raise error
    assert watermarks(rig) == []
    return cuts


@pytest.mark.timeout(90)
async def test_cut_at_every_byte(valkey_rig: Rig) -> None:
    step = 9 if threads() else 1  # where the bytes of one send are cut is the same
    cuts = await cut_everywhere(valkey_rig, GUARDED, batch_size=10, entries=2, step=step)
    assert cuts > 500 // step


async def test_cut_at_many_bytes_redis(redis_rig: Rig) -> None:
    cuts = await cut_everywhere(redis_rig, GUARDED, batch_size=10, entries=2, step=7)
    assert cuts > 70


async def test_cut_at_every_other_byte_without_the_guard_script(valkey_rig: Rig) -> None:
    step = 8 if threads() else 2
    cuts = await cut_everywhere(valkey_rig, CHECKED, batch_size=10, entries=2, step=step)
    assert cuts > 260 // step


async def test_cut_in_and_between_several_batches(rig: Rig) -> None:
    cuts = await cut_everywhere(rig, GUARDED, batch_size=2, entries=5, step=23)
    assert cuts > 60


async def test_cut_between_batches_without_the_guard_script(rig: Rig) -> None:
    assert await cut_everywhere(rig, CHECKED, batch_size=2, entries=5, step=17) > 40


@pytest.mark.parametrize("mode", [GUARDED, CHECKED])
@pytest.mark.parametrize("how", [RST, FIN])
async def test_cut_in_place_of_the_reply(rig: Rig, mode: str, how: str) -> None:
    """It was executed, and nobody was told."""
    restrict(rig, mode)
    async with proxied(rig, batch_size=3) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        receipts = [await client.rpush("l", n) for n in range(9)]
        # Again and again, until each batch has been lost once.
        fault = proxy.cut_on_reply(command("RPUSH", "l", 0)[:15], how=how, times=3)
        await guard.reopened()
        assert fault.fired >= 1
        assert rig.admin.lrange("l", 0, -1) == [str(n) for n in range(9)]
        assert all(isinstance(receipt, Queued) and receipt.settled for receipt in receipts)
        assert not guard.letters()


async def queue_numbers(client: Client, count: int) -> None:
    for n in range(count):
        await client.rpush("l", n)
    await client.set("k", "v")


async def in_the_middle(
    rig: Rig, proxy: ChaosProxy, guard: Guarded, client: Client, count: int = 10
) -> None:
    """A slow drain of `count` numbers on the list `l`, of which some are in."""
    guard.breaker.force_open()
    await queue_numbers(client, count)
    proxy.latency(0.02, match=b"TIME", direction="down")
    guard.breaker.reset()
    await until(lambda: rig.admin.llen("l") >= 2)
    assert guard.breaker.pending


def batches(proxy: ChaosProxy) -> bytes:
    """What the recovery connection has sent blind, so that it may arrive late."""
    sent = bytes(recovery_link(proxy).sent)
    return sent[sent.rindex(WATCH, 0, sent.index(b"EVAL")) :]


def numbers(rig: Rig) -> list[int]:
    return [int(value) for value in rig.admin.lrange("l", 0, -1)]


async def test_a_late_copy_during_the_drain(rig: Rig) -> None:
    async with proxied(rig, batch_size=1) as (proxy, guard, client):
        await healthy(client)
        await in_the_middle(rig, proxy, guard, client)
        copies = 0
        while guard.breaker.busy:
            await proxy.replay_late(batches(proxy), quiet=0.003)
            copies += 1
        await guard.recovered()
        assert copies > 2
        assert numbers(rig) == list(range(10))
        assert rig.admin.get("k") == "v"
        assert not guard.letters()


@pytest.mark.parametrize("then", ["outage", "late copy"])
async def test_a_late_copy_after_the_drain(rig: Rig, then: str) -> None:
    async with proxied(rig, batch_size=2) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        await queue_numbers(client, 6)
        await guard.reopened()
        copy = batches(proxy)
        assert copy.count(b"RPUSH") == 6
        if then == "outage":  # with a watermark in place, in the next drain
            guard.breaker.force_open()
            await client.rpush("l", 6)
            stalled = proxy.stall(match=b"RPUSH", direction="down")
            guard.breaker.reset()
            await until(lambda: rig.admin.llen("l") == 7)
            await proxy.replay_late(copy)
            stalled.end()
            await guard.recovered()
            assert numbers(rig) == list(range(7))
        await client.set("k", "newer")
        await proxy.replay_late(copy)
        assert numbers(rig) == list(range(7 if then == "outage" else 6))
        assert rig.admin.get("k") == "newer"
        assert watermarks(rig) == []


@pytest.mark.parametrize("mode", [GUARDED, CHECKED])
async def test_the_delayed_original_without_a_fence(rig: Rig, mode: str) -> None:
    """The network held the batch back, and where CLIENT KILL is forbidden nothing cuts it off."""
    restrict(rig, mode)
    rig.acl("default", "-client|kill")
    async with proxied(rig, batch_size=10) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        await queue_numbers(client, 4)
        stalled = proxy.stall(match=b"RPUSH")
        guard.breaker.reset()
        old = await proxy.seen(b"RPUSH")
        old.close(RST, "down")  # the client's side is gone, the server's is not
        stalled.match = lambda link: link is old  # only what was on its way is held back
        await guard.recovered()
        assert numbers(rig) == list(range(4))
        stalled.end()
        await until(lambda: old.server is not None and old.server.is_closing())
        assert await client.rpush("l", 4) == 5
        assert numbers(rig) == list(range(5))


@pytest.mark.parametrize("vanish", ["del", "flushall"])
async def test_the_watermark_vanishes_on_a_living_connection(rig: Rig, vanish: str) -> None:
    """What was in flight aborted, so everything can be sent again: no dead letter is needed."""
    async with proxied(rig, batch_size=1) as (proxy, guard, client):
        await healthy(client)
        await in_the_middle(rig, proxy, guard, client)
        (key,) = watermarks(rig)
        if vanish == "del":
            rig.admin.delete(key)
        else:
            rig.admin.flushall()
        await guard.recovered()
        assert guard.breaker.outages == 1
        assert not guard.letters()
        assert rig.admin.get("k") == "v"
        if vanish == "del":
            assert numbers(rig) == list(range(10))
        pushed = [int(e.args[2]) for e in rig.effects() if e.name == b"RPUSH"]
        assert pushed == list(range(10))
        assert watermarks(rig) == []


@pytest.mark.parametrize("vanish", ["del", "flushall"])
async def test_the_watermark_vanishes_with_the_connection(rig: Rig, vanish: str) -> None:
    """Nobody can say what became of what was in flight: never twice, and nothing is silent."""
    async with proxied(rig, batch_size=6) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        await client.set("k", "first")
        for n in range(8):
            await client.rpush("l", n)
        await client.set("k", "last")
        stalled = proxy.stall(match=b"RPUSH", direction="down")
        guard.breaker.reset()
        await until(lambda: rig.admin.llen("l") >= 5)  # executed, and nobody was told
        await proxy.refuse()
        stalled.end()
        proxy.cut_all()
        await until(lambda: not guard.breaker.closed)
        if vanish == "del":
            rig.admin.delete(*watermarks(rig))
        else:
            rig.admin.flushall()
        await proxy.accept()
        await guard.recovered()
        applied = [int(e.args[2]) for e in rig.effects() if e.name == b"RPUSH"]
        assert applied == list(range(8)), "twice, lost, or out of order"
        letters = guard.breaker.dead_letters
        assert {(letter.command, letter.reason) for letter in letters} == {("RPUSH", "watermark")}
        lost = [letter.seq - 2 for letter in letters]
        assert lost == list(range(len(lost)))  # what was in flight, and nothing else
        assert len(lost) >= 5
        assert rig.admin.get("k") == "last"
        assert watermarks(rig) == []


@pytest.mark.parametrize("snapshot", ["before the drain", "during the drain"])
async def test_the_server_comes_back_with_older_data(rig: Rig, snapshot: str) -> None:
    """What it lost is lost and told; the rest is applied once, in order."""
    async with proxied(rig, batch_size=1) as (proxy, guard, client):
        await healthy(client)
        before = rig.snapshot()
        await in_the_middle(rig, proxy, guard, client, 20)
        during = rig.snapshot()
        reached = rig.admin.llen("l")
        await until(lambda: rig.admin.llen("l") > reached + 3)
        rig.restart_with(before if snapshot == "before the drain" else during)
        await guard.recovered()
        found = numbers(rig)
        assert found == sorted(set(found)), "twice, or out of order"
        assert found[-1] == 19
        gone = set(range(20)) - set(found)
        set_aside = {letter.seq - 1 for letter in guard.breaker.dead_letters}
        if snapshot == "during the drain":
            (event,) = guard.seen(ServerLostData)
            # Of what was confirmed everything behind the watermark is gone, and nothing else.
            assert gone == set(range(event.found, event.confirmed)), event
            assert not set_aside
        else:
            assert len(gone) >= 3
            assert {letter.reason for letter in guard.breaker.dead_letters} <= {"watermark"}
            assert set_aside <= gone
        assert rig.admin.get("k") == "v"


async def test_fifty_thousand_entries(valkey_rig: Rig) -> None:
    """A real backlog: cut three times on its way, read and written meanwhile."""
    async with proxied(valkey_rig, drain_wait=5.0) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        for n in range(50):
            pipe = client.pipeline(transaction=False)
            for m in range(1000):
                pipe.rpush("l", n * 1000 + m)
            await pipe.execute()
        assert guard.breaker.pending == 50_000
        guard.breaker.reset()
        for part in (5_000, 15_000, 30_000):
            await until(lambda at=part: valkey_rig.admin.llen("l") > at)  # type: ignore[misc]
            proxy.cut_all()
            await until(lambda: not guard.breaker.closed or not guard.breaker.busy)
        await until(lambda: guard.breaker.closed)
        assert await client.rpush("l", 50_000) == 50_001
        await guard.recovered()
        assert numbers(valkey_rig) == list(range(50_001))


async def test_a_batch_larger_than_the_buffers(valkey_rig: Rig) -> None:
    """The server's replies and our bytes must not wait for each other."""
    async with guarded(valkey_rig.port, probe_timeout=5.0) as (guard, client):
        await healthy(client)
        guard.breaker.force_open()
        for n in range(40):
            await client.set(f"big{n}", b"x" * 1_000_000)
        await guard.reopened()
        assert valkey_rig.admin.strlen("big39") == 1_000_000
