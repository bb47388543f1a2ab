"""Real outages of a real server, one after the other, and the clock that tasks live by in them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from resilient_redis.events import Event, StateChanged
from tests.contract.recovery_helpers import until
from tests.support.flavours import RedisCircuitBreaker
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

OUTAGE, DRAIN, AFTER = "in the outage", "during the drain", "after it"


@contextlib.asynccontextmanager
async def killed(rig: Rig, _: ChaosProxy) -> AsyncIterator[None]:
    """`kill -9`; it comes back with its data."""
    rig.kill()
    try:
        yield
    finally:
        rig.server.restart(wait=False)
        await asyncio.to_thread(_up, rig)


def _up(rig: Rig) -> None:
    while not rig.server.ready():  # it gives up by itself where the server has ended
        time.sleep(0.005)


@contextlib.asynccontextmanager
async def frozen(rig: Rig, _: ChaosProxy) -> AsyncIterator[None]:
    """SIGSTOP: connections are accepted, and nobody answers."""
    rig.freeze()
    try:
        yield
    finally:
        rig.thaw()


@contextlib.asynccontextmanager
async def cut_off(_: Rig, proxy: ChaosProxy) -> AsyncIterator[None]:
    """All connections are reset, new ones refused."""
    await proxy.refuse()
    proxy.cut_all()
    try:
        yield
    finally:
        await proxy.accept()


@contextlib.asynccontextmanager
async def stalled(_: Rig, proxy: ChaosProxy) -> AsyncIterator[None]:
    """Requests are held back, and reach the server when it is over."""
    fault = proxy.stall()
    try:
        yield
    finally:
        fault.end()


Outage = Callable[[Rig, ChaosProxy], AbstractAsyncContextManager[None]]
KINDS: tuple[Outage, ...] = (killed, frozen, cut_off, stalled)


class Course:
    """How far one outage has got: a task waits here for the part that it wants to act in."""

    def __init__(self, breaker: RedisCircuitBreaker) -> None:
        self._breaker = breaker
        self._loop = asyncio.get_running_loop()
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()
        self.recovered = asyncio.Event()

    def hear(self, event: Event) -> None:
        """The breaker's observer, in whichever thread."""
        self._loop.call_soon_threadsafe(self._heard, event)

    def _heard(self, event: Event) -> None:
        if isinstance(event, StateChanged):
            if event.new == "OPEN":
                self.opened.set()
                self.closed.clear()
            elif event.new == "CLOSED":
                self.closed.set()

    async def ends(self) -> None:
        """Waits for the recovery from what has begun."""
        await asyncio.wait_for(self.opened.wait(), 10)
        await until(lambda: not self._breaker.busy, 10)
        self.recovered.set()

    @property
    def part(self) -> str:
        breaker = self._breaker
        if not breaker.closed:
            return OUTAGE
        return AFTER if breaker.gate_open else DRAIN
