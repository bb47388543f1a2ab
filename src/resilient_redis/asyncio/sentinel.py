"""Sentinel on asyncio; see `flow/sentinel.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from ..flow.sentinel import GuardedSentinel as SharedGuardedSentinel
from ..flow.sentinel import PlainTCP
from ..flow.sentinels import Address
from ..flow.steps import Steps
from .connection import GUARDED, GuardedConnection
from .driving import run


class _Rotation:
    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._found: AsyncGenerator[Address, None] | None = None

    async def following(self) -> Address:
        # A generator that is cancelled has ended: who asks once more begins anew.
        found, self._found = self._found or self._pool.rotate_slaves(), None
        address = await anext(found)
        self._found = found
        return address

    def close(self) -> None:
        """Without waiting: it stands at a `yield`, and has nothing to wait for at its end. Left
        open it would be ended by a task that nobody has begun.
        """
        if self._found is not None:
            try:
                self._found.aclose().send(None)
            except StopIteration:
                pass  # this is how it says that it is closed


class _StockReplies(AbstractConnection):
    """Above redis-py's managed connections, which make a ConnectionError of a READONLY: whether the
    command ran is no longer to be told from that.
    """

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        return await AbstractConnection.read_response(self, *args, **kwargs)


class GuardedSentinel(SharedGuardedSentinel, GuardedConnection, _StockReplies):
    """Mixed into a managed connection of redis-py; see `ResilientSentinelManagedConnection`."""

    rotation_class = _Rotation

    async def _read_rest(self) -> Any:
        return await _StockReplies.read_response(self, disable_decoding=True)

    async def _connect_within(self, steps: Steps[None], seconds: float) -> None:
        silence = partial(self._give_up_replica, self._sent_at)
        timer = asyncio.get_running_loop().call_later(seconds, silence)
        try:
            await run(steps)
        finally:
            timer.cancel()

    def _give_up_replica(self, began: float) -> None:
        if self._sent_at == began and self._writer is not None:  # not one reply of the handshake
            self._writer.transport.abort()


class ResilientSentinelManagedConnection(PlainTCP, GuardedSentinel, SentinelManagedConnection):  # type: ignore[misc]  # redis-py: a float for a bool
    __doc__ = PlainTCP.__doc__


class ResilientSentinelManagedSSLConnection(GuardedSentinel, SentinelManagedSSLConnection):  # type: ignore[misc]  # as above
    """redis-py's `SentinelManagedSSLConnection` with the guard inside. See
    `ResilientSentinelManagedConnection`.
    """


ALL_GUARDED = {
    **GUARDED,
    SentinelManagedConnection: ResilientSentinelManagedConnection,
    SentinelManagedSSLConnection: ResilientSentinelManagedSSLConnection,
}
