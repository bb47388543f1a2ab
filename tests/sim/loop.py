"""An asyncio event loop without a clock and without I/O: time jumps to the next timer.

The same calls in the same order give the same run, whatever the machine is doing. Futures hash by
a serial number and not by address, so that a `set` of them iterates alike in every process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

# What one turn of the loop costs, in seconds: so that things that follow each other do not happen
# at the same time.
TURN = 1e-6
# Turns without the time to have moved by more than those turns: somebody spins.
MAX_SPIN = 20_000
# Turns of a whole run, some 30 times what the longest sound run takes.
MAX_TURNS = 300_000


class Deadlock(AssertionError):
    """Nobody can run, and no timer is set: whoever is still awaited will never come."""


class Livelock(AssertionError):
    """Something spins, or goes on for ever."""


class SimFuture(asyncio.Future[Any]):
    """A future with a hash that does not depend on where it lies in memory."""

    serial = 0

    def __hash__(self) -> int:
        return self.serial


class _Clockwork:
    """Stands where the selector is: waiting is moving the clock."""

    def __init__(self, until: float) -> None:
        self.now = 1000.0
        self.until = self.now + until
        self.turns = 0
        self._spin = 0
        # Called as a turn begins; where it says True, time stands still for that turn.
        self.on_turn: Callable[[], bool] | None = None

    def select(self, timeout: float | None) -> list[Any]:
        if self.on_turn is not None and self.on_turn():
            return []
        if timeout is None:
            raise Deadlock(f"nobody can run at {self.now:.6f}")
        self.turns += 1
        if timeout > 0:
            self.now += timeout
            self._spin = 0
        else:
            self._spin += 1
            if self._spin > MAX_SPIN:
                raise Livelock(f"somebody spins at {self.now:.6f}")
        self.now += TURN
        if self.turns > MAX_TURNS:
            raise Livelock(f"{self.turns} turns, and still not over at {self.now:.6f}")
        if self.now > self.until:
            raise Livelock(f"still not over after {self.until - 1000:.0f} s")
        return []


Connector = Callable[[Callable[[], asyncio.Protocol]], Any]


class SimLoop(asyncio.BaseEventLoop):
    """`seed` feeds `rng`, from which everything random in the run is drawn.

    `until`: virtual seconds after which the run is given up. `connector` makes connections.
    """

    def __init__(self, seed: int, until: float = 600.0) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.clockwork = self._selector = _Clockwork(until)
        self._clock_resolution = 1e-9
        self.connector: Connector | None = None
        self.reports: list[str] = []  # what asyncio would have logged: exceptions nobody saw
        self._serial = 0
        self.set_exception_handler(self._report)

    def time(self) -> float:
        return self.clockwork.now

    def create_future(self) -> SimFuture:
        future = SimFuture(loop=self)
        self._serial += 1
        future.serial = self._serial
        return future

    async def create_connection(  # type: ignore[override]  # as much of it as redis-py uses
        self, protocol_factory: Callable[[], asyncio.Protocol], *_: Any, **__: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        assert self.connector is not None
        transport, protocol = await self.connector(protocol_factory)
        return transport, protocol

    def _report(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.reports.append(f"{context.get('message')}: {context.get('exception')!r}")

    # What BaseEventLoop asks of its subclass:
    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
