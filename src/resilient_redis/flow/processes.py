"""What a breaker owes at the end of its process, and to the child of a fork.

What was queued before a fork is the parent's alone: two processes that replay one journal would
apply it twice. The child keeps what is known of the server, and neither sockets, threads, locks nor
entries.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from ..observers import logger

if TYPE_CHECKING:
    from .breaker import CircuitBreaker

_breakers: weakref.WeakSet[CircuitBreaker] = weakref.WeakSet()
_registering = threading.RLock()


def one_at_a_time() -> threading.RLock:
    """For who makes a breaker, or may."""
    return _registering


def register(breaker: CircuitBreaker) -> None:
    """`breaker` is one of this process."""
    with _registering:
        _breakers.add(breaker)


def breakers() -> list[CircuitBreaker]:
    """Those of this process."""
    with _registering:
        return list(_breakers)


@atexit.register
def _report(*_: Any, **__: Any) -> None:
    for breaker in breakers():
        if breaker.pending and not breaker.reported:
            breaker.reported = True
            logger.error(
                "%s: the process ends with %d acknowledged writes unapplied",
                breaker.name,
                breaker.pending,
            )


def _before() -> None:
    # So that no other thread is in the middle of a step, of which the child would see one half.
    _registering.acquire()
    for breaker in sorted(_breakers, key=id):
        if breaker.lock is not None:
            breaker.lock.held.acquire()


def _in_parent() -> None:
    for breaker in sorted(_breakers, key=id, reverse=True):
        if breaker.lock is not None:
            breaker.lock.held.release()
            breaker.lock.tell()
    _registering.release()


def _in_child() -> None:
    global _registering  # noqa: PLW0603 - the parent's is held by a thread that is not here
    _registering = threading.RLock()
    for breaker in list(_breakers):
        breaker.begin_anew()
    _report_without_atexit()


def _report_without_atexit() -> None:
    """These children end by `os._exit`: each has a way of its own to be told before."""
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        # It begins by forgetting the finalizers of its parent, and calls this behind that.
        util.register_after_fork(_breakers, lambda _: util.Finalize(None, _report, exitpriority=0))
    if (signals := sys.modules.get("celery.signals")) is not None:
        signals.worker_process_shutdown.connect(
            _report, weak=False, dispatch_uid="resilient_redis reports what is left"
        )


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
