"""`p = await get(k) or default; await set(k, p)`, in the forms in which applications write it.

Each task has a key of its own, which holds a real document before the outage. What a task writes
tells what it was made of: the document, or the default.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ConnectionError

from resilient_redis import CommandRefused, OutcomeUnknown

from .outages import AFTER, DRAIN, OUTAGE, Course

REAL, DEFAULT, TOUCHED = "real", "default", "+1"
TTL = 600  # s

Client = Any  # redis.asyncio.Redis, of which much is untyped


@dataclass
class Document:
    """One task's key, and what became of its read and of its write."""

    client: Client
    key: str
    course: Course
    rng: random.Random
    form: str = ""
    neutral: bool = False  # what it last read said that there is nothing
    written: str = ""  # in which part of the outage it last tried to write
    refused: bool = False

    @property
    def real(self) -> str:
        return f"{REAL}:{self.key}"

    @property
    def paired(self) -> bool:
        """A neutral read with a write behind it."""
        return self.neutral and bool(self.written)

    def told(self, found: str | None) -> str:
        """What is to be written, made of what was read."""
        self.neutral = found is None
        return (DEFAULT if found is None else found) + TOUCHED

    async def think(self) -> None:
        """Between read and write: nothing, a moment, until the drain, until all is over."""
        wanted = self.rng.choice((OUTAGE, OUTAGE, OUTAGE, DRAIN, AFTER))
        if wanted == OUTAGE:
            await asyncio.sleep(self.rng.choice((0, 0, 0.01, 0.05)))
            return
        await (self.course.closed if wanted == DRAIN else self.course.recovered).wait()
        await asyncio.sleep(self.rng.choice((0, 0.002, 0.02)))

    async def save(self, write: Awaitable[Any]) -> None:
        self.written = self.course.part
        try:
            await write
        except CommandRefused:
            self.refused = True
        except OutcomeUnknown:
            pass  # whether it was applied is seen in the end


Form = Callable[[Document], Awaitable[None]]


# -- in one task


async def get_set(d: Document) -> None:
    p = d.told(await d.client.get(d.key))
    await d.think()
    await d.save(d.client.set(d.key, p))


async def get_or_default_with_ttl(d: Document) -> None:
    p = d.told(await d.client.get(d.key))
    await d.think()
    await d.save(d.client.set(d.key, p, ex=TTL))


async def setex(d: Document) -> None:
    p = d.told(await d.client.get(d.key))
    await d.think()
    await d.save(d.client.execute_command("SETEX", d.key, TTL, p))


async def mget_mset(d: Document) -> None:
    found, _ = await d.client.mget(d.key, f"{d.key}:beside")
    p = d.told(found)
    await d.think()
    await d.save(d.client.mset({d.key: p, f"{d.key}:beside": "x"}))


async def pipeline_get_then_set(d: Document) -> None:
    (found,) = await d.client.pipeline(transaction=False).get(d.key).execute()
    p = d.told(found)
    await d.think()
    await d.save(d.client.pipeline(transaction=False).set(d.key, p).expire(d.key, TTL).execute())


async def exists_then_set(d: Document) -> None:
    """ "It is not there yet": the read is not even a GET."""
    there = await d.client.exists(d.key)
    p = d.told(await d.client.get(d.key) if there else None)
    await d.think()
    await d.save(d.client.set(d.key, p))


async def through_a_dependency(d: Document) -> None:
    """As FastAPI calls an `async def` dependency with `yield`."""

    async def dependency() -> Any:
        yield d.told(await d.client.get(d.key))

    async for p in dependency():
        await d.think()
        await d.save(d.client.set(d.key, p))


async def whole_retried(d: Document) -> None:
    """A loop around read and write, for `redis.ConnectionError`."""
    for _ in range(3):
        try:
            p = d.told(await d.client.get(d.key))
            await d.think()
            d.written = d.course.part
            await d.client.set(d.key, p)
        except OutcomeUnknown:
            return
        except ConnectionError:
            d.refused = True
            continue
        return


async def hash_get_set(d: Document) -> None:
    found = await d.client.hgetall(d.key)
    p = d.told(found.get("doc"))
    await d.think()
    await d.save(d.client.hset(d.key, mapping={"doc": p, "seen": "now"}))


async def hash_with_ttl(d: Document) -> None:
    p = d.told(await d.client.hget(d.key, "doc"))
    await d.think()
    pipe = d.client.pipeline(transaction=False)
    await d.save(pipe.hset(d.key, "doc", p).expire(d.key, TTL).execute())


