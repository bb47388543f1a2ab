"""Steps among threads: each is done under the breaker's lock, each wait without it."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from types import TracebackType
from typing import Any, TypeVar

from ..events import Event
from ..flow.steps import Steps

T = TypeVar("T")


def run(lock: AbstractContextManager[Any], steps: Steps[T]) -> T:
    """See `flow/steps.py`."""
    try:
        with lock:
            wait = next(steps)
        while True:
            try:
                value = wait()
            except BaseException as error:  # noqa: BLE001 - it is the steps' to deal with
                with lock:
                    wait = steps.throw(error)
            else:
                with lock:
                    wait = steps.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result


class Lock:
    """The one lock of a breaker: never held while anything waits, nor while an observer is told.

    What happens under it is told when it is free again, in order, by whoever comes to it.
    """

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._events: deque[Event] = deque()
        self._inner: Any = None
        self._telling = threading.Lock()
        self._depth = 0

    @cached_property
    def changed(self) -> threading.Condition:
        """For who waits until something has changed."""
        return self._made()[1]

    def _made(self) -> tuple[Any, threading.Condition]:
        # Not before it is needed: a worker of gunicorn patches `threading` for gevent after the
        # fork, and what was made before that lets every greenlet in that is of the same thread.
        inner = threading.RLock()
        made: tuple[Any, threading.Condition] = vars(self).setdefault(
            "_pair", (inner, threading.Condition(inner))
        )
        self._inner = made[0]
        return made

    def __enter__(self) -> None:
        (self._inner or self._made()[0]).acquire()
        self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        free = not self._depth
        self._inner.release()
        if free and self._events:
            self._tell_all()

    def emit(self, event: Event) -> None:
        """Tells of `event` as soon as the lock is free."""
        with self:
            self._events.append(event)

    def _tell_all(self) -> None:
        # Who finds somebody at it leaves the rest to him; he looks once more when he is done.
        while self._events and self._telling.acquire(blocking=False):
            try:
                while self._events:
                    self._tell(self._events.popleft())
            finally:
                self._telling.release()


class Running:
    """Steps that run in a daemon thread of their own."""

    def __init__(self, lock: AbstractContextManager[Any], steps: Steps[None], name: str) -> None:
        self._lock = lock
        self._steps = steps
        self._stopped = False
        if sys.is_finalizing():
            # Before Python 3.12 `start` waits for ever for a thread that never runs: a `__del__` at
            # the end of the process asked a Redis that was gone.
            raise RuntimeError("can't create new thread at interpreter shutdown")
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
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
        except StopIteration:
            return  # they have come to their end
        steps.close()

    def stop(self) -> None:
        """They end instead of waiting once more."""
        self._stopped = True

    def done(self) -> bool:
        return not self.thread.is_alive()

    def join(self, seconds: float | None = None) -> None:
        if self.thread is not threading.current_thread():
            self.thread.join(seconds)
