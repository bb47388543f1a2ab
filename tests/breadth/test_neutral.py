"""Every method of redis-py's command classes while Redis is away, in every way of talking."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from resilient_redis.asyncio import CommandRefused, ResilientRedis
from resilient_redis.cli.servers import REDIS, VALKEY
from resilient_redis.core.catalog import ROWS, UNKNOWN
from tests.breadth.calls import (
    COMPLETE,
    COUNTED,
    EXCLUDED,
    NEUTRAL,
    QUEUED,
    REFUSED,
    SEED,
    Call,
    known,
    methods,
    samples,
)
from tests.breadth.ways import WAYS, Way, answered, guarded, named, same, stock
from tests.support.servers import Rig, Rigs
from tests.surface.helpers import quick

#: Where a neutral answer is not that of an empty server, and why.
EXCEPTIONS = {
    "xreadgroup": "without a group the server answers NOGROUP: a group without news is meant",
}
BLOCKING = {"blpop", "brpop", "blmpop", "bzpopmin", "bzpopmax", "bzmpop"}


def blocks(call: Call) -> bool:
    return call.method in BLOCKING or "block" in call.kwargs


def test_every_method_has_a_call_or_a_reason_why_not() -> None:
    called = {call.method for call in (*NEUTRAL, *QUEUED, *COUNTED, *REFUSED)}
    assert set(methods()) - called == set(EXCLUDED) & set(methods())
    assert not called & set(EXCLUDED)


def test_every_call_is_one_of_the_redis_py_at_hand() -> None:
    calls = [*NEUTRAL, *SEED, *QUEUED, *COUNTED, *REFUSED]
    unknown = [str(call) for call in calls if not call.known]
    if COMPLETE:
        assert not unknown
    # An older one lacks some; whoever lacks more than that is not tested any more.
    assert len(unknown) < 0.25 * len(calls)
    exceptions = ", ".join(f"{name} ({why})" for name, why in EXCEPTIONS.items())
    print(
        f"{len(calls) - len(unknown)} calls of {len(methods())} methods in {len(WAYS)} ways; "
        f"{len(EXCEPTIONS)} exception to neutral answers: {exceptions}"
    )


async def test_what_redis_py_has_not_implemented_it_says_itself() -> None:
    async with Redis() as client:
        for name, why in EXCLUDED.items():
            if "NotImplementedError" in why and name in methods():
                with pytest.raises(NotImplementedError):
                    await getattr(client, name)()


def test_nothing_that_redis_py_sends_is_refused_as_unknown() -> None:
    unknown = {s.call.method for s in samples() if s.shape.reason == UNKNOWN}
    assert unknown == set()


def commands_of(rig: Rig) -> set[str]:
    """COMMAND LIST: all names, those of containers and of their subcommands."""
    found: list[str] = rig.admin.execute_command("COMMAND LIST")
    return {name.upper().replace("|", " ") for name in found}


#: Rows of commands that no server of these tests has, nor any method of the core command classes.
ELSEWHERE = {"VRANGE"}  # redis-py's `vset()` has it


def test_every_row_is_a_command_of_somebody(rigs: Rigs) -> None:
    """A name that is spelled wrongly is nobody's."""
    theirs = [commands_of(rigs.get(flavour)) for flavour in (REDIS, VALKEY)]
    assert min(map(len, theirs)) > 350
    sent = {sample.shape.name for sample in samples()}
    nobodys = {row.name for row in ROWS} - theirs[0] - theirs[1] - sent
    assert nobodys == ELSEWHERE or not COMPLETE  # an older redis-py does not send them all
    rowless = (theirs[0] | theirs[1]) - {row.name for row in ROWS}
    containers = {name.split()[0] for name in theirs[0] | theirs[1] if " " in name}
    assert rowless <= containers, "these have no row"
    print(
        f"{len(ROWS)} rows; without one: {len(rowless - containers)} of "
        f"{len(theirs[0])} names in Redis and {len(theirs[1])} in Valkey"
    )


# ---- neutral answers


@pytest.mark.parametrize("way", WAYS, ids=named)
async def test_a_neutral_answer_is_that_of_an_empty_server(rig: Rig, way: Way) -> None:
    async with stock(rig, way) as plain, guarded(rig, way) as (client, breaker):
        breaker.force_open()
        calls = known(call for call in NEUTRAL if call.method not in EXCEPTIONS)
        # A server looks only ten times a second whether the time of a blocking command is over.
        waiting = {
            str(call): asyncio.create_task(answered(call.on(plain)))
            for call in calls
            if blocks(call)
        }
        real = {
            str(call): await (waiting.get(str(call)) or answered(call.on(plain))) for call in calls
        }
        compare(real, {str(call): await answered(call.on(client)) for call in calls})
        alone = [call for call in calls if not blocks(call)]
        for transaction in (False, True):
            pipe = client.pipeline(transaction=transaction)
            for call in alone:
                call.on(pipe)
            compare(real, dict(zip(map(str, alone), await pipe.execute(), strict=True)))
        assert breaker.pending == 0
    assert rig.admin.dbsize() == 0


def compare(real: dict[str, Any], ours: dict[str, Any]) -> None:
    """What the server has answered to each call, and what we have."""
    assert len(ours) > 100
    assert not {call: (real[call], our) for call, our in ours.items() if not same(real[call], our)}


