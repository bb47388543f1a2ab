"""A real deployment under load: the master is killed, Sentinel promotes a replica.

The witnesses are what the callers were told and the append-only files of both masters. A write that
the dead master alone had, and had acknowledged, is lost by Redis; nothing else may be lost, nothing
may be there twice or out of order, and no read nor queueable write may raise. The one exception is
the contract's own: a push in flight at the kill is `OutcomeUnknown`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest

import resilient_redis
import resilient_redis.asyncio
from resilient_redis import OutcomeUnknown
from resilient_redis.cli.aof import Effect, read_effects
from resilient_redis.cli.history import Call, History, Kind, Op, Outcome
from resilient_redis.cli.oracle import check
from resilient_redis.cli.servers import REDIS, VALKEY, available
from tests.contract.recovery_helpers import until
from tests.support import threaded
from tests.support.flavours import Queued, RedisCircuitBreaker, threads
from tests.support.sentinels import SERVICE, Deployment, close

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.early,
    pytest.mark.skipif(not available(), reason="neither Valkey nor Redis can be started here"),
]
#: In the gate one, in `make full` the five of issue 5.
KILLS = int(os.environ.get("SENTINEL_KILLS", "1"))
WRITERS, READERS = 8, 4
BEFORE, AFTER = 0.4, 0.3  # s of load
FLAVOURS = [flavour for flavour in (VALKEY, REDIS) if flavour in available()]


class Load:
    """Tasks that write, tasks that read, and what they were told."""

    def __init__(self, client: Any, replicas: Any) -> None:
        self.client = client
        self.replicas = replicas
        self.history = History()
        self.raised: list[tuple[str, Exception]] = []
        self.slowest = 0.0  # s, of a call
        self.reads = Counter[str]()
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._write(n)) for n in range(WRITERS)]
        self._tasks += [asyncio.create_task(self._read(n)) for n in range(READERS)]

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _write(self, number: int) -> None:
        """To keys of its own and to one that all of them push to. One task pushes nothing: a push
        that is in flight at a frozen master is waited for until the replay begins.
        """
        own, register = f"own:{number}", f"register:{number}"
        for turn in range(1_000_000):
            if self._over:
                return
            if turn % 3 == 0 or number == 0:
                call, token = self._begin(number, register, Kind.REGISTER)
                self._end(call, *await self._told("SET", self.client.set(register, token)))
            elif turn % 3 == 1:
                key = "shared" if turn % 2 else own
                call, token = self._begin(number, key, Kind.APPEND)
                self._end(call, *await self._told("RPUSH", self.client.rpush(key, token)))
            else:
                first, one = self._begin(number, own, Kind.APPEND)
                second, other = self._begin(number, register, Kind.REGISTER)
                async with self.client.pipeline(transaction=True) as pipe:
                    pipe.rpush(own, one).set(register, other)
                    outcome, replies = await self._told("MULTI", pipe.execute())
                self._end(first, outcome, replies and replies[0])
                self._end(second, outcome, replies and replies[1])
            await asyncio.sleep(0.002)

    async def _read(self, number: int) -> None:
        """In tasks that never write: what they read as neutral is nobody's premise."""
        client, where = (self.replicas, "replicas") if number % 2 else (self.client, "master")
        while not self._over:
            key = f"register:{number}"
            call = self.history.begin(100 + number, key, Kind.READ)
            outcome, value = await self._told("GET", client.get(key))
            if outcome is Outcome.ACKNOWLEDGED:
                outcome = Outcome.NEUTRAL if value is None else Outcome.VALUE
            self.reads[f"{where} {outcome.value}"] += 1
            # A replica may be behind: that is no promise of anybody's.
            call.end(Outcome.NEUTRAL if client is self.replicas else outcome, value)
            await asyncio.sleep(0.002)

    def _begin(self, number: int, key: str, kind: Kind) -> tuple[Call, str]:
        token = self.history.token(number)
        return self.history.begin(number, key, kind, token), token

    def _end(self, call: Call, outcome: Outcome, reply: Any) -> None:
        queued = outcome is Outcome.ACKNOWLEDGED and isinstance(reply, Queued)
        call.end(Outcome.QUEUED if queued else outcome)

    async def _told(self, command: str, answer: Awaitable[Any]) -> tuple[Outcome, Any]:
        began = time.monotonic()
        try:
            return Outcome.ACKNOWLEDGED, await answer
        except Exception as error:  # noqa: BLE001 - each is looked at in the end
            self.raised.append((command, error))
            unknown = isinstance(error, OutcomeUnknown)
            return (Outcome.UNKNOWN if unknown else Outcome.ERROR), None
        finally:
            self.slowest = max(self.slowest, time.monotonic() - began)


