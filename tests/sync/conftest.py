"""What every test is also held to: it leaves no thread behind, and nothing warns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import ConnectionPool, Redis

from resilient_redis import RedisCircuitBreaker, ResilientConnection

Client = Any  # redis.Redis, of which much is untyped
Make = Callable[..., Client]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 3
    while (left := set(threading.enumerate()) - before) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left, f"threads were left behind: {left}"


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes guarded clients; they and their breakers are closed at the end."""
    made: list[tuple[Client, RedisCircuitBreaker]] = []

    def client(port: int, breaker: RedisCircuitBreaker, **options: Any) -> Client:
        pool = ConnectionPool(
            connection_class=ResilientConnection,
            breaker=breaker,
            host="127.0.0.1",
            port=port,
            **options,
        )
        made.append((Redis.from_pool(pool), breaker))
        return made[-1][0]

    yield client
    for client_made, breaker in made:
        client_made.close()
        breaker.close()


def until(what: Callable[[], object], timeout: float = 5.0) -> None:
    """Waits for a condition that nobody announces."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)
