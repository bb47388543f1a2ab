"""When the next look at the server is due."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import RetryCallState, wait_exponential, wait_random
from tenacity.wait import wait_base


class Pacing:
    """Waits that grow from probe to probe, up to `longest` seconds.

    `strategy`: one of tenacity's; without it the wait starts at 50 ms and doubles, and a jitter
    keeps fleets apart. `clock` is monotonic seconds.
    """

    def __init__(
        self, longest: float, strategy: wait_base | None, clock: Callable[[], float]
    ) -> None:
        self._longest = longest
        self._strategy = strategy or (
            wait_exponential(multiplier=0.05, max=longest) + wait_random(0, 0.025)
        )
        self._clock = clock
        self._attempt = 0
        self._due: float | None = None

    def next_wait(self) -> float:
        """Seconds until the next probe, which is planned for then."""
        self._attempt += 1
        call = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # a wait strategy reads attempt_number only
        call.attempt_number = self._attempt
        wait = min(float(self._strategy(call)), self._longest)
        self.plan(wait)
        return wait

    def plan(self, seconds: float) -> None:
        """The next probe is due in so many seconds."""
        self._due = self._clock() + seconds

    def left(self) -> float | None:
        """Seconds until the next probe, where one is planned."""
        return None if self._due is None else max(0.0, self._due - self._clock())

    def recovered(self) -> None:
        """None is needed any more; the next outage begins with the shortest wait."""
        self._attempt = 0
        self._due = None
