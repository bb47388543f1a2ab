"""What every test of the contract is also held to: it leaves nothing behind, and logs no secret."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio.connection import Connection

from tests.contract.helpers import PASSWORD, SECRET, Connects

QUIET = ("redis", "resilient_redis", "asyncio")


@pytest.fixture(scope="package", autouse=True)
def quick_collections() -> Iterator[None]:
    """`hygiene` collects garbage after each of 500 tests: only theirs, not the interpreter's."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
async def hygiene(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No task outlives its test, no error goes unseen, no log line holds a key or a value."""
    loop = asyncio.get_running_loop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    caplog.set_level(logging.DEBUG)
    yield
    await asyncio.sleep(0)  # what was aborted in the last step is told so in this one
    gc.collect()  # a task whose error nobody fetched says so when it is collected
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks were left behind: {left}"
    assert not unseen, f"errors that nobody saw: {unseen}"
    for record in caplog.get_records("call"):
        if record.levelno >= logging.WARNING or record.name.startswith("resilient_redis"):
            text = logging.Formatter().format(record)
            assert SECRET not in text, f"a log line holds a key or a value: {text}"
            assert PASSWORD not in text, f"a log line holds a password: {text}"


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> Connects:
    """Every attempt of this process to open a connection to Redis, whoever makes it."""
    seen = Connects()
    connect = Connection._connect

    async def recorded(connection: Connection) -> None:
        started = time.monotonic()
        seen.started.append(started)
        try:
            await connect(connection)  # type: ignore[no-untyped-call]  # redis-py
        except OSError:
            seen.failed.append(time.monotonic())
            raise

    monkeypatch.setattr(Connection, "_connect", recorded)
    return seen