async def test_over_any_object_it_is_the_same(redis_rig: Rig) -> None:
    """There the method makes the command, and its callbacks the answer: nothing is on any wire."""
    for way in WAYS:
        if way.get("legacy_responses") is False:
            continue  # fakeredis does not know this option
        client = ResilientRedis(quick(FakeAsyncRedis(**way)))
        client.breaker.force_open()
        async with stock(redis_rig, way) as plain:
            for call in known(NEUTRAL):
                if call.method not in EXCEPTIONS and not blocks(call):
                    real, our = await call.on(plain), await call.on(client)
                    assert same(real, our), (call, real, our)
            for call in known(REFUSED):
                assert type(await answered(call.on(client))) is CommandRefused, call
        assert client.breaker.pending == 0
        await client.breaker.aclose()


@pytest.mark.parametrize("way", WAYS, ids=named)
async def test_the_exceptions_are_what_the_list_says(redis_rig: Rig, way: Way) -> None:
    """Where the server answers an error, and ours is what it answers to a group without news."""
    calls = known(call for call in NEUTRAL if call.method in EXCEPTIONS)
    async with stock(redis_rig, way) as plain, guarded(redis_rig, way) as (client, breaker):
        breaker.force_open()
        for call in calls:
            assert "NOGROUP" in str(await answered(call.on(plain)))
            our = await answered(call.on(client))
            await plain.xgroup_create("k", "g", mkstream=True)
            assert same(await call.on(plain), our)
            await plain.delete("k")


async def test_iterators_and_builders_find_nothing(valkey_rig: Rig) -> None:
    for way in WAYS:
        async with guarded(valkey_rig, way) as (client, breaker):
            breaker.force_open()
            for iterator in (
                client.hscan_iter("k"),
                client.sscan_iter("k"),
                client.zscan_iter("k"),
            ):
                assert [item async for item in iterator] == []
            with pytest.raises(CommandRefused):
                [key async for key in client.scan_iter()]
            assert await client.bitfield("k").get("u8", 0).get("i5", "#2").execute() == [0, 0]
            with pytest.raises(CommandRefused):
                await client.bitfield("k").set("u8", 0, 1).execute()
            with pytest.raises(CommandRefused):
                await client.register_script("return 1")(keys=["k"])
            assert breaker.pending == 0


# ---- refused


@pytest.mark.parametrize("way", WAYS, ids=named)
async def test_what_cannot_be_promised_is_refused_and_not_queued(valkey_rig: Rig, way: Way) -> None:
    async with guarded(valkey_rig, way) as (client, breaker):
        breaker.force_open()
        calls = known(REFUSED)
        answers = {str(call): await answered(call.on(client)) for call in calls}
        assert {c: a for c, a in answers.items() if type(a) is not CommandRefused} == {}
        assert all(error.reason for error in answers.values())
        assert breaker.pending == 0
        assert breaker.snapshot().counters["refused"] == len(calls)


@pytest.mark.parametrize("transaction", [False, True])
async def test_one_that_is_refused_refuses_the_whole_pipeline(
    valkey_rig: Rig, transaction: bool
) -> None:
    async with guarded(valkey_rig, WAYS[0]) as (client, breaker):
        breaker.force_open()
        for call in known(REFUSED):
            if call.method == "reset":
                continue  # a pipeline's own means something else
            pipe = client.pipeline(transaction=transaction).set("k", "v")
            call.on(pipe)
            with pytest.raises(CommandRefused):
                await pipe.execute()
            assert breaker.pending == 0, call


MODULES: list[Callable[[Any], Any]] = [
    lambda client: client.json().get("k"),
    lambda client: client.json().set("k", "$", {}),
    lambda client: client.ft("i").info(),
    lambda client: client.ts().get("k"),
    lambda client: client.bf().exists("k", "v"),
    lambda client: client.cf().add("k", "v"),
    lambda client: client.cms().info("k"),
    lambda client: client.topk().list("k"),
    lambda client: client.tdigest().min("k"),
    lambda client: client.vset().vcard("k"),
    lambda client: client.vset().vadd("k", [1.0, 2.0], "e"),
    lambda client: client.sentinel_masters(),
    lambda client: client.execute_command("NO.SUCH", "k"),
]


async def test_modules_are_refused(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig, WAYS[0]) as (client, breaker):
        breaker.force_open()
        for call in MODULES:
            with pytest.raises(CommandRefused):
                await call(client)
        assert breaker.pending == 0


# ---- however a command is spelled

SPELLINGS: list[tuple[Any, ...]] = [
    *itertools.product(["GET", "get", "GeT", b"get"], ["k", b"k", 1, 1.5, memoryview(b"k")]),
    ("object encoding", "k"),
    ("Object", "Encoding", "k"),
    (b"OBJECT", b"encoding", b"k"),
    ("get k",),
    ("hget", "k", memoryview(b"f")),
]
REFUSED_SPELLINGS: list[tuple[Any, ...]] = [
    ("set", "k", "v", "nx"),
    (b"Set", b"k", b"v", b"Get"),
    ("set k v nx",),
    ("getex", "k", "persist"),
    ("config get", "maxmemory"),
    ("config", "get", "maxmemory"),
    ("incr", 1),
    ("getx", "k"),
    ("get\u017fet", "k"),  # upper() of this letter is S: the server knows no such command
    (b"", "k"),
]


async def test_a_command_is_known_however_it_is_spelled(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig, WAYS[0]) as (client, breaker):
        breaker.force_open()
        for args in SPELLINGS:
            assert await client.execute_command(*args) is None, args
        for args in REFUSED_SPELLINGS:
            assert type(await answered(client.execute_command(*args))) is CommandRefused, args
        assert breaker.pending == 0
