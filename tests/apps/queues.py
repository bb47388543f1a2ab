"""Somebody who gives jobs to a queue, while a worker of that queue runs and Redis is killed and
frozen. A job's work is a line in a file: it needs no Redis itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.support.servers import Rig

from .running import until
from .users import DEADLINE, KILLED, LIMIT


class Producer:
    """Gives the jobs 1, 2, 3 … one after another; faults come between two of them."""

    def __init__(
        self,
        enqueue: Callable[[int], object],
        done: Path,
        work: Callable[[], None] = lambda: None,
        settled: Callable[[], bool] = lambda: True,
        repeats: bool = False,
    ) -> None:
        self._enqueue = enqueue
        self._done = done
        self._work = work  # where no worker runs all the time
        self._settled = settled  # what a worker does after the work
        self._repeats = repeats  # a job that is on its way when Redis freezes may be given twice
        self._number = 0
        self.acknowledged: list[int] = []
        self.longest = 0.0
        self._slow: set[int] = set()

    def go_on(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while (began := time.monotonic()) < ends:
            self._number += 1
            self._enqueue(self._number)
            self.acknowledged.append(self._number)
            took = time.monotonic() - began
            self.longest = max(self.longest, took)
            if took > DEADLINE / 2:
                self._slow.add(self._number)
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
        rig.restart()
        self.finished("the work that was given while Redis was killed")
        self.go_on(0.3)
        self.finished("work after the restart")
        rig.freeze()
        self.go_on(LIMIT + 0.5)
        rig.thaw()
        self.go_on(0.3)
        self.finished("the work that was given while Redis was frozen, and after that")
        assert self.longest < LIMIT, f"{self.longest:.2f} s"
        done = self.done()
        twice = {number for number in done if done.count(number) > 1}
        assert twice <= (self._slow if self._repeats else set()), f"done twice: {twice}"
        assert len(self._slow) <= 1, "who has waited once knows that Redis is away"
        print(
            f"{len(self.acknowledged)} jobs taken, {len(set(done))} done, {len(twice)} twice; the"
            f" longest answer took {self.longest:.2f} s"
        )
