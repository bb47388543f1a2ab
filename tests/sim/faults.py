"""The fault schedule: what goes wrong, drawn from the run's seed, and healed in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .network import FIN, RST, Conn, Network

if TYPE_CHECKING:
    from .loop import SimLoop
    from .server import SimServer

HOLDING = ("READONLY", "OOM", "NOREPLICAS")


class Chaos:
    """Makes things go wrong. Each fault ends by itself, and `heal` ends them all."""

    def __init__(self, loop: SimLoop, net: Network, server: SimServer, lossy: bool) -> None:
        self.loop = loop
        self.rng = loop.rng
        self.net = net
        self.server = server
        self.lossy = lossy  # restarts may lose data
        self.count = 0
        self.kinds: dict[str, int] = {}
        self.errors: set[str] = set()  # error replies that this run has made
        kinds = self.rng.sample(FAULTS, self.rng.randint(3, len(FAULTS)))
        self.menu = [
            fault for fault in kinds if fault is not error_reply or self.rng.random() < 0.7
        ]
        if server.no_kill:  # without CLIENT KILL nothing stops what a relay holds back
            self.menu = [fault for fault in self.menu if fault not in (late_zombies, zombies)]
            net.relaying = 0.0
        self.menu = self.menu or [kill]
        self._ending: dict[int, Callable[[], None]] = {}
        self._serial = 0

    def strike(self) -> None:
        fault = self.rng.choice(self.menu)
        self.count += 1
        self.kinds[fault.__name__] = self.kinds.get(fault.__name__, 0) + 1
        self.net.note(fault.__name__.encode(), None, b"")
        fault(self)

    def later(self, seconds: float, end: Callable[[], None]) -> None:
        """`end` after so long, or when all is healed."""
        self._serial += 1
        number = self._serial
        self._ending[number] = end

        def over() -> None:
            if self._ending.pop(number, None) is not None:
                end()

        self.loop.call_later(seconds, over)

    def heal(self) -> None:
        endings, self._ending = self._ending, {}
        for end in endings.values():
            end()
        self.server.mode = ""
        self.server.thaw()
        if self.server.down:
            self.server.restart()
        self.net.heal()

    def span(self) -> float:
        """How long a fault lasts: often a blink, sometimes longer than every timeout."""
        return float(10 ** self.rng.uniform(-2.5, 0.5))

    def some(self) -> list[Conn]:
        live = self.net.live()
        if not live:
            return []
        return [self.rng.choice(live)] if self.rng.random() < 0.6 else live


def refuse(c: Chaos) -> None:
    """Nothing listens; connections that are open are reset or stay."""
    c.net.refusing = True
    if c.rng.random() < 0.7:
        for conn in c.net.live():
            conn.break_now()

    def end() -> None:
        c.net.refusing = False

    c.later(c.span(), end)


def partition(c: Chaos) -> None:
    """Nothing passes in either direction; what is in the kernels arrives after the heal."""
    c.net.stalled = True
    c.net.stall(c.net.live())
    c.later(c.span(), c.net.heal)


def black_hole(c: Chaos) -> None:
    """New connections are never answered, and neither are some of the old ones."""
    c.net.swallowing = True
    c.net.stall(c.some())
    c.later(c.span(), c.net.heal)


def stall(c: Chaos) -> None:
    """Some connections come to a standstill in one direction, and go on later."""
    conns = c.some()
    up = c.rng.random() < 0.6
    c.net.stall(conns, up=up, down=not up)

    def end() -> None:
        for conn in conns:
            conn.up.release()
            conn.down.release()

    c.later(c.span(), end)


def lose_requests(c: Chaos) -> None:
    """Reset before the server has read what is on its way."""
    for conn in c.some():
        conn.break_now()


def lose_replies(c: Chaos) -> None:
    """The server executes, and its answers stay out; then the connection is reset."""
    conns = c.some()
    c.net.stall(conns, up=False)

    def end() -> None:
        for conn in conns:
            conn.break_now()

    c.later(c.rng.uniform(0.001, 0.3), end)


def cut(c: Chaos) -> None:
    """RST or FIN at the k-th byte from now, in one direction."""
    for conn in c.some():
        conn.cut(c.rng.random() < 0.5, c.rng.randint(1, 400), c.rng.choice((RST, FIN)))


def freeze(c: Chaos) -> None:
    """The server is stopped; its kernel goes on accepting and reading."""
    c.server.frozen = True
    c.later(c.span(), c.server.thaw)


def kill(c: Chaos) -> None:
    """The server dies and comes back, in lossy runs without its last effects."""
    c.server.kill()

    def end() -> None:
        if not c.server.down:
            return
        keep = None
        if c.lossy:
            log = len(c.server.store.log)
            keep = max(0, log - c.rng.choice((0, 1, 3, 20, log)))
        c.server.restart(keep)

    c.later(c.span(), end)


def client_kill(c: Chaos) -> None:
    """The server closes connections by itself."""
    for conn in c.some():
        if conn.session is not None:
            c.server.drop(conn.session, c.rng.choice((RST, FIN)))


def error_reply(c: Chaos) -> None:
    """The server answers, but with an error."""
    mode = c.rng.choice(("LOADING", *HOLDING))
    c.errors.add(mode)
    c.server.mode = mode

    def end() -> None:
        if c.server.mode == mode:
            c.server.mode = ""

    c.later(c.span(), end)


def late_zombies(c: Chaos) -> None:
    """What is sent now passes a relay that delivers it late, also after the client has gone."""
    conns = c.net.live()
    for conn in conns:
        conn.relayed = True
    c.net.stall(conns, down=False)

    def end() -> None:
        for conn in conns:
            conn.up.release()

    c.later(c.span(), end)


def zombies(c: Chaos) -> None:
    """An outage; what was on its way when it began arrives after it is over, or at the very end."""
    conns = c.net.live()
    for conn in conns:
        conn.relayed = True
        c.net.held[conn] = None
    c.net.stall(conns)
    c.net.swallowing = True
    outage = c.rng.uniform(0.2, 2.0)

    def over() -> None:
        c.net.swallowing = False

    c.later(outage, over)
    c.loop.call_later(outage + c.rng.uniform(0.1, 2.0), c.net.let_go, conns)


FAULTS: list[Callable[[Chaos], None]] = [
    refuse,
    partition,
    black_hole,
    stall,
    lose_requests,
    lose_replies,
    cut,
    freeze,
    kill,
    client_kill,
    error_reply,
    late_zombies,
    zombies,
]
