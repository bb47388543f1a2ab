"""The breakers of those who give none."""

from __future__ import annotations

import weakref
from typing import Any

from ..base import BreakerBase
from .breaker import RedisCircuitBreaker

#: Where no breaker is given: one per endpoint and user, kept while a connection uses it.
_shared: weakref.WeakValueDictionary[tuple[Any, ...], RedisCircuitBreaker] = (
    weakref.WeakValueDictionary()
)
#: Those of them that hold anything: nobody else may have a reference, if an event loop has ended.
_holding: set[BreakerBase] = set()


def shared_breaker(endpoint: tuple[Any, ...]) -> RedisCircuitBreaker:
    """The breaker of `endpoint` that all connections share which were given none."""
    breaker = _shared.get(endpoint)
    if breaker is None:
        breaker = _shared[endpoint] = RedisCircuitBreaker(name=str(endpoint[0]))
        breaker.kept = _holding
    return breaker
