"""A script that runs for too long: the server answers BUSY, also to what we ask for ourselves."""

import asyncio

import pytest
from redis.exceptions import RedisError

from tests.contract.helpers import guarded, recovered
from tests.support.flavours import RedisCircuitBreaker
from tests.support.servers import Rig


@pytest.mark.server
async def test_no_error_of_ours_reaches_a_caller(rig: Rig) -> None:
    """A connection with an unanswered write has died: the next write puts up a fence first, and
    CLIENT LIST is answered with BUSY.
    """
    rig.admin.config_set("busy-reply-threshold", 50)
    breaker = RedisCircuitBreaker(deadline=0.2, recovery_timeout=0.1)
    async with guarded(rig.port, breaker) as client:
        await asyncio.gather(*(client.get("k") for _ in range(4)))
        rig.busy(1.0)
        await asyncio.sleep(0.1)
        breaker.suspect(None)
        breaker.suspect(client.connection_pool._available_connections[0].identity)
        said = await asyncio.gather(
            *(client.rpush("l", n) for n in range(4)), return_exceptions=True
        )
        assert [one for one in said if isinstance(one, Exception)] == [
            one for one in said if isinstance(one, RedisError)
        ]
        await recovered(breaker)
