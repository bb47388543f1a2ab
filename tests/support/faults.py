"""What the chaos proxy can do to the bytes of a connection; see `proxy`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from resilient_redis.cli.aof import parse

if TYPE_CHECKING:
    from .proxy import ChaosProxy, Link

    # Which connections: those that have sent these bytes, those that a function picks, all.
    Match: TypeAlias = bytes | Callable[[Link], bool] | None

UP, DOWN = "up", "down"  # from the client, from the server
FIN, RST = "fin", "rst"
SETTLE = 0.005  # s; in which a server that is not frozen reads what it was sent


class Fault:
    """In force from `begin` to `end`, or until it has fired `times` times."""

    def __init__(
        self,
        match: Match = None,
        direction: str | None = None,
        times: int | None = None,
    ) -> None:
        self.match = match
        self.direction = direction
        self.times = times
        self.fired = 0
        self.ended = asyncio.Event()
        self._proxy: ChaosProxy | None = None
        self._from: dict[Link, int] = {}  # what had been sent when the fault began

    def begin(self, proxy: ChaosProxy) -> None:
        self._proxy = proxy
        self._from = {link: len(link.sent) for link in proxy.links}
        proxy.faults.append(self)

    def end(self) -> None:
        """Over; what is held back is delivered."""
        self.ended.set()
        if self._proxy is not None and self in self._proxy.faults:
            self._proxy.faults.remove(self)

    def fire(self) -> None:
        self.fired += 1
        if self.times is not None and self.fired >= self.times:
            self.end()

    def applies(self, link: Link, direction: str, size: int) -> bool:
        """Whether it is for these bytes: the next `size` ones of that direction."""
        if self.ended.is_set() or self.direction not in (None, direction):
            return False
        if self.match is None:
            return True
        if callable(self.match):
            return self.match(link)
        return self.found(link, link.forwarded + (size if direction == UP else 0)) >= 0

    def found(self, link: Link, before: int) -> int:
        """Where the matching bytes begin in what the client sent; -1 if not, or too late."""
        start = self._from.get(link, 0)
        return link.sent.find(self.match, start, before) if isinstance(self.match, bytes) else start

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        """The bytes that go on from here."""
        raise NotImplementedError


class Latency(Fault):
    def __init__(self, delay: Callable[[], float], match: Match, direction: str | None) -> None:
        super().__init__(match, direction)
        self.delay = delay

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        self.fire()
        await asyncio.sleep(link.arrived[direction] + self.delay() - time.monotonic())
        return chunk


class Drop(Fault):
    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        self.fire()
        return b""


class Stall(Fault):
    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        self.fire()
        await self.ended.wait()
        return chunk


class Trickle(Fault):
    def __init__(self, size: int, pause: float, match: Match) -> None:
        super().__init__(match)
        self.size = size
        self.pause = pause

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        self.fire()
        for at in range(0, len(chunk), self.size):
            link.write(direction, chunk[at : at + self.size])
            await asyncio.sleep(self.pause)
        return b""


class CutOnReply(Fault):
    def __init__(self, how: str, match: Match, times: int | None) -> None:
        super().__init__(match, DOWN, times)
        self.how = how

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        self.fire()
        link.close(self.how)
        return b""


class Cut(Fault):
    """Ends the connection after `k` bytes from where the matching bytes begin."""

    def __init__(self, k: int, how: str, match: Match, times: int | None) -> None:
        super().__init__(match, UP, times)
        self.k = k
        self.how = how

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        end = link.forwarded + len(chunk)
        left = self.found(link, end) + self.k - link.forwarded
        if left > len(chunk):
            return chunk
        link.write(UP, chunk[: max(0, left)])
        if link.server is not None:
            await link.server.drain()  # the limit is 0: all of it is in the kernel's hands
            # An RST takes bytes with it that the server has not read (1 of 40 without this).
            await asyncio.sleep(SETTLE)
        self.fire()
        link.close(self.how)
        return b""


class Inject(Fault):
    """Answers the commands of a chunk that holds the matching bytes."""

    def __init__(self, error: str, match: Match, times: int | None) -> None:
        super().__init__(match, UP, times)
        self.error = error

    def applies(self, link: Link, direction: str, size: int) -> bool:
        if not super().applies(link, direction, size):
            return False
        # A request, not a connection: the bytes must be in this chunk.
        return not isinstance(self.match, bytes) or (
            link.sent.find(self.match, link.forwarded, link.forwarded + size) >= 0
        )

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        ends = [end for _, end, _ in parse(chunk)]
        assert ends[-1:] == [len(chunk)], "requests must come whole to be answered"
        self.fire()
        link.write(DOWN, f"-{self.error}\r\n".encode() * len(ends))
        return b""
