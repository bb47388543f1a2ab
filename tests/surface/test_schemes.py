"""TLS and Unix sockets: the right guarded class, or an error that says what to write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from resilient_redis import CommandRefused
from resilient_redis.cli.servers import REDIS, VALKEY, ServerError, find_binary
from tests.contract.helpers import outcome, recovered, until
from tests.support.flavours import (
    BlockingConnectionPool,
    ConnectionPool,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
    ResilientSSLConnection,
    ResilientUnixDomainSocketConnection,
    real,
)
from tests.support.servers import Rig, own_rig
from tests.surface.helpers import QUICK, aside, goes_down, quick
from tests.surface.tls import TlsProxy, self_signed

URLS = {
    "redis://127.0.0.1:1/3": ResilientConnection,
    "rediss://127.0.0.1:1/3": ResilientSSLConnection,
    "unix:///nobody/redis.sock?db=3": ResilientUnixDomainSocketConnection,
}


@pytest.mark.parametrize("url", URLS)
def test_the_facade_takes_any_url(url: str) -> None:
    client = ResilientRedis.from_url(url, decode_responses=True)
    pool: Any = client.connection_pool
    assert pool.connection_class is real(URLS[url])
    connection = pool.make_connection()
    assert type(connection) is real(URLS[url])
    assert connection.breaker is client.breaker
    assert (connection.db, connection.encoder.decode_responses) == (3, True)


@pytest.mark.parametrize("url", URLS)
def test_so_does_a_breaker_over_a_client(url: str) -> None:
    client: Any = Redis.from_url(url)
    breaker = RedisCircuitBreaker(client)
    assert client.connection_pool.connection_class is real(URLS[url])
    assert client.connection_pool.make_connection().breaker is breaker


def test_and_a_client_made_of_arguments() -> None:
    tls = ResilientRedis(host="127.0.0.1", port=1, ssl=True)
    unix = ResilientRedis(unix_socket_path="/nobody/redis.sock")
    assert tls.connection_pool.connection_class is real(ResilientSSLConnection)
    assert unix.connection_pool.connection_class is real(ResilientUnixDomainSocketConnection)


@pytest.mark.parametrize("pool_class", [ConnectionPool, BlockingConnectionPool])
def test_a_pool_is_given_the_class(pool_class: Any) -> None:
    breaker = RedisCircuitBreaker()
    pool = pool_class(
        connection_class=ResilientUnixDomainSocketConnection, breaker=breaker, path="/nobody.sock"
    )
    assert pool.make_connection().breaker is breaker
    tls = RedisCircuitBreaker()
    pool = pool_class(connection_class=ResilientSSLConnection, breaker=tls, ssl_check_hostname=True)
    assert pool.make_connection().breaker is tls


WRONG: list[dict[str, Any]] = [
    {"path": "/nobody/redis.sock"},
    {"ssl_cert_reqs": "none"},
    {"ssl_ca_certs": "/nobody/ca.pem", "host": "127.0.0.1"},
    {"ssl_check_hostname": False},
]


@pytest.mark.parametrize("options", WRONG)
def test_the_plain_class_does_not_take_what_it_would_ignore(options: dict[str, Any]) -> None:
    """TLS that is silently left out is worse than an error."""
    with pytest.raises(ValueError, match="ResilientSSLConnection") as raised:
        ResilientConnection(breaker=RedisCircuitBreaker(), **options)
    for way_out in ("ResilientUnixDomainSocketConnection", "ResilientRedis.from_url(url)"):
        assert way_out in str(raised.value)


@pytest.mark.parametrize("options", WRONG)
async def test_nor_does_it_through_a_pool(options: dict[str, Any]) -> None:
    pool = ConnectionPool(connection_class=ResilientConnection, **options)
    with pytest.raises(ValueError, match="ResilientSSLConnection"):
        await Redis(connection_pool=pool).get("k")


def test_the_facade_chooses_the_class_itself() -> None:
    with pytest.raises(TypeError, match="chooses the connection class by the URL's scheme"):
        ResilientRedis.from_url("rediss://127.0.0.1:1", connection_class=ResilientConnection)


async def test_a_breaker_in_the_url_is_an_error() -> None:
    url = "redis://127.0.0.1:1/0?breaker=mine"
    client = Redis.from_url(
        url, connection_class=ResilientConnection, breaker=RedisCircuitBreaker()
    )
    with pytest.raises(TypeError, match="cannot be given in a URL"):
        await client.get("k")


# -- redis-py's own from_url, which replaces the class that it is given


@pytest.mark.asyncio_only("redis.Redis.from_url keeps the class that it is given")
@pytest.mark.parametrize("url", list(URLS)[1:])
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            "breaker",
            marks=pytest.mark.xfail(
                strict=True,
                raises=AssertionError,
                reason="a limit of redis-py: for these URLs its from_url takes its own class, "
                "which knows no breaker: a TypeError, and no word of what to write. README: take "
                "the façade or a pool",
            ),
        ),
        pytest.param(
            "nothing",
            marks=pytest.mark.xfail(
                strict=True,
                raises=AssertionError,
                reason="a limit of redis-py: for these URLs its from_url takes its own class, and "
                "nothing of ours is asked: the client is not guarded. README: take the façade or "
                "a pool",
            ),
        ),
    ],
)
async def test_redis_pys_from_url_gives_a_guarded_class_or_says_what_to_write(
    url: str, given: str
) -> None:
    options: dict[str, Any] = {"breaker": quick()} if given == "breaker" else {}
    client = Redis.from_url(url, connection_class=ResilientConnection, **options)
    made = await outcome(_make(client))
    assert hasattr(made, "breaker") or "Resilient" in str(made)


async def _make(client: Redis) -> Any:
    return client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py


# -- through an outage, on real sockets


@pytest.fixture(scope="module", params=[VALKEY, REDIS])
def unix_rig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rig, str]]:
    try:
        find_binary(request.param)
    except ServerError as error:
        pytest.skip(str(error))
    path = str(tmp_path_factory.mktemp("u") / "redis.sock")
    with own_rig(request.param, "--unixsocket", path) as rig:
        yield rig, f"unix://{path}"


async def through_an_outage(rig: Rig, client: Any, breaker: RedisCircuitBreaker) -> None:
    """What the contract promises, in short."""
    await client.set("before", "v")
    assert await client.get("before") == b"v"
    await goes_down(rig, client, breaker)
    assert breaker.state != "CLOSED"
    assert await aside(client.hgetall, "h") == {}
    assert await client.set("during", "v") is True
    assert await client.rpush("l", 1) == "OK"
    with pytest.raises(CommandRefused):
        await client.incr("n")
    rig.restart()
    await recovered(breaker)
    assert (breaker.pending, breaker.dead_letters) == (0, ())
    assert await client.get("before") == b"v"
    assert await client.get("during") == b"v"
    assert await client.lrange("l", 0, -1) == [b"1"]
    assert rig.admin.exists("n") == 0


@pytest.mark.server
async def test_unix_by_the_facade(unix_rig: tuple[Rig, str]) -> None:
    rig, url = unix_rig
    rig.reset()
    async with ResilientRedis.from_url(url, **QUICK) as client:
        await through_an_outage(rig, client, client.breaker)


@pytest.mark.server
async def test_unix_by_a_pool(unix_rig: tuple[Rig, str]) -> None:
    rig, url = unix_rig
    rig.reset()
    breaker = quick()
    pool = ConnectionPool(
        connection_class=ResilientUnixDomainSocketConnection,
        breaker=breaker,
        path=url.removeprefix("unix://"),
    )
    async with Redis.from_pool(pool) as client:
        await through_an_outage(rig, client, breaker)
    await breaker.aclose()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.mark.server
async def test_tls_by_the_facade(valkey_rig: Rig, certificate: tuple[Path, Path]) -> None:
    async with TlsProxy(valkey_rig.port, *certificate) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        async with ResilientRedis.from_url(
            url, ssl_ca_certs=str(certificate[0]), **QUICK
        ) as client:
            await through_an_outage(valkey_rig, client, client.breaker)
        assert proxy.handshakes >= 3, "commands, a probe or the replay went another way"


@pytest.mark.server
async def test_tls_by_a_pool(valkey_rig: Rig, certificate: tuple[Path, Path]) -> None:
    breaker = quick()
    async with TlsProxy(valkey_rig.port, *certificate) as proxy:
        pool = ConnectionPool(
            connection_class=ResilientSSLConnection,
            breaker=breaker,
            host="127.0.0.1",
            port=proxy.port,
            ssl_ca_certs=str(certificate[0]),
        )
        async with Redis.from_pool(pool) as client:
            await through_an_outage(valkey_rig, client, breaker)
        await breaker.aclose()


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Another authority's certificate for the same address."""
    return self_signed(tmp_path_factory.mktemp("another"))


