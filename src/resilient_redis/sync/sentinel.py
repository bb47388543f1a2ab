"""Sentinel among threads; see `flow/sentinel.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis.connection import AbstractConnection
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from ..flow.sentinel import GuardedSentinel as SharedGuardedSentinel
from ..flow.sentinel import PlainTCP
from ..flow.sentinels import Address
from ..flow.steps import Steps, Wait
from ..seam.replies import read_reply
from .connection import GUARDED, GuardedConnection
from .driving import run


class _Rotation:
    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._found: Iterator[Address] | None = None

    def following(self) -> Address:
        # Who asks once more while another thread is still at it begins anew.
        found, self._found = self._found or iter(self._pool.rotate_slaves()), None
        address = next(found)
        self._found = found
        return address

    def close(self) -> None:
        self._found = None


class _StockReplies(AbstractConnection):
    """Above redis-py's managed connections, which make a ConnectionError of a READONLY: whether the
    command ran is no longer to be told from that. They also leave a connection open by default
    whose read has failed; here it is closed, as any other.
    """

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        return AbstractConnection.read_response(self, *args, **kwargs)


class GuardedSentinel(SharedGuardedSentinel, GuardedConnection, _StockReplies):
    """Mixed into a managed connection of redis-py; see `ResilientSentinelManagedConnection`."""

    rotation_class = _Rotation

    def _ask(self, put: Wait) -> Steps[Address]:
        began, patience = self.breaker.clock(), self._patience
        try:
            return (yield from self._service.ask(put, min(patience, self.breaker.deadline)))
        finally:
            # What is left is for the server.
            self._patience = max(patience - (self.breaker.clock() - began), 0.001)

    def _read_rest(self) -> Any:
        reply = read_reply(self, disable_decoding=True, push_request=False)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _connect_within(self, steps: Steps[None], seconds: float) -> None:
        patience = self._patience
        self._patience = min(seconds, patience)
        try:
            run(self.breaker.lock, steps)
        finally:
            self._patience = patience


class ResilientSentinelManagedConnection(PlainTCP, GuardedSentinel, SentinelManagedConnection):
    __doc__ = PlainTCP.__doc__


class ResilientSentinelManagedSSLConnection(GuardedSentinel, SentinelManagedSSLConnection):
    """redis-py's `SentinelManagedSSLConnection` with the guard inside. See
    `ResilientSentinelManagedConnection`.
    """


ALL_GUARDED = {
    **GUARDED,
    SentinelManagedConnection: ResilientSentinelManagedConnection,
    SentinelManagedSSLConnection: ResilientSentinelManagedSSLConnection,
}
