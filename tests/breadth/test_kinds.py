"""Each kind of connection, pool and option comes through an outage as the contract says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider
from redis.exceptions import ConnectionError, TimeoutError

from resilient_redis.asyncio import (
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
    ResilientSSLConnection,
    ResilientUnixDomainSocketConnection,
)
from tests.breadth.story import QUICK, USER, Place, nothing_is_left, quick, through_an_outage
from tests.contract.helpers import PASSWORD
from tests.surface.tls import TlsProxy

pytestmark = pytest.mark.server

Made = tuple[Any, RedisCircuitBreaker]

# -- ways in --------------------------------------------------------------------------------------


def by_class(place: Place, **options: Any) -> Made:
    breaker = quick()
    made = Redis.from_url(
        place.url, connection_class=ResilientConnection, breaker=breaker, **options
    )
    return made, breaker


def by_bound_class(place: Place) -> Made:
    breaker = quick()
    bound: Any = ResilientConnection.bound_to(breaker)
    return Redis.from_url(place.url, connection_class=bound), breaker


def by_pool(
    place: Place, pool_class: Any = ConnectionPool, single: bool = False, **options: Any
) -> Made:
    breaker = quick()
    pool = pool_class(
        connection_class=ResilientConnection,
        breaker=breaker,
        host="127.0.0.1",
        port=place.rig.port,
        **options,
    )
    return Redis(connection_pool=pool, single_connection_client=single), breaker


def by_breaker(place: Place, client: Any = None) -> Made:
    """redis-py's own client, guarded after it was made; with its default retry of 10."""
    client = client or Redis(host="127.0.0.1", port=place.rig.port)
    return client, quick(client)


def by_facade(place: Place, url: str | None = None, **options: Any) -> Made:
    client = ResilientRedis.from_url(url or place.url, **{**QUICK, **options})
    return client, client.breaker


def by_unix_pool(place: Place, pool_class: Any = ConnectionPool) -> Made:
    breaker = quick()
    pool = pool_class(
        connection_class=ResilientUnixDomainSocketConnection,
        breaker=breaker,
        path=place.unix_socket,
    )
    return Redis(connection_pool=pool), breaker


def by_tls_class(place: Place) -> Made:
    """redis-py's `from_url` takes no class for `rediss://`; arguments do."""
    client = Redis(host="127.0.0.1", port=place.tls.port, ssl=True, ssl_ca_certs=place.authority)
    return by_breaker(place, client)


def by_tls_pool(place: Place, pool_class: Any = ConnectionPool) -> Made:
    breaker = quick()
    pool = pool_class(
        connection_class=ResilientSSLConnection,
        breaker=breaker,
        host="127.0.0.1",
        port=place.tls.port,
        ssl_ca_certs=place.authority,
        ssl_cert_reqs="required",
        ssl_check_hostname=True,
    )
    return Redis(connection_pool=pool), breaker


def as_user(place: Place, **options: Any) -> Made:
    place.rig.acl(*USER)
    return by_class(place, **options)


class SyncOnly(CredentialProvider):
    """As written for redis-py 4: redis-py 8 warns in its log, and calls it."""

    def get_credentials(self) -> tuple[str, str]:
        return "app", PASSWORD


class Async(CredentialProvider):
    async def get_credentials_async(self) -> tuple[str, str]:
        await asyncio.sleep(0.001)
        return "app", PASSWORD


WAYS: dict[str, Callable[[Place], Made]] = {
    "the class": by_class,
    "the bound class": by_bound_class,
    "connection_pool=": by_pool,
    "BlockingConnectionPool": lambda p: by_pool(p, BlockingConnectionPool, timeout=2),
    "a blocking pool of one": lambda p: by_pool(
        p, BlockingConnectionPool, timeout=5, max_connections=1
    ),
    "single_connection_client": lambda p: by_pool(p, single=True),
    "single_connection_client, façade": lambda p: by_facade(
        p, single_connection_client=True, max_connections=2
    ),
    "a breaker over a client": by_breaker,
    "the façade": by_facade,
    "Unix socket, façade": lambda p: by_facade(p, p.unix),
    "Unix socket, pool": by_unix_pool,
    "Unix socket, blocking pool": lambda p: by_unix_pool(p, BlockingConnectionPool),
    "Unix socket, arguments": lambda p: by_breaker(p, Redis(unix_socket_path=p.unix_socket)),
    "TLS, façade": lambda p: by_facade(p, p.rediss, ssl_ca_certs=p.authority),
    "TLS, arguments": by_tls_class,
    "TLS, pool": by_tls_pool,
    "TLS, blocking pool": lambda p: by_tls_pool(p, BlockingConnectionPool),
    "RESP2": lambda p: by_class(p, protocol=2),
    "RESP3": lambda p: by_class(p, protocol=3),
    "RESP2, Python parser": lambda p: by_class(p, protocol=2, parser_class=_AsyncRESP2Parser),
    "RESP3, Python parser": lambda p: by_class(p, protocol=3, parser_class=_AsyncRESP2Parser),
    "latin-1": lambda p: by_class(p, encoding="latin-1"),
    "health checks all the time": lambda p: by_class(p, health_check_interval=0.001),
    "health checks, façade": lambda p: by_facade(p, health_check_interval=1),
    "no keepalive": lambda p: by_class(p, socket_keepalive=False),
    "socket_timeout None": lambda p: by_class(p, socket_timeout=None),
    "socket_timeout short": lambda p: by_class(p, socket_timeout=0.2, socket_connect_timeout=0.2),
    "no retry": lambda p: by_class(p, retry=Retry(NoBackoff(), 0)),
    "three retries": lambda p: by_class(p, retry=Retry(ExponentialBackoff(0.5, 0.1), 3)),
    "retry_on_timeout": lambda p: by_class(p, retry_on_timeout=True),
    "retry_on_error": lambda p: by_class(p, retry_on_error=[ConnectionError, TimeoutError]),
    "an ACL user": lambda p: as_user(p, username="app", password=PASSWORD),
    "a provider": lambda p: as_user(
        p, credential_provider=UsernamePasswordCredentialProvider("app", PASSWORD)
    ),
    "a provider, sync": lambda p: as_user(p, credential_provider=SyncOnly()),
    "a provider, async": lambda p: as_user(p, credential_provider=Async()),
    "a client name": lambda p: by_class(p, client_name="app"),
}


