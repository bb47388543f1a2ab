"""Threads of which one runs at a time, and the locks that they take meanwhile.

Another may run at each *point*: before a lock is taken, before I/O, before an observer is told,
and before each access that `sharing` has found to need one. There is no time: who waits goes on
when he is told to, and a wait that nobody ends is a lost wakeup.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .exploring import Explorer, Redundant, explore
from .sharing import Places, Sharing, Thread, telling

#: Seconds: a pause between two attempts, and no wait for something.
SHORT = 0.1
Works = tuple[tuple[str, Callable[[], None]], ...]


class Stuck(AssertionError):
    """Nobody can go on: a deadlock, or a wakeup that was lost."""


class Ended(BaseException):
    """Of a thread whose schedule is given up."""


class Task(Thread):
    """One operation in its thread."""

    def __init__(self, number: int, name: str, work: Callable[[], None], run: Scheduler) -> None:
        super().__init__(number, name, run.sharing.places, run.point)
        self.work = work
        self.go = threading.Semaphore(0)
        self.ready: Callable[[], bool] = lambda: True
        self.done = False
        self.section: int | None = None  # where the locked section began that it is in
        self.piece_section: int | None = None  # that its piece is part of


class Scheduler:
    """One schedule."""

    def __init__(self, explorer: Explorer, places: Places) -> None:
        self.sharing = Sharing(places)
        self.steps = 0
        self.story: list[str] = []
        #: Asked as the lock is let go, where something of `watched`, all that it reads, is new.
        self.invariant: Callable[[], None] = lambda: None
        self.watched = 0
        self._explorer = explorer
        self._over = threading.Semaphore(0)
        self._tasks: list[Task] = []
        self._running: Task | None = None
        self._failure: BaseException | None = None

    @property
    def others_are_done(self) -> bool:
        """One is left, who is asked for."""
        return sum(not task.done for task in self._tasks) <= 1

    @property
    def task(self) -> Task | None:
        """The one that calls this."""
        found = self.sharing.threads.get(threading.get_ident())
        return found if isinstance(found, Task) else None

    # -- in a thread --------------------------------------------------------------------------

    def point(self, what: str, ready: Callable[[], bool] = lambda: True) -> None:
        """Another may run here. Goes on when `ready`."""
        task = self.task
        if task is None:
            assert ready(), what  # before or after the schedule
            return
        if self._failure is not None:
            raise Ended
        task.ready = ready
        self.story.append(f"{task.name}: {what}")
        self._end_piece(task)
        self._hand_on(task)

    def _end_piece(self, task: Task) -> None:
        footprint = task.end_of_piece()
        if task.piece_section is not None:
            whole = task.piece_section == self.steps - 1 and task.section is None
            bit = self.sharing.places.bit(("the lock", ""))
            reads, writes, adds = footprint
            # See `exploring`: one that has been torn may not be entered.
            footprint = type(footprint)(
                reads | (bit if whole else 0), writes | (0 if whole else bit), adds
            )
        self._explorer.ran(self.steps - 1, footprint, task.piece_section)
        task.piece_section = task.section

    def _hand_on(self, task: Task | None) -> None:
        """Chooses who goes on, and lets it."""
        try:
            chosen = self._choose(task)
        except BaseException as failure:  # noqa: BLE001 - told by `run`
            self._failure = self._failure or failure
            chosen = None
        if chosen is None:
            self._over.release()
        elif chosen is not task:
            chosen.go.release()
        if task is not None and not task.done and chosen is not task:
            task.go.acquire()
        if task is not None and not task.done and self._failure is not None:
            raise Ended

    def _choose(self, last: Task | None) -> Task | None:
        left = [task for task in self._tasks if not task.done]
        if not left or self._failure is not None:
            return None
        able = tuple(task.number for task in left if task.ready())
        if not able:
            raise Stuck(f"{[task.name for task in left]} wait for ever")
        before = last.number if last in left else None
        chosen = self._tasks[self._explorer.choose(self.steps, able, before)]
        self.steps += 1
        assert self.steps < 5000, "it comes to no end"
        return chosen

    def _body(self, task: Task) -> None:
        self.sharing.threads[threading.get_ident()] = task
        task.go.acquire()
        try:
            if self._failure is None:
                task.work()
                self._end_piece(task)
        except Ended:
            pass
        except BaseException as failure:  # noqa: BLE001 - told by `run`
            self._failure = self._failure or failure
        finally:
            task.done = True
            self._hand_on(task)

    def took_lock(self) -> None:
        if (task := self.task) is not None:
            task.settle()
            task.depth += 1
            task.struck = False
            task.changed = 0
            task.section = task.piece_section = self.steps - 1

    def left_lock(self) -> None:
        if (task := self.task) is not None:
            task.settle()
            if self._failure is None and task.changed & self.watched:
                self.invariant()
            task.depth -= 1
            task.section = None

    @contextmanager
    def adding(self) -> Iterator[None]:
        """What is written in here makes no difference to who writes there in the same way."""
        task = self.task
        before = task is not None and task.adding
        if task is not None:
            task.adding = True
        try:
            yield
        finally:
            if task is not None:
                task.adding = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """No points in here."""
        task = self.task
        if task is not None:
            task.quiet += 1
        try:
            yield
        finally:
            if task is not None:
                task.quiet -= 1

    # -- the schedule -------------------------------------------------------------------------

    def run(self, *works: tuple[str, Callable[[], None]]) -> None:
        self._tasks = [Task(number, *work, self) for number, work in enumerate(works)]
        threads = [threading.Thread(target=self._body, args=(task,)) for task in self._tasks]
        for thread in threads:
            thread.start()
        self._hand_on(None)
        self._over.acquire()
        for task, thread in zip(self._tasks, threads, strict=True):
            task.go.release()
            thread.join()
        self.sharing.threads.clear()
        if self._failure is not None:
            raise self._failure


def all_schedules(
    once: Callable[[Scheduler], None],
    threads: int,
    *,
    reduced: bool = True,
    preemptions: int | None = None,
) -> tuple[int, int]:
    """Runs `once` with each schedule; see `explore`."""
    places = Places(everywhere=not reduced)
    warm = False  # what is kept for all worlds is made in the first

    def run(explorer: Explorer) -> int:
        gc.collect(0)  # what ends with the run before ends now, and not in the midst of this one
        scheduler = Scheduler(explorer, places)
        try:
            with telling(scheduler.sharing):
                once(scheduler)
        except BaseException as error:
            if places.grown:
                raise Again from error
            if not isinstance(error, Redundant):
                error.args = (f"{error}\nschedule:\n" + "\n".join(scheduler.story),)
            raise
        nonlocal warm
        if places.grown or not warm:
            warm = True
            raise Again
        return scheduler.steps

    gc.disable()
    try:
        while True:
            places.grown = False
            try:
                return explore(run, threads, reduced=reduced, preemptions=preemptions)
            except Again:
                pass
    finally:
        gc.enable()


class Again(BaseException):
    """A place has turned out to need points."""


class Lock:
    """In place of an RLock, the breaker's."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._owner: int | None = None
        self._depth = 0

    @property
    def free(self) -> bool:
        return self._owner is None

    def held(self) -> bool:
        """By who asks."""
        return self._owner == threading.get_ident()

    _is_owned = held  # as an RLock's

    def _take(self, depth: int) -> None:
        self._owner, self._depth = threading.get_ident(), depth
        self._scheduler.took_lock()

    def _leave(self) -> None:
        self._scheduler.left_lock()
        self._owner, self._depth = None, 0

    def __enter__(self) -> None:
        if self.held():
            self._depth += 1
            return
        self._scheduler.point("takes the lock", lambda: self.free)
        self._take(1)

    def __exit__(self, *_: object) -> None:
        assert self.held()
        if self._depth > 1:
            self._depth -= 1
        else:
            self._leave()

    def wait(self, ready: Callable[[], bool]) -> None:
        """Lets go of the lock until it is free and `ready`."""
        assert self.held()
        depth = self._depth
        self._leave()
        self._scheduler.point("waits at the lock", lambda: self.free and ready())
        self._take(depth)


