"""The guard put into a client of redis-py that is there already."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from redis.asyncio import Redis

from ..flow.guarding import TO_BE_WAITED_FOR, answer, guard_pool, shaped, with_fast_path
from ..seam.methods import OfflineReplies
from ..track import outermost
from .breaker import RedisCircuitBreaker
from .driving import caller, calling_task
from .sentinel import ALL_GUARDED


def guard_client(client: Any, breaker: RedisCircuitBreaker) -> bool:
    """See `flow.guarding.guard_pool`."""
    if not guard_pool(client, breaker, ALL_GUARDED):
        return False
    if type(client).execute_command is Redis.execute_command:  # else the user's own comes first
        client.__class__ = with_fast_path(type(client), _FastPath)
        client._breaker = breaker
    return True


class _FastPath(Redis):
    """While open, single commands are answered without a connection: a plain read takes a tenth
    of the time, a write half.
    """

    # Of this one client; another of its class is guarded at its connections only.
    _breaker: RedisCircuitBreaker | None = None
    _offline: OfflineReplies | None = None

    def execute_command(self, *args: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        # Not `async`: here the caller's own task runs, whoever awaits what is returned.
        owner = calling_task()
        breaker = self._breaker
        if breaker is None or breaker.live or breaker.closed:
            return self._sent(owner, args, options)
        return self._answered(breaker, owner, args, options)

    async def _sent(
        self, owner: asyncio.Task[Any] | None, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        if owner is None or owner is asyncio.current_task():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py
        token = caller.set(owner)
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py
        finally:
            caller.reset(token)

    async def _answered(
        self,
        breaker: RedisCircuitBreaker,
        owner: asyncio.Task[Any] | None,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        if breaker.breath_is_due():
            await asyncio.sleep(0)
        if breaker.closed:  # since the call, which may be awaited much later
            return await self._sent(owner, args, options)
        replies = self._offline
        if replies is None:
            replies = self._offline = OfflineReplies(self)
        reader = outermost() or owner or asyncio.current_task()
        found = answer(breaker, replies, reader, args)
        if found is TO_BE_WAITED_FOR:
            return await self._sent(owner, args, options)
        return shaped(replies, found, args, options)
