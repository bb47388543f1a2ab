"""The same workloads among threads; see `healthy.py`.

python healthy_sync.py stock|ours|planted URL
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from redis import Connection, Redis

from tests.cost.healthy import PIPELINE, ROUNDS, VALUE, WORKLOADS


class Planted(Connection):
    """Stock with a careless guard on top: a lock taken twice a command. The gate must see it."""

    lock: ClassVar[Any] = threading.RLock()
    watchers: ClassVar[dict[int, int]] = {}

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        with self.lock:
            self.watchers[id(self)] = len(args)
        super().send_command(*args, **kwargs)  # type: ignore[no-untyped-call]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        with self.lock:
            self.watchers[id(self)] = 0
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        finally:
            with self.lock:
                self.watchers.pop(id(self), None)


def client(kind: str, url: str) -> Any:
    if kind == "stock":
        return Redis.from_url(url)
    if kind == "planted":
        return Redis.from_url(url, connection_class=Planted)
    from resilient_redis import RedisCircuitBreaker, ResilientConnection

    # Everything is fifty times slower under valgrind: the deadline must not notice.
    breaker = RedisCircuitBreaker(deadline=60.0)
    return Redis.from_url(url, connection_class=ResilientConnection, breaker=breaker)


def main(kind: str, url: str) -> None:
    redis = client(kind, url)

    def get() -> None:
        assert redis.get("key") == VALUE.encode()

    def set_() -> None:
        assert redis.set("key", VALUE) is True

    def pipeline() -> None:
        pipe = redis.pipeline(transaction=False)
        for _ in range(PIPELINE):
            pipe.get("key")
        assert len(pipe.execute()) == PIPELINE

    set_()
    for name, run in {"get": get, "set": set_, "pipeline": pipeline}.items():
        number, warm_up = WORKLOADS[name]
        repeat(run, warm_up)
        for _ in range(ROUNDS):
            gc.collect()
            gc.disable()
            os.getppid()
            repeat(run, number)
            os.getppid()
            gc.enable()
    redis.close()


def repeat(run: Callable[[], None], number: int) -> None:
    for _ in range(number):
        run()


if __name__ == "__main__":
    main(*sys.argv[1:])
