"""What the table calls safe twice, held against real servers: run twice, it leaves the same."""

from __future__ import annotations

import random

import pytest
from redis import Redis

from resilient_redis.core.catalog import shape_of
from tests.unit.test_catalog_samples import REDIS_ONLY, WRITES, Sample, label, samples
from tests.unit.test_catalog_servers import FAR, rewritten

pytestmark = pytest.mark.server


def content(client: Redis, key: str) -> object:
    kind = client.type(key)
    value: object = None
    if kind == b"string":
        value = client.get(key)
    elif kind == b"hash":
        fields = sorted(client.hgetall(key).items())
        value = [(*pair, client.hpexpiretime(key, pair[0])) for pair in fields]
    elif kind == b"list":
        value = client.lrange(key, 0, -1)
    elif kind == b"set":
        value = sorted(client.smembers(key))
    elif kind == b"zset":
        value = client.zrange(key, 0, -1, withscores=True)
    elif kind == b"stream":
        value = (client.xrange(key), client.xpending(key, "g")["pending"])
    return kind, value, client.pexpiretime(key)


def populate(client: Redis, rnd: random.Random) -> None:
    """The keys that the samples use, each of a type by chance."""
    client.flushall()
    for key in "kj":
        kind = rnd.choice(["string", "hash", "list", "set", "zset", "stream"])
        if kind == "string":
            client.set(key, "old")
        elif kind == "hash":
            client.hset(key, mapping={"f": "old", "g": "old", "h": "old"})
        elif kind == "list":
            client.rpush(key, *"eabecdefghie")
        elif kind == "set":
            client.sadd(key, *"mnop")
        elif kind == "zset":
            client.zadd(key, dict(zip("mnopa", (0, 1, 2, 7, 9), strict=True)))
        else:
            for n in range(1, 9):
                client.xadd(key, {"f": "v"}, id=f"{n}-1")
            client.xgroup_create(key, "g", "0")
            client.xreadgroup("g", "c", {key: ">"})


def absolute(sample: Sample) -> Sample:
    return rewritten(sample, FAR) if shape_of(sample).ttl else sample


QUEUED = [*samples(WRITES), *samples(REDIS_ONLY)]
SAFE = [absolute(sample) for sample in QUEUED if shape_of(sample).safe_twice]


# An expiry that found no key, and a time to live that a field did not have
FOUND_NOTHING = (0, [-2], [-2, -2])


def applied(client: Redis, run: list[Sample]) -> list[Sample]:
    """Sends `run`; those that were in effect refused, or were expiries of nothing, are left out."""
    pipe = client.pipeline(transaction=False)
    for command in run:
        pipe.execute_command(*command)  # type: ignore[no-untyped-call]
    replies = pipe.execute(raise_on_error=False)
    return [
        command
        for command, reply in zip(run, replies, strict=True)
        if not isinstance(reply, Exception)
        and not (b"EXPIRE" in command[0] and reply in FOUND_NOTHING)
    ]


@pytest.mark.parametrize("seed", range(100))
def test_a_run_of_safe_writes_sent_twice_leaves_the_same(client: Redis, seed: int) -> None:
    rnd = random.Random(seed)
    populate(client, rnd)
    run = applied(client, rnd.choices(SAFE, k=rnd.randint(1, 12)))
    once = [content(client, key) for key in "kj"]
    applied(client, run)
    assert [content(client, key) for key in "kj"] == once, [label(command) for command in run]


def test_an_approximate_trim_goes_on_where_it_stopped(client: Redis) -> None:
    """Why XTRIM with `~` is not safe twice: one run removes LIMIT entries, another one more."""
    pipe = client.pipeline()
    for n in range(1, 1001):
        pipe.xadd("k", {"f": "v"}, id=f"{n}-1")
    pipe.execute()
    trim = (b"XTRIM", b"k", b"MAXLEN", b"~", b"10", b"LIMIT", b"200")
    assert not shape_of(trim).safe_twice
    client.execute_command(*trim)  # type: ignore[no-untyped-call]
    once = client.xlen("k")
    client.execute_command(*trim)  # type: ignore[no-untyped-call]
    assert client.xlen("k") < once < 1000
    unlimited = (*trim[:-1], b"0")
    assert shape_of(unlimited).safe_twice
    client.execute_command(*unlimited)  # type: ignore[no-untyped-call]
    once = client.xlen("k")
    client.execute_command(*unlimited)  # type: ignore[no-untyped-call]
    assert client.xlen("k") == once
