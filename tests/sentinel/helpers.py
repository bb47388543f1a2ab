"""What the tests of Sentinel share."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from tenacity import wait_fixed

from resilient_redis.asyncio import RedisCircuitBreaker, ResilientSentinelManagedConnection
from resilient_redis.events import Event
from tests.contract.recovery_helpers import until
from tests.support.sentinels import SERVICE, ScriptedSentinel, close
from tests.support.servers import Rig

Client = Any  # redis.asyncio.Redis, of which much is untyped
E = TypeVar("E", bound=Event)


def quick(**options: Any) -> RedisCircuitBreaker:
    """Opens at the first failure, looks at the server every 10 ms."""
    given = {"failure_threshold": 1, "recovery_wait": wait_fixed(0.01), "deadline": 0.4}
    return RedisCircuitBreaker(**{**given, **options})


class Service:
    """A service of two servers, the breaker of its master, and what that has told."""

    def __init__(self, old: Rig, new: Rig) -> None:
        self.old = old
        self.new = new
        self.sentinel = ScriptedSentinel(old.port, (old.port, new.port))
        self.breaker = quick()
        self.events: list[Event] = []
        self.breaker.add_observer(self.events.append)
        self._clients: list[Client] = []
        self._breakers = [self.breaker]

    def master(self, **options: Any) -> Client:
        return self._keep(
            self.sentinel.master_for(
                SERVICE,
                **{
                    "connection_class": ResilientSentinelManagedConnection,
                    "breaker": self.breaker,
                    **options,
                },
            )
        )

    def replicas(self, **options: Any) -> tuple[Client, RedisCircuitBreaker]:
        breaker = quick(**options)
        self._breakers.append(breaker)
        client = self.sentinel.slave_for(
            SERVICE, connection_class=ResilientSentinelManagedConnection, breaker=breaker
        )
        return self._keep(client), breaker

    def _keep(self, client: Client) -> Client:
        self._clients.append(client)
        return client

    def fail_over(self) -> None:
        """From now on Sentinel names the new one."""
        self.sentinel.master = self.new.port

    def seen(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def recovered(self) -> None:
        """Closed, gate open, nothing left to do."""
        breaker = self.breaker
        await until(lambda: not breaker.busy, 10.0)
        await until(lambda: breaker._recovery is None or breaker._recovery.done())

    async def aclose(self) -> None:
        for breaker in self._breakers:
            await breaker.aclose()
        for client in self._clients:
            await client.aclose()
        await close(self.sentinel)


async def later(work: Any) -> asyncio.Task[Any]:
    """Under way: it has been sent."""
    task: asyncio.Task[Any] = asyncio.ensure_future(work)
    await asyncio.sleep(0.05)
    assert not task.done()
    return task
