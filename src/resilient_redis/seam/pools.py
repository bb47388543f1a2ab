"""Putting the guard into a client that is there already."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

#: redis-py's own connection classes; what derives from them may talk to something else.
STOCK = (
    SentinelManagedSSLConnection,
    SentinelManagedConnection,
    SSLConnection,
    UnixDomainSocketConnection,
    Connection,
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


def stock_class(connection_class: Any) -> type[AbstractConnection] | None:
    """The class of redis-py that `connection_class` is or merely refines, if it is one."""
    if not isinstance(connection_class, type):
        return None
    for stock in STOCK:
        if issubclass(connection_class, stock):
            own = all(
                getattr(connection_class, name, None) is getattr(stock, name, None)
                for name in _TALKING
            )
            return stock if own else None
    return None


def pool_of(client: Any) -> ConnectionPool | None:
    """The pool of a client of redis-py; None of anything else, a mock of one included."""
    if not issubclass(type(client), Redis):
        return None
    pool = client.connection_pool
    return pool if issubclass(type(pool), ConnectionPool) else None


class _Retiring(list[AbstractConnection]):
    """A pool's free connections: those of before the guard are closed when they come back."""

    def __init__(self, pool: ConnectionPool, breaker: Any) -> None:
        super().__init__()
        self._pool = pool
        self._breaker = breaker

    def append(self, connection: AbstractConnection) -> None:
        if self._is_guarded(connection):
            super().append(connection)
        else:
            _close(connection)
        if all(map(self._is_guarded, self._pool._in_use_connections)):
            self._pool._available_connections = list(self)

    def _is_guarded(self, connection: AbstractConnection) -> bool:
        return getattr(connection, "breaker", None) is self._breaker


def replace_connections(
    pool: ConnectionPool, connection_class: type[AbstractConnection], breaker: Any
) -> None:
    """From now on `pool` makes guarded connections. Its free ones are closed; those in use go on
    unguarded, and are closed when they are given back.
    """
    free = list(pool._available_connections)
    pool.connection_class = connection_class
    pool.connection_kwargs["breaker"] = breaker
    for connection in free:
        _close(connection)
    in_use = bool(pool._in_use_connections)
    pool._available_connections = _Retiring(pool, breaker) if in_use else []


def release_single_connection(client: Redis) -> None:
    """A `single_connection_client` holds its connection; the next command takes a guarded one.

    Raises ValueError where a command is on it at this moment.
    """
    connection = client.connection
    if connection is None:
        return
    lock = client._single_conn_lock
    if lock.locked() or lock._waiters:  # who waits for it has the old connection in hand
        raise ValueError("a command is on this client's only connection: guard the client before")
    client.connection = None
    client.connection_pool._in_use_connections.discard(connection)
    _close(connection)


def _close(connection: AbstractConnection) -> None:
    """Without waiting, and without an event loop."""
    try:
        connection._close()  # type: ignore[no-untyped-call]  # redis-py
    except RuntimeError:
        pass  # its event loop is closed, and its socket with it


def breaker_of(client: Any) -> Any:
    """The breaker that guards the connections of `client`, if there is one."""
    pool = pool_of(client)
    return None if pool is None else pool.connection_kwargs.get("breaker")


def endpoint_of(kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What one breaker stands for: where, and as whom."""
    # Who gives a provider is whom it names, which nobody knows yet: another one is somebody else.
    provider = kwargs.get("credential_provider")
    user = kwargs.get("username") or getattr(provider, "username", None) or provider
    if (pool := kwargs.get("connection_pool")) is not None:
        # Not the address: it changes with each failover, and what is queued has to follow it. Two
        # deployments may well have a service of the same name: they differ by their sentinels.
        role = "master" if pool.is_master else "replicas"
        return (f"{pool.service_name} ({role})", user, sentinels_of(pool))
    if kwargs.get("path"):
        return (str(kwargs["path"]), user)
    return (f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}", user)


def sentinels_of(pool: Any) -> tuple[str, ...]:
    """Where the sentinels are that a Sentinel pool asks, in an order of their own: redis-py moves
    the one that has answered to the front.
    """
    known = [s.connection_pool.connection_kwargs for s in pool.sentinel_manager.sentinels]
    return tuple(sorted(f"{each['host']}:{each['port']}" for each in known))


def pool_behind(proxy: Any) -> Any:
    """The pool itself: a Sentinel pool gives its connections a weak proxy, and a breaker has to
    find the master when the client is gone and its writes are not.
    """
    return proxy.get_master_address.__self__
