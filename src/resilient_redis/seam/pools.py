"""Putting the guard into a client that is there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

# redis-py's own connection classes; what derives from them may talk to something else.
_MANAGED = tuple(
    getattr(flavour, name)
    for flavour in (redis.sentinel, redis.asyncio.sentinel)
    for name in ("SentinelManagedSSLConnection", "SentinelManagedConnection")
)
_STOCK = _MANAGED + tuple(
    getattr(flavour, name)
    for flavour in (redis, redis.asyncio)
    for name in ("SSLConnection", "UnixDomainSocketConnection", "Connection")
)
# What makes a connection talk to a server. fakeredis's classes derive from redis-py's, and mocks
# pass `isinstance` tests: only a class that still has all of redis-py's own is one.
_TALKING = (
    "connect",
    "_connect",
    "disconnect",
    "send_command",
    "send_packed_command",
    "read_response",
    "pack_command",
    "pack_commands",
)


def stock_class(connection_class: Any) -> type[Any] | None:
    """The class of redis-py that `connection_class` is or merely refines, if it is one."""
    if not isinstance(connection_class, type):
        return None
    for stock in _STOCK:
        if issubclass(connection_class, stock):
            own = all(
                getattr(connection_class, name, None) is getattr(stock, name, None)
                for name in _TALKING
            )
            return stock if own else None
    return None


def pool_of(client: Any) -> Any:
    """The pool of a client of redis-py; None of anything else, a mock of one included."""
    if not issubclass(type(client), (redis.Redis, redis.asyncio.Redis)):
        return None
    pool = client.connection_pool
    pools = (redis.ConnectionPool, redis.asyncio.ConnectionPool)
    return pool if issubclass(type(pool), pools) else None


class _Retiring(list[Any]):
    """A pool's free connections: those of before the guard are closed when they come back."""

    def __init__(self, pool: Any, breaker: Any, close: Callable[[Any], None]) -> None:
        super().__init__()
        self._pool = pool
        self._breaker = breaker
        self._close = close

    def append(self, connection: Any) -> None:
        if self._is_guarded(connection):
            super().append(connection)
        else:
            self._close(connection)
        if all(map(self._is_guarded, self._pool._in_use_connections)):
            self._pool._available_connections = list(self)

    def _is_guarded(self, connection: Any) -> bool:
        # With a client-side cache a pool makes proxies, which know nothing of a breaker.
        behind = getattr(connection, "_conn", connection)
        return getattr(behind, "breaker", None) is self._breaker


def replace_connections(pool: Any, connection_class: type[Any], breaker: Any) -> None:
    """From now on `pool` makes guarded connections. Its free ones are closed; those in use go on
    unguarded, and are closed when they are given back.
    """
    if not issubclass(type(pool), redis.ConnectionPool):
        for connection in _replace_free(pool, connection_class, breaker, _close):
            _close(connection)
        return
    if hasattr(pool, "_in_use_connections"):

        def close(connection: Any) -> None:
            connection.disconnect()
            pool._created_connections -= 1  # of `max_connections`

        with pool._lock:
            free = _replace_free(pool, connection_class, breaker, close)
            pool._created_connections = len(pool._in_use_connections)
    else:
        free = _replace_in_queue(pool, connection_class, breaker)
    for connection in free:
        connection.disconnect()


def _replace_free(
    pool: Any, connection_class: type[Any], breaker: Any, close: Callable[[Any], None]
) -> list[Any]:
    """Returns the free ones."""
    free = list(pool._available_connections)
    pool.connection_class = connection_class
    pool.connection_kwargs["breaker"] = breaker
    in_use = bool(pool._in_use_connections)
    pool._available_connections = _Retiring(pool, breaker, close) if in_use else []
    return free


def _replace_in_queue(pool: Any, connection_class: type[Any], breaker: Any) -> list[Any]:
    """As `_replace_free`, of the synchronous pool that blocks: threads may wait at its queue, where
    a None stands for a connection that is still to be made.
    """
    places = pool.pool
    with places.mutex:
        pool.connection_class = connection_class
        pool.connection_kwargs["breaker"] = breaker
        free = [connection for connection in places.queue if connection is not None]
        for index in range(len(places.queue)):
            places.queue[index] = None
        for connection in pool._connections:
            connection.pid = None  # not this pool's any more: closed when it comes back
        pool._connections = []
    return free


