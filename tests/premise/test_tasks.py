"""Whose premise it is: each form alone, in the outage and after it; and whose it is not."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from resilient_redis import track
from tests.contract.recovery_helpers import guarded, until
from tests.support.flavours import ResilientRedis
from tests.support.servers import Rig

from .documents import (
    ACROSS_TASKS,
    IN_ONE_TASK,
    Client,
    Document,
    Form,
    is_hash,
    seed,
    wait_for_a_loader,
    wait_for_both,
    wait_for_the_read,
)
from .outages import Course

pytestmark = pytest.mark.server

OPTIONS: dict[str, Any] = {"client": {"decode_responses": True}, "drain_wait": 2.0}
# From Python 3.12 on `wait_for` makes no task.
ONE_TASK_TODAY = (wait_for_a_loader, wait_for_both, wait_for_the_read)
HOLE = pytest.mark.xfail(
    strict=True, reason="no track() around it, so it goes by the task: another one reads, or writes"
)


def _forms() -> list[Any]:
    """`HOLE` goes when the hole is mended."""
    fine = sys.version_info >= (3, 12)
    return [pytest.param(form, id=form.__name__) for form in IN_ONE_TASK] + [
        pytest.param(
            form,
            id=form.__name__,
            marks=() if fine and form in ONE_TASK_TODAY else HOLE,
        )
        for form in ACROSS_TASKS
    ]


class Steady(Document):
    """Between read and write there is what the test wants."""

    between: Callable[[], Awaitable[None]]

    async def think(self) -> None:
        await self.between()


each_moment = pytest.mark.parametrize("after", [False, True], ids=["in the outage", "after it"])


@each_moment
@pytest.mark.parametrize("form", _forms())
async def test_no_default_goes_over_the_document(valkey_rig: Rig, form: Form, after: bool) -> None:
    await _play(valkey_rig, form, after)


@each_moment
@pytest.mark.parametrize("form", ACROSS_TASKS, ids=lambda form: form.__name__)
async def test_within_a_block_it_goes_by_that(valkey_rig: Rig, form: Form, after: bool) -> None:
    """`track()` around a request: whichever of its tasks reads or writes, it is the request."""

    async def request(document: Document) -> None:
        with track():
            await form(document)

    await _play(valkey_rig, request, after)


async def _play(valkey_rig: Rig, form: Form, after: bool) -> None:
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        document = Steady(client, "key", Course(guard.breaker), random.Random(0))
        await seed(client, document, form)
        guard.breaker.force_open()

        async def between() -> None:
            if after and not guard.breaker.closed:
                await guard.reopened()

        document.between = between
        await asyncio.wait_for(asyncio.create_task(_run(form, document)), 5)
        if not after:
            assert document.neutral
            await guard.reopened()
        admin = valkey_rig.admin
        kept = admin.hget("key", "doc") if is_hash(form) else admin.get("key")
        assert kept.startswith(document.real)


async def _run(form: Form, document: Document) -> None:
    await form(document)


# -- whose premise it is not: what others have read keeps no acknowledged write from being applied


Call = Callable[[], Awaitable[Any]]


async def _side_by_side(read: Call, other: Call, write: Call) -> None:
    await asyncio.gather(_soon(read), _late(write))


async def _started_before(read: Call, other: Call, write: Call) -> None:
    writing = asyncio.create_task(_late(write))
    await read()
    await writing


async def _one_after_the_other(read: Call, other: Call, write: Call) -> None:
    """As requests that a server starts, which itself reads as well."""
    await other()
    first = asyncio.create_task(_soon(read))
    await asyncio.sleep(0.005)
    await other()
    second = asyncio.create_task(_late(write))
    await asyncio.sleep(0.02)
    await asyncio.gather(first, second)


async def _soon(read: Call) -> None:
    assert await read() is None


async def _late(write: Call) -> None:
    await asyncio.sleep(0.01)
    await write()


RELATIONS: tuple[Any, ...] = (_side_by_side, _started_before, _one_after_the_other)
if sys.version_info >= (3, 11):

    async def _handlers_of_one_server(read: Call, other: Call, write: Call) -> None:
        """As where each request is a task of one group, whose block is the server's loop."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_soon(read))
            await asyncio.sleep(0.005)
            await other()
            group.create_task(_late(write))

    RELATIONS += (_handlers_of_one_server,)


@pytest.mark.parametrize("relation", RELATIONS)
async def test_what_another_task_has_read_is_no_premise(valkey_rig: Rig, relation: Any) -> None:
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await client.set("key", "old")
        guard.breaker.force_open()
        calls = (partial(client.get, "key"), partial(client.get, "x"))
        await asyncio.create_task(relation(*calls, partial(client.set, "key", "new")))
        await guard.reopened()
        assert valkey_rig.admin.get("key") == "new"
        assert not guard.letters()


async def test_a_publisher_is_not_kept_from_what_its_readers_ask_for(valkey_rig: Rig) -> None:
    """Many tasks read what one task writes, all through the outage: all its writes are applied."""
    async with guarded(valkey_rig.port, **OPTIONS) as (guard, client):
        await client.set("status", "old")
        guard.breaker.force_open()
        told = await _publish(client)
        assert told == 100
        await guard.reopened()
        assert valkey_rig.admin.get("status") == "status 19"
        assert not guard.letters()


async def _publish(client: Client) -> int:
    told = 0

    async def request() -> None:
        nonlocal told
        assert await client.get("status") is None
        told += 1

    async def publisher() -> None:
        for n in range(20):
            requests.extend([asyncio.create_task(request()) for _ in range(5)])
            await asyncio.sleep(0.001)
            assert await client.set("status", f"status {n}") is True

    requests: list[asyncio.Task[None]] = []
    assert await client.get("something else") is None  # the one that starts them is told things
    await asyncio.create_task(publisher())
    await asyncio.gather(*requests)
    return told


# -- by the façade: whoever awaits the read, it is told to who has called


async def _wait_for(client: Client) -> Any:
    return await asyncio.wait_for(client.get("key"), 1)


async def _gather(client: Client) -> Any:
    found, _ = await asyncio.gather(client.get("key"), client.get("another"))
    return found


async def _a_task_of_its_own(client: Client) -> Any:
    return await asyncio.ensure_future(client.get("key"))


@pytest.mark.asyncio_only("a thread calls and waits by itself: nobody else awaits for it")
@pytest.mark.parametrize("read", [_wait_for, _gather, _a_task_of_its_own])
@pytest.mark.parametrize("first", [False, True], ids=["while it is away", "as it goes away"])
async def test_the_facade_knows_who_has_called(valkey_rig: Rig, read: Any, first: bool) -> None:
    url = f"redis://127.0.0.1:{valkey_rig.port}"
    async with ResilientRedis.from_url(url, recovery_timeout=0.1) as client:
        await client.set("key", "real")
        valkey_rig.kill()
        if not first:
            assert await asyncio.ensure_future(client.get("another")) is None
        p = await read(client) or "default"
        assert p == "default"
        await client.set("key", p)
        valkey_rig.restart()
        await until(lambda: not client.breaker.busy)
        assert valkey_rig.admin.get("key") == "real"
