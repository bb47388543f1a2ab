"""redis-py's client-side cache (`CacheConfig`) through an outage."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from redis.cache import CacheConfig

from resilient_redis import RedisCircuitBreaker
from tests.support.servers import Rig
from tests.sync.conftest import Make, until

pytestmark = pytest.mark.server


def _caching(rig: Rig, make: Make) -> tuple[Any, RedisCircuitBreaker]:
    breaker = RedisCircuitBreaker(failure_threshold=3, recovery_timeout=0.1)
    return make(rig.port, breaker, protocol=3, cache_config=CacheConfig()), breaker


def test_through_an_outage(redis_rig: Rig, make: Make) -> None:
    client, breaker = _caching(redis_rig, make)
    admin = redis_rig.admin
    admin.set("known", "old")
    admin.set("unread", "there")
    assert client.get("known") == b"old"
    assert client.get_cache().size == 1
    redis_rig.server.freeze()
    client.get("unread")
    until(lambda: breaker.state != "CLOSED")
    assert client.get("known") is None  # neutral: what is known may be stale by now
    assert client.get("unread") is None
    redis_rig.server.thaw()
    redis_rig.admin.set("known", "new")
    until(lambda: not breaker.busy)
    assert client.get("known") == b"new", "an entry of before the outage"
    assert client.get("unread") == b"there", "a neutral answer was kept"
    # Tracked again: it is kept, and what others change is told.
    assert client.get_cache().size == 2
    redis_rig.admin.set("known", "newer")
    until(lambda: client.get("known") == b"newer")


def test_the_facade_over_a_client_that_is_in_use(redis_rig: Rig, make: Make) -> None:
    """Its connections are kept when they come back, though a proxy is before them."""
    made: Any = Redis
    client = made(port=redis_rig.port, protocol=3, cache_config=CacheConfig())
    pubsub = client.pubsub()
    pubsub.subscribe("channel")
    breaker = RedisCircuitBreaker(client)
    client.get("x")
    received = redis_rig.connections_received()
    for _ in range(3):
        client.get("x")
    assert redis_rig.connections_received() == received
    pubsub.close()
    client.close()
    breaker.close()