def release_single_connection(client: Any) -> bool:
    """A `single_connection_client` holds its connection, which is let go. Whether there was one.

    Raises ValueError where a command is on it at this moment.
    """
    connection = client.connection
    if connection is None:
        return False
    client_is_sync = issubclass(type(client), redis.Redis)
    lock = client.single_connection_lock if client_is_sync else client._single_conn_lock
    # Who waits for it has the old connection in hand.
    busy = not _is_free(lock) if client_is_sync else lock.locked() or lock._waiters
    if busy:
        raise ValueError("a command is on this client's only connection: guard the client before")
    client.connection = None
    if (in_use := getattr(client.connection_pool, "_in_use_connections", None)) is not None:
        in_use.discard(connection)
    if client_is_sync:
        connection.disconnect()
    else:
        _close(connection)
    return True


def _is_free(lock: Any) -> bool:
    free: bool = lock.acquire(blocking=False)
    if free:
        lock.release()
    return free


def hold_single_connection(client: Any) -> None:
    """Gives it another: a synchronous client takes one when it is made, and never again. It
    connects with the first command.
    """
    if issubclass(type(client), redis.Redis):
        pool = client.connection_pool
        client.connection = pool.make_connection()
        if hasattr(pool, "_in_use_connections"):  # which takes back only what it knows
            pool._in_use_connections.add(client.connection)


def _close(connection: Any) -> None:
    """Without waiting, and without an event loop."""
    try:
        connection._close()
    except RuntimeError:
        pass  # its event loop is closed, and its socket with it


def breaker_of(client: Any) -> Any:
    """The breaker that guards the connections of `client`, if there is one."""
    pool = pool_of(client)
    return None if pool is None else given_breaker(pool)


def given_breaker(pool: Any) -> Any:
    """The breaker that the connections of `pool` are given, or that their class is bound to."""
    bound = getattr(pool.connection_class, "bound_breaker", None)
    return pool.connection_kwargs.get("breaker") or bound


def endpoint_of(kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What one breaker stands for: where, and as whom."""
    # Whom a provider names nobody knows yet: another one is somebody else, unless it says.
    provider = kwargs.get("credential_provider")
    user = kwargs.get("username") or getattr(provider, "username", provider) or "default"
    if (pool := kwargs.get("connection_pool")) is not None:
        # Not the address: it changes with each failover, and what is queued has to follow it. Two
        # deployments may well have a service of the same name: they differ by their sentinels.
        role = "master" if pool.is_master else "replicas"
        return (f"{pool.service_name} ({role})", user, sentinels_of(pool))
    if kwargs.get("path"):
        return (str(kwargs["path"]), user)
    return (f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}", user)


def told_apart(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[str, str]:
    """Two endpoints in words that differ."""
    place, user = one[:2]
    if place != other[0]:
        return place, other[0]
    if user != other[1]:
        return f"{place} as {_named(user)}", f"as {_named(other[1])}"
    return f"{place} of {', '.join(one[2])}", f"of {', '.join(other[2])}"


def _named(user: Any) -> str:
    """A provider of credentials without a name may show its secrets in its own words."""
    return user if isinstance(user, str) else f"the user of {type(user).__name__}"


def sentinels_of(pool: Any) -> tuple[str, ...]:
    """Where the sentinels are that a Sentinel pool asks, in an order of their own: redis-py moves
    the one that has answered to the front.
    """
    known = [s.connection_pool.connection_kwargs for s in pool.sentinel_manager.sentinels]
    return tuple(sorted(f"{each['host']}:{each['port']}" for each in known))


def pool_behind(proxy: Any) -> Any:
    """What finds the master: a Sentinel pool gives its connections a weak proxy of itself, and a
    breaker has to find it when the client is gone and its writes are not.
    """
    return proxy.get_master_address.__self__
