"""The oracle against real servers: by their append-only file, and by reading back."""

from __future__ import annotations

import asyncio

import pytest
import redis
import redis.asyncio

from resilient_redis.cli.history import History, Kind, Outcome
from resilient_redis.cli.readback import read_back
from resilient_redis.cli.verdict import Verdict
from tests.support.servers import Rig

pytest_plugins = ["tests.support.fixtures"]

ACK = Outcome.ACKNOWLEDGED


@pytest.mark.parametrize("aof", [True, False])
def test_a_run_against_a_real_server(rig: Rig, aof: bool) -> None:
    history = History()
    with redis.Redis(port=rig.port) as client:
        for n in range(20):
            token = history.token(1)
            call = history.begin(1, "l", Kind.APPEND, token)
            client.rpush("l", token)
            call.end(ACK)
            token = history.token(1)
            call = history.begin(1, f"k{n % 3}", Kind.REGISTER, token, ttl_ms=60_000)
            client.set(f"k{n % 3}", token, px=60_000)
            call.end(ACK)
            call = history.begin(1, f"k{n % 3}", Kind.READ)
            call.end(Outcome.VALUE, client.get(f"k{n % 3}"))
            token = history.token(1)
            call = history.begin(1, "h", Kind.REGISTER, token, field=f"f{n % 2}")
            client.hset("h", f"f{n % 2}", token)
            call.end(ACK)
            call = history.begin(1, f"k{n % 5}", Kind.DELETE)
            client.delete(f"k{n % 5}")
            call.end(ACK)
            call = history.begin(1, "c", Kind.COUNTER)
            client.incr("c")
            call.end(ACK)

    def judge() -> Verdict:
        if aof:
            return rig.check(history.ops())
        return asyncio.run(_read_back())

    async def _read_back() -> Verdict:
        async with redis.asyncio.Redis(port=rig.port) as client:
            return await read_back(client, history.ops())

    assert judge().ok, str(judge())
    assert bool(judge().blind) is not aof
    # The same operations, not applied: everything that leaves a token or a count is missed.
    history.begin(1, "l", Kind.APPEND, "missing").end(ACK)
    history.begin(1, "h", Kind.REGISTER, "missing too", field="f0").end(ACK)
    history.begin(1, "c", Kind.COUNTER).end(ACK)
    verdict = judge()
    expected = {"lost": 3} if aof else {"lost": 2, "stale": 1}
    assert {k: v for k, v in verdict.anomalies().items() if v} == expected, str(verdict)


def test_a_naive_queue_is_found_out(valkey_rig: Rig) -> None:
    """FACTS.md, "The naive breaker": raised and queued, flushed behind newer writes."""
    history, queue = History(), []
    with redis.Redis(port=valkey_rig.port) as client:
        for n in range(100):
            token = history.token(1)
            call = history.begin(1, "k", Kind.REGISTER, token)
            if n < 50:
                queue.append(token)
            else:
                client.set("k", token)
            call.end(ACK)
        for token in queue:
            client.set("k", token)
    assert valkey_rig.check(history.ops()).stale == 50


@pytest.mark.parametrize(
    "final, anomaly",
    [("v1", "stale"), ("v2", None), (None, "lost"), ("v3", "refused_but_applied"), ("?", None)],
)
async def test_read_back_judges_the_last_value(
    valkey_rig: Rig, final: str | None, anomaly: str | None
) -> None:
    history = History()
    for value, outcome in (("v1", ACK), ("v2", ACK), ("v3", Outcome.REFUSED)):
        history.begin(1, "k", Kind.REGISTER, value).end(outcome)
    async with redis.asyncio.Redis(port=valkey_rig.port) as client:
        if final is not None:
            await client.set("k", final)
        verdict = await read_back(client, history.ops())
    expected = {} if anomaly is None else {anomaly: 1}
    assert {k: v for k, v in verdict.anomalies().items() if v} == expected, str(verdict)
    assert verdict.foreign == (final == "?")


def test_history_notes_what_never_ended_as_unknown() -> None:
    history = History()
    call = history.begin(1, "k", Kind.REGISTER, history.token(1))
    history.begin(2, "l", Kind.APPEND, history.token(2))
    call.end(ACK)
    assert [op.outcome for op in history.ops()] == [ACK, Outcome.UNKNOWN]
    assert len(history) == 2


def test_the_same_key_in_another_database_is_another_key(valkey_rig: Rig) -> None:
    history = History()
    history.begin(1, "k", Kind.REGISTER, "v1").end(ACK)
    history.begin(1, "k", Kind.REGISTER, "v2", db=3).end(ACK)
    with redis.Redis(port=valkey_rig.port, db=3) as client:
        client.set("k", "v1")
        client.set("k", "v2")
    verdict = valkey_rig.check(history.ops())
    assert (verdict.lost, verdict.foreign) == (1, 1), str(verdict)
