"""Over any object, among threads: what is not the same code as on asyncio."""

from __future__ import annotations

from typing import Any

import fakeredis
import pytest
import redis

from resilient_redis import CommandRefused, RedisCircuitBreaker, ResilientRedis


@pytest.mark.parametrize("watching", [False, True])
def test_a_pipeline_after_the_outage_goes_over_nothing(watching: bool) -> None:
    server = fakeredis.FakeServer()
    there = fakeredis.FakeRedis(server=server)
    there.set("k", "precious")
    breaker = RedisCircuitBreaker(there, failure_threshold=1)
    client: Any = ResilientRedis(breaker)
    server.connected = False
    with pytest.raises(redis.ConnectionError):
        client.get("k")
    assert client.get("k") is None
    server.connected = True
    breaker.reset()
    client.get("other")
    assert breaker.state == "CLOSED"
    with client.pipeline() as pipe:
        if watching:
            pipe.watch("other")
            with pytest.raises(CommandRefused):
                pipe.set("k", "default")
            assert pipe.get("k") == b"precious"
            assert pipe.set("k", "on purpose") is True
        else:
            with pytest.raises(CommandRefused):
                pipe.set("k", "default").execute()
            pipe.set("k", "default")
            pipe.reset()
            assert pipe.get("k").set("other", 1).execute() == [b"precious", True]
    breaker.close()
    there.close()
