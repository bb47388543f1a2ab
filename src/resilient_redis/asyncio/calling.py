"""Whose call it is, where a command runs in another task than the one that has asked for it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

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
