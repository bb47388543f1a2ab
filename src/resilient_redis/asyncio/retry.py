"""redis-py's retry on a guarded connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio.retry import Retry

from ..errors import ResilienceError
from ..flow.retry import GuardedRetryBase

T = TypeVar("T")


class GuardedRetry(GuardedRetryBase, Retry):
    """See `GuardedRetryBase`."""

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[T]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """As `redis.asyncio.retry.Retry.call_with_retry`, in all versions from 6.4 on."""
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
                    result = await do()
                except ResilienceError:
                    raise
                except self._supported_errors as error:
                    if is_retryable and not is_retryable(error):
                        raise
                    failures += 1
                    await (fail(error, failures) if with_failure_count else fail(error))
                    if self._retries >= 0 and failures > self._retries:
                        raise
                    if (pause := self._backoff.compute(failures)) > 0:
                        await asyncio.sleep(pause)
                else:
                    if connection is not None and outermost and connection.receipts:
                        return connection.with_receipts(result)  # type: ignore[no-any-return]
                    return result
        finally:
            if connection is not None and outermost:
                connection.in_client = False
