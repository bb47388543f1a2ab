"""Who is measured of the synchronous flavour; see `subjects.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis

from resilient_redis import (
    CommandRefused,
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientRedis,
)

from .subjects import COUNTER, KEY, PIPELINE, PLAIN, VALUE, NeverRaised

PLAIN_SYNC = "redis-py, sync"
BY_CLASS_SYNC, BY_FACADE_SYNC = "ours, sync, connection class", "ours, sync, façade"
OURS_SYNC = (BY_CLASS_SYNC, BY_FACADE_SYNC)
STOCK = (PLAIN, PLAIN_SYNC)

Call = Callable[[], object]


def stock_of(subject: str) -> str:
    """Whom it is measured beside."""
    return PLAIN_SYNC if subject in OURS_SYNC else PLAIN


@dataclass(frozen=True, slots=True)
class SyncOpened:
    """A subject at work."""

    calls: Mapping[str, Call]
    rejection: type[Exception] = NeverRaised
    breaker: RedisCircuitBreaker | None = None  # ours


SyncSubject = Callable[[str], AbstractContextManager[SyncOpened]]


def calls_of(client: Any) -> dict[str, Call]:
    def pipeline() -> object:
        pipe = client.pipeline(transaction=False)
        for _ in range(PIPELINE):
            pipe.get(KEY)
        return pipe.execute()

    return {
        "get": lambda: client.get(KEY),
        "set": lambda: client.set(KEY, VALUE),
        "incr": lambda: client.incr(COUNTER),
        "pipeline": pipeline,
    }


@contextmanager
def plain(url: str) -> Iterator[SyncOpened]:
    with Redis.from_url(url) as client:
        yield SyncOpened(calls_of(client))


@contextmanager
def by_class(url: str) -> Iterator[SyncOpened]:
    breaker = RedisCircuitBreaker()
    with Redis.from_url(url, connection_class=ResilientConnection, breaker=breaker) as client:
        yield SyncOpened(calls_of(client), CommandRefused, breaker)
    breaker.close()


@contextmanager
def by_facade(url: str) -> Iterator[SyncOpened]:
    with ResilientRedis.from_url(url) as client:
        yield SyncOpened(calls_of(client), CommandRefused, client.breaker)
