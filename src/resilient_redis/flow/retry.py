"""redis-py's retry on a guarded connection, as far as both flavours share it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from ..errors import ResilienceError


class GuardedRetryBase:
    """The user's retry, except that what the guard has decided is final.

    The guard itself repeats what was not sent or is safe to send twice; redis-py alone would
    repeat anything, an INCR whose replies are lost 11 times (FACTS.md).

    redis-py wraps each command and each pipeline of a client in `call_with_retry`, response
    callbacks included. That makes it the place where a `Queued` receipt can take the place of a
    reply without any callback seeing it.
    """

    _backoff: Any
    _retries: int

    def __init__(self, inner: Any, connection: Any) -> None:
        super().__init__(inner._backoff, inner._retries, inner._supported_errors)  # type: ignore[call-arg]  # redis-py's `Retry`
        # Weak: the connection holds its retry, and redis-py warns of a connection in its __del__.
        self._connection = weakref.ref(connection)

    def _entered(self) -> Any:
        """The connection, now in a client's command; None where it is in one already: a health
        check's call is nested in a command's.
        """
        connection = self._connection()
        if connection is None or connection.in_client:
            return None
        connection.in_client = True
        return connection

    def _is_final(self, error: Exception, is_retryable: Callable[[Exception], bool] | None) -> bool:
        decided = isinstance(error, ResilienceError)
        return decided or (is_retryable is not None and not is_retryable(error))

    def _pause(self, failures: int) -> float | None:
        """Seconds until the next try; None where that was the last."""
        if 0 <= self._retries < failures:
            return None
        pause: float = self._backoff.compute(failures)
        return pause