@pytest.mark.server
async def test_an_unknown_authority_is_no_outage(
    valkey_rig: Rig, certificate: tuple[Path, Path]
) -> None:
    """It is redis-py's error, as a wrong password is: nothing is queued, or answered for it."""
    async with TlsProxy(valkey_rig.port, *certificate) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        async with Redis.from_url(url) as stock:
            says = await outcome(stock.get("k"))
        assert "certificate verify failed" in str(says)
        async with ResilientRedis.from_url(url, **QUICK) as client:
            calls: tuple[Any, ...] = (client.get, client.incr, client.sadd)
            for call, args in zip(calls, (("k",), ("n",), ("s", 1)), strict=True):
                said = await outcome(call(*args))
                assert (type(said), str(said)) == (type(says), str(says))
            snapshot = client.breaker.snapshot()
            assert (snapshot.state, snapshot.failures, snapshot.pending) == ("CLOSED", 0, 0)
    assert not valkey_rig.admin.exists("n", "s")


@pytest.mark.server
async def test_an_unknown_authority_after_an_outage(
    valkey_rig: Rig,
    certificate: tuple[Path, Path],
    another: tuple[Path, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Something answers there, and it is not to be trusted: callers are told so, what is queued
    waits, and is applied when it is Redis again.
    """
    async with TlsProxy(valkey_rig.port, *certificate) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        ca = {"ssl_ca_certs": str(certificate[0])}
        async with ResilientRedis.from_url(url, **ca, **QUICK) as client:
            breaker = client.breaker
            await client.rpush("l", 0)
            await goes_down(valkey_rig, client, breaker)
            await client.rpush("l", 1)
            proxy.presents(*another)
            await until(lambda: breaker.snapshot().last_error == "SSLCertVerificationError")
            await until(lambda: breaker.state == "CLOSED")
            valkey_rig.restart()
            calls: tuple[Any, ...] = (client.get, client.incr, client.rpush)
            for call, args in zip(calls, (("k",), ("n",), ("l", "no")), strict=True):
                assert type(await outcome(call(*args))) is ConnectionError
            probes = breaker.snapshot().counters["probes"]
            await until(lambda: breaker.snapshot().counters["probes"] > probes)
            snapshot = breaker.snapshot()
            assert (snapshot.state, snapshot.pending, snapshot.dead_letters) == ("CLOSED", 1, 0)
            told = [r.getMessage() for r in caplog.records if "let us in" in r.getMessage()]
            assert told == [
                "redis: Redis does not let us in (SSLCertVerificationError): 1 writes wait"
            ]
            proxy.presents(*certificate)
            await recovered(breaker)
            assert await client.lrange("l", 0, -1) == [b"0", b"1"]
            assert breaker.dead_letters == ()
