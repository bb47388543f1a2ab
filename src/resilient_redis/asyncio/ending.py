"""Ending a task for certain, also when its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


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
