"""What observers hear of a drain, from the first entry to the open gate."""

from __future__ import annotations

from .base import BreakerBase
from .events import PremisesFailed, ReplayFinished, ReplayStarted


class Drain:
    """Counts from here on what becomes of the journal's entries."""

    def __init__(self, breaker: BreakerBase) -> None:
        self._breaker = breaker
        self._started = breaker.clock()
        counters = breaker.counters
        self._before = {name: counters[name] for name in ("replayed", "dead_lettered", "premise")}

    def begin(self) -> None:
        """The server answers, and the fence stands."""
        breaker = self._breaker
        if breaker.pending:
            breaker.emit(ReplayStarted(breaker.name, self._started, breaker.pending))

    def finish(self) -> None:
        """The journal is empty: the gate opens."""
        breaker = self._breaker
        breaker.open_gate()
        now = breaker.clock()
        done = {name: breaker.counters[name] - count for name, count in self._before.items()}
        if done["premise"]:
            breaker.emit(PremisesFailed(breaker.name, now, done["premise"]))
        if done["replayed"] or done["dead_lettered"]:
            breaker.emit(
                ReplayFinished(
                    breaker.name, now, done["replayed"], done["dead_lettered"], now - self._started
                )
            )
