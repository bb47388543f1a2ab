"""The part of a connection that redis-py's client-side cache is before."""

from __future__ import annotations

import builtins
import os
from abc import abstractmethod
from typing import Any

from redis.connection import AbstractConnection
from redis.exceptions import RedisError, TimeoutError

from ..flow.receiver import GuardedReceiver
from ..seam.caching import HANDSHAKE_WHILE_AWAY, Filler, View, is_of_cache, view_of
from ..seam.failures import OUTAGE
from ..seam.replies import has_read_ahead, read_reply
from ..seam.sockets import await_readable, is_readable, set_timeout
from .breaker import RedisCircuitBreaker

# Seconds for the rest of a push of which a part has come.
_PATIENCE = 0.001


class CachedSocket(GuardedReceiver, AbstractConnection, Filler):
    """Among threads: an entry of the cache is as good as what Redis has told the connection that
    filled it, so whoever finds it there reads that connection's pushes, unless its holder is at it.
    """

    breaker: RedisCircuitBreaker
    _sock: Any

    def __init__(self, **kwargs: Any) -> None:
        self._view: View | None = None
        super().__init__(**kwargs)

    def register_connect_callback(self, callback: Any) -> None:
        """As in redis-py; a cache registers itself so."""
        super().register_connect_callback(callback)
        if is_of_cache(callback):
            self._view = view_of(callback, self.breaker.cache_lock)

    @property
    def handshake_metadata(self) -> Any:
        """As in redis-py, which reads the server's version there before it is connected."""
        return self._metadata or HANDSHAKE_WHILE_AWAY

    @handshake_metadata.setter
    def handshake_metadata(self, value: Any) -> None:
        self._metadata = value

    @property
    def idle(self) -> bool:
        return self._sent is None and self._slots is None and self._opening is None

    def drained(self) -> bool:
        if (view := self._view) is None:
            return False
        if self.breaker.provenance.reads_of(self._owner()):
            return False  # told that there is nothing: its next read tells it what there is
        with view.reading:
            if view.listens or not self._is_heard():
                return False
            try:
                if self._has_heard():
                    if not self.idle:
                        return False  # that may be the reply that its holder waits for
                    self._read_pushes()
            except (RedisError, *OUTAGE):
                return False  # its holder will find that, too
            return True

    def _is_heard(self) -> bool:
        """Whether Redis still tells this connection of what changes."""
        if self._opening is not None or self.pid != os.getpid():
            return False
        if self._sent is None:
            return self._usable()
        up = self._sock is not None and self._loss is None
        return up and self._outage == self.breaker.outages

    def _has_heard(self) -> bool:
        return has_read_ahead(self._parser) or is_readable(self._sock)

    def _hear(self, view: View) -> None:
        """For the holder, before a command."""
        try:
            with view.reading:
                if self.idle and self._usable():
                    self._read_pushes()
        except TimeoutError:
            pass  # half of a push: the rest is read with the reply
        except OUTAGE:
            self.disconnect()

    def _read_pushes(self) -> None:
        """Reads what has come without being asked for. Raises where that is no push, or the end."""
        if not self._has_heard():
            return
        set_timeout(self, _PATIENCE)
        try:
            while self._has_heard():
                told = read_reply(self, disable_decoding=False, push_request=True)
                if isinstance(told, Exception):
                    raise told
        finally:
            if self._sock is not None:
                set_timeout(self, self._slice())

    def _read_apart(self, view: View, disable_decoding: bool, push_request: bool) -> Any:
        """The next reply. What has come is only ever taken under `reading`, so that others can tell
        that nothing has; and waited for without.
        """
        with view.reading:
            waits = not has_read_ahead(self._parser)
        if waits and self._sock is not None:
            try:
                await_readable(self._sock)
            except builtins.TimeoutError as error:
                raise TimeoutError(str(error)) from error
        with view.reading:
            return read_reply(self, disable_decoding, push_request)

    @abstractmethod
    def _slice(self) -> float:
        """Seconds for which its socket waits at a time."""

    def _deliver(self, disable_decoding: bool) -> Any:
        if self._view is not None:
            self._view.forget()  # it is not what Redis holds
        return super()._deliver(disable_decoding)

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """As in redis-py. Nobody tells any more of what changes on the server."""
        if (view := self._view) is None:
            super().disconnect(*args, **kwargs)
            return
        with view.reading:
            super().disconnect(*args, **kwargs)
        view.listens = False
        view.flush()
