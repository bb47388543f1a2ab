"""A Celery application. The same settings are those of who gives the tasks and of the worker."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue
from redis import Redis

from resilient_redis import OutcomeUnknown, ResilientConnection
from resilient_redis.contrib import celery as contrib

URL = os.environ["REDIS_URL"]
app = Celery("work", broker=URL)
app.conf.broker_transport = "resilient_redis.contrib.celery:Transport"
app.conf.result_backend = f"resilient_redis.contrib.celery:Backend+{URL}"

contrib.DRAIN_TIMEOUT = 2.0
BY_TOPIC = Queue("by-topic", Exchange("topics", type="topic"), routing_key="a.*")

# Made before the fork, and used by each child.
redis: Any = Redis.from_url(URL, connection_class=ResilientConnection, socket_timeout=1.0)
redis.ping()


@app.task  # type: ignore[untyped-decorator]
def work(number: int) -> int:
    with Path(os.environ["DONE"]).open("a") as file:
        file.write(f"{number}\n")
    return 2 * number


@app.task  # type: ignore[untyped-decorator]
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(bind=True)  # type: ignore[untyped-decorator]
def write(self: Any, key: str, end: str) -> dict[str, Any]:
    """Writes 1, 2, 3 … to the list `key` until the file `end` is there."""
    self.update_state(state="WRITING")  # its result is not the first that is stored
    said: dict[str, Any] = {"acknowledged": [], "unknown": [], "longest": 0.0, "child": os.getpid()}
    number = 0
    while not Path(end).exists():
        number += 1
        began = time.monotonic()
        try:
            redis.rpush(key, number)
            said["acknowledged"].append(number)
        except OutcomeUnknown:
            said["unknown"].append(number)
        said["longest"] = max(said["longest"], time.monotonic() - began)
        time.sleep(0.01)
    return said


@app.task  # type: ignore[untyped-decorator]
def children(said: list[dict[str, Any]]) -> list[int]:
    return [one["child"] for one in said]


@app.task  # type: ignore[untyped-decorator]
def leave(key: str, end: str) -> None:
    """Waits for the file `end`, and leaves two writes behind."""
    redis.rpush(key, "here")
    while not Path(end).exists():
        time.sleep(0.01)
    redis.rpush(key, "a")
    redis.rpush(key, "b")
