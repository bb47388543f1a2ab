"""`GET k · DEL k` in one pipeline while Redis is away must not delete what nobody received."""

import pytest

from tests.contract.helpers import guarded, recovered
from tests.support.flavours import RedisCircuitBreaker
from tests.support.servers import Rig


@pytest.mark.server
async def test_what_was_not_fetched_is_not_cleared(valkey_rig: Rig) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    async with guarded(valkey_rig.port, breaker) as client:
        await client.set("basket", "apples")
        await client.set("cache", "old")
        breaker.force_open()
        pipe = client.pipeline(transaction=False).get("basket").delete("basket")
        assert await pipe.execute() == [None, 1]
        # Cache-aside: what could not be read is deleted all the same.
        assert await client.get("cache") is None
        assert await client.delete("cache") == 1
        breaker.reset()
        await recovered(breaker)
        assert [(letter.command, letter.reason) for letter in breaker.dead_letters] == [
            ("DEL", "premise")
        ]
        assert valkey_rig.admin.get("basket") == "apples"
        assert valkey_rig.admin.get("cache") is None
