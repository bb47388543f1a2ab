"""Credential providers that fail, take their time, or stream tokens: none of it is Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.auth.token import SimpleToken
from redis.credentials import StreamingCredentialProvider
from redis.exceptions import ConnectionError

from resilient_redis.asyncio import CommandRefused, RedisCircuitBreaker
from tests.breadth.logins import NEW, Vault, as_app, goes_away, rotated, user
from tests.breadth.story import QUICK, in_use, quick
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
    using,
)
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

pytestmark = pytest.mark.server

# What a token service that is away is told by; the last ones look like an outage of Redis.
UNAVAILABLE = (
    LookupError("sealed"),
    OSError(111, "refused"),
    asyncio.TimeoutError(),
    ConnectionError("redis-py's"),
)


@pytest.mark.parametrize("error", UNAVAILABLE, ids=lambda error: type(error).__name__)
async def test_a_provider_that_fails_after_an_outage(
    valkey_rig: Rig, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is the caller's, as in redis-py; the recovery goes on and drops nothing."""
    vault = Vault()
    async with rotated(valkey_rig, provider=vault) as (_, client, breaker):
        vault.error = error
        await until(lambda: breaker.snapshot().last_error == type(error).__name__)
        assert "Traceback" not in caplog.text
        await until(lambda: breaker.state == CLOSED)
        for _ in range(3):
            assert await outcome(client.get(KEY)) is error
        assert breaker.pending == 3
        vault.error, vault.password = None, NEW
        await recovered(breaker)
        assert await client.lrange("l", 0, -1) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("error", UNAVAILABLE, ids=lambda error: type(error).__name__)
async def test_a_provider_that_fails_is_no_outage_of_redis(
    valkey_rig: Rig, error: Exception
) -> None:
    """Who has a connection goes on; who needs one gets the provider's error, and is not counted."""
    user(valkey_rig)
    breaker, vault = quick(), Vault()
    async with (
        ChaosProxy(valkey_rig.port) as proxy,
        as_app(proxy, breaker, credential_provider=vault) as client,
        as_app(proxy, quick(), credential_provider=vault) as waits,
    ):
        events = events_of(breaker)
        await client.set(KEY, VALUE)
        vault.error = error
        for _ in range(5):
            assert await outcome(waits.incr("n")) is error
            assert await outcome(waits.set("other", VALUE)) is error
            both = await asyncio.gather(outcome(client.get(KEY)), outcome(client.get(KEY)))
            assert VALUE.encode() in both
            assert set(map(type, both)) <= {bytes, type(error)}
        assert opened(events) == []
        assert (breaker.failures, breaker.pending) == (0, 0)
        vault.error = None
        assert await waits.incr("n") == 1


# -- tokens that a provider streams ----------------------------------------------------------------


class Streaming(StreamingCredentialProvider):
    """redis-py logs its connections in again with each new token."""

    def __init__(self) -> None:
        self.token = self._make(PASSWORD)
        self.callbacks: list[Any] = []

    def _make(self, password: str) -> SimpleToken:
        now = time.time() * 1000
        return SimpleToken(password, now + 3_600_000, now, {"oid": "app"})

    async def get_credentials_async(self) -> tuple[str, str]:
        return "app", self.token.get_value()

    def on_next(self, callback: Callable[[Any], Any]) -> None:
        self.callbacks.append(callback)

    def on_error(self, callback: Callable[[Exception], None]) -> None:
        pass

    def is_streaming(self) -> bool:
        return True

    async def renew(self, password: str) -> None:
        self.token = self._make(password)
        for callback in self.callbacks:
            await callback(self.token)


@asynccontextmanager
async def streaming(rig: Rig) -> AsyncIterator[tuple[ChaosProxy, Client, Streaming]]:
    user(rig)
    provider = Streaming()
    async with ChaosProxy(rig.port) as proxy:
        client: Any = Redis(host="127.0.0.1", port=proxy.port, credential_provider=provider)
        breaker = RedisCircuitBreaker(client, **QUICK)
        assert provider.callbacks
        async with using(client, breaker):
            yield proxy, client, provider


