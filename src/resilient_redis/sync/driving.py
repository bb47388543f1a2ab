"""Steps among threads: each is done under the breaker's lock, each wait without it."""

from __future__ import annotations

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ..events import Event
from ..flow.steps import Steps

T = TypeVar("T")


def run(lock: Lock, steps: Steps[T]) -> T:
    """See `flow/steps.py`."""
    held = lock.held
    try:
        with held:
            wait = next(steps)
        while True:
            try:
                lock.tell()
                value = wait()
            except BaseException as error:  # noqa: BLE001 - it is the steps' to deal with
                with held:
                    wait = steps.throw(error)
            else:
                with held:
                    wait = steps.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except BaseException:
        with held:
            steps.close()  # where a signal's handler has raised between two of them
        raise
    finally:
        lock.tell()


class Lock:
    """The one lock of a breaker: never held while anything waits, nor while an observer is told.

    What happens under it is told when it is free again, in order, by whoever comes to it.

    `held` is the interpreter's own lock, not one in Python around it: an exception that a signal's
    handler raises comes before `with held:` or inside it, and never between the two (Python 3.11).
    """

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._events: deque[Event] = deque()
        self._made: tuple[Any, threading.Condition] | None = None
        self._teller: Callable[[], _Teller | None] = _nobody

    @property
    def held(self) -> Any:
        """An RLock."""
        return (self._made or self._make())[0]

    @property
    def changed(self) -> threading.Condition:
        """For who waits until something has changed."""
        return (self._made or self._make())[1]

    def _make(self) -> tuple[Any, threading.Condition]:
        # Not before it is needed: a worker of gunicorn patches `threading` for gevent after the
        # fork, and what was made before that lets every greenlet in that is of the same thread.
        inner = threading.RLock()
        # Of two threads that make one the first has it. (`cached_property` has a lock of its own in
        # Python 3.10 and 3.11, which a fork may leave locked in the child.)
        made: tuple[Any, threading.Condition] = vars(self).setdefault(
            "_pair", (inner, threading.Condition(inner))
        )
        self._made = made
        return made

    def emit(self, event: Event) -> None:
        """Tells of `event` as soon as the lock is free."""
        self._events.append(event)
        self.tell()

    def exclusively(self, work: Callable[[], T]) -> T:
        """Does it under the lock, and tells what has happened after that."""
        try:
            with self.held:
                return work()
        finally:
            self.tell()

    def tell(self) -> None:
        """Tells the observers, if the lock is free and nobody is at it already: he looks once more
        when he is done.
        """
        if not self._events or self.held._is_owned():
            return
        with self.held:
            if self._teller() is not None:
                return
            # Kept alive by this call alone: whatever ends it, the next one may tell again.
            me = _Teller()
            self._teller = weakref.ref(me)
        try:
            while (event := self._next()) is not None:
                self._tell(event)
        finally:
            # Not `self._teller`: that may be somebody else by now. A traceback keeps our locals.
            del me

    def _next(self) -> Event | None:
        with self.held:
            if self._events:
                return self._events.popleft()
            self._teller = _nobody
            return None


class _Teller:
    """Somebody who tells events."""


def _nobody() -> None:
    return None


class Running:
    """Steps that run in a daemon thread of their own."""

    def __init__(self, lock: Lock, steps: Steps[None], name: str) -> None:
        self._lock = lock
        self._steps = steps
        self._stopped = self._over = False
        if sys.is_finalizing():
            # Before Python 3.12 `start` waits for ever for a thread that never runs: a `__del__` at
            # the end of the process asked a Redis that was gone.
            raise RuntimeError("can't create new thread at interpreter shutdown")
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self._stopped = True  # interrupted, it may have begun
            raise

    def _run(self) -> None:
        if not self._stopped:
            run(self._lock, self._until_stopped())

    def _until_stopped(self) -> Steps[None]:
        steps = self._steps
        try:
            wait = next(steps)
            while not self._stopped:
                try:
                    value = yield wait
                except BaseException as error:  # noqa: BLE001 - it is the steps' to deal with
                    wait = steps.throw(error)
                else:
                    wait = steps.send(value)
            steps.close()
        except StopIteration:
            pass  # they have come to their end
        finally:
            self._over = True  # in their last step: who looks from now on may begin another

    def stop(self) -> None:
        """They end instead of waiting once more."""
        self._stopped = True

    def done(self) -> bool:
        return self._over or not self.thread.is_alive()

    def join(self, seconds: float | None = None) -> None:
        if self.thread is not threading.current_thread():
            self.thread.join(seconds)
