"""One breaker is one endpoint and one user; where none is given, connections share one."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from tests.contract.helpers import CLOSED, OPEN, SECRET, recovered, until
from tests.support.flavours import (
    ConnectionPool,
    Redis,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientUnixDomainSocketConnection,
    real,
)
from tests.support.servers import Rig
from tests.surface.helpers import guarded

URL = "redis://127.0.0.1:1/0"


# -- "One breaker = one endpoint and one user, shared by all its connections" ----------------------


@pytest.mark.server
async def test_one_breaker_serves_several_clients_and_databases(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        other = Redis.from_url(
            valkey_rig.url.replace("/0", "/3"),
            connection_class=ResilientConnection,
            breaker=breaker,
        )
        async with other:
            valkey_rig.kill()
            assert await client.set("k", "zero") is True
            assert breaker.state != CLOSED
            assert await other.set("k", "three") is True
            assert breaker.pending == 2
            valkey_rig.restart()
            await recovered(breaker)
            assert (await client.get("k"), await other.get("k")) == (b"zero", b"three")


OTHERS: dict[str, dict[str, Any]] = {
    "port": {"port": 2},
    "host": {"host": "localhost"},
    "user": {"username": "somebody"},
    "Unix socket": {"path": "/tmp/nobody.sock"},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_endpoint_or_user_is_a_value_error(what: str) -> None:
    breaker = RedisCircuitBreaker()
    ResilientConnection(breaker=breaker, host="127.0.0.1", port=1, password="pa55word")
    options = {"host": "127.0.0.1", "port": 1, "password": "pa55word", **OTHERS[what]}
    unix = "path" in options
    made = ResilientUnixDomainSocketConnection if unix else ResilientConnection
    if unix:
        options = {"path": options["path"]}
    with pytest.raises(ValueError, match="one breaker is one endpoint and one user") as raised:
        made(breaker=breaker, **options)
    assert "127.0.0.1:1" in str(raised.value)
    assert "pa55word" not in str(raised.value)


class Anonymous(CredentialProvider):
    """Whom it names nobody knows before it is asked."""

    def get_credentials(self) -> tuple[str, str]:
        return "somebody", "pa55word"

    def __repr__(self) -> str:
        return "pa55word"


@pytest.mark.parametrize(
    "options,words",
    [
        ({"username": "bob"}, "guards 127.0.0.1:1 as alice, not as bob: "),
        ({}, "guards 127.0.0.1:1 as alice, not as default: "),
        (
            {"credential_provider": UsernamePasswordCredentialProvider("bob", "pa55word")},
            "guards 127.0.0.1:1 as alice, not as bob: ",
        ),
        (
            {"credential_provider": Anonymous()},
            "guards 127.0.0.1:1 as alice, not as the user of Anonymous: ",
        ),
    ],
)
def test_where_only_the_user_is_another_the_error_says_so(
    options: dict[str, Any], words: str
) -> None:
    breaker = RedisCircuitBreaker()
    connection(breaker=breaker, username="alice", password="pa55word")
    with pytest.raises(ValueError, match=words) as raised:
        connection(breaker=breaker, **options)
    assert "pa55word" not in str(raised.value)


async def test_another_endpoint_is_told_to_whoever_uses_it_first() -> None:
    breaker = RedisCircuitBreaker()
    first = Redis.from_url(URL, connection_class=ResilientConnection, breaker=breaker)
    second = Redis.from_url(
        URL.replace(":1/", ":2/"), connection_class=ResilientConnection, breaker=breaker
    )
    assert await first.get("k") is None
    with pytest.raises(ValueError, match=re.escape("guards 127.0.0.1:1, not 127.0.0.1:2")):
        await second.get("k")
    await breaker.aclose()
    # A façade asks before there is a connection.
    with pytest.raises(ValueError, match="one breaker is one endpoint"):
        breaker.take_client(Redis.from_url(URL.replace(":1/", ":2/")))


# -- "Where no `breaker=` is given: one per (flavour, endpoint, username)" -------------------------


def connection(**options: Any) -> ResilientConnection:
    return ResilientConnection(**{"host": "127.0.0.1", "port": 1, **options})


def test_connections_to_one_endpoint_as_one_user_share_a_breaker() -> None:
    one, other = connection(db=0, username="u", password="a"), connection(db=5, username="u")
    assert one.breaker is other.breaker
    assert one.breaker.name == "127.0.0.1:1"


@pytest.mark.parametrize("what", ["port", "host", "user"])
def test_another_endpoint_or_user_has_another_breaker(what: str) -> None:
    one, other = connection(), connection(**OTHERS[what])
    assert one.breaker is not other.breaker


def test_a_unix_socket_is_an_endpoint() -> None:
    one, same, other = (
        ResilientUnixDomainSocketConnection(path=path) for path in ("/a.sock", "/a.sock", "/b.sock")
    )
    assert one.breaker is same.breaker
    assert one.breaker is not other.breaker


def test_users_by_credential_providers_are_users() -> None:
    one, other = (
        connection(credential_provider=UsernamePasswordCredentialProvider(user, "x"))
        for user in ("alice", "bob")
    )
    assert one.breaker is not other.breaker


def test_two_providers_of_one_user_are_one_user() -> None:
    breaker = RedisCircuitBreaker()
    for _ in range(2):
        provider = UsernamePasswordCredentialProvider("alice", "x")
        assert connection(breaker=breaker, credential_provider=provider).breaker is breaker


def test_it_has_the_defaults() -> None:
    shared, made = connection().breaker, RedisCircuitBreaker()
    for name in ("deadline", "probe_timeout", "drain_wait", "recovery_timeout"):
        assert getattr(shared, name) == getattr(made, name), name


# -- "kept while it is in use or holds anything" ---------------------------------------------------


def test_it_is_kept_while_a_connection_uses_it_and_no_longer() -> None:
    first, second = connection(), connection()
    kept = weakref.ref(first.breaker)
    del first
    gc.collect()
    assert connection().breaker is kept() is second.breaker
    del second
    gc.collect()
    assert kept() is None, "one for every endpoint that there ever was"


@pytest.mark.server
async def test_it_is_kept_while_it_holds_anything(valkey_rig: Rig) -> None:
    """Its client is gone before the server is back."""
    client: Any = Redis.from_url(valkey_rig.url, connection_class=ResilientConnection)
    await client.get("k")
    valkey_rig.kill()
    assert await client.set(f"k-{SECRET}", "v") is True
    await client.aclose()
    kept = weakref.ref(client.connection_pool.make_connection().breaker)
    del client
    gc.collect()
    breaker = kept()
    assert breaker is not None
    assert breaker.pending == 1
    valkey_rig.restart()
    await recovered(breaker)
    assert valkey_rig.admin.get(f"k-{SECRET}") == "v"
    del breaker

    def gone() -> bool:
        gc.collect()
        return kept() is None

    # Then it is let go, when the timer of its last command has run out.
    await until(gone, timeout=3.0)


@pytest.mark.server
def test_it_is_kept_when_its_event_loop_ends(valkey_rig: Rig) -> None:
    def client() -> Any:
        return Redis.from_url(valkey_rig.url, connection_class=ResilientConnection)

    async def first() -> None:
        async with client() as r:
            await r.get("k")
            valkey_rig.kill()
            assert await r.set(f"k-{SECRET}", "v") is True

    async def second() -> bool:
        async with client() as r:
            breaker = r.connection_pool.make_connection().breaker
            await r.get("other")
            for _ in range(100):
                if valkey_rig.admin.exists(f"k-{SECRET}"):
                    break
                await asyncio.sleep(0.01)
            await breaker.aclose()
            return bool(valkey_rig.admin.exists(f"k-{SECRET}"))

    asyncio.run(first())
    gc.collect()
    valkey_rig.restart()
    assert asyncio.run(second()), "acknowledged, and lost"


# -- "Where only a class can be given: `ResilientConnection.bound_to(breaker)`" --------------------


def test_a_bound_class_uses_its_breaker() -> None:
    breaker, other = RedisCircuitBreaker(name="a"), RedisCircuitBreaker(name="b")
    bound = ResilientConnection.bound_to(breaker)
    assert issubclass(bound, real(ResilientConnection))
    assert bound.__name__ == "ResilientConnection"
    assert bound(host="127.0.0.1", port=1).breaker is breaker
    # The class itself is as it was, and what is given explicitly wins.
    assert connection().breaker is not breaker
    assert ResilientConnection.bound_to(other)(host="127.0.0.1", port=1).breaker is other
    third = RedisCircuitBreaker()
    assert bound(host="127.0.0.1", port=1, breaker=third).breaker is third


def test_each_guarded_class_can_be_bound() -> None:
    breaker = RedisCircuitBreaker()
    bound = ResilientUnixDomainSocketConnection.bound_to(breaker)
    assert bound(path="/nobody.sock").breaker is breaker


@pytest.mark.server
async def test_a_bound_class_goes_through_an_outage(valkey_rig: Rig) -> None:
    async with guarded(valkey_rig) as (_, breaker):
        bound: type[AbstractConnection] = ResilientConnection.bound_to(breaker)
        pool = ConnectionPool.from_url(valkey_rig.url, connection_class=bound)
        async with Redis.from_pool(pool) as client:
            valkey_rig.kill()
            assert await client.set("k", "v") is True
            assert (breaker.state, breaker.pending) == (OPEN, 1)
            valkey_rig.restart()
            await recovered(breaker)
            assert await client.get("k") == b"v"
    assert breaker.state == CLOSED
