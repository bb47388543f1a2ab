"""The server's clock, from which the deadlines of replayed expiries are computed."""

from __future__ import annotations

from collections.abc import Callable

from .batch import sound
from .exchange import Dialogue, Exchange, is_forbidden
from .wire import pack

SURE = 0.05  # seconds that TIME may take for its answer to be good enough


class ServerTime:
    """`clock` is monotonic seconds; `wall_ms` our unix time, where the server tells none."""

    def __init__(self, clock: Callable[[], float], wall_ms: Callable[[], int]) -> None:
        self._clock = clock
        self._wall_ms = wall_ms
        self._known = (0.0, 0)  # our clock in seconds, the server's in unix ms

    def read(self) -> Dialogue[None]:
        """Asks, and again where the answer takes long: half of that is how wrong it may be."""
        best = SURE
        for attempt in range(3):
            asked = self._clock()
            (reply,) = yield Exchange(pack((b"TIME",)), 1)
            took = self._clock() - asked
            if is_forbidden(reply):
                self._known = (asked + took, self._wall_ms())
                return
            seconds, micros = map(int, sound(reply))
            if not attempt or took < best:
                best, self._known = took, (asked + took / 2, seconds * 1000 + micros // 1000)
            if took < SURE:
                return

    def at(self, now: float) -> int:
        """The server's unix clock in ms when ours says `now`."""
        ours, servers = self._known
        return servers + int((now - ours) * 1000)
