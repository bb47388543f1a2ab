"""Faults of the proxy that only a soak needs: aimed at the replay, or answering what is whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from resilient_redis.cli.aof import parse
from tests.support.faults import DOWN, RST, UP, Cut, Fault
from tests.support.proxy import Link

if TYPE_CHECKING:
    from tests.support.faults import Match

WRITES = frozenset({b"SET", b"DEL", b"RPUSH", b"SADD", b"XADD", b"ZADD", b"HSET", b"INCR"})


def is_recovery(link: Link) -> bool:
    """A connection of the library's own that has come as far as a replay: TIME stands first."""
    return b"\r\nTIME\r\n" in link.sent[:4000]


class Hole(Fault):
    """Swallows what connections send, or are sent, for good.

    Unlike `faults.Drop` it never lets anything through after what it has swallowed: TCP leaves no
    gaps. What it has hit stays mute until it is closed, or ends with an RST as the hole closes.
    """

    def __init__(self, match: Match, direction: str | None, *, reset: bool) -> None:
        super().__init__(match, direction)
        self.reset = reset
        self.hit: set[Link] = set()

    def applies(self, link: Link, direction: str, size: int) -> bool:
        if self.direction in (None, direction) and link in self.hit:
            return True
        return super().applies(link, direction, size)

    def end(self) -> None:
        self.ended.set()
        if self.reset:
            self.release()

    def release(self) -> None:
        """Reset what it has hit, and be gone."""
        for link in self.hit:
            link.close(RST)
        super().end()

    @property
    def moot(self) -> bool:
        return self.ended.is_set() and not any(link.open for link in self.hit)

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        self.fire()
        self.hit.add(link)
        return b""


class CutOff(Cut):
    """As `Cut`, where the server may be ending the same connection at that moment."""

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        try:
            return await super().act(link, direction, chunk)
        except OSError:
            link.close(self.how)
            return b""


class OnBatch(Fault):
    """Calls `strike` when a batch of a replay passes: before it is forwarded, or after."""

    def __init__(self, strike: Callable[[Link], Awaitable[None]], *, after: bool = False) -> None:
        super().__init__(is_recovery, UP, 1)
        self.strike = strike
        self.after = after

    def applies(self, link: Link, direction: str, size: int) -> bool:
        return super().applies(link, direction, size) and (
            link.sent.find(b"EXEC", link.forwarded, link.forwarded + size) >= 0
        )

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        self.fire()
        if self.after:
            link.write(direction, chunk)
            await asyncio.sleep(0)
            chunk = b""
        await self.strike(link)
        return chunk


class Answer(Fault):
    """Answers commands in the server's place, where a chunk holds whole ones that it may answer.

    `-LOADING` is for all commands, `-READONLY` for writes. A transaction is left to the server, and
    so is a replay, several batches of which are in flight: an answer would overtake replies.
    """

    def __init__(self, error: str, times: int, writes_only: bool) -> None:
        super().__init__(lambda link: not is_recovery(link), UP, times)
        self.error = error
        self.writes_only = writes_only

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        commands = list(parse(chunk)) if chunk[:1] == b"*" else []
        if not commands or commands[-1][1] != len(chunk):
            return chunk
        names = {args[0].upper() for _, _, args in commands}
        if b"MULTI" in names or (self.writes_only and not names <= WRITES):
            return chunk
        self.fire()
        link.write(DOWN, f"-{self.error}\r\n".encode() * len(commands))
        return b""
