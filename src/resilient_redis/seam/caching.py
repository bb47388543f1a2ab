"""redis-py's client-side cache, as each guarded connection sees it.

redis-py puts a proxy before each connection of a pool, and all of them read and write one cache.
Among threads that is not safe (8.1.0). Before it answers out of the cache, a proxy reads what came
on the connection that filled the entry, and takes the very reply that its holder waits for. Where
another is at the same key, or what was found is flushed before it is read, it has sent nothing and
waits at a silent socket. A reply is written over whatever stands in its place by then, a dictionary
changes while another thread walks through it, and a lock is held for as long as a write waits. So
each proxy gets a view of its own, and none of its locks.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from redis.cache import CacheEntry, CacheEntryStatus, CacheInterface, CacheKey
from redis.connection import CacheProxyConnection

#: The proxy asks for the server's version as soon as a pool hands it out, connected or not: this is
#: the least that it goes on with. It asks again at the next time.
HANDSHAKE_WHILE_AWAY = {
    b"server": CacheProxyConnection.DEFAULT_SERVER_NAME.encode(),
    b"version": CacheProxyConnection.MIN_ALLOWED_VERSION.encode(),
}

# From here on messages come, which are for the holder alone.
_LISTENS = frozenset({"MONITOR", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"})


class Filler:
    """A connection whose replies are kept. Any thread may ask."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether nothing is awaited on it."""

    @abstractmethod
    def drained(self) -> bool:
        """Whether what was kept of its replies is still true, as far as Redis has told it. False
        also where that cannot be known now, because its holder is at it.
        """


class _Drained:
    """In the place of the connection that filled an entry: the view has asked that one already."""

    @staticmethod
    def can_read(*_: Any) -> bool:
        return False


class View(CacheInterface):
    """What one connection's proxy is told of the cache.

    What was found for a command stays so until its reply is read, so that a proxy which has sent
    nothing finds its answer: it was true after the call began. A reply is kept if its place is, and
    nobody else's. Of a key that several ask for at once, the first one fills the place.
    """

    def __init__(self, shared: CacheInterface, lock: AbstractContextManager[Any]) -> None:
        self._shared: Any = shared
        self._lock = lock  # of all views of that cache; nothing waits under it
        #: Held by whoever reads pushes from the connection; nothing waits under it.
        self.reading = threading.RLock()
        self.listens = False
        self._begins = False  # a command, which has not been looked up yet
        self._hit: CacheEntry | None = None
        self._place: CacheEntry | None = None  # in the cache, for the reply that is awaited
        self._reply: CacheEntry | None = None  # redis-py's own, which it writes the reply into

    def settle(self) -> None:
        """Waits until no other thread reads; none begins while the connection is not idle."""
        with self.reading:
            pass

    def forget(self) -> None:
        """What is answered now is not to be kept."""
        self._begins, self._hit, self._reply = False, None, None
        place, self._place = self._place, None
        if place is not None:
            with self._lock:
                if self._shared.get(place.cache_key) is place:
                    self._shared.delete_by_cache_keys([place.cache_key])

    # -- what the proxy asks, in this order ---------------------------------------------------

    def is_cachable(self, key: CacheKey) -> bool:
        self.forget()
        self._begins = True
        if key.command in _LISTENS:
            self.listens = True
        cachable: bool = self._shared.is_cachable(key)
        return cachable

    def get(self, key: CacheKey) -> CacheEntry | None:
        if self._begins:
            self._begins = False
            self._hit = self._look_up(key)
        if self._hit is not None:
            return self._hit
        with self._lock:
            kept = self._place is not None and self._shared.get(key) is self._place
        return self._reply if kept else None

    def _look_up(self, key: CacheKey) -> CacheEntry | None:
        with self._lock:
            entry: CacheEntry | None = self._shared.get(key)
        if entry is None or entry.status is not CacheEntryStatus.VALID:
            return None
        if not (isinstance(entry.connection_ref, Filler) and entry.connection_ref.drained()):
            return None
        with self._lock:
            if self._shared.get(key) is not entry:  # that is what it was told
                return None
        return CacheEntry(key, entry.cache_value, CacheEntryStatus.VALID, _Drained)

    def set(self, entry: CacheEntry) -> bool:
        with self._lock:
            present: CacheEntry | None = self._shared.get(entry.cache_key)
            if entry.status is CacheEntryStatus.IN_PROGRESS:
                if present is not None and _is_busy(present.connection_ref):
                    return False  # it is being filled, or can be asked again in a moment
                self._reply = entry
                # redis-py says of its own that it is valid before it holds the reply.
                self._place = CacheEntry(
                    entry.cache_key, entry.cache_value, entry.status, entry.connection_ref
                )
                entry = self._place
            elif self._place is None or present is not self._place:
                return False
            else:
                self._place = None
            kept: bool = self._shared.set(entry)
            return kept

    def delete_by_cache_keys(self, cache_keys: list[CacheKey]) -> list[bool]:
        """Where the reply is None."""
        place = self._place
        self.forget()
        return [place is not None and place.cache_key == key for key in cache_keys]

    # -- what Redis has told ------------------------------------------------------------------

    def delete_by_redis_keys(self, redis_keys: list[bytes]) -> list[bool]:
        with self._lock:
            deleted: list[bool] = self._shared.delete_by_redis_keys(redis_keys)
            return deleted

    def flush(self) -> int:
        with self._lock:
            flushed: int = self._shared.flush()
            return flushed

    # -- the rest is the cache's own ----------------------------------------------------------

    @property
    def collection(self) -> Any:
        return self._shared.collection

    @property
    def config(self) -> Any:
        return self._shared.config

    @property
    def eviction_policy(self) -> Any:
        return self._shared.eviction_policy

    @property
    def size(self) -> int:
        size: int = self._shared.size
        return size


def _is_busy(filler: Any) -> bool:
    return isinstance(filler, Filler) and not filler.idle


def is_of_cache(callback: Any) -> bool:
    """Whether a connect callback is that of a proxy: nothing else leads back to it."""
    return isinstance(getattr(callback, "__self__", None), CacheProxyConnection)


def view_of(callback: Any, lock: AbstractContextManager[Any]) -> View:
    """The view of the proxy whose callback that is, which has just been made."""
    proxy: Any = callback.__self__
    proxy._cache = view = View(proxy._cache, lock)
    proxy._cache_lock = proxy._pool_lock = nullcontext()
    return view