class Condition:
    """In place of a Condition. A wait for less than `SHORT` is over at any moment; `slept` is told
    of it.
    """

    def __init__(
        self, scheduler: Scheduler, lock: Lock, slept: Callable[[float], None] = lambda _: None
    ) -> None:
        self._scheduler = scheduler
        self._slept = slept
        self._lock = lock
        self._notified = 0

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()

    def notify_all(self) -> None:
        assert self._lock.held()
        self._notified += 1
        with self._scheduler.adding():
            self._scheduler.sharing.note("the condition", "", write=True)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        if timeout is not None and timeout < SHORT:
            self._lock.wait(lambda: True)
            self._slept(timeout)
            return predicate()
        while not predicate():
            self._scheduler.sharing.note("the condition", "")
            before = self._notified
            self._lock.wait(lambda before=before: self._notified != before)  # type: ignore[misc]
            self._scheduler.sharing.note("the condition", "")
        return True


class Event:
    """In place of an Event."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._set = False
        self._name = scheduler.sharing.label(self)

    def set(self) -> None:
        self._scheduler.sharing.note(self._name, "", write=True)
        self._set = True

    def wait(self, timeout: float | None = None) -> bool:
        self._scheduler.point("waits for an event", lambda: self._set)
        with self._scheduler.at_once():
            self._scheduler.sharing.note(self._name, "")
        return True
