"""A relay in front of a server that hands over each answer whole, and never early.

Whether a reply comes in one piece or two, and before or after the client has begun to wait for it,
changes the path that the client takes. With that left to chance the counts of two runs differ by
2 % (pipelines); with the relay they are equal to the last instruction.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue

QUIET = 0.01  # seconds; the client, slowed by valgrind, is back at its selector after 1-2 ms
CHUNK = 1 << 16


@contextmanager
def relay(host: str, port: int) -> Iterator[str]:
    """The URL of a relay to `host:port`, which runs in a thread of its own."""
    ready: Queue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        requests = asyncio.create_task(forward(reader, far_writer))
        try:
            while answer := await far_reader.read(CHUNK):
                whole = bytearray(answer)
                while more := await read_soon(far_reader):
                    whole += more
                writer.write(whole)
        finally:
            requests.cancel()
            writer.close()
            far_writer.close()

    async def run() -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        ready.put((f"redis://127.0.0.1:{address[1]}", asyncio.get_running_loop(), stop))
        await stop.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    url, loop, stop = ready.get(timeout=10)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while request := await reader.read(CHUNK):
        writer.write(request)
    writer.close()


async def read_soon(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(CHUNK), QUIET)
    except asyncio.TimeoutError:  # not the built-in one in Python 3.10
        return b""
