"""Steps on asyncio: each wait is awaited."""

from __future__ import annotations

from typing import TypeVar

from ..flow.steps import Steps

T = TypeVar("T")


async def run(steps: Steps[T]) -> T:
    """See `flow/steps.py`. The loop runs nothing else of the breaker between two awaits."""
    try:
        wait = next(steps)
        while True:
            try:
                value = await wait()
            except BaseException as error:  # noqa: BLE001 - it is the steps' to deal with
                wait = steps.throw(error)
            else:
                wait = steps.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result
