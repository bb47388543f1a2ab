"""A Celery application. Celery takes a class for its transport and its results, not for their
connections; those of the worker are Celery's own (`GUARDED` is set for who gives the tasks).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.backends.redis import RedisBackend
from kombu.transport import redis as kombu_redis

from resilient_redis import ResilientConnection

URL = os.environ["REDIS_URL"]
SOCKET_TIMEOUT = 1.0  # s


class Channel(kombu_redis.Channel):
    connection_class: Any = ResilientConnection


class Transport(kombu_redis.Transport):
    Channel = Channel


class Backend(RedisBackend):  # type: ignore[misc]  # Celery ships no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connparams["connection_class"] = ResilientConnection


app = Celery("work", broker=URL, backend=URL)
if "GUARDED" in os.environ:
    app.conf.broker_transport = f"{__name__}:Transport"
    app.conf.result_backend = f"{__name__}:Backend+{URL}"
    # A task that was sent to a frozen server is not sent again, and waits so long for the answer.
    app.conf.broker_transport_options = {"socket_timeout": SOCKET_TIMEOUT}


@app.task  # type: ignore[untyped-decorator]
def work(number: int) -> int:
    with Path(os.environ["DONE"]).open("a") as file:
        file.write(f"{number}\n")
    return 2 * number
