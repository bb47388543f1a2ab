"""How Sentinel and the guard come together, and what one breaker stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from resilient_redis.asyncio import (
    RedisCircuitBreaker,
    ResilientRedis,
    ResilientSentinelManagedConnection,
    ResilientSentinelManagedSSLConnection,
)
from tests.sentinel.helpers import Service, quick
from tests.support.sentinels import SERVICE
from tests.support.servers import Rig
from tests.surface.tls import TlsProxy, self_signed

GUARDED: Any = ResilientSentinelManagedConnection


class Derived(SentinelManagedConnection):
    """A user's own, which refines redis-py's."""


def _pool(service: Service, **options: Any) -> Any:
    return SentinelConnectionPool(SERVICE, service.sentinel, **options)  # type: ignore[no-untyped-call]  # redis-py


def by_connection_class(service: Service) -> Any:
    return service.master()


def by_bound_class(service: Service) -> Any:
    bound = GUARDED.bound_to(service.breaker)
    return service.sentinel.master_for(SERVICE, connection_class=bound)


def by_pool(service: Service) -> Any:
    return Redis.from_pool(_pool(service, connection_class=GUARDED, breaker=service.breaker))


def by_facade_over_a_client(service: Service) -> Any:
    service.breaker.take_client(service.sentinel.master_for(SERVICE))
    return ResilientRedis(service.breaker)


def by_facade_over_a_pool(service: Service) -> Any:
    return ResilientRedis.from_pool(_pool(service), breaker=service.breaker)


def by_redis_class(service: Service) -> Any:
    return service.sentinel.master_for(SERVICE, redis_class=ResilientRedis, breaker=service.breaker)


def by_facade_over_a_derived_class(service: Service) -> Any:
    service.breaker.take_client(service.sentinel.master_for(SERVICE, connection_class=Derived))
    return ResilientRedis(service.breaker)


@pytest.mark.server
@pytest.mark.parametrize(
    "way",
    [
        by_connection_class,
        by_bound_class,
        by_pool,
        by_facade_over_a_client,
        by_facade_over_a_pool,
        by_redis_class,
        by_facade_over_a_derived_class,
    ],
)
async def test_each_way_goes_through_a_failover(service: Service, new: Rig, way: Any) -> None:
    client = service._keep(way(service))
    assert await client.set("k", "before") is True
    assert await client.get("k") == b"before"
    service.old.kill()
    assert await client.get("other") is None
    assert await client.set("k", "after") is True
    assert service.breaker.pending == 1
    service.fail_over()
    await service.recovered()
    assert await client.get("k") == b"after"
    assert new.admin.get("k") == "after"


@pytest.mark.server
async def test_redis_class_may_be_the_facade(service: Service) -> None:
    client = service._keep(service.sentinel.master_for(SERVICE, redis_class=ResilientRedis))
    assert await client.set("k", "v") is True
    assert client.breaker.template.address == ("127.0.0.1", service.old.port)
    await client.breaker.aclose()


@pytest.mark.server
async def test_tls(service: Service, old: Rig, new: Rig, tmp_path: Path) -> None:
    """The old master's and the new one's certificate are verified, by the recovery as well."""
    certificate, key = self_signed(tmp_path)
    options = {"ssl_ca_certs": str(certificate), "ssl_cert_reqs": "required"}
    one, other = (TlsProxy(rig.port, certificate, key) for rig in (old, new))
    async with one, other:
        service.sentinel.master = one.port
        client = service.master(connection_class=ResilientSentinelManagedSSLConnection, **options)
        assert await client.get("k") is None
        old.kill()
        assert await client.get("k2") is None
        assert await client.set("k", "v") is True
        service.sentinel.master = other.port
        await service.recovered()
        assert other.handshakes >= 1
        assert new.admin.get("k") == "v"
        assert await client.get("k") == b"v"
        await client.aclose()


# -- what one breaker stands for -------------------------------------------------------------------


def connection(sentinel: Any, service: str = SERVICE, **options: Any) -> Any:
    pool = SentinelConnectionPool(service, sentinel, connection_class=GUARDED, **options)  # type: ignore[no-untyped-call]  # redis-py
    made = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
    made.pool = pool  # it has a weak one itself
    return made


def deployment(*ports: int) -> Any:
    return Sentinel([("127.0.0.1", port) for port in ports])  # type: ignore[no-untyped-call]


def test_a_service_is_an_endpoint_wherever_it_is() -> None:
    one = connection(deployment(1, 2, 3))
    assert connection(deployment(3, 1, 2), db=4).breaker is one.breaker
    assert one.breaker.name == "mymaster (master)"


@pytest.mark.parametrize(
    "other",
    [
        lambda: connection(deployment(1, 2), service="another"),
        lambda: connection(deployment(1, 2), is_master=False),
        lambda: connection(deployment(1, 2), username="somebody"),
        lambda: connection(deployment(1, 4)),  # a service of the same name elsewhere
    ],
    ids=["service", "role", "user", "sentinels"],
)
def test_another_is_another_endpoint(other: Any) -> None:
    one = connection(deployment(1, 2))
    assert other().breaker is not one.breaker


def test_a_breaker_of_the_master_is_none_of_the_replicas() -> None:
    breaker = RedisCircuitBreaker()
    connection(deployment(1), breaker=breaker)
    with pytest.raises(ValueError, match=r"guards mymaster \(master\), not mymaster \(replicas\)"):
        connection(deployment(1), breaker=breaker, is_master=False)
    with pytest.raises(ValueError, match=r"guards mymaster \(master\) of .*:1, not of .*:2: one"):
        connection(deployment(2), breaker=breaker)
    with pytest.raises(ValueError, match="one breaker is one endpoint"):
        breaker.take_client(Redis(host="127.0.0.1", port=1))


def test_the_plain_class_does_not_turn_tls_off() -> None:
    with pytest.raises(ValueError, match="ResilientSentinelManagedSSLConnection"):
        connection(deployment(1), ssl_ca_certs="ca.pem")


def test_it_is_redis_pys_class() -> None:
    assert issubclass(ResilientSentinelManagedConnection, SentinelManagedConnection)
    assert issubclass(ResilientSentinelManagedSSLConnection, SentinelManagedSSLConnection)


def test_the_sentinels_themselves_are_not_guarded() -> None:
    sentinel = deployment(1)
    breaker = quick(redis_client=sentinel.master_for(SERVICE))
    (client,) = sentinel.sentinels
    assert type(client) is Redis
    assert "breaker" not in client.connection_pool.connection_kwargs
    assert not breaker.guards_object
