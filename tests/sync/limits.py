"""An exception that a signal's handler raises, as Celery's soft time limit does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class TimeLimit(Exception):
    """As Celery's `SoftTimeLimitExceeded`: no error of redis-py, and not a BaseException."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises `TimeLimit` in here after that, wherever it may be."""

    def raise_it(*_: Any) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
