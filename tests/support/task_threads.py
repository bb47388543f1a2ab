"""One thread for each asyncio task: its calls of what blocks are made there, and awaited."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import sys
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any

# Seconds that a call may go on after its task was cancelled: a blocked one looks about after a
# slice of the socket's timeout.
PATIENCE = 3.0
END = object()


class Interrupted(BaseException):
    """Raised into a call whose task was cancelled."""


class _Worker:
    """The thread of one task."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=f"thread of {name}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                call()
                del call  # what it has raised is not kept until the next one
        except Interrupted:
            pass  # it came between two calls, and this thread is not used again

    def stop(self) -> None:
        self._calls.put(None)

    async def call(self, func: Callable[..., Any], wake: Callable[[], object]) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[bool, Any]] = loop.create_future()
        context = contextvars.copy_context()

        def settle(succeeded: bool, value: Any) -> None:
            if not done.done():
                done.set_result((succeeded, value))

        def work() -> None:
            try:
                told = True, context.run(func)
            except BaseException as error:  # noqa: BLE001 - it is the task's to deal with
                told = False, error
            loop.call_soon_threadsafe(settle, *told)

        self._calls.put(work)
        try:
            succeeded, value = await asyncio.shield(done)
        except asyncio.CancelledError:
            until = loop.time() + PATIENCE
            # redis-py would leave a socket open that it is just making.
            while "in _connect\n" in self._stack() and loop.time() < until:
                await asyncio.wait({done}, timeout=0.001)
            self._interrupt()
            wake()
            # It may have come before the call began, and ended the thread: see `_run`.
            while not done.done() and self.thread.is_alive() and loop.time() < until:
                await asyncio.wait({done}, timeout=0.01)
            ended = done.done() or not self.thread.is_alive()
            assert ended, f"a call goes on, though its task was cancelled:\n{self._stack()}"
            raise
        if succeeded:
            return value
        try:
            raise value
        finally:
            del value  # no cycle of an error and its own frame

    def _stack(self) -> str:
        frame = sys._current_frames().get(self.thread.ident or 0)
        return "" if frame is None else "".join(traceback.format_stack(frame))

    def _interrupt(self) -> None:
        """Nobody can cancel a thread: an exception is raised in it as soon as it runs Python."""
        for task, worker in list(_workers.items()):
            if worker is self:
                del _workers[task]
        assert self.thread.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self.thread.ident), ctypes.py_object(Interrupted)
        )
        self.stop()


_workers: weakref.WeakKeyDictionary[asyncio.Task[Any], _Worker] = weakref.WeakKeyDictionary()


async def in_thread(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls `func` in the thread of the task that awaits this."""
    return await in_thread_with(partial(func, *args, **kwargs), lambda: None)


async def in_thread_with(func: Callable[..., Any], wake: Callable[[], object]) -> Any:
    """`wake` ends what `func` waits for, if its task is cancelled."""
    task = asyncio.current_task()
    assert task is not None
    worker = _workers.get(task)
    if worker is None:
        worker = _workers[task] = _Worker(task.get_name())
        task.add_done_callback(_end)
    return await worker.call(func, wake)


def _end(task: asyncio.Task[Any]) -> None:
    if (worker := _workers.pop(task, None)) is not None:
        worker.stop()


async def steps_of(
    iterator: Iterator[Any], wake: Callable[[], object] = lambda: None
) -> AsyncIterator[Any]:
    while (item := await in_thread_with(partial(next, iterator, END), wake)) is not END:
        yield item


def end_all() -> None:
    """Of tasks that have not come to their end."""
    for worker in list(_workers.values()):
        worker.stop()
