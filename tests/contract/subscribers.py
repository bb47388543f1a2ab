"""Subscribers, and those who publish to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.support.servers import Rig


async def published(rig: Rig, channel: str, message: str) -> None:
    """Until a subscriber is there to hear it."""
    for _ in range(400):
        if rig.admin.publish(channel, message):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody has subscribed")


async def messages(pubsub: Any) -> AsyncIterator[tuple[str, bytes]]:
    async for message in pubsub.listen():
        if message["type"] in ("message", "pmessage", "smessage"):
            yield message["type"], message["data"]


@contextlib.asynccontextmanager
async def listening(pubsub: Any) -> AsyncIterator[list[tuple[str, bytes]]]:
    heard: list[tuple[str, bytes]] = []

    async def listen() -> None:
        async for message in messages(pubsub):
            heard.append(message)  # noqa: PERF401 - one by one, for who looks meanwhile

    task = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        assert not task.done(), task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task  # it was asked to end
        await pubsub.aclose()
