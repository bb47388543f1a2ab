"""Somebody who gives jobs to a queue, while a worker of that queue runs and Redis is killed and
frozen. A job's work is a line in a file: it needs no Redis itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.support.servers import Rig

from .running import until
from .users import DEADLINE, FROZEN, KILLED


class Producer:
    """Gives the jobs 1, 2, 3 … one after another; faults come between two of them."""

    def __init__(
        self,
        enqueue: Callable[[int], object],
        done: Path,
        may_raise: tuple[type[Exception], ...] = (),
        work: Callable[[], None] = lambda: None,
        settled: Callable[[], bool] = lambda: True,
        limit: float = DEADLINE + 1,
    ) -> None:
        self._enqueue = enqueue
        self._done = done
        self._may_raise = may_raise
        self._work = work  # where no worker runs all the time
        self._settled = settled  # what a worker does after the work
        self._limit = limit
        self._number = 0
        self.acknowledged: list[int] = []
        self.raised: list[Exception] = []
        self.longest = 0.0

    def go_on(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while (began := time.monotonic()) < ends:
            self._number += 1
            try:
                self._enqueue(self._number)
                self.acknowledged.append(self._number)
            except self._may_raise as error:
                self.raised.append(error)
            self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(0.05)

    def done(self) -> list[int]:
        return [int(line) for line in self._done.read_text().split()]

    def all_done(self) -> bool:
        return set(self.acknowledged) <= set(self.done()) and self._settled()

    def finished(self, what: str) -> None:
        self._work()
        until(self.all_done, 20, what)

    def live_through(self, rig: Rig) -> None:
        """All that was acknowledged is done, once; nobody waited too long."""
        self._done.touch()
        self.go_on(0.3)
        self.finished("the first work")
        rig.kill()
        self.go_on(KILLED)
        assert len(self.acknowledged) > len(self.done())
        assert not self.raised
        rig.restart()
        self.finished("the work that was given while Redis was killed")
        self.go_on(0.3)
        self.finished("work after the restart")
        rig.freeze()
        self.go_on(FROZEN)
        rig.thaw()
        self.go_on(0.3)
        self.finished("the work that was given while Redis was frozen, and after that")
        assert self.longest < self._limit, f"{self.longest:.2f} s"
        done = [number for number in self.done() if number in set(self.acknowledged)]
        assert len(done) == len(set(done)), "done twice"
        print(
            f"{len(self.acknowledged)} jobs taken, {len(set(done))} done, {len(self.raised)} not"
            f" taken; the longest answer took {self.longest:.2f} s"
        )
