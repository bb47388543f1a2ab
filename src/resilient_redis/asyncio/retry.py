"""redis-py's retry on a guarded connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio.retry import Retry

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
        connection = self._entered()
        self._backoff.reset()
        failures = 0
        try:
            while True:
                try:
                    result = await do()
                except self._supported_errors as error:
                    if self._is_final(error, is_retryable):
                        raise
                    failures += 1
                    await (fail(error, failures) if with_failure_count else fail(error))
                    if (pause := self._pause(failures)) is None:
                        raise
                    if pause > 0:
                        await asyncio.sleep(pause)
                else:
                    if connection is not None and connection.receipts:
                        result = connection.with_receipts(result)
                    return result
        finally:
            if connection is not None:
                connection.in_client = False
