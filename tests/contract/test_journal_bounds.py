"""What cannot be applied, does not fit or is too old is set aside or refused, and never silent."""

from __future__ import annotations

import time

import pytest
from redis.exceptions import ResponseError

from resilient_redis import CommandRefused, JournalFull, MemoryJournal
from resilient_redis.events import EntryDeadLettered, ReplayFinished
from tests.contract.recovery_helpers import command, guarded, healthy, raised
from tests.support.flavours import Queued
from tests.support.servers import Rig


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
async def test_wrong_type_at_replay(rig: Rig, batch_size: int) -> None:
    async with guarded(rig.port, batch_size=batch_size) as (guard, client):
        await client.set("string", "s")
        guard.breaker.force_open()
        receipts = []
        for n in range(6):
            receipts.append(await client.rpush("l", n))
            if n in (1, 4):
                poison = await client.rpush("string", n)
        await guard.reopened()
        assert rig.admin.lrange("l", 0, -1) == [str(n) for n in range(6)]
        assert guard.letters() == [("RPUSH", "error")] * 2
        letter = guard.breaker.dead_letters[0]
        assert (letter.seq, letter.payload) == (3, command("RPUSH", "string", 1))
        assert (letter.error or "").startswith("WRONGTYPE")
        assert [event.seq for event in guard.seen(EntryDeadLettered)] == [3, 7]
        assert guard.seen(ReplayFinished)[0].dead_letters == 2
        assert [receipt.result() for receipt in receipts] == [1, 2, 3, 4, 5, 6]
        assert isinstance(poison, Queued)
        with pytest.raises(Exception, match="WRONGTYPE"):
            poison.result()
        assert guard.breaker.outages == 1


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
async def test_forbidden_at_replay(rig: Rig, batch_size: int) -> None:
    """Refused as it is queued: EXECABORT takes the whole batch with it."""
    async with guarded(rig.port, batch_size=batch_size) as (guard, client):
        await healthy(client)
        guard.breaker.force_open()
        for n in range(6):
            await client.rpush("l", n)
            if n % 2:
                await client.sadd("s", n)
        rig.acl("default", "-sadd")
        await guard.reopened()
        assert rig.admin.lrange("l", 0, -1) == [str(n) for n in range(6)]
        assert guard.letters() == [("SADD", "error")] * 3
        assert (guard.breaker.dead_letters[0].error or "").startswith("NOPERM")
        assert guard.breaker.outages == 1


@pytest.mark.parametrize(
    "journal", [MemoryJournal(max_entries=3), MemoryJournal(max_bytes=200)], ids=["count", "bytes"]
)
async def test_the_journal_is_full(valkey_rig: Rig, journal: MemoryJournal) -> None:
    async with guarded(valkey_rig.port, journal=journal) as (guard, client):
        await healthy(client)
        guard.breaker.force_open()
        kept = 0
        while (error := await raised(client.rpush("l", kept))) is None:
            kept += 1
        assert kept in (2, 3)
        assert isinstance(error, JournalFull)
        assert isinstance(error, CommandRefused)
        assert error.command == "RPUSH"
        assert guard.breaker.pending == kept
        # The whole of a pipeline or nothing.
        pipe = client.pipeline(transaction=False)
        pipe.set("a", 1).set("b", 2)
        assert isinstance(await raised(pipe.execute()), JournalFull)
        assert guard.breaker.pending == kept
        assert await client.get("a") is None  # reads are answered as before
        await guard.reopened()
        assert valkey_rig.admin.lrange("l", 0, -1) == [str(n) for n in range(kept)]
        assert valkey_rig.admin.exists("a", "b") == 0
        assert await client.rpush("l", "more") == kept + 1
        guard.breaker.force_open()  # and there is room again
        assert isinstance(await client.rpush("l", "again"), Queued)
        await guard.reopened()


async def test_too_old(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig.port, journal=MemoryJournal(max_age=60.0)) as (guard, client):
        await healthy(client)
        shift = 0.0
        guard.breaker.clock = lambda: time.monotonic() + shift
        guard.breaker.force_open()
        old = await client.rpush("l", "old")
        await client.set("k", "old")
        shift = 50.0
        await client.rpush("l", "young")
        shift = 61.0
        assert (guard.breaker.snapshot().oldest_age or 0) > 60
        await guard.reopened()
        assert valkey_rig.admin.lrange("l", 0, -1) == ["young"]
        assert valkey_rig.admin.exists("k") == 0
        assert guard.letters() == [("RPUSH", "age"), ("SET", "age")]
        with pytest.raises(Exception, match=r"(?i)age"):
            old.result()


async def test_dead_letters_are_bounded(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig.port) as (guard, client):
        await client.set("string", "s")
        guard.breaker.force_open()
        for n in range(1010):
            await client.rpush("string", n)
        await guard.reopened()
        letters = guard.breaker.dead_letters
        assert [letter.seq for letter in letters] == list(range(11, 1011))
        assert len(guard.seen(EntryDeadLettered)) == 1010
        assert guard.breaker.snapshot().counters["dead_lettered"] == 1010
        error = await raised(client.rpush("string", 1))
        assert isinstance(error, ResponseError)  # and live again


async def test_a_poisoned_reply_during_the_drain_reaches_its_writer(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig.port, drain_wait=5.0) as (guard, client):
        await client.set("string", "s")
        guard.breaker.force_open()
        for n in range(2000):
            await client.rpush("l", n)
        guard.breaker.reset()
        assert not guard.breaker.gate_open
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await client.rpush("string", 1)
        await guard.recovered()
