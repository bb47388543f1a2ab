"""redis-py's retry on a guarded connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from redis.retry import Retry

from ..flow.retry import GuardedRetryBase

T = TypeVar("T")


class GuardedRetry(GuardedRetryBase, Retry):
    """See `GuardedRetryBase`."""

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """As `redis.retry.Retry.call_with_retry`, in all versions from 6.4 on."""
        connection = self._entered()
        self._backoff.reset()
        failures = 0
        try:
            while True:
                try:
                    result = do()
                except self._supported_errors as error:
                    if self._is_final(error, is_retryable):
                        raise
                    failures += 1
                    fail(error, failures) if with_failure_count else fail(error)
                    if (pause := self._pause(failures)) is None:
                        raise
                    if pause > 0:
                        time.sleep(pause)
                else:
                    if connection is not None and connection.receipts:
                        result = connection.with_receipts(result)
                    return result
        finally:
            if connection is not None:
                connection.in_client = False
