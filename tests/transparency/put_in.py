"""A pytest plugin: redis-py's pools make guarded connections by default.

For redis-py's own tests, with `-p put_in`; it stands alone, since their package is called `tests`,
too. What is put in: the default of every pool, so of `Redis()` and `from_url`, and the public names
of the connection classes. What a test makes by hand from redis-py's inner modules stays redis-py's.
"""

from __future__ import annotations

from functools import wraps
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import redis.asyncio.connection
import redis.connection

import resilient_redis
import resilient_redis.asyncio


class Flavour(NamedTuple):
    """Where the guard goes in."""

    public: ModuleType
    pool: Any
    guarded: dict[type, type]
    breakers: Any  # of connections that are given none


def flavour(public: ModuleType, inner: ModuleType, ours: Any) -> Flavour:
    names = ("Connection", "SSLConnection", "UnixDomainSocketConnection")
    guarded = {getattr(inner, name): getattr(ours, f"Resilient{name}") for name in names}
    return Flavour(public, inner.ConnectionPool, guarded, ours.RedisCircuitBreaker)


FLAVOURS = [
    flavour(redis.asyncio, redis.asyncio.connection, resilient_redis.asyncio),
    flavour(redis, redis.connection, resilient_redis),
]


def put_in(flavour: Flavour) -> None:
    """From now on `flavour` makes guarded connections, where it is asked for redis-py's or none."""
    original = flavour.pool.__init__
    default = original.__defaults__[0]  # of `connection_class`, the first argument

    @wraps(original)
    def init(self: Any, connection_class: Any = default, *args: Any, **kwargs: Any) -> None:
        chosen = flavour.guarded.get(connection_class, connection_class)
        original(self, chosen, *args, **kwargs)

    flavour.pool.__init__ = init
    for stock, guarded in flavour.guarded.items():
        setattr(flavour.public, stock.__name__, guarded)


for each in FLAVOURS:
    put_in(each)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A breaker that a test has opened is not the next test's."""
    for flavour in FLAVOURS:
        flavour.breakers._shared.clear()
        flavour.breakers._holding.clear()
