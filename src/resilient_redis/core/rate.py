"""How many of the latest calls have failed: a sliding window in ten buckets.

Ten, as in resilience4j's time-based window: the oldest tenth falls out at once, which no threshold
between 0 and 1 can tell from a smooth one.
"""

from __future__ import annotations

from collections import deque

BUCKETS = 10


class FailureRate:
    """The share of failed calls in the last `window` seconds.

    `rate`: the share that is too much, above 0 and at most 1. `minimum_calls`: below so many calls
    in the window the share says nothing. Time is an argument, monotonic seconds.
    """

    def __init__(self, rate: float, window: float, minimum_calls: int) -> None:
        self._rate = rate
        self._span = window / BUCKETS
        self._minimum = minimum_calls
        self._buckets: deque[list[int]] = deque()  # [number, calls, failures]
        self._calls = self._failures = 0

    def count(self, now: float, failed: bool) -> bool:
        """Counts one call; whether the share of failures is too much now."""
        number = int(now // self._span)
        while self._buckets and self._buckets[0][0] <= number - BUCKETS:
            _, calls, failures = self._buckets.popleft()
            self._calls -= calls
            self._failures -= failures
        if not self._buckets or self._buckets[-1][0] != number:
            self._buckets.append([number, 0, 0])
        self._buckets[-1][1] += 1
        self._buckets[-1][2] += failed
        self._calls += 1
        self._failures += failed
        return self._calls >= self._minimum and self._failures >= self._rate * self._calls

    def clear(self) -> None:
        """A new beginning: what was before an outage says nothing about after it."""
        self._buckets.clear()
        self._calls = self._failures = 0
