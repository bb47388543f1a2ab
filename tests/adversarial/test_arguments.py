"""What is queued is what was given, whatever becomes of the arguments afterwards."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.contract.helpers import KEY, VALUE, outcome, until

from .conftest import Make
from .worlds import FAKE, SCRIPTED, World, script


@pytest.fixture
async def fake(make_world: Make) -> World:
    made: World = await make_world(FAKE)
    return made


@pytest.fixture
async def scripted(make_world: Make) -> World:
    made: World = await make_world(SCRIPTED)
    return made


# -- what is queued is what was given ------------------------------------------------------------


async def test_a_dictionary_that_is_changed_after_the_answer(any_object: World) -> None:
    await any_object.opened()
    mapping: dict[str, Any] = {"field": "given"}
    await any_object.client.hset(KEY, mapping=mapping)
    mapping["field"] = "changed"
    mapping["another"] = "one"
    await any_object.healed()
    if any_object.scripted is not None:
        assert any_object.scripted.data[KEY] == {"field": "given"}
    else:
        assert await any_object.truth.hgetall(KEY) == {b"field": b"given"}


async def test_a_dictionary_that_is_changed_while_the_call_fails(scripted: World) -> None:
    script(scripted).latency = 0.005
    await scripted.cut()
    mapping: dict[str, Any] = {"field": "given"}
    call = asyncio.create_task(outcome(scripted.client.hset(KEY, mapping=mapping)))
    await until(lambda: script(scripted).calls)
    mapping["field"] = "changed"
    assert vars(await call)["queued"] is True
    await scripted.healed()
    assert script(scripted).data[KEY] == {"field": "given"}


async def test_a_dictionary_that_is_changed_while_the_call_waits(scripted: World) -> None:
    await scripted.opened()
    await scripted.client.set(KEY, VALUE)
    script(scripted).latency = 0.02
    scripted.probe()
    mapping: dict[str, Any] = {"field": "given"}
    call = asyncio.create_task(scripted.client.hset(f"{KEY}-hash", mapping=mapping))
    await asyncio.sleep(0.01)
    mapping["field"] = "changed"
    assert await call == "OK"
    await scripted.healed()
    assert script(scripted).data[f"{KEY}-hash"] == {"field": "given"}


async def test_an_iterator_as_an_argument(fake: World) -> None:
    await fake.truth.sadd(f"{KEY}-1", "a")
    await fake.truth.sadd(f"{KEY}-2", "b")
    await fake.opened()
    await fake.client.sunionstore(f"{KEY}-queued", (f"{KEY}-{n}" for n in (1, 2)))
    await fake.healed()
    await fake.client.sunionstore(f"{KEY}-live", iter([f"{KEY}-1"]))
    assert await fake.truth.smembers(f"{KEY}-queued") == {b"a", b"b"}
    assert await fake.truth.smembers(f"{KEY}-live") == {b"a"}


async def test_an_iterator_whose_call_fails(fake: World) -> None:
    """It has been gone through by the call that failed; what is queued has it all the same."""
    await fake.truth.sadd(f"{KEY}-1", "a")
    await fake.cut()
    error = await outcome(fake.client.unlink(*iter([f"{KEY}-1"])))
    assert vars(error)["queued"] is True
    await fake.healed()
    assert await fake.truth.exists(f"{KEY}-1") == 0


async def test_an_iterator_as_a_keyword(fake: World) -> None:
    await fake.opened()
    assert await fake.client.hset(KEY, items=iter(["field", "value"])) == "OK"
    await fake.healed()
    assert await fake.truth.hgetall(KEY) == {b"field": b"value"}


class Place(NamedTuple):
    """How an application names the three values of a place."""

    longitude: float
    latitude: float
    name: str


async def test_a_named_tuple_as_an_argument(fake: World) -> None:
    await fake.opened()
    assert await fake.client.geoadd(KEY, Place(13.4, 52.5, "Berlin")) == "OK"
    await fake.healed()
    assert await fake.truth.zcard(KEY) == 1


@pytest.mark.parametrize("make", [dict.keys, collections.deque], ids=["dict_keys", "deque"])
async def test_a_live_view_as_an_argument(fake: World, make: Callable[[Any], Any]) -> None:
    await fake.truth.sadd(f"{KEY}-1", "a")
    await fake.opened()
    keys = {f"{KEY}-1": None}
    view = make(keys)
    await fake.client.sunionstore(KEY, view)
    view.clear() if isinstance(view, collections.deque) else keys.clear()
    await fake.healed()
    assert await fake.truth.smembers(KEY) == {b"a"}


async def test_bytes_that_are_changed_after_the_answer(any_object: World) -> None:
    await any_object.opened()
    value = bytearray(VALUE.encode())
    await any_object.client.set(KEY, memoryview(value))
    value[:] = b"x" * len(value)
    await any_object.healed()
    assert await any_object.truth.get(KEY) == VALUE.encode()
