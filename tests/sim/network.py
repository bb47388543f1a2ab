"""TCP as far as faults go: two directions with latency, a kernel's send queue, RST and FIN.

A byte from the client passes four places, and what becomes of it at the end of the connection
differs in each:

1. the transport's buffer, where the kernel does not take it: `abort` drops it, `close` does not;
2. the kernel's queue, while the path stalls: dropped by an abort with SO_LINGER 0, kept otherwise;
3. the way, and a relay that holds it back (`relayed`): comes late, whatever the client does;
4. the server's own buffer, while that is frozen: executed when it thaws.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from .loop import SimLoop

if TYPE_CHECKING:
    from .server import Session, SimServer

FIN: Final = "FIN"
RST: Final = "RST"
Item = bytes | str  # bytes, FIN or RST
_DROP = struct.pack("ii", 1, 0)


class Path:
    """One direction. First in, first out; nothing is delivered while it stalls."""

    def __init__(self, net: Network, latency: float, deliver: Callable[[Item], None]) -> None:
        self.net = net
        self.latency = latency
        self.deliver = deliver
        self.items: deque[tuple[float, Item]] = deque()
        self.size = 0
        self.stalled = False
        self.dead = False
        self.cut_after: int | None = None  # bytes until it is cut
        self.on_cut: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def send(self, data: Item) -> None:
        if self.dead:
            return
        net, rng = self.net, self.net.rng
        if isinstance(data, bytes) and len(data) > 1 and rng.random() < net.splitting:
            at = rng.randrange(1, len(data))
            self._put(data[:at])
            data = data[at:]
        self._put(data)

    def _put(self, data: Item) -> None:
        delay = self.latency * (0.75 + 0.5 * self.net.rng.random())
        ready = self.net.loop.time() + delay
        if self.items:
            ready = max(ready, self.items[-1][0])
        self.items.append((ready, data))
        if isinstance(data, bytes):
            self.size += len(data)
        if self._timer is None and not self.stalled:
            self._timer = self.net.loop.call_at(ready, self._pump)

    def _pump(self) -> None:
        self._timer = None
        now = self.net.loop.time()
        while self.items and not self.stalled and not self.dead:
            ready, data = self.items[0]
            if ready > now:
                if self._timer is None:  # delivering may have sent, and set it
                    self._timer = self.net.loop.call_at(ready, self._pump)
                return
            self.items.popleft()
            if isinstance(data, bytes):
                self.size -= len(data)
                if self.cut_after is not None:
                    if len(data) >= self.cut_after:
                        data = data[: self.cut_after]
                        self.dead = True
                    else:
                        self.cut_after -= len(data)
            self.deliver(data)
            if self.dead and self.on_cut is not None:
                self.on_cut()

    def stall(self) -> None:
        self.stalled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def release(self) -> None:
        if self.stalled:
            self.stalled = False
            if self.items:
                ready = self.net.loop.time() + self.latency
                self.items = deque((max(at, ready), data) for at, data in self.items)
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = self.net.loop.call_at(self.items[0][0], self._pump)

    def drop(self) -> None:
        """What the kernel had not sent is gone."""
        self.items.clear()
        self.size = 0

    def kill(self) -> None:
        self.dead = True
        self.drop()

    def revive(self) -> None:
        self.dead, self.cut_after, self.on_cut = False, None, None
        self.drop()


class FakeSocket:
    """What redis-py and the fence set on a socket."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.linger = False

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self.linger = value == _DROP


