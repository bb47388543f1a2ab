"""Who the client is may change while Redis is away; a wrong password is no outage."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, NoPermissionError
from tenacity import wait_chain, wait_fixed

from tests.breadth.logins import NEW, Vault, as_app, goes_away, rotated, user
from tests.breadth.story import in_use, quick
from tests.contract.helpers import (
    CLOSED,
    KEY,
    PASSWORD,
    VALUE,
    Client,
    events_of,
    opened,
    outcome,
    recovered,
    until,
)
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig
from tests.surface.helpers import aside

pytestmark = pytest.mark.server


async def test_probes_and_replay_use_what_the_provider_says_now(rig: Rig) -> None:
    vault = Vault()
    user(rig)
    breaker = quick()
    async with (
        ChaosProxy(rig.port) as proxy,
        as_app(proxy, breaker, credential_provider=vault) as client,
    ):
        events = events_of(breaker)
        await client.rpush("l", "0")
        for n in range(1, 4):
            await goes_away(proxy, client, breaker)
            await client.rpush("l", n)
            vault.password = f"{NEW}-{n}"
            user(rig, vault.password)
            await proxy.accept()
            await recovered(breaker)
            assert await client.lrange("l", 0, -1) == [b"%d" % i for i in range(n + 1)]
        assert len(opened(events)) == 3
        assert breaker.dead_letters == ()
        assert breaker.snapshot().counters.get("dead_lettered", 0) == 0


CALLS: dict[str, Callable[[Client], Any]] = {
    "GET": lambda c: c.get(KEY),
    "SET": lambda c: c.set(KEY, VALUE),
    "RPUSH": lambda c: c.rpush("l", VALUE),
    "INCR": lambda c: c.incr("n"),
    "PING": lambda c: c.ping(),
    "BLPOP": lambda c: c.blpop("nothing", 5),
    "pipeline": lambda c: c.pipeline(transaction=False).set(KEY, VALUE).get(KEY).execute(),
    "transaction": lambda c: c.pipeline().set(KEY, VALUE).rpush("l", VALUE).execute(),
}


@pytest.mark.parametrize("provider", [False, True])
async def test_a_password_that_is_wrong_after_an_outage(
    rig: Rig, provider: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The server answers, so the outage is over: callers get redis-py's error, and nothing is
    dropped, queued or answered for them.
    """
    vault = Vault() if provider else None
    async with rotated(rig, provider=vault) as (_, client, breaker):
        await until(lambda: breaker.snapshot().last_error == "AuthenticationError")
        await until(lambda: breaker.state == CLOSED)
        events, before = events_of(breaker), breaker.snapshot().counters
        for call in CALLS.values():
            started = time.monotonic()
            with pytest.raises(AuthenticationError):
                await call(client)
            assert time.monotonic() - started < 0.5
        assert opened(events) == []
        snapshot = breaker.snapshot()
        assert (snapshot.pending, snapshot.dead_letters, snapshot.state) == (3, 0, CLOSED)
        for answer in ("neutral", "queued", "unknown"):
            assert snapshot.counters.get(answer) == before.get(answer), answer
        assert snapshot.last_error == "AuthenticationError"
        warnings = [r.getMessage() for r in caplog.records if "let" in r.getMessage()]
        assert len(warnings) == 1, warnings
        assert not in_use(client)

        if vault is not None:
            vault.password = NEW
        else:
            user(rig)
        assert await outcome(client.get(KEY)) is None
        await recovered(breaker)
        assert await client.lrange("l", 0, -1) == [b"0", b"1", b"2", b"3"]
        assert breaker.dead_letters == ()


async def test_the_right_password_is_found_without_traffic(rig: Rig) -> None:
    vault = Vault()
    async with rotated(rig, provider=vault) as (_, client, breaker):
        await until(lambda: breaker.snapshot().last_error == "AuthenticationError")
        vault.password = NEW
        await recovered(breaker)
        assert await client.lrange("l", 0, -1) == [b"0", b"1", b"2", b"3"]


async def test_who_gets_in_calls_the_recovery(valkey_rig: Rig) -> None:
    """Not for the rest of a long wait is he kept from what is true."""
    vault = Vault()
    waits = {
        "recovery_wait": wait_chain(*[wait_fixed(0.01)] * 3, wait_fixed(30)),
        "drain_wait": 5.0,
    }
    async with rotated(valkey_rig, provider=vault, recovery_timeout=30.0, **waits) as (
        _,
        client,
        breaker,
    ):
        await until(lambda: breaker.state == CLOSED)
        await until(lambda: (breaker.retry_after() or 0) > 10)
        vault.password = NEW
        assert await client.rpush("l", 4) == 5
        await recovered(breaker)


async def test_it_is_not_asked_for_all_the_time(rig: Rig) -> None:
    vault = Vault()
    async with rotated(rig, provider=vault, recovery_wait=None, recovery_timeout=0.2) as (
        proxy,
        client,
        breaker,
    ):
        await until(lambda: breaker.state == CLOSED)
        before, links = vault.asked, len(proxy.links)
        readers = [asyncio.create_task(outcome(client.get(KEY))) for _ in range(10)]
        assert {type(await reader) for reader in readers} == {AuthenticationError}
        assert vault.asked - before <= 10 + 2
        before = vault.asked
        await asyncio.sleep(0.5)
        assert 1 <= vault.asked - before <= 5  # every 0.2 s, as long as nobody calls
        assert len(proxy.links) - links <= 20
        assert breaker.pending == 3


