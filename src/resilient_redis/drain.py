"""What observers hear of a drain, from the first entry to the open gate."""

from __future__ import annotations

from typing import TypeVar

from .base import BreakerBase
from .core.exchange import Dialogue
from .events import PremisesFailed, ReplayFinished, ReplayProgress, ReplayStarted

T = TypeVar("T")

# Seconds between two `ReplayProgress`.
EVERY = 1.0


class Drain:
    """Counts what becomes of the journal's entries from one open gate to the next, however often
    the replay is cut off meanwhile.
    """

    def __init__(self, breaker: BreakerBase) -> None:
        self._breaker = breaker
        self._seen = self._told = breaker.clock()
        self._seconds = 0.0  # without what lay between a cut and the next attempt
        self._before = self._counted()

    def begin(self) -> None:
        """The server answers, and the fence stands."""
        breaker = self._breaker
        self._seen = self._told = breaker.clock()
        if breaker.pending:
            breaker.emit(ReplayStarted(breaker.name, self._told, breaker.pending))

    def watched(self, replay: Dialogue[T]) -> Dialogue[T]:
        """`replay`, with a look at its progress after each exchange."""
        try:
            ask = next(replay)
            while True:
                replies = yield ask
                self.progress()
                ask = replay.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            replay.close()

    def progress(self) -> None:
        """Something more may have been applied."""
        breaker = self._breaker
        now = self._look()
        if now - self._told < EVERY:
            return
        self._told = now
        applied = breaker.counters["replayed"] - self._before["replayed"]
        breaker.emit(ReplayProgress(breaker.name, now, applied, breaker.pending))

    def finish(self) -> None:
        """The journal is empty: the gate opens."""
        breaker = self._breaker
        breaker.open_gate()
        now = self._look()
        seconds, self._seconds = self._seconds, 0.0
        counted = self._counted()
        done = {name: count - self._before[name] for name, count in counted.items()}
        self._before = counted
        if done["premise"]:
            breaker.emit(PremisesFailed(breaker.name, now, done["premise"]))
        if done["replayed"] or done["dead_lettered"]:
            breaker.emit(
                ReplayFinished(breaker.name, now, done["replayed"], done["dead_lettered"], seconds)
            )

    def _look(self) -> float:
        now = self._breaker.clock()
        self._seconds += now - self._seen
        self._seen = now
        return now

    def _counted(self) -> dict[str, int]:
        counters = self._breaker.counters
        return {name: counters[name] for name in ("replayed", "dead_lettered", "premise")}
