"""Sentinel on asyncio; see `flow/sentinel.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.exceptions import ConnectionError

from ..flow.sentinel import Address, ServiceBase, no_ssl
from ..flow.sentinel import GuardedSentinel as SharedGuardedSentinel
from ..flow.steps import Steps
from ..seam.failures import is_alive
from .connection import GUARDED, GuardedConnection
from .driving import end, run


class Service(ServiceBase):
    """See `ServiceBase`."""

    async def ask(self, question: Callable[[], Awaitable[Address]], seconds: float) -> Address:
        asking = asyncio.ensure_future(question())
        patience = min(self.breaker.deadline / 4, seconds)
        try:
            await asyncio.wait({asking}, timeout=patience)
            if not asking.done():
                seconds -= patience
                if await _comes_first(self.pool.sentinel_manager.sentinels, asking, seconds):
                    await end(asking)
                    asking = asyncio.ensure_future(question())
                    await asyncio.wait({asking}, timeout=seconds)
            if not asking.done():
                raise ConnectionError("no sentinel answers")
            return await asking
        finally:
            await end(asking)

    def rotation(self) -> _Rotation:
        return _Rotation(self.pool)

    async def together(self, work: list[Steps[None]]) -> None:
        await asyncio.gather(*map(run, work))


async def _comes_first(sentinels: list[Any], asking: asyncio.Future[Any], seconds: float) -> bool:
    """Moves the sentinel that answers a PING first to the front. False where none does in
    `seconds`, or before `asking` is done.
    """
    asked = {asyncio.ensure_future(each.execute_command("PING")): each for each in sentinels}
    waiting: set[asyncio.Future[Any]] = {asking, *asked}
    until = asyncio.get_running_loop().time() + seconds
    try:
        while len(waiting) > 1 and not asking.done():
            left = until - asyncio.get_running_loop().time()
            done, waiting = await asyncio.wait(
                waiting, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for task in done - {asking}:
                error = task.exception()
                if error is None or is_alive(error):
                    sentinels.remove(asked[task])
                    sentinels.insert(0, asked[task])
                    return True
        return False
    finally:
        for task in asked:
            await end(task)


class _Rotation:
    """See `ServiceBase.rotation`."""

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

    service_class = Service

    @classmethod
    def _stock_class(cls) -> type[Any]:
        return SSLConnection if issubclass(cls, SSLConnection) else Connection

    def _usable(self) -> bool:
        return super()._usable() and self._is_where_it_should_be()

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


class ResilientSentinelManagedConnection(GuardedSentinel, SentinelManagedConnection):  # type: ignore[misc]  # redis-py: a float for a bool
    """redis-py's `SentinelManagedConnection` with the guard inside: the `connection_class` of
    `Sentinel.master_for`, `Sentinel.slave_for` or a `SentinelConnectionPool`.

    `breaker`: the `RedisCircuitBreaker` of this service, its master or its replicas; without one,
    all connections to the same service, role and user share one with default settings. Over
    replicas reads go to another one, or get their neutral answer when there is none; writes raise
    redis-py's `ReadOnlyError`, and `CommandRefused` when there is none.
    """

    def __init__(self, **kwargs: Any) -> None:
        no_ssl(kwargs)
        super().__init__(**kwargs)


class ResilientSentinelManagedSSLConnection(GuardedSentinel, SentinelManagedSSLConnection):  # type: ignore[misc]  # as above
    """redis-py's `SentinelManagedSSLConnection` with the guard inside. See
    `ResilientSentinelManagedConnection`.
    """


ALL_GUARDED = {
    **GUARDED,
    SentinelManagedConnection: ResilientSentinelManagedConnection,
    SentinelManagedSSLConnection: ResilientSentinelManagedSSLConnection,
}
