"""A caller who loses his patience."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def cancelled_after(call: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """As `asyncio.wait_for`, but by hand: `call` is cancelled after so long, and then once more.

    Raises `asyncio.TimeoutError`, unless `call` is over all the same.
    """
    task = asyncio.get_running_loop().create_task(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
    await asyncio.wait({task})
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()
