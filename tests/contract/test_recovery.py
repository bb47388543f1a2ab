"""After an outage, without any traffic: what was acknowledged is there, once and in order."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from resilient_redis import OutcomeUnknown, ResilienceError
from resilient_redis.cli.history import History, Kind, Outcome
from resilient_redis.cli.servers import REDIS_6
from resilient_redis.events import ReplayFinished, StateChanged
from tests.contract.recovery_helpers import (
    Client,
    Guarded,
    guarded,
    healthy,
    proxied,
    raised,
    read,
    recovery_link,
    until,
    watermarks,
)
from tests.support.flavours import Queued
from tests.support.servers import Rig


class Worker:
    """Issues one operation after the other, and notes what it was told."""

    def __init__(self, number: int, client: Client, history: History) -> None:
        self.number = number
        self.client = client
        self.history = history

    async def step(self, n: int) -> None:
        client, shared = self.client, f"shared:{n % 3}"
        await self._write(shared, Kind.APPEND, client.rpush)
        key = f"own:{self.number}"
        await self._write(key, Kind.REGISTER, client.set)
        await self._read(key)
        await self._write("hot", Kind.REGISTER, client.set)
        await self._write("ttl", Kind.REGISTER, _set_px(client), ttl_ms=60_000)
        if n % 4 == 0:
            await self._write(key, Kind.DELETE, lambda key, _: client.delete(key))

    async def _write(self, key: str, kind: Kind, do: Any, ttl_ms: int | None = None) -> None:
        token = None if kind is Kind.DELETE else self.history.token(self.number)
        call = self.history.begin(self.number, key, kind, token, ttl_ms=ttl_ms)
        try:
            await do(key, token)
        except OutcomeUnknown:
            call.end(Outcome.UNKNOWN)
        except ResilienceError:
            call.end(Outcome.REFUSED)
        else:
            call.end(Outcome.ACKNOWLEDGED)

    async def _read(self, key: str) -> None:
        call = self.history.begin(self.number, key, Kind.READ)
        found = await read(self.client, key)
        call.end(Outcome.NEUTRAL if found is None else Outcome.VALUE, found)


def _set_px(client: Client) -> Any:
    return lambda key, token: client.set(key, token, px=60_000)


async def work(guard: Guarded, client: Client, history: History, rounds: int) -> None:
    workers = [Worker(n, client, history) for n in range(8)]

    async def run(worker: Worker) -> None:
        for n in range(rounds):
            await worker.step(n)
            await asyncio.sleep(0.001)

    await asyncio.gather(*map(run, workers))


async def test_all_that_was_acknowledged_and_nothing_twice(rig: Rig) -> None:
    history = History()
    async with guarded(rig.port, batch_size=50) as (guard, client):
        await work(guard, client, history, 3)
        busy = asyncio.create_task(work(guard, client, history, 60))
        await until(lambda: rig.admin.exists("own:7"))
        rig.kill()
        await busy
        assert guard.breaker.state != "CLOSED"
        assert guard.breaker.pending > 100
        rig.restart()
        await guard.recovered()  # and nobody calls
        assert guard.breaker.pending == 0
        assert guard.seen(ReplayFinished)[-1].dead_letters == 0
    verdict = rig.check(history.ops())
    assert verdict.ok, str(verdict)
    assert verdict.acknowledged > 2000


async def test_work_goes_on_through_several_outages(rig: Rig) -> None:
    """Writers meet the trip, the outage, the drain and the moment when the gate opens."""
    history = History()
    async with proxied(rig, batch_size=20, drain_wait=0.05) as (proxy, guard, client):
        busy = asyncio.create_task(work(guard, client, history, 200))
        for _ in range(5):
            outages = guard.breaker.outages
            await proxy.refuse()
            proxy.cut_all()
            await until(lambda before=outages: guard.breaker.outages > before or busy.done())  # type: ignore[misc]
            await until(lambda: guard.breaker.pending > 100 or busy.done())
            await proxy.accept()
            await until(lambda: not guard.breaker.busy or busy.done())
        await busy
        await guard.recovered()
    verdict = rig.check(history.ops())
    assert verdict.ok, str(verdict)
    assert len(guard.seen(StateChanged)) >= 9


async def test_a_time_to_live_counts_from_the_call(rig: Rig) -> None:
    fields_expire = rig.flavour != REDIS_6  # from Redis 7.4 on
    async with guarded(rig.port) as (guard, client):
        shift = 0.0
        guard.breaker.clock = lambda: time.monotonic() + shift
        await client.hset("hash", "f", "v")
        await client.set("expire", "v")
        for key in ("old", "expired"):
            await client.set(key, "old")
        guard.breaker.force_open()
        await client.set("px", "v", px=10_000)
        await client.set("ex", "v", ex=10)
        await client.execute_command("SETEX", "setex", 10, "v")  # redis-py's own is deprecated
        await client.expire("expire", 10)
        if fields_expire:
            await client.hpexpire("hash", 10_000, "f")
        await client.set("old", "new", px=900)
        await client.pexpire("expired", 900)
        shift = 1.0
        await guard.reopened()
        for key in ("px", "ex", "setex", "expire"):
            assert rig.admin.pttl(key) == pytest.approx(9000, abs=200), key
        if fields_expire:
            assert rig.admin.hpttl("hash", "f")[0] == pytest.approx(9000, abs=200)
        # Their deadlines have passed in the journal: the old values must be gone all the same.
        assert rig.admin.exists("old", "expired") == 0
        assert not guard.letters()


@pytest.mark.parametrize("backlog", [12, 3000])
async def test_a_write_during_the_drain_gets_its_real_reply(rig: Rig, backlog: int) -> None:
    """Behind a short backlog it is sent, behind a long one replayed: nobody can tell."""
    async with proxied(rig, batch_size=backlog // 6, drain_wait=5.0) as (proxy, guard, client):
        await client.sadd("there", "a")
        guard.breaker.force_open()
        for n in range(backlog):
            assert isinstance(await client.rpush("l", n), Queued)
        proxy.latency(0.02, match=b"TIME", direction="down")  # the recovery connection
        guard.breaker.reset()
        await until(lambda: rig.admin.llen("l"))
        assert not guard.breaker.gate_open
        answers = await asyncio.gather(
            client.rpush("l", backlog),
            client.sadd("s", "a", "b"),
            client.sadd("there", "a"),
            client.set("k", "v"),
            client.delete("nothing"),
            client.hset("h", mapping={"a": "1"}),
            client.zadd("z", {"a": 1.5}),
            client.lpush("there", "x"),
            return_exceptions=True,
        )
        assert answers[:-1] == [backlog + 1, 2, 0, True, 0, 1, 1]
        assert "WRONGTYPE" in str(answers[-1])
        await guard.recovered()
    assert rig.admin.lrange("l", 0, -1) == [str(n) for n in range(backlog + 1)]


async def test_a_pipeline_during_the_drain_gets_its_real_replies(rig: Rig) -> None:
    async with proxied(rig, batch_size=1, drain_wait=5.0) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        for n in range(6):
            await client.rpush("l", n)
        proxy.latency(0.02, match=b"TIME", direction="down")
        guard.breaker.reset()
        await until(lambda: rig.admin.llen("l"))
        pipe = client.pipeline(transaction=False)
        pipe.rpush("l", 6).set("k", "v").sadd("s", "a").rpush("l", 7)
        assert await pipe.execute() == [7, True, 1, 8]
        await guard.recovered()


@pytest.mark.parametrize("backlog", [1, 1500])
async def test_a_write_that_waits_too_long_for_the_drain_is_queued(rig: Rig, backlog: int) -> None:
    """Behind a short backlog it waits to be sent, behind a long one in the journal."""
    async with proxied(rig, drain_wait=0.02) as (proxy, guard, client):
        await healthy(client)
        guard.breaker.force_open()
        for n in range(backlog):
            await client.rpush("l", n)
        stalled = proxy.stall(match=b"RPUSH", direction="down")
        guard.breaker.reset()
        await until(lambda: rig.admin.llen("l"))
        receipt = await asyncio.wait_for(client.rpush("l", backlog), 0.3)
        assert isinstance(receipt, Queued)
        stalled.end()
        assert await receipt.outcome(2.0) == backlog + 1
        await guard.recovered()
    assert rig.admin.llen("l") == backlog + 1


async def test_a_read_never_goes_back_behind_the_callers_own_write(rig: Rig) -> None:
    """None is the neutral answer while it is open; an older value is a lie at any time."""
    async with proxied(rig, batch_size=3, drain_wait=0.02) as (proxy, guard, client):
        breaker = guard.breaker
        done = False
        counts = {"value": 0, "neutral": 0}

        async def caller(number: int) -> None:
            n = 0
            while not done:
                n += 1
                await asyncio.sleep(0.001)
                await client.set(f"k{number}", n)
                before = (breaker.live, breaker.outages)
                found = await read(client, f"k{number}")
                if found is None:
                    assert before != (True, breaker.outages), "neutral, and nothing was wrong"
                    counts["neutral"] += 1
                else:
                    assert int(found) == n
                    counts["value"] += 1

        callers = [asyncio.create_task(caller(number)) for number in range(10)]

        async def more(kind: str) -> None:
            """100 more answers of that kind, or the error of a caller."""
            target = counts[kind] + 100
            await until(lambda: counts[kind] > target or any(c.done() for c in callers))

        try:
            for _ in range(4):
                await more("value")
                await proxy.refuse()
                proxy.cut_all()
                await more("neutral")
                await proxy.accept()
        finally:
            done = True
            await asyncio.gather(*callers)
        await guard.recovered()


async def test_two_databases_share_one_breaker(rig: Rig) -> None:
    async with guarded(rig.port, batch_size=3) as (guard, zero):
        three = guard.client(db=3)
        await healthy(zero)
        guard.breaker.force_open()
        for n in range(20):
            await (zero if n % 5 < 3 else three).rpush("l", n)
        await guard.reopened()
        assert await zero.lrange("l", 0, -1) == [b"%d" % n for n in range(20) if n % 5 < 3]
        assert await three.lrange("l", 0, -1) == [b"%d" % n for n in range(20) if n % 5 >= 3]
        # In the journal's order over both, too.
        values = [int(e.args[2]) for e in rig.effects() if e.name == b"RPUSH"]
        assert values == list(range(20))
    assert watermarks(rig, 0) == watermarks(rig, 3) == []


async def test_the_watermark_is_there_during_the_drain_only(rig: Rig) -> None:
    async with proxied(rig) as (proxy, guard, client):
        await healthy(client)
        assert watermarks(rig) == []  # trying the rights left nothing
        guard.breaker.force_open()
        for n in range(3):
            await client.rpush("l", n)
        stalled = proxy.stall(match=b"RPUSH", direction="down")
        guard.breaker.reset()
        await until(lambda: rig.admin.llen("l") == 3)
        (key,) = watermarks(rig)
        assert rig.admin.ttl(key) == -1
        # A late copy meets a watermark that has moved on, touches it, and must leave no TTL.
        sent = bytes(recovery_link(proxy).sent)
        sent = sent[sent.rindex(b"*2\r\n$5\r\nWATCH", 0, sent.index(b"EVAL")) :]
        await proxy.replay_late(sent)
        assert rig.admin.ttl(key) == -1
        stalled.end()
        await guard.recovered()
        assert watermarks(rig) == []


async def test_aclose_leaves_no_watermark(rig: Rig) -> None:
    """`aclose` wakes when the gate opens, which is before the watermarks are deleted."""
    async with proxied(rig) as (proxy, guard, zero):
        three = guard.client(db=3)
        await healthy(zero)
        guard.breaker.force_open()
        await zero.rpush("l", 0)
        await three.rpush("l", 1)
        proxy.latency(0.01, match=b"TIME", direction="down")
        guard.breaker.reset()
        assert await guard.breaker.aclose(drain_timeout=5.0) == 0
        assert (watermarks(rig, 0), watermarks(rig, 3)) == ([], [])


async def test_down_from_the_start(rig: Rig) -> None:
    """Nothing was ever connected: what the user may do is not known when the drain begins."""
    async with proxied(rig, batch_size=2) as (proxy, guard, client):
        await proxy.refuse()
        for n in range(9):
            await client.rpush("l", n)
        await proxy.accept()
        await guard.recovered()
        assert await client.lrange("l", 0, -1) == [b"%d" % n for n in range(9)]


@pytest.mark.parametrize(
    "rule, mode",
    [
        ("-eval", "WATCH and GET before each batch"),
        ("-pexpire", "WATCH and GET before each batch"),  # the guard script needs it
        ("-persist", "WATCH and GET before each batch"),
        ("-watch", "only writes that are safe to send twice"),
        ("-multi", "only writes that are safe to send twice"),
        ("-exec", "only writes that are safe to send twice"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
async def test_rights_are_known_before_the_first_batch(
    valkey_rig: Rig, rule: str, mode: str, known: bool
) -> None:
    """Also where the server was down from the start, and writes were queued before anybody knew."""
    valkey_rig.acl("default", rule)
    async with proxied(valkey_rig, batch_size=2) as (proxy, guard, client):
        if known:
            await healthy(client)
            guard.breaker.force_open()
        else:
            await proxy.refuse()
        counted = [await raised(client.rpush("l", n)) for n in range(5)]
        await client.set("k", "v")
        await proxy.accept()
        guard.breaker.reset()
        await guard.recovered(3.0)
        assert guard.breaker.snapshot().replay_mode == mode
        assert valkey_rig.admin.get("k") == "v"
        if mode.startswith("only"):
            # Refused at once, or set aside: never sent without what keeps it once.
            assert [type(e).__name__ for e in counted] == [
                "CommandRefused" if known else "NoneType"
            ] * 5
            assert guard.letters() == ([] if known else [("RPUSH", "rights")] * 5)
            assert valkey_rig.admin.llen("l") == 0
        else:
            assert valkey_rig.admin.lrange("l", 0, -1) == ["0", "1", "2", "3", "4"]


async def test_rights_learned_by_another_connection_in_the_middle_of_a_drain(
    valkey_rig: Rig,
) -> None:
    valkey_rig.acl("default", "-eval", "-evalsha")
    async with proxied(valkey_rig, batch_size=1, drain_wait=0.01) as (proxy, guard, client):
        await proxy.refuse()
        for n in range(20):
            await client.rpush("l", n)
        proxy.latency(0.01, match=b"TIME", direction="down")
        await proxy.accept()
        await until(lambda: guard.breaker.closed)
        while guard.breaker.busy:
            await client.get("x")  # connects, and tries the rights
        await guard.recovered()
        assert valkey_rig.admin.lrange("l", 0, -1) == [str(n) for n in range(20)]
        assert guard.breaker.outages == 1, "the recovery connection lost its place in the replies"


@pytest.mark.parametrize("rule", ["-time", "-ping", "-client", "-select"])
async def test_what_recovery_uses_may_be_forbidden(valkey_rig: Rig, rule: str) -> None:
    """A user with few rights recovers like any other; a missing permission is no outage."""
    valkey_rig.acl("default", rule)
    async with guarded(valkey_rig.port) as (guard, client):
        await healthy(client)
        guard.breaker.force_open()
        await client.rpush("l", 1)
        await client.set("k", "v", px=60_000)
        await guard.reopened(3.0)
        assert valkey_rig.admin.lrange("l", 0, -1) == ["1"]
        assert valkey_rig.admin.pttl("k") == pytest.approx(60_000, abs=500)
        assert await client.rpush("l", 2) == 2


async def test_a_database_that_cannot_be_selected(valkey_rig: Rig) -> None:
    """Its writes are dead letters; in another database they would be somebody else's data."""
    async with proxied(valkey_rig) as (proxy, guard, client):
        await proxy.refuse()
        far = guard.client(db=99)
        await client.set("k", "mine")
        await far.set("k", "yours")
        await far.rpush("l", "yours")
        await client.rpush("l", "mine")
        await proxy.accept()
        await guard.recovered()
        assert valkey_rig.admin.get("k") == "mine"
        assert valkey_rig.admin.lrange("l", 0, -1) == ["mine"]
        assert guard.letters() == [("SET", "error"), ("RPUSH", "error")]


@pytest.mark.asyncio_only("threads take turns by themselves")
async def test_a_caller_that_never_waits_starves_nobody(valkey_rig: Rig) -> None:
    """What is answered without I/O never yields by itself; a consumer that polls would stop the
    event loop, and with it the recovery that it waits for.
    """
    async with guarded(valkey_rig.port) as (guard, client):
        await healthy(client)
        guard.breaker.force_open()
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for _ in range(500):
            await client.lpop("queue")
            await client.set("k", "v")
        task.cancel()
        await asyncio.wait({task})
        assert turns > 10
        guard.breaker.reset()
        stop = time.monotonic() + 3.0
        while not guard.breaker.live and time.monotonic() < stop:
            await client.lpop("queue")
        assert guard.breaker.live
        await guard.recovered()