class Conn(asyncio.Transport):
    """A connection: the client's transport, and both ways."""

    def __init__(self, net: Network, protocol: asyncio.Protocol, port: int) -> None:
        super().__init__()
        rng = net.rng
        self.net = net
        self.loop = net.loop
        self.protocol = protocol
        self.addr = f"10.0.0.1:{port}"
        self.number = port - 40000
        self.socket = FakeSocket()
        self.relayed = rng.random() < net.relaying
        self.window = net.window
        latency = net.latency * (0.8 + 0.4 * rng.random())
        self.up = Path(net, latency, self._at_server)
        self.down = Path(net, latency, self._at_client)
        self.session: Session | None = net.server.accept(self)
        self._buffer = bytearray()
        self._closing = False
        self._lost = False
        self._eof = False
        self._paused_writing = False
        self._reading = True
        self._unread: deque[Item] = deque()
        if net.stalled:
            self.up.stall()
            self.down.stall()

    # -- what the client's side of asyncio calls --------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        host, _, port = self.addr.partition(":")
        known = {
            "socket": self.socket,
            "peername": ("10.0.0.2", 6379),
            "sockname": (host, int(port)),
        }
        return known.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (self.net.low_water, self.net.high_water)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._lost:
            return
        self._buffer += data
        self._hand_over()
        if len(self._buffer) > self.net.high_water and not self._paused_writing:
            self._paused_writing = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        while self._unread and self._reading and not self._lost:
            self._to_protocol(self._unread.popleft())

    def close(self) -> None:
        """Goes on sending what was written, and then says FIN."""
        if not self._closing:
            self._closing = True
            if not self._buffer:
                self.up.send(FIN)
                self.loop.call_soon(self._finish, None)

    def abort(self) -> None:
        if self._lost:
            return
        self._buffer.clear()
        if not self._closing or self.socket.linger:
            if self.socket.linger and self.up.stalled and not self.relayed:
                self.up.drop()
            self.up.send(RST if self.socket.linger else FIN)
        self._closing = True
        self.loop.call_soon(self._finish, None)

    # -- the kernel -------------------------------------------------------------------------

    def _hand_over(self) -> None:
        room = self.window - self.up.size
        if self._buffer and room > 0:
            data = bytes(self._buffer[:room])
            del self._buffer[:room]
            self.net.note(b">", self, data)
            self.up.send(data)

    def _at_server(self, item: Item) -> None:
        if self.session is None:
            # Nobody there any more: the server's kernel answers with a reset.
            if isinstance(item, bytes):
                self.down.send(RST)
            return
        if isinstance(item, bytes):
            self.session.feed(item)
        else:
            self.session.hung_up()
        if self._buffer and not self._lost:
            self._hand_over()
            if len(self._buffer) <= self.net.low_water and self._paused_writing:
                self._paused_writing = False
                self.protocol.resume_writing()
            if self._closing and not self._buffer:
                self.up.send(FIN)
                self.loop.call_soon(self._finish, None)

    def _at_client(self, item: Item) -> None:
        if self._lost:
            return
        if not self._reading:
            self._unread.append(item)
            return
        self._to_protocol(item)

    def _to_protocol(self, item: Item) -> None:
        if isinstance(item, bytes):
            self.net.note(b"<", self, item)
            if not self._closing and not self._eof:
                self.protocol.data_received(item)
        elif item == FIN:
            self.net.note(b"F", self, b"")
            self._eof = True
            if not self._closing and not self.protocol.eof_received():
                self.close()
        else:
            self.net.note(b"R", self, b"")
            self._closing = True
            self._buffer.clear()
            self._finish(ConnectionResetError(104, "Connection reset by peer"))

    def _finish(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self.protocol.connection_lost(error)
            if self.session is None:
                self.net.forget(self)

    # -- faults -----------------------------------------------------------------------------

    def reply(self, data: bytes) -> None:
        """The server answers."""
        self.down.send(data)

    def server_closes(self, how: str = FIN) -> None:
        self.session = None
        self.down.send(how)
        if self._lost:
            self.net.forget(self)

    def break_now(self) -> None:
        """Both ends find the connection reset; what was on its way is lost."""
        self.up.kill()
        self.down.drop()
        if self.session is not None:
            self.session.hung_up()
        self.down.release()
        self.down.send(RST)

    def cut(self, upward: bool, after: int, how: str) -> None:
        """RST or FIN once `after` more bytes have passed in one direction."""
        path = self.up if upward else self.down
        path.cut_after = after

        def both_ends() -> None:
            if self.session is not None:
                self.session.hung_up()
            if how == RST:
                self.up.kill()
                self._at_client(RST)
                return
            # After a FIN what the client goes on sending is answered with a reset.
            path.revive()
            self._hand_over()
            if not upward:
                self._at_client(FIN)

        path.on_cut = both_ends


class Network:
    """All connections to one server. Everything about it is drawn from the loop's `rng`."""

    def __init__(self, loop: SimLoop, server: SimServer) -> None:
        self.loop = loop
        self.server = server
        self.rng = rng = loop.rng
        self.latency = 10 ** rng.uniform(-4.5, -2.2)  # 30 µs to 6 ms, one way
        self.splitting = rng.choice((0.0, 0.05, 0.3))
        self.relaying = rng.choice((0.0, 0.3, 1.0))
        self.window = rng.choice((1 << 20, 1 << 20, 5000, 300))
        self.high_water, self.low_water = rng.choice(((65536, 16384), (200, 50)))
        self.conns: dict[Conn, None] = {}
        self.refusing = False
        self.swallowing = False  # SYNs go unanswered
        self.stalled = False
        self.held: dict[Conn, None] = {}  # what a relay holds back, whatever else is healed
        self.trace = hashlib.blake2b(digest_size=16)
        self._port = 40000

    def note(self, what: bytes, conn: Conn | None, data: bytes) -> None:
        """One more line of the trace."""
        number = conn.number if conn is not None else 0
        self.trace.update(b"%s %d %.9f %d\n" % (what, number, self.loop.time(), len(data)))
        self.trace.update(data)

    async def connect(
        self, protocol_factory: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        await asyncio.sleep(self.latency * (1.5 + self.rng.random()))
        while self.swallowing or self.stalled:  # noqa: ASYNC110 - as SYNs are sent again
            await asyncio.sleep(0.05)
        if self.refusing or self.server.down:
            raise ConnectionRefusedError(111, "Connection refused")
        self._port += 1
        protocol = protocol_factory()
        conn = Conn(self, protocol, self._port)
        self.conns[conn] = None
        self.note(b"C", conn, b"")
        protocol.connection_made(conn)
        return conn, protocol

    def forget(self, conn: Conn) -> None:
        self.conns.pop(conn, None)

    def live(self) -> list[Conn]:
        return [conn for conn in self.conns if conn.session is not None or not conn._lost]

    def stall(self, conns: Iterable[Conn], up: bool = True, down: bool = True) -> None:
        for conn in conns:
            if up:
                conn.up.stall()
            if down:
                conn.down.stall()

    def heal(self) -> None:
        """All is well again, and what was held back arrives."""
        self.refusing = self.swallowing = self.stalled = False
        for conn in list(self.conns):
            if conn not in self.held:
                conn.up.release()
                conn.down.release()

    def let_go(self, conns: Iterable[Conn]) -> None:
        """The relay delivers."""
        for conn in list(conns):
            self.held.pop(conn, None)
            conn.up.release()
            conn.down.release()
