"""What Redis holds, in a form that can be compared with what it held another time."""

from __future__ import annotations

from typing import Any

import redis

from tests.support.servers import Rig

DAY_MS = 86_400_000


def content(rig: Rig) -> dict[bytes, Any]:
    """Every key with its value and its expiry: one that is soon is rounded to 100 s."""
    with redis.Redis(port=rig.port) as client:
        reader = _Reader(client)
        return {key: reader.key(key) for key in sorted(client.keys("*"))}


class _Reader:
    def __init__(self, client: Any) -> None:  # redis.Redis, of which much is untyped
        self._client = client
        seconds, microseconds = client.time()
        self._now = seconds * 1000 + microseconds // 1000

    def key(self, key: bytes) -> Any:
        return self._value(key), self._rounded(self._client.pexpiretime(key))

    def _rounded(self, deadline: int) -> Any:
        left = deadline - self._now
        return f"in {round(left / 100_000)}00 s" if 0 < left < DAY_MS else deadline

    def _value(self, key: bytes) -> Any:
        client, kind = self._client, self._client.type(key)
        if key.startswith(b"p:"):
            return client.pfcount(key)  # its bytes hold a cache, too
        if kind == b"string":
            return client.get(key)
        if kind == b"list":
            return client.lrange(key, 0, -1)
        if kind == b"set":
            return client.smembers(key)
        if kind == b"zset":
            return client.zrange(key, 0, -1, withscores=True)
        if kind == b"hash":
            fields = client.hgetall(key)
            times = client.execute_command("HPEXPIRETIME", key, "FIELDS", len(fields), *fields)
            return fields, [self._rounded(time) for time in times]
        assert kind == b"stream", kind
        if key == b"x:b":  # the server made its IDs, of the moment
            return [fields for _, fields in client.xrange(key)]
        return client.xrange(key), client.xpending(key, "g")
