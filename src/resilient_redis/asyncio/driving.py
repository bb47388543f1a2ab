"""Tasks: steps are run in them, commands belong to them, and they are ended for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from ..flow.steps import Steps

T = TypeVar("T")


async def run(steps: Steps[T]) -> T:
    """See `flow/steps.py`. The loop runs nothing else of the breaker between two awaits."""
    try:
        wait = next(steps)
        while True:
            try:
                value = await wait()
            except BaseException as error:  # noqa: BLE001 - it is the steps' to deal with
                wait = steps.throw(error)
            else:
                wait = steps.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result


#: The task that has called, where the command runs in another (`wait_for` before Python 3.12,
#: `gather`): what it was told is told to the caller.
caller: ContextVar[asyncio.Task[Any] | None] = ContextVar("resilient_redis_caller", default=None)


def calling_task() -> asyncio.Task[Any] | None:
    """The task that calls now; to be asked before a coroutine is made, which another may await.
    None where no loop runs yet.
    """
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


async def end(task: asyncio.Task[Any]) -> None:
    """Cancels `task` and waits until it is done.

    One cancellation may be swallowed: `wait_for`, with which redis-py sends, does so before Python
    3.12 if what it waits for ends in the same step (https://github.com/python/cpython/issues/86296).
    Who is cancelled meanwhile is told when it is done: half a handshake must not go on alone.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait({task}, timeout=0.01)
        except asyncio.CancelledError as error:
            cancelled = error
    if not task.cancelled():
        task.exception()  # looked at: nobody is left whom it concerns
    if cancelled is not None:
        raise cancelled


async def within(work: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """`asyncio.wait_for`, which before Python 3.12 swallows the caller's cancellation where `work`
    ends in the same step. Raises `asyncio.TimeoutError`.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        await end(task)
