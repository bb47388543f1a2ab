"""The driver of the steps, interrupted at any moment by what a signal's handler raises.

Without Redis: interrupted so often, redis-py's pool loses connections, and hiredis's packer crashes
the interpreter.
"""

from __future__ import annotations

import inspect
import signal
import sys
import threading
import time
from functools import partial
from typing import Any

import pytest

from resilient_redis.events import ProbeFailed
from resilient_redis.flow.steps import Steps
from resilient_redis.sync.driving import Lock, run
from tests.sync.limits import TimeLimit, limited

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no setitimer"),
    pytest.mark.skipif(
        sys.version_info < (3, 11),
        reason="Python 3.10 looks for signals between the end of a `with` block and its lock",
    ),
]


def event(number: int) -> ProbeFailed:
    return ProbeFailed("redis", float(number), "OSError")


def is_free(lock: Lock) -> bool:
    """For another thread."""
    taken: list[Any] = []

    def take() -> None:
        taken.append(lock.held.acquire(timeout=2) and lock.held.release())

    other = threading.Thread(target=take)
    other.start()
    other.join()
    return taken == [None]


def test_at_any_moment() -> None:
    """The lock is free after it, the steps have ended, and the observers hear on, in order."""
    told: list[float] = []
    driven: list[Steps[int]] = []
    lock = Lock(lambda each: told.append(each.at))
    number = 0

    def steps() -> Steps[int]:
        nonlocal number
        number += 1
        for _ in range(3):
            lock.emit(event(number))
            yield partial(time.sleep, 0)
        return lock.exclusively(lambda: number)

    def work() -> None:
        while True:
            driven[:] = [steps()]
            run(lock, driven[0])

    interrupted = 0
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        with pytest.raises(TimeLimit), limited(0.0003 + interrupted % 50 * 1e-5):
            work()
        interrupted += 1
        assert inspect.getgeneratorstate(driven[0]) != inspect.GEN_SUSPENDED
        assert is_free(lock), f"it is locked after {interrupted} interruptions"
    assert told == sorted(told)
    number += 1
    lock.emit(event(number))
    assert told[-1] == number
    assert interrupted > 100
