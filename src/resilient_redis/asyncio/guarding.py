"""The guard put into a client of redis-py that is there already."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.sentinel import SentinelManagedConnection

from ..answering import answer_or_refuse, refusal
from ..core.guard import Answer, Refuse, Step
from ..core.wire import reply_bytes
from ..seam.methods import OfflineReplies
from ..seam.packed import command_of
from ..seam.pools import (
    breaker_of,
    endpoint_of,
    pool_of,
    release_single_connection,
    replace_connections,
    stock_class,
)
from ..seam.replies import MISSING
from .breaker import RedisCircuitBreaker
from .calling import caller, calling_task
from .connection import GuardedConnection, guarded_class
from .sentinel import guarded_sentinel_class


def guard_client(client: Any, breaker: RedisCircuitBreaker) -> bool:
    """Guards `client` at its connections. False, and nothing is changed, where it is no client of
    redis-py that talks to a server: fakeredis and mocks pass `isinstance` tests.

    Raises ValueError where another breaker guards it already.
    """
    pool = pool_of(client)
    if pool is None:
        return False
    if issubclass(pool.connection_class, GuardedConnection):
        bound = pool.connection_class.bound_breaker
        if (breaker_of(client) or bound or breaker) is not breaker:
            raise ValueError("another breaker guards this client's connections already")
        connection_class = pool.connection_class
    else:
        if stock_class(pool.connection_class) is None:
            return False
        managed = issubclass(pool.connection_class, SentinelManagedConnection)
        guarded = guarded_sentinel_class if managed else guarded_class
        connection_class = guarded(pool.connection_class)
    breaker.bind(endpoint_of(pool.connection_kwargs))
    release_single_connection(client)
    replace_connections(pool, connection_class, breaker)
    if type(client).execute_command is Redis.execute_command:  # else the user's own comes first
        client.__class__ = _with_fast_path(type(client))
        client._breaker = breaker
    return True


class _FastPath(Redis):
    """While open, single commands are answered without a connection: a fifth of the time."""

    # Of this one client; another of its class is guarded at its connections only.
    _breaker: RedisCircuitBreaker | None = None
    _offline: OfflineReplies | None = None

    def execute_command(self, *args: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        # Not `async`: here the caller's own task runs, whoever awaits what is returned.
        owner = calling_task()
        if self._breaker is None or self._breaker.closed:
            return self._sent(owner, args, options)
        return self._answered(self._breaker, owner, args, options)

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
            if breaker.closed:  # meanwhile
                return await self._sent(owner, args, options)
        replies = self._offline
        if replies is None:
            replies = self._offline = OfflineReplies(self)
        command = command_of(args, replies.encoder)
        if breaker.has_rules:
            (command,) = breaker.ruled([command])
        if command.shape.blocking:  # to be waited for
            return await self._sent(owner, args, options)
        step = breaker.away_step(command)
        if isinstance(step, Refuse):
            raise refusal(breaker, step)
        owner = owner or asyncio.current_task()
        breaker.start_recovery()
        if step is Step.NEUTRAL:
            breaker.provenance.neutral(owner, command, replies.db)
            breaker.count("neutral", command.shape.name)
            reply = reply_bytes(command.shape, replies.protocol)
            constant = replies.constant(reply, args[0], options)
            if constant is not MISSING:
                return constant
            return await replies.shape(reply, args[0], options)
        answers = answer_or_refuse(
            breaker, command, Answer((step,)), db=replies.db, at=breaker.clock(), owner=owner
        )
        (slot,) = answers.slots(replies.protocol, replies.parse_error)
        if isinstance(slot, tuple):
            return slot[1]
        assert isinstance(slot, bytes)
        return await replies.shape(slot, args[0], options)


_fast: dict[type[Redis], type[Redis]] = {}


def _with_fast_path(client_class: type[Redis]) -> type[Redis]:
    """`client_class` with the fast path in front of it, under its own name."""
    if issubclass(client_class, _FastPath):
        return client_class
    made = _fast.get(client_class)
    if made is None:
        name = client_class.__name__
        body = {"__module__": client_class.__module__, "__qualname__": client_class.__qualname__}
        made = _fast[client_class] = type(name, (_FastPath, client_class), body)
    return made