NEWER: tuple[Form, ...] = ()  # from Python 3.11 on
if sys.version_info >= (3, 11):

    async def under_a_timeout(d: Document) -> None:
        async with asyncio.timeout(5):
            p = d.told(await d.client.get(d.key))
        await d.think()
        async with asyncio.timeout(5):
            await d.save(d.client.set(d.key, p))

    NEWER = (under_a_timeout,)

IN_ONE_TASK: tuple[Form, ...] = (
    *(get_set, get_or_default_with_ttl, setex, mget_mset, pipeline_get_then_set),
    *(exists_then_set, through_a_dependency, whole_retried, hash_get_set, hash_with_ttl),
    *NEWER,
)


# -- with other tasks between read and write


async def wait_for_the_read(d: Document) -> None:
    p = d.told(await asyncio.wait_for(d.client.get(d.key), 5))
    await d.think()
    await d.save(d.client.set(d.key, p))


async def wait_for_both(d: Document) -> None:
    p = d.told(await asyncio.wait_for(d.client.get(d.key), 5))
    await d.think()
    await d.save(asyncio.wait_for(d.client.set(d.key, p), 5))


async def wait_for_a_loader(d: Document) -> None:
    async def load() -> Any:
        return await d.client.get(d.key)

    p = d.told(await asyncio.wait_for(load(), 5))
    await d.think()
    await d.save(d.client.set(d.key, p))


async def reads_gathered(d: Document) -> None:
    async def load(key: str) -> Any:
        return await d.client.get(key)

    found, _ = await asyncio.gather(load(d.key), load(f"{d.key}:beside"))
    p = d.told(found)
    await d.think()
    await d.save(d.client.set(d.key, p))


async def writes_gathered(d: Document) -> None:
    p = d.told(await d.client.get(d.key))
    await d.think()
    writes = [asyncio.create_task(d.client.set(key, p)) for key in (d.key, f"{d.key}:beside")]
    await d.save(asyncio.gather(*writes))
    await asyncio.wait(writes)  # where one is refused, the other goes on


async def written_in_the_background(d: Document) -> None:
    p = d.told(await d.client.get(d.key))
    await d.think()
    written = asyncio.create_task(d.client.set(d.key, p))
    await asyncio.sleep(0)
    await d.save(written)


async def read_shielded(d: Document) -> None:
    p = d.told(await asyncio.shield(d.client.get(d.key)))
    await d.think()
    await d.save(d.client.set(d.key, p))


async def started_early_awaited_late(d: Document) -> None:
    reading = asyncio.create_task(d.client.get(d.key))
    await asyncio.sleep(0.01)
    p = d.told(await reading)
    await d.think()
    await d.save(d.client.set(d.key, p))


async def read_by_a_task_that_starts_the_writer(d: Document) -> None:
    written = asyncio.Event()

    async def write(p: str) -> None:
        await d.think()
        await d.save(d.client.set(d.key, p))
        written.set()

    async def read() -> asyncio.Task[None]:
        return asyncio.create_task(write(d.told(await d.client.get(d.key))))

    writer = await asyncio.create_task(read())
    await written.wait()
    await writer


async def _awaited(work: Awaitable[Any]) -> None:
    await work


NEWER_ACROSS: tuple[Form, ...] = ()
if sys.version_info >= (3, 11):

    async def read_in_a_task_group(d: Document) -> None:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(d.client.get(d.key))
        p = d.told(reading.result())
        await d.think()
        async with asyncio.TaskGroup() as group:
            group.create_task(_awaited(d.save(d.client.set(d.key, p))))

    async def read_behind_a_middleware(d: Document) -> None:
        """As Starlette's BaseHTTPMiddleware: the endpoint reads in a task, the middleware goes on
        while it still runs, and writes.
        """
        box: list[str] = []
        told = asyncio.Event()
        over = asyncio.Event()

        async def endpoint() -> None:
            box.append(d.told(await d.client.get(d.key)))
            told.set()
            await over.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(endpoint())
            await told.wait()
            await d.think()
            await d.save(d.client.set(d.key, box[0]))
            over.set()

    NEWER_ACROSS = (read_in_a_task_group, read_behind_a_middleware)


ACROSS_TASKS: tuple[Form, ...] = (
    *(wait_for_the_read, wait_for_both, wait_for_a_loader, reads_gathered, writes_gathered),
    *(written_in_the_background, read_shielded, started_early_awaited_late),
    read_by_a_task_that_starts_the_writer,
    *NEWER_ACROSS,
)


def is_hash(form: Form) -> bool:
    return form in (hash_get_set, hash_with_ttl)


async def seed(client: Client, document: Document, form: Form) -> None:
    """The real document, before the outage."""
    if is_hash(form):
        await client.hset(document.key, "doc", document.real)
    else:
        await client.set(document.key, document.real)