def lost_by_redis(ops: list[Op], new: list[Effect], old: list[Effect]) -> set[int]:
    """Acknowledged, on the dead master alone; and not from the queue, which it never saw."""
    there, dead = ({arg for effect in effects for arg in effect.args} for effects in (new, old))
    return {
        op.id
        for op in ops
        if op.acknowledged
        and op.outcome is not Outcome.QUEUED
        and op.kind is not Kind.READ
        and op.value not in there
        and op.value in dead
    }


async def fail_over(deployment: Deployment, how: str) -> str:
    """Load, the end of the master, recovery, the verdict; returns the figures."""
    sentinel = deployment.sentinel()
    module: Any = resilient_redis if threads() else resilient_redis.asyncio
    guarded = {"connection_class": module.ResilientSentinelManagedConnection}
    breaker = RedisCircuitBreaker(recovery_timeout=0.5)
    beside = RedisCircuitBreaker(recovery_timeout=0.5)
    client = sentinel.master_for(SERVICE, breaker=breaker, **guarded)
    replicas = sentinel.slave_for(SERVICE, breaker=beside, **guarded)
    if threads():
        client, replicas = threaded.Redis.of(client), threaded.Redis.of(replicas)
    load = Load(client, replicas)
    load.start()
    await asyncio.sleep(BEFORE)
    began = time.monotonic()
    # In a thread: the tasks go on meanwhile.
    await asyncio.to_thread(deployment.master.kill if how == "killed" else deployment.master.freeze)
    await until(lambda: breaker.outages == 1, 5.0)
    await until(lambda: breaker.closed and breaker.gate_open, 20.0)
    took = time.monotonic() - began
    if how == "frozen":
        # It believes to be the master still, and executes what was in flight, until it is told.
        deployment.master.thaw()
    await asyncio.sleep(AFTER)
    await load.stop()
    await until(lambda: not breaker.busy)
    promoted = deployment.promoted()
    assert promoted is not None
    snapshot = breaker.snapshot()
    await breaker.aclose()
    await beside.aclose()
    await client.aclose()
    await replicas.aclose()
    await close(sentinel)
    new, old = read_effects(promoted.directory), read_effects(deployment.master.directory)
    ops = load.history.ops()
    gone = lost_by_redis(ops, new, old)
    verdict = check([op for op in ops if op.id not in gone], new)
    assert verdict.ok, f"{verdict}"
    errors = Counter((command, type(error).__name__) for command, error in load.raised)
    assert set(errors) <= {("RPUSH", "OutcomeUnknown"), ("MULTI", "OutcomeUnknown")}, errors
    assert errors.total() <= WRITERS, errors  # in flight at the kill
    assert snapshot.dead_letters == 0
    replayed = snapshot.counters["replayed"]
    # A frozen master is missed when a deadline is over; Sentinel has been at it meanwhile.
    assert replayed > (100 if how == "killed" else 0)
    assert load.reads["replicas value"] > 0
    return (
        f"{deployment.flavour}, {'threads' if threads() else 'asyncio'}, "
        f"master {how}: service back after {took:.1f} s; "
        f"{verdict.acknowledged} acknowledged, {replayed} of them replayed; "
        f"lost by Redis {len(gone)}, by us {verdict.lost}, twice {verdict.duplicated}, "
        f"out of order {verdict.out_of_order + verdict.stale}; "
        f"pushes in flight and unknown {errors.total()}; slowest call {load.slowest:.2f} s; "
        + ", ".join(f"{count} {what}" for what, count in sorted(load.reads.items()))
    )


@pytest.mark.usefixtures("flavour")
@pytest.mark.parametrize("case", [*(f"killed {n}" for n in range(KILLS)), "frozen 0"])
@pytest.mark.among_threads(case=("frozen 0",) if KILLS == 1 else ("frozen 0", "killed 1"))
async def test_the_master_is(case: str) -> None:
    """A frozen one comes back. Every second deployment has a password."""
    how, number = case.split()
    flavour = FLAVOURS[int(number) % len(FLAVOURS)]
    with Deployment(flavour, "pa55word" if int(number) % 2 else None) as deployment:
        print(await fail_over(deployment, how))
