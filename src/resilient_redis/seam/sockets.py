"""What redis-py leaves to asyncio's transports, and the fence must know."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Any

# SO_LINGER of 0 seconds: what the kernel has not sent is dropped, not delivered after a partition
# heals (50 of 50 zombie writes with a plain close, 0 of 50 so: FACTS.md).
_DROP_UNSENT = struct.pack("ii", 1, 0)


def unsent(writer: asyncio.StreamWriter) -> bool:
    """Whether the last byte written has not left this process; only then, on plain TCP, the last
    command cannot have run. Ask before `abort`.
    """
    transport = writer.transport
    if transport.get_extra_info("ssl_object") is not None:
        return False  # a TLS record may be split anywhere
    return transport.get_write_buffer_size() > 0


def abort(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Closes at once and drops what was not sent. `close` would go on flushing: an 8 MB SET that
    had raised TimeoutError was executed afterwards (SEAM.md).

    `reset`: also what the kernel holds. The other side is told of an error (RST) instead of an end,
    so that this is for what must not land late.
    """
    sock = writer.transport.get_extra_info("socket") if reset else None
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_UNSENT)
        except (OSError, ValueError):
            pass  # the socket is closed already, by the other side: uvloop says so by a ValueError
    writer.transport.abort()


def nobody_awaits_its_end(writer: asyncio.StreamWriter) -> None:
    """A socket that breaks (EPIPE) leaves its error in a future of asyncio's own, which reports it
    as "never retrieved" if the garbage collector comes to the future before its owner. Nobody here
    awaits that future; the error is known from the read.
    """
    ended = writer._protocol._get_close_waiter(writer)  # type: ignore[attr-defined]  # in 3.10-3.14
    if ended.done():
        _retrieve(ended)  # its loop may be closed
    else:
        ended.add_done_callback(_retrieve)


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def make_room(writer: asyncio.StreamWriter | None) -> None:
    """So that the kernel takes a batch of the replay at once: the next one is made while the server
    is at work on it, and not while half of it waits here.
    """
    sock = None if writer is None else writer.transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)


# -- sockets that block -----------------------------------------------------------------------


def cut_off(sock: socket.socket, *, reset: bool) -> None:
    """Nothing that was not sent may be sent after this; whoever waits at `sock` is woken, and
    closes it: closed by another thread, its number could be somebody else's by then. `reset`: see
    `abort`.
    """
    try:
        if reset and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_UNSENT)
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS has one of its own, which forgets
    except OSError:
        pass  # it is closed already, by one side or the other


def is_tls(sock: Any) -> bool:
    """Whether a record may be split anywhere."""
    return hasattr(sock, "pending")


def set_timeout(connection: Any, seconds: float) -> None:
    """How long its socket waits at a time; redis-py's parsers put it back to what they remember."""
    connection._sock.settimeout(seconds)
    parser = connection._parser
    if hasattr(parser, "_socket_timeout"):
        parser._socket_timeout = seconds
    elif getattr(parser, "_buffer", None) is not None:
        parser._buffer.socket_timeout = seconds


def is_readable(sock: Any) -> bool:
    """Whether there is something to read, or its end. The socket's timeout is left alone: another
    thread may be sending.
    """
    if is_tls(sock) and sock.pending():
        return True
    if not hasattr(select, "poll"):  # on Windows
        return bool(select.select([sock], [], [], 0)[0])
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def await_readable(sock: Any) -> None:
    """Waits for something to read, as long as the socket's timeout is, and leaves it there."""
    socket.socket.recv(sock, 1, socket.MSG_PEEK)  # TLS has one of its own, which cannot


def make_room_for(sock: socket.socket | None) -> None:
    """See `make_room`."""
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
