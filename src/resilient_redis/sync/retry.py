"""redis-py's retry on a guarded connection."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from time import sleep
from typing import TYPE_CHECKING, Any, TypeVar

from redis.retry import Retry

from ..errors import ResilienceError

if TYPE_CHECKING:
    from .socket import SyncSocket

T = TypeVar("T")


class GuardedRetry(Retry):
    """The user's retry, except that what the guard has decided is final.

    The guard itself repeats what was not sent or is safe to send twice; redis-py alone would
    repeat anything, an INCR whose replies are lost 11 times (FACTS.md).

    redis-py wraps each command and each pipeline of a client in `call_with_retry`, response
    callbacks included. That makes it the place where a `Queued` receipt can take the place of a
    reply without any callback seeing it.
    """

    def __init__(self, inner: Retry, connection: SyncSocket) -> None:
        super().__init__(inner._backoff, inner._retries, inner._supported_errors)
        # Weak: the connection holds its retry, and redis-py warns of a connection in its __del__.
        self._connection = weakref.ref(connection)

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """As `redis.retry.Retry.call_with_retry`, in all versions from 6.4 on."""
        connection = self._connection()
        # A health check's call is nested in a command's.
        outermost = connection is not None and not connection.in_client
        if connection is not None:
            connection.in_client = True
        self._backoff.reset()
        failures = 0
        try:
            while True:
                try:
                    result = do()
                except ResilienceError:
                    raise
                except self._supported_errors as error:
                    if is_retryable and not is_retryable(error):
                        raise
                    failures += 1
                    fail(error, failures) if with_failure_count else fail(error)
                    if self._retries >= 0 and failures > self._retries:
                        raise
                    backoff = self._backoff.compute(failures)
                    if backoff > 0:
                        sleep(backoff)
                else:
                    if connection is not None and outermost and connection.receipts:
                        return connection.with_receipts(result)  # type: ignore[no-any-return]
                    return result
        finally:
            if connection is not None and outermost:
                connection.in_client = False
