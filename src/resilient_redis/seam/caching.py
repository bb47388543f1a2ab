"""redis-py's client-side cache, and how the guard finds it behind a connection.

Its proxy registers a connect callback on the connection that it wraps; nothing else leads back.
"""

from __future__ import annotations

from typing import Any

from redis.connection import CacheProxyConnection

#: The proxy asks for the server's version as soon as a pool hands it out, connected or not: this is
#: the least that it goes on with. It asks again at the next time.
HANDSHAKE_WHILE_AWAY = {
    b"server": CacheProxyConnection.DEFAULT_SERVER_NAME.encode(),
    b"version": CacheProxyConnection.MIN_ALLOWED_VERSION.encode(),
}


class Cache:
    """The cache before one connection."""

    def __init__(self, proxy: CacheProxyConnection) -> None:
        self._proxy = proxy

    def flush(self) -> None:
        """Nobody tells any more of what has changed on the server."""
        with self._proxy._cache_lock:
            self._proxy._cache.flush()

    def forget_current(self) -> None:
        """The command that is being answered is not to be kept."""
        proxy = self._proxy
        with proxy._cache_lock:
            key: Any = proxy._current_command_cache_key
            proxy._current_command_cache_key = None
            if key is not None:
                proxy._cache.delete_by_cache_keys([key])


def cache_of(callback: Any) -> Cache | None:
    """The cache whose connect callback this is, if it is one's."""
    proxy: Any = getattr(callback, "__self__", None)
    return Cache(proxy) if isinstance(proxy, CacheProxyConnection) else None
