"""Every interleaving of a few short operations, each in a thread of which one runs at a time.

A thread may be stopped before it takes a lock, before it does I/O, before an observer is told, and
at each line of the code that is named in `TRACED`: what the healthy path does without the lock.
All schedules with up to so many *preemptions* (a thread is stopped that could go on) are run, one
after the other; more of them hardly ever find more (Musuvathi and Qadeer, "Iterative context
bounding", PLDI 2007).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any


class Stuck(AssertionError):
    """Nobody can go on: a deadlock, or a wakeup that was lost."""


class Ended(BaseException):
    """Of a thread whose schedule is given up."""


class Task:
    """One operation in its thread."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.work = work
        self.go = threading.Semaphore(0)
        self.ready: Callable[[], bool] = lambda: True
        self.done = False
        self.error: BaseException | None = None


class Scheduler:
    """One schedule: `choices` says who goes on at each step, 0 is who just ran, if he can."""

    def __init__(self, choices: list[int], traced: frozenset[CodeType]) -> None:
        self._choices = choices
        self._traced = traced
        self._control = threading.Semaphore(0)
        self._tasks: list[Task] = []
        self._by_thread: dict[int, Task] = {}
        self._ending = False
        #: Asked while all stand still.
        self.invariant: Callable[[], None] = lambda: None
        #: Of each step: how many could go on, and whether another choice preempts.
        self.steps: list[tuple[int, bool]] = []
        self.story: list[str] = []

    # -- in a thread --------------------------------------------------------------------------

    def point(self, what: str, ready: Callable[[], bool] = lambda: True) -> None:
        """Another may run here. Goes on when `ready`."""
        task = self._by_thread.get(threading.get_ident())
        if task is None:
            assert ready(), what  # before or after the schedule
            return
        task.ready = ready
        self.story.append(f"{task.name}: {what}")
        self._control.release()
        task.go.acquire()
        if self._ending:
            raise Ended

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code not in self._traced:
            return None
        if event == "line":
            self.point(f"{frame.f_code.co_name}:{frame.f_lineno}")
        return self._trace

    def _body(self, task: Task) -> None:
        self._by_thread[threading.get_ident()] = task
        task.go.acquire()
        try:
            sys.settrace(self._trace)
            task.work()
        except Ended:
            pass
        except BaseException as error:  # noqa: BLE001 - told by `run`
            task.error = error
        finally:
            sys.settrace(None)
            task.done = True
            self._control.release()

    # -- the schedule -------------------------------------------------------------------------

    def run(self, *works: tuple[str, Callable[[], None]]) -> None:
        self._tasks = [Task(*work) for work in works]
        threads = [threading.Thread(target=self._body, args=(task,)) for task in self._tasks]
        for thread in threads:
            thread.start()
        try:
            self._go()
        finally:
            self._ending = True
            for task, thread in zip(self._tasks, threads, strict=True):
                while not task.done:
                    task.go.release()
                    self._control.acquire()
                thread.join()
        for task in self._tasks:
            if task.error is not None:
                raise task.error

    def _go(self) -> None:
        last: Task | None = None
        while left := [task for task in self._tasks if not task.done]:
            self.invariant()
            able = [task for task in left if task.ready()]
            if not able:
                raise Stuck(f"{[task.name for task in left]} wait for ever")
            goes_on = last in able
            if goes_on:
                able.sort(key=lambda task: task is not last)
            at = len(self.steps)
            chosen = self._choices[at] if at < len(self._choices) else 0
            self.steps.append((len(able), goes_on))
            last = able[chosen]
            last.go.release()
            self._control.acquire()
            assert len(self.steps) < 5000, "it comes to no end"


def all_schedules(
    once: Callable[[Scheduler], None], preemptions: int, traced: frozenset[CodeType]
) -> int:
    """Runs `once` with each schedule; returns how many there were."""
    choices: list[int] = []
    count = 0
    while True:
        scheduler = Scheduler(choices, traced)
        try:
            once(scheduler)
        except BaseException as error:
            error.args = (f"{error}\nschedule {choices}:\n" + "\n".join(scheduler.story),)
            raise
        count += 1
        choices += [0] * (len(scheduler.steps) - len(choices))
        used = [
            chosen > 0 and goes_on
            for chosen, (_, goes_on) in zip(choices, scheduler.steps, strict=True)
        ]
        for at in range(len(choices) - 1, -1, -1):
            able, goes_on = scheduler.steps[at]
            if choices[at] + 1 < able and sum(used[:at]) + goes_on <= preemptions:
                choices = [*choices[:at], choices[at] + 1]
                break
        else:
            return count


class Lock:
    """In place of a lock; `reentrant` of an RLock."""

    def __init__(self, scheduler: Scheduler, name: str, *, reentrant: bool) -> None:
        self._scheduler = scheduler
        self._name = name
        self._reentrant = reentrant
        self._owner: int | None = None
        self._depth = 0

    @property
    def free(self) -> bool:
        return self._owner is None

    def held(self) -> bool:
        """By who asks."""
        return self._owner == threading.get_ident()

    _is_owned = held  # as an RLock's

    def acquire(self, blocking: bool = True) -> bool:
        if self._reentrant and self.held():
            self._depth += 1
            return True
        if not blocking:
            self._scheduler.point(f"tries {self._name}")
            if not self.free:
                return False
        else:
            self._scheduler.point(f"takes {self._name}", lambda: self.free)
        self._owner, self._depth = threading.get_ident(), 1
        return True

    def release(self) -> None:
        assert self.held()
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._scheduler.point(f"has left {self._name}")

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def wait(self, ready: Callable[[], bool]) -> None:
        """Lets go of the lock until it is free and `ready`."""
        assert self.held()
        depth, self._depth, self._owner = self._depth, 0, None
        self._scheduler.point(f"waits at {self._name}", lambda: self.free and ready())
        self._owner, self._depth = threading.get_ident(), depth


class Condition:
    """In place of a Condition. There is no time: a wait that nobody ends is a lost wakeup."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._notified = 0

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def notify_all(self) -> None:
        self._notified += 1

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        while not predicate():
            before = self._notified
            self._lock.wait(lambda before=before: self._notified != before)  # type: ignore[misc]
        return True


class Event:
    """In place of an Event."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._set = False

    def set(self) -> None:
        self._set = True

    def wait(self, timeout: float | None = None) -> bool:
        self._scheduler.point("waits for an event", lambda: self._set)
        return True