async def test_new_tokens_on_a_healthy_server(rig: Rig) -> None:
    async with streaming(rig) as (_, client, provider):
        await asyncio.gather(*(client.get(KEY) for _ in range(3)))
        waiting = asyncio.create_task(client.blpop("l", 2))
        await until(lambda: rig.admin.info("clients")["blocked_clients"])
        await client.get(KEY)
        connected, logins = rig.connections_received(), rig.calls("auth")
        rig.acl("app", f">{NEW}")
        await provider.renew(NEW)
        await client.rpush("l", VALUE)
        assert await waiting is not None
        users = [c["user"] for c in rig.admin.client_list() if c["user"] == "app"]
        assert rig.connections_received() == connected
        # Those that were free at once, the one in use when it came back to the pool.
        assert rig.calls("auth") - logins == len(users) >= 2
        assert not in_use(client)


async def test_a_new_token_while_redis_is_away(rig: Rig) -> None:
    """redis-py logs a connection in again as it goes back to the pool: there is none to log in."""
    async with streaming(rig) as (proxy, client, provider):
        breaker = client._breaker
        await client.rpush("l", "0")
        await goes_away(proxy, client, breaker)
        waiting = asyncio.create_task(client.blpop("other", 0.2))
        await until(lambda: in_use(client))
        try:
            await provider.renew(NEW)
        except CommandRefused:
            pass  # AUTH on a connection that is free: it raises where Redis is away, as in redis-py
        user(rig, NEW)
        await client.rpush("l", "1")
        assert await waiting is None
        assert not in_use(client)
        await proxy.accept()
        await recovered(breaker)
        assert await client.lrange("l", 0, -1) == [b"0", b"1"]
        assert breaker.dead_letters == ()


# -- a provider that takes its time ----------------------------------------------------------------


class Slow(Vault):
    """A token service that takes longer than any patience with a server."""

    async def get_credentials_async(self) -> tuple[str, str]:
        found = await super().get_credentials_async()
        await asyncio.sleep(0.35)
        return found


async def test_a_provider_that_takes_longer_than_a_deadline(valkey_rig: Rig) -> None:
    """It is not the server that is silent: the command takes as long, as in redis-py, and each
    connection asks once.
    """
    user(valkey_rig)
    breaker, slow = quick(deadline=0.1, probe_timeout=0.1), Slow()
    async with (
        ChaosProxy(valkey_rig.port) as proxy,
        as_app(proxy, breaker, credential_provider=slow) as client,
    ):
        events = events_of(breaker)
        calls = [client.incr("n"), client.incr("n"), client.rpush("l", 0)]
        assert sorted(await asyncio.gather(*calls)) == [1, 1, 2]
        assert slow.asked <= 3  # once for each connection
        assert opened(events) == []
        await goes_away(proxy, client, breaker)
        await client.rpush("l", 1)
        await proxy.accept()
        await recovered(breaker)
        assert await client.lrange("l", 0, -1) == [b"0", b"1"]
        assert len(opened(events)) == 1


async def test_a_server_that_is_silent_after_the_provider_has_spoken(valkey_rig: Rig) -> None:
    """It answers a PING, but not this login: the caller's patience is for that."""
    user(valkey_rig)
    breaker, slow = quick(deadline=0.2), Slow()
    async with (
        ChaosProxy(valkey_rig.port) as proxy,
        as_app(proxy, breaker, credential_provider=slow) as client,
    ):
        logins = proxy.stall(b"app")
        assert await asyncio.wait_for(client.get(KEY), 3.0) is None
        assert breaker.state != CLOSED
        logins.end()
        await recovered(breaker)
        assert await client.get(KEY) is None