async def test_who_waited_for_redis_learns_of_it(rig: Rig) -> None:
    """A worker that blocks, and a subscriber."""
    user(rig)
    breaker = quick()
    async with (
        ChaosProxy(rig.port) as proxy,
        as_app(proxy, breaker, username="app", password=PASSWORD) as client,
    ):
        pubsub = client.pubsub()
        await pubsub.subscribe("c")
        assert (await pubsub.get_message(timeout=1))["type"] == "subscribe"
        await goes_away(proxy, client, breaker)
        waiting = [
            asyncio.create_task(outcome(client.blpop("l", 0))),
            asyncio.create_task(outcome(client.xread({"x": "$"}, block=10_000))),
            asyncio.create_task(outcome(pubsub.get_message(timeout=10))),
        ]
        await asyncio.sleep(0)
        user(rig, NEW)
        await proxy.accept()
        results = await asyncio.wait_for(asyncio.gather(*waiting), 2.0)
        assert [type(result) for result in results] == [AuthenticationError] * 3
        await pubsub.aclose()


async def test_a_new_client_with_the_new_password(rig: Rig) -> None:
    """The application makes another client on the same breaker: what was queued goes its way."""
    async with rotated(rig) as (proxy, _, breaker):
        await until(lambda: breaker.state == CLOSED)
        assert breaker.pending == 3
        async with as_app(proxy, breaker, username="app", password=NEW) as client:
            assert await client.get(KEY) is None
            await recovered(breaker)
            assert await client.lrange("l", 0, -1) == [b"0", b"1", b"2", b"3"]


async def test_a_user_who_is_gone(rig: Rig) -> None:
    async with rotated(rig) as (_, client, breaker):
        rig.admin.acl_deluser("app")
        await until(lambda: breaker.state == CLOSED)
        assert type(await outcome(client.set(KEY, VALUE))) is AuthenticationError
        assert breaker.pending == 3
        user(rig)
        assert await client.rpush("l", 4) == 5
        await recovered(breaker)


def silent() -> dict[str, Any]:
    """Options with which redis-py asks a server nothing as it connects."""
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters:
        return {"protocol": 2, "driver_info": None}
    return {"protocol": 2, "lib_name": None, "lib_version": None}  # before version 7


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, silent()], ids=["3", "2", "silent"])
async def test_a_password_where_there_was_none(rig: Rig, options: dict[str, Any]) -> None:
    """NOAUTH is what even PING is answered with, or the replay itself, where redis-py asks nothing
    as it connects: that would cost the entries.
    """
    breaker = quick()
    async with ChaosProxy(rig.port) as proxy, as_app(proxy, breaker, **options) as client:
        await client.rpush("l", "0")
        await goes_away(proxy, client, breaker)
        await client.rpush("l", "1")
        rig.acl("default", "resetpass", f">{NEW}")
        await proxy.accept()
        await until(lambda: breaker.state == CLOSED)
        for _ in range(3):
            assert type(await outcome(client.get(KEY))) is AuthenticationError
        assert (breaker.pending, breaker.dead_letters) == (1, ())
        rig.acl("default", "nopass")
        assert await client.rpush("l", "2") == 3
        await recovered(breaker)
        assert await client.lrange("l", 0, -1) == [b"0", b"1", b"2"]


async def test_a_right_that_the_handshake_needs(rig: Rig) -> None:
    """`client_name` is CLIENT SETNAME: NOPERM while connecting is redis-py's error, too."""
    user(rig)
    breaker = quick()
    by: dict[str, Any] = {"username": "app", "password": PASSWORD, "client_name": "worker"}
    async with ChaosProxy(rig.port) as proxy, as_app(proxy, breaker, **by) as client:
        await client.rpush("l", "0")
        await goes_away(proxy, client, breaker)
        await client.rpush("l", "1")
        rig.acl("app", "-client|setname")
        await proxy.accept()
        await until(lambda: breaker.state == CLOSED)
        assert type(await outcome(client.get(KEY))) is NoPermissionError
        assert breaker.pending == 1
        rig.acl("app", "+client|setname")
        assert await client.get(KEY) is None
        await recovered(breaker)
        assert await client.lrange("l", 0, -1) == [b"0", b"1"]


async def test_an_outage_while_nobody_is_let_in(valkey_rig: Rig) -> None:
    vault = Vault()
    async with rotated(valkey_rig, provider=vault) as (proxy, client, breaker):
        await until(lambda: breaker.state == CLOSED)
        await goes_away(proxy, client, breaker)
        assert await aside(client.get, KEY) is None
        await client.rpush("l", 4)
        assert breaker.pending == 4
        vault.password = NEW
        await proxy.accept()
        await recovered(breaker)
        assert await client.lrange("l", 0, -1) == [b"0", b"1", b"2", b"3", b"4"]
