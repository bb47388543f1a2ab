"""`WRITE_COMMANDS`: the method names that are queued by default, and no others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import resilient_redis
from resilient_redis import WRITE_COMMANDS, CommandRefused
from resilient_redis.core.command import Kind
from tests.breadth.calls import EXCLUDED, Sample, methods
from tests.breadth.calls import samples as all_samples
from tests.contract.helpers import outcome
from tests.support.flavours import Redis, RedisCircuitBreaker, ResilientConnection, ResilientRedis
from tests.surface.helpers import Store, aside, quick

URL = "redis://127.0.0.1:1/0"
# By hand, from the contract (DESIGN, section 1): what comes or goes changes what is promised.
BY_HAND = """
    set setex psetex mset msetex delete unlink expire expireat pexpire pexpireat persist bitop
    hset hmset hsetex hdel hexpire hexpireat hpexpire hpexpireat hpersist
    lpush rpush lrem ltrim
    sadd srem sdiffstore sinterstore sunionstore
    zadd zrem zremrangebylex zremrangebyrank zremrangebyscore
    zdiffstore zinterstore zunionstore zrangestore
    geoadd geosearchstore pfadd pfmerge
    xadd xdel xdelex xtrim xack xackdel
"""


@pytest.fixture(scope="module")
def samples() -> dict[str, Sample]:
    """One call of each method that sends a command."""
    return {found.call.method: found for found in all_samples()}


def test_it_is_a_frozenset_of_lower_case_names() -> None:
    assert type(WRITE_COMMANDS) is frozenset
    assert WRITE_COMMANDS is resilient_redis.WRITE_COMMANDS
    assert all(name == name.lower() and name.isidentifier() for name in WRITE_COMMANDS)
    assert len(WRITE_COMMANDS) > 40


def test_the_names_are_those_of_the_contract() -> None:
    # An older redis-py has not got all of them.
    known = {name for name in BY_HAND.split() if hasattr(Redis, name)}
    assert known == WRITE_COMMANDS
    assert {"set", "hset", "xadd", "delete", "expire"} <= WRITE_COMMANDS  # DESIGN's examples


def test_redis_py_has_them_all() -> None:
    missing = [name for name in WRITE_COMMANDS if not callable(getattr(Redis, name, None))]
    assert missing == []
    assert set(methods()) >= WRITE_COMMANDS


# -- the sweep: what each method sends, and whether the catalog calls that a write


def test_the_sweep_reaches_what_it_is_to_judge(samples: dict[str, Sample]) -> None:
    assert set(samples) >= WRITE_COMMANDS
    assert set(samples) >= set(methods()) - set(EXCLUDED)
    kinds = Counter(found.shape.kind for found in samples.values())
    for kind, at_least in ((Kind.READ, 70), (Kind.TAKE, 12), (Kind.COUNTER, 10), (Kind.WRITE, 45)):
        assert kinds[kind] >= at_least, kind


def test_a_write_is_in_it_and_nothing_else_is(samples: dict[str, Sample]) -> None:
    writes = {name for name, found in samples.items() if found.shape.kind is Kind.WRITE}
    assert writes == WRITE_COMMANDS


def test_no_method_sends_more_than_one_command(samples: dict[str, Sample]) -> None:
    """`execute` decides on the first: a second one would pass it by."""
    assert {name: found.sent for name, found in samples.items() if found.sent != 1} == {}


# -- each of them through each door


async def left_by(client: Any, breaker: RedisCircuitBreaker, found: Sample) -> tuple[Any, int]:
    """What the method answers while open, and how many writes that leaves in the journal."""
    before = breaker.pending
    answer = await outcome(aside(found.call.on, client))
    return answer, breaker.pending - before


def doors() -> dict[str, tuple[Any, RedisCircuitBreaker]]:
    by_facade = ResilientRedis.from_url(URL)
    breaker = RedisCircuitBreaker()
    by_class = Redis.from_url(URL, connection_class=ResilientConnection, breaker=breaker)
    everything = type("Everything", (Store,), dict.fromkeys(methods(), Store.frobnicate))
    over_an_object = ResilientRedis(quick(everything()))
    return {
        "facade": (by_facade, by_facade.breaker),
        "connection": (by_class, breaker),
        "execute": (over_an_object, over_an_object.breaker),
    }


@pytest.mark.asyncio_only("the catalog is the same for both")
@pytest.mark.parametrize("door", ["facade", "connection", "execute"])
async def test_each_of_them_is_queued_and_no_other_is(
    door: str, samples: dict[str, Sample]
) -> None:
    client, breaker = doors()[door]
    breaker.force_open()
    wrong = {}
    for name, found in samples.items():
        if found.shape.blocking:
            continue  # these wait before they find nothing
        answer, queued = await left_by(client, breaker, found)
        if name in WRITE_COMMANDS:
            good = queued == 1 and not isinstance(answer, Exception)
        else:
            refused = found.shape.kind in (Kind.COUNTER, Kind.REFUSED)
            good = queued == 0 and isinstance(answer, CommandRefused) == refused
        if not good:
            wrong[str(found.call)] = (answer, queued)
    assert wrong == {}
    assert breaker.pending == len(WRITE_COMMANDS)
    breaker.outbox.journal.confirm(10**6)
    await breaker.aclose()
    if door != "execute":
        await client.aclose()
