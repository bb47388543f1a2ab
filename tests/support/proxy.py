"""A TCP proxy that does to a connection what networks do, at a moment that a test chooses.

    async with ChaosProxy(server.port) as proxy:
        client = Redis(port=proxy.port)
        fault = proxy.drop_replies(b"INCR")  # of connections that send INCR from now on
        ...
        fault.end()

A fault is in force from the call to its `end` (or `times` firings, or `proxy.clear()`), for the
connections that `match`: those that have sent these bytes *since the fault began*, or that a
function picks. Each direction has a reader, which takes everything off the network at once, and a
writer behind a queue: so bytes that are held back outlive the client that sent them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from resilient_redis.cli.servers import free_port

from .faults import (
    DOWN,
    FIN,
    RST,
    UP,
    Cut,
    CutOnReply,
    Drop,
    Fault,
    Inject,
    Latency,
    Stall,
    Trickle,
)

if TYPE_CHECKING:
    from .faults import Match

    Chunks: TypeAlias = asyncio.Queue[tuple[bytes, float]]  # with the time of arrival

EOF = b""
F = TypeVar("F", bound=Fault)


class Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, number: int, client: asyncio.StreamWriter) -> None:
        self.number = number
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.sent = bytearray()  # everything that came from the client
        self.forwarded = 0  # how much of it has been through the faults
        self.received = bytearray()  # everything that came from the server
        self.arrived = {UP: 0.0, DOWN: 0.0}  # when the bytes at hand came (monotonic)
        self.reset = {UP: False, DOWN: False}  # whether that side ended by RST

    @property
    def open(self) -> bool:
        return not self.client.is_closing()

    def sent_from(self, pattern: bytes) -> bytes:
        """What the client sent, from the first occurrence of `pattern` on."""
        at = self.sent.find(pattern)
        assert at >= 0, f"{pattern!r} was not sent: {bytes(self.sent[-200:])!r}"
        return bytes(self.sent[at:])

    def write(self, direction: str, data: bytes) -> None:
        """Pass bytes on; a side that is gone takes none."""
        writer = self.server if direction == UP else self.client
        if data and writer is not None and not writer.is_closing():
            writer.write(data)

    def close(self, how: str, direction: str | None = None) -> None:
        """End one side (towards which bytes of that direction go), or both."""
        if direction in (None, UP) and self.server is not None:
            _close(self.server, how)
        if direction in (None, DOWN):
            _close(self.client, how)


class ChaosProxy:
    """Listens on a port of its own in front of a server on 127.0.0.1."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = 0
        self.links: list[Link] = []  # all there ever were
        self.refused = 0  # connections for which the server did not take ours
        self.faults: list[Fault] = []
        self._silent = False
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> ChaosProxy:
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def aclose(self) -> None:
        await self.refuse()
        self.cut_all(RST)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self.links:
            for writer in (link.client, link.server):
                if writer is not None:
                    with contextlib.suppress(OSError):  # that we cut it is no news
                        await writer.wait_closed()
        if self._errors:
            raise self._errors[0]

    # -- faults of the listener and of whole connections

    async def refuse(self) -> None:
        """Nobody listens: connecting is refused. What is connected stays."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            await asyncio.sleep(0)

    async def accept(self) -> None:
        """Listen (again), on the same port."""
        if self._listener is None:
            self._listener = await asyncio.start_server(
                self._accepted, "127.0.0.1", self.port or free_port(), backlog=1024
            )
            self.port = self._listener.sockets[0].getsockname()[1]

    def half_open(self, on: bool = True) -> None:
        """New connections are accepted and never answered; nothing reaches the server."""
        self._silent = on

    def cut_all(self, how: str = RST, match: Match = None) -> int:
        """Cut what is connected now (and has sent `match`), and say how many."""
        fault = Fault(match)
        chosen = [link for link in self.open_links() if fault.applies(link, UP, len(link.sent))]
        for link in chosen:
            link.close(how)
        return len(chosen)

    # -- faults of the traffic

    def add(self, fault: F) -> F:
        fault.begin(self)
        return fault

    def clear(self) -> None:
        for fault in list(self.faults):
            fault.end()

    def latency(
        self, seconds: float, jitter: float = 0.0, match: Match = None, direction: str | None = None
    ) -> Fault:
        """Each chunk arrives that much later; chunks overlap, as on a long line."""
        return self.add(Latency(lambda: seconds + random.random() * jitter, match, direction))

    def drop_requests(self, match: Match = None, times: int | None = None) -> Fault:
        return self.add(Drop(match, UP, times))

    def drop_replies(self, match: Match = None, times: int | None = None) -> Fault:
        return self.add(Drop(match, DOWN, times))

    def cut_on_reply(self, match: Match = None, how: str = RST, times: int | None = 1) -> Fault:
        """The request is executed; the connection ends in place of the reply."""
        return self.add(CutOnReply(how, match, times))

    def stall(self, match: Match = None, direction: str | None = UP) -> Fault:
        """Hold all bytes until `end()`, then deliver them, even if the client has gone."""
        return self.add(Stall(match, direction))

    def trickle(self, size: int = 1, pause: float = 0.0, match: Match = None) -> Fault:
        """Deliver `size` bytes at a time."""
        return self.add(Trickle(size, pause, match))

    def cut_at(self, k: int, match: Match = None, how: str = RST, times: int | None = 1) -> Fault:
        """Forward exactly `k` bytes, counted from the start of the matching bytes, then cut.

        Where `match` is a function or None they count from when the fault began.
        """
        return self.add(Cut(k, how, match, times))

    def inject_error(self, error: str, match: Match = None, times: int | None = None) -> Fault:
        """Answer requests that contain `match` with an error; they do not reach the server."""
        return self.add(Inject(error, match, times))

    # -- what went through

    def open_links(self) -> list[Link]:
        return [link for link in self.links if link.open]

    async def seen(self, pattern: bytes, timeout: float = 5.0) -> Link:
        """Wait until a client has sent `pattern`, and say which."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for link in self.links:
                if pattern in link.sent:
                    return link
            await asyncio.sleep(0.001)
        raise TimeoutError(f"{pattern!r} was not sent within {timeout} s")

    async def replay_late(self, data: bytes, quiet: float = 0.05) -> bytes:
        """Send bytes that a client sent once more, on a connection of their own: a late copy.

        Returns the replies, when no more have come for `quiet` seconds.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        replies = bytearray()
        try:
            writer.write(data)
            with contextlib.suppress(asyncio.TimeoutError):  # that is the quiet
                while chunk := await asyncio.wait_for(reader.read(65536), quiet):
                    replies += chunk
        finally:
            writer.close()
            await writer.wait_closed()
        return bytes(replies)

    # -- how

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(len(self.links), writer)
        self.links.append(link)
        self._spawn(self._serve(link, reader))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)

    async def _serve(self, link: Link, from_client: asyncio.StreamReader) -> None:
        if self._silent:
            while not await _gone(from_client):
                pass
            link.close(RST)
            return
        try:
            from_server, link.server = await asyncio.open_connection(
                "127.0.0.1", self.upstream_port
            )
        except OSError:
            # As near to "connection refused" as one who has accepted can come.
            self.refused += 1
            link.close(RST)
            return
        link.server.transport.set_write_buffer_limits(high=0)
        for direction, reader in ((UP, from_client), (DOWN, from_server)):
            queue: Chunks = asyncio.Queue()
            self._spawn(self._read(link, direction, reader, queue))
            self._spawn(self._write(link, direction, queue))

    async def _read(
        self,
        link: Link,
        direction: str,
        reader: asyncio.StreamReader,
        queue: Chunks,
    ) -> None:
        seen = link.sent if direction == UP else link.received
        chunk = b"?"
        while chunk != EOF:
            try:
                chunk = await reader.read(65536)
            except OSError:
                chunk, link.reset[direction] = EOF, True
            seen += chunk
            queue.put_nowait((chunk, time.monotonic()))

    async def _write(
        self, link: Link, direction: str, queue: asyncio.Queue[tuple[bytes, float]]
    ) -> None:
        while True:
            chunk, link.arrived[direction] = await queue.get()
            if chunk == EOF:
                break
            size = len(chunk)
            for fault in list(self.faults):
                if chunk and fault.applies(link, direction, len(chunk)):
                    chunk = await fault.act(link, direction, chunk)
            link.write(direction, chunk)
            if direction == UP:
                link.forwarded += size
        for fault in list(self.faults):  # an end is held back like bytes
            if isinstance(fault, Stall) and fault.applies(link, direction, 0):
                await fault.ended.wait()
        # Towards the server always FIN: an RST might overtake bytes that are to be delivered.
        link.close(RST if direction == DOWN and link.reset[DOWN] else FIN, direction)


async def _gone(reader: asyncio.StreamReader) -> bool:
    try:
        return not await reader.read(65536)
    except OSError:
        return True


def _close(writer: asyncio.StreamWriter, how: str) -> None:
    if writer.is_closing():
        return
    if how == RST:
        # SO_LINGER with a time of 0 makes close() send RST (socket(7)).
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
