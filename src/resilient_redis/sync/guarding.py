"""The guard put into a client of redis-py that is there already."""

from __future__ import annotations

import threading
from typing import Any

from redis.client import Redis

from ..flow.guarding import TO_BE_WAITED_FOR, answer, guard_pool, shaped, with_fast_path
from ..seam.methods import OfflineReplies
from ..track import outermost
from .breaker import RedisCircuitBreaker
from .sentinel import ALL_GUARDED


def guard_client(client: Any, breaker: RedisCircuitBreaker) -> bool:
    """See `flow.guarding.guard_pool`."""
    if not guard_pool(client, breaker, ALL_GUARDED):
        return False
    if type(client).execute_command is Redis.execute_command:  # else the user's own comes first
        client.__class__ = with_fast_path(type(client), _FastPath)
        client._offline = threading.local()
        client._breaker = breaker
    return True


class _FastPath(Redis):
    """While open, single commands are answered without a connection: a fifth of the time."""

    # Of this one client; another of its class is guarded at its connections only.
    _breaker: RedisCircuitBreaker | None = None
    _offline: threading.local

    def execute_command(self, *args: Any, **options: Any) -> Any:
        breaker = self._breaker
        if breaker is None or breaker.live or breaker.closed:
            return Redis.execute_command(self, *args, **options)
        replies = getattr(self._offline, "replies", None)
        if replies is None:
            replies = self._offline.replies = OfflineReplies(self)
        found = TO_BE_WAITED_FOR
        try:
            with breaker.lock.held:
                if breaker.state != "CLOSED":  # still
                    owner = outermost() or threading.current_thread()
                    found = answer(breaker, replies, owner, args)
        finally:
            breaker.lock.tell()
        if found is TO_BE_WAITED_FOR:
            return Redis.execute_command(self, *args, **options)
        return shaped(replies, found, args, options)
