"""What every test of the contract is also held to: it leaves nothing behind, and logs no secret."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio.connection import Connection as AsyncConnection
from redis.connection import Connection

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
async def hygiene(flavour: str, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No task or thread outlives its test, no error goes unseen, no log line holds a key or a
    value.
    """
    before = set(threading.enumerate())
    loop = asyncio.get_running_loop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    caplog.set_level(logging.DEBUG)
    yield
    await asyncio.sleep(0)  # what was aborted in the last step is told so in this one
    gc.collect()  # a task whose error nobody fetched says so when it is collected
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks were left behind: {left}"
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("asyncio_"):
            continue  # the loop's own, for host names; it ends them
        thread.join(3.0)
        assert not thread.is_alive(), f"a thread was left behind: {thread}"
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
    connect, connect_blocking = AsyncConnection._connect, Connection._connect

    async def recorded(connection: Any) -> None:
        with seen.attempt():
            await connect(connection)  # type: ignore[no-untyped-call]  # redis-py

    def recorded_blocking(connection: Any) -> Any:
        with seen.attempt():
            return connect_blocking(connection)  # type: ignore[no-untyped-call]  # redis-py

    monkeypatch.setattr(AsyncConnection, "_connect", recorded)
    monkeypatch.setattr(Connection, "_connect", recorded_blocking)
    return seen