async def tell(place: Place, make: Callable[[Place], Made], **options: Any) -> None:
    client, breaker = make(place)
    try:
        await through_an_outage(place.rig, client, breaker, **options)
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()  # one that was given stays the giver's
        await breaker.aclose()
    await nothing_is_left(place.rig)


@pytest.mark.parametrize("way", WAYS)
async def test_an_outage(place: Place, way: str) -> None:
    await tell(place, WAYS[way])


DIFFERENT: dict[str, dict[str, Any]] = {
    "another database": {"db": 3},
    "decode_responses": {"decode_responses": True},
    "decode_responses, RESP2, Python parser": {
        "decode_responses": True,
        "protocol": 2,
        "parser_class": _AsyncRESP2Parser,
    },
    "all of it": {"db": 5, "decode_responses": True, "protocol": 3, "encoding": "latin-1"},
}


@pytest.mark.parametrize("what", DIFFERENT)
@pytest.mark.parametrize("make", [by_class, by_facade])
async def test_what_replies_look_like_and_where_they_come_from(
    place: Place, make: Any, what: str
) -> None:
    options = dict(DIFFERENT[what])
    text, db = "decode_responses" in options, options.pop("db", 0)
    place.database = db
    await tell(place, lambda p: make(p, **options), text=text, db=db)
    assert set(place.rig.admin.info("keyspace")) == {f"db{db}"}


# -- URLs -----------------------------------------------------------------------------------------

QUERIES: dict[str, dict[str, Any]] = {
    "db=3": {"db": 3},
    "socket_timeout=0.5&socket_connect_timeout=0.5": {},
    "protocol=2": {},
    "protocol=3": {},
    "decode_responses=True": {"text": True},
    "health_check_interval=1": {},
    "socket_keepalive=yes&retry_on_timeout=yes&max_connections=20": {},
    "username=app&password=" + quote(PASSWORD): {},
    "encoding=latin-1&client_name=app": {},
}


# What goes with every scheme; each of them by itself is tried on plain TCP.
TOGETHER = "db=3&decode_responses=True&protocol=2&health_check_interval=1&socket_timeout=0.5"
URLS = [
    *[("redis", query) for query in QUERIES],
    *[(scheme, query) for scheme in ("rediss", "unix") for query in ("protocol=3", TOGETHER)],
]


@pytest.mark.parametrize("scheme, query", URLS)
async def test_a_url(place: Place, scheme: str, query: str) -> None:
    """By the façade, which takes them all."""
    if "username" in query:
        place.rig.acl(*USER)
    base = {"redis": place.url, "rediss": place.rediss, "unix": place.unix}[scheme]
    if query.startswith("db="):
        base = base.removesuffix("/0")  # a path would go first
    url = f"{base}?{query}"
    if scheme == "rediss":
        url += f"&ssl_ca_certs={quote(place.authority)}&ssl_check_hostname=yes"
    looks = {"db": 3, "text": True} if query == TOGETHER else QUERIES[query]
    await tell(place, lambda p: by_facade(p, url), **looks)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
async def test_who_is_named_in_the_url(place: Place, scheme: str) -> None:
    place.rig.acl(*USER)
    who = f"app:{PASSWORD}@"
    url = {
        "redis": f"redis://{who}127.0.0.1:{place.rig.port}/2",
        "rediss": f"rediss://{who}127.0.0.1:{place.tls.port}/2?ssl_ca_certs={place.authority}",
        "unix": f"unix://{who}{place.unix_socket}?db=2",
    }[scheme]
    await tell(place, lambda p: by_facade(p, url), db=2)


# -- event loops and certificates ------------------------------------------------------------------


@pytest.mark.parametrize("way", ["the class", "Unix socket, façade", "TLS, façade", "RESP2"])
def test_uvloop(
    reachable_rig: Any, unix_socket: str, certificate: tuple[Path, Path], way: str
) -> None:
    uvloop = pytest.importorskip("uvloop", reason="no uvloop for this platform")
    assert reachable_rig.reset()

    async def story() -> None:
        async with TlsProxy(reachable_rig.port, *certificate) as proxy:
            place = Place(reachable_rig, unix_socket, proxy, str(certificate[0]))
            await tell(place, WAYS[way])

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(story())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def test_an_authority_that_is_not_known(place: Place) -> None:
    """A certificate that cannot be checked is no outage: nothing is queued, and nothing is sent."""
    client, breaker = by_facade(place, place.rediss)
    for call in (client.incr("n"), client.set("k", "v")):
        with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await call
    assert (breaker.state, breaker.pending) == ("CLOSED", 0)
    await breaker.aclose()
    await client.aclose()
    assert place.rig.admin.dbsize() == 0
    assert place.rig.calls("set") == 0
