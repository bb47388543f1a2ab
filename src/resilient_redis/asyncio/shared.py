"""The breakers of those who give none."""

from __future__ import annotations

import weakref
from typing import Any

from .breaker import RedisCircuitBreaker

#: Where no breaker is given: one per endpoint and user, kept while a connection uses it.
_shared: weakref.WeakValueDictionary[tuple[Any, ...], RedisCircuitBreaker] = (
    weakref.WeakValueDictionary()
)


def shared_breaker(endpoint: tuple[Any, ...]) -> RedisCircuitBreaker:
    """The breaker of `endpoint` that all connections share which were given none."""
    breaker = _shared.get(endpoint)
    if breaker is None:
        breaker = _shared[endpoint] = RedisCircuitBreaker(name=str(endpoint[0]))
    return breaker
