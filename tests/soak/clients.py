"""The clients of a soak, of either flavour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis

from resilient_redis.asyncio import ResilientConnection, ResilientSSLConnection
from resilient_redis.flow.breaker import CircuitBreaker
from tests.support.proxy import ChaosProxy

SOCKET_TIMEOUT = 1.5


@dataclass(frozen=True)
class Tls:
    """Where TLS is spoken, and whose certificate is shown there."""

    port: int
    certificate: Path


class Kit(NamedTuple):
    """The classes of a flavour."""

    redis: Any = Redis
    pool: Any = ConnectionPool
    blocking_pool: Any = BlockingConnectionPool
    connection: Any = ResilientConnection
    ssl_connection: Any = ResilientSSLConnection


def clients_of(
    kit: Kit, proxy: ChaosProxy, breaker: CircuitBreaker, tls: Tls | None
) -> list[tuple[Any, int]]:
    """Of each kind one: with retries and without, both databases, both protocols."""
    common: dict[str, Any] = {
        "connection_class": kit.connection,
        "breaker": breaker,
        "socket_timeout": SOCKET_TIMEOUT,
    }
    place: dict[str, Any] = {"host": "127.0.0.1", "port": proxy.port}
    if tls is not None:
        common["connection_class"] = kit.ssl_connection
        place = {"host": "127.0.0.1", "port": tls.port, "ssl_ca_certs": str(tls.certificate)}
    with_retry = kit.pool(**common, **place, retry=kit.redis().get_retry(), max_connections=100)
    few = kit.blocking_pool(**common, **place, db=1, max_connections=2, timeout=5)
    pools = [
        (kit.pool(**common, **place, protocol=2), 0),
        (kit.pool(**common, **place, db=1, protocol=3), 1),
        (kit.pool(**common, **place, db=1, protocol=2, decode_responses=True), 1),
        (kit.pool(**common, **place, protocol=3, health_check_interval=1), 0),
        (few, 1),
    ]
    clients = [(kit.redis(connection_pool=with_retry), 0)]
    return clients + [(kit.redis(connection_pool=pool), db) for pool, db in pools]
