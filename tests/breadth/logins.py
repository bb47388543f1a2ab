"""Clients with a password, and outages in which it becomes another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.credentials import CredentialProvider

from resilient_redis.asyncio import RedisCircuitBreaker, ResilientConnection
from tests.breadth.story import quick
from tests.contract.helpers import (
    OPEN,
    PASSWORD,
    Client,
    using,
)
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig
from tests.surface.helpers import aside

NEW = f"{PASSWORD}-new"  # found in a log line by its beginning


class Vault(CredentialProvider):
    """Says what it is told to say; `error` is raised instead."""

    def __init__(self, password: str = PASSWORD) -> None:
        self.password = password
        self.error: Exception | None = None
        self.asked = 0

    async def get_credentials_async(self) -> tuple[str, str]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return "app", self.password


@asynccontextmanager
async def as_app(
    proxy: ChaosProxy, breaker: RedisCircuitBreaker, **options: Any
) -> AsyncIterator[Client]:
    client = Redis.from_url(
        proxy.url, connection_class=ResilientConnection, breaker=breaker, **options
    )
    async with using(client, breaker):
        yield client


def user(rig: Rig, password: str = PASSWORD) -> None:
    rig.acl("app", "reset", "on", f">{password}", "~*", "&*", "+@all")


async def goes_away(proxy: ChaosProxy, client: Client, breaker: RedisCircuitBreaker) -> None:
    await proxy.refuse()
    proxy.cut_all()
    while breaker.state != OPEN:
        assert await aside(client.get, "never-set") is None


@asynccontextmanager
async def rotated(
    rig: Rig, *, provider: Any = None, **options: Any
) -> AsyncIterator[tuple[ChaosProxy, Client, RedisCircuitBreaker]]:
    """An outage in which three writes were queued and the password became another; over now."""
    user(rig)
    breaker = quick(**options)
    by = (
        {"credential_provider": provider} if provider else {"username": "app", "password": PASSWORD}
    )
    async with ChaosProxy(rig.port) as proxy, as_app(proxy, breaker, **by) as client:
        assert await client.rpush("l", "0") == 1
        await goes_away(proxy, client, breaker)
        for n in (1, 2, 3):
            await client.rpush("l", n)
        user(rig, NEW)
        await proxy.accept()
        yield proxy, client, breaker
