"""What is queued, through every response callback of redis-py, and what it leaves in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from resilient_redis.asyncio import Queued, RedisCircuitBreaker
from tests.breadth.calls import (
    ACCEPTED,
    COUNTED,
    LACKING,
    RECEIPTS,
    SEED,
    STATUS,
    Call,
    known,
)
from tests.breadth.content import content
from tests.breadth.ways import WAYS, Way, answered, guarded, named, same, stock
from tests.contract.recovery_helpers import until
from tests.support.servers import Rig


def writes(rig: Rig) -> list[Call]:
    """All that this redis-py and this server have, in order."""
    calls = known([*STATUS, *ACCEPTED, *RECEIPTS, *COUNTED])
    return [call for call in calls if not lacking(rig, call)]


def lacking(rig: Rig, call: Call) -> bool:
    method = call.method
    return method in LACKING[rig.flavour] and (method != "bitop" or call.args[0] == "DIFF")


async def seeded(plain: Any) -> None:
    for call in SEED:
        await call.on(plain)


class Live(NamedTuple):
    """What the calls answer and leave at a healthy server."""

    calls: list[Call]
    answers: list[Any]
    left: dict[bytes, Any]


async def live(rig: Rig, way: Way) -> Live:
    calls = writes(rig)
    async with stock(rig, way) as plain:
        await seeded(plain)
        answers = [await answered(call.on(plain)) for call in calls]
        assert not [answer for answer in answers if isinstance(answer, Exception)]
        left = content(rig)
        await plain.flushall()
        await seeded(plain)
    return Live(calls, answers, left)


# ---- what the contract says of the answers


def judge(calls: Sequence[Call], ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Each answer is what the contract says: a constant, an acceptance, or a receipt."""
    wrong = {
        str(call): (our, real)
        for call, our, real in zip(calls, ours, theirs, strict=True)
        if not as_promised(call, our, real)
    }
    assert not wrong


def as_promised(call: Call, ours: Any, real: Any) -> bool:
    if call in STATUS:
        return same(ours, real)
    if call in ACCEPTED:
        return same(ours, len(call.args) if call.method in ("delete", "unlink") else True)
    return type(ours) is Queued


# ---- the ways into the journal. Each looks after every call whether the next answer is the next's.


async def one_by_one(client: Any, calls: Sequence[Call], read: Any, marker: Any) -> list[Any]:
    answers = []
    for call in calls:
        answers.append(await answered(call.on(client)))
        assert same(await read(client), marker), f"after {call}"
    return answers


async def in_a_pipeline(client: Any, calls: Sequence[Call], read: Any, marker: Any) -> list[Any]:
    pipe = client.pipeline(transaction=False)
    for call in calls:
        call.on(pipe)
        read(pipe)
    answers = await pipe.execute()
    for call, found in zip(calls, answers[1::2], strict=True):
        assert same(found, marker), f"after {call}"
    return list(answers[::2])


async def in_a_transaction(client: Any, calls: Sequence[Call], read: Any, marker: Any) -> list[Any]:
    pipe = client.pipeline(transaction=True)
    for call in calls:
        call.on(pipe)
    answers = await pipe.execute()
    assert same(await read(client), marker)
    return list(answers)


def spelled(word: str, way: Way) -> str | bytes:
    return word if way["decode_responses"] else word.encode()


def reads_type(client: Any) -> Any:
    """A read whose answer is no write's: of a key that nobody writes."""
    return client.type("marker")


@pytest.mark.parametrize("way", WAYS, ids=named)
async def test_every_write_is_acknowledged_and_leaves_what_it_would_have_left(
    rig: Rig, way: Way
) -> None:
    told = await live(rig, way)
    for enter in (one_by_one, in_a_pipeline, in_a_transaction):
        async with guarded(rig, way, counters=True) as (client, breaker):
            breaker.force_open()
            answers = await enter(client, told.calls, reads_type, spelled("none", way))
            judge(told.calls, answers, told.answers)
            await replayed(client, breaker, answers, told)
        assert content(rig) == told.left
        await reset(rig, way)


async def replayed(
    client: Any, breaker: RedisCircuitBreaker, answers: Sequence[Any], told: Live
) -> None:
    """Lets go, and waits until all is in Redis: each receipt then knows its reply."""
    breaker.reset()
    await until(lambda: not breaker.busy, 10.0)
    assert list(breaker.dead_letters) == []
    for call, answer, real in zip(told.calls, answers, told.answers, strict=True):
        if type(answer) is Queued:
            outcome = await answer.outcome()
            # As it came; what redis-py makes of it differs, but for an integer.
            assert type(real) is not int or same(outcome, real), call
    # The connection is of use, and nothing is left on it.
    for n in range(3):
        assert await client.echo(str(n)) in (str(n), str(n).encode())


async def reset(rig: Rig, way: Way) -> None:
    rig.admin.flushall()
    async with stock(rig, way) as plain:
        await seeded(plain)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_over_the_only_connection_of_a_client(valkey_rig: Rig, protocol: int) -> None:
    rig, way = valkey_rig, {"protocol": protocol, "decode_responses": True}
    told = await live(rig, way)
    async with guarded(rig, way, counters=True, single_connection_client=True) as (client, breaker):
        await client.initialize()
        breaker.force_open()
        answers = await one_by_one(client, told.calls, reads_type, "none")
        judge(told.calls, answers, told.answers)
        await replayed(client, breaker, answers, told)
    assert content(rig) == told.left


@pytest.mark.parametrize("way", WAYS, ids=named)
async def test_beside_replies_that_are_read_from_the_socket(valkey_rig: Rig, way: Way) -> None:
    """A server that takes no writes now: they are queued, and the reads between them go to it."""
    rig = valkey_rig
    told = await live(rig, way)
    for enter in (one_by_one, in_a_pipeline):
        rig.admin.sadd("marker", "m")
        async with guarded(rig, way, counters=True) as (client, breaker):
            rig.no_replicas()
            assert await client.delete("nothing") == 1
            assert breaker.snapshot().writes_held == "NOREPLICAS"
            answers = await enter(client, told.calls, reads_type, spelled("set", way))
            judge(told.calls, answers, told.answers)
            rig.no_replicas(False)
            await replayed(client, breaker, answers, told)
        rig.admin.delete("marker")
        assert content(rig) == told.left
        await reset(rig, way)
