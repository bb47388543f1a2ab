"""Sentinel among threads. What both flavours share is tested on asyncio; here stands what waits,
and that it holds for `redis.Redis` at all.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError, ReadOnlyError, TimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from tenacity import wait_fixed

from resilient_redis import (
    CommandRefused,
    OutcomeUnknown,
    RedisCircuitBreaker,
    ResilientRedis,
    ResilientSentinelManagedConnection,
)
from resilient_redis.flow.sentinels import Question
from tests.support.sentinels import SERVICE, SyncScriptedSentinel
from tests.support.servers import Rig

pytestmark = pytest.mark.server
DEADLINE = 0.4
GUARDED: Any = ResilientSentinelManagedConnection
BOTH = {b"old", b"new"}


def quick(**options: Any) -> RedisCircuitBreaker:
    """Opens at the first failure, looks at the server every 10 ms."""
    given = {"failure_threshold": 1, "recovery_wait": wait_fixed(0.01), "deadline": DEADLINE}
    return RedisCircuitBreaker(**{**given, **options})


def until(what: Callable[[], object], timeout: float = 5.0) -> None:
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def raised(call: Callable[..., Any], *args: Any) -> Exception | None:
    try:
        call(*args)
    except Exception as error:  # noqa: BLE001 - it is the result
        return error
    return None


class Service:
    """A service of two servers, the breaker of its master, and threads that use it."""

    def __init__(self, old: Rig, new: Rig, stack: ExitStack) -> None:
        self.old, self.new = old, new
        self.sentinel: Any = SyncScriptedSentinel(old.port, (old.port, new.port))
        self.breaker = quick()
        self._stack = stack
        self.pool = stack.enter_context(ThreadPoolExecutor(16))
        stack.callback(self.breaker.close)

    def keep(self, client: Any) -> Any:
        self._stack.callback(client.close)
        return client

    def master(self, sentinel: Any = None, **options: Any) -> Any:
        given = {"connection_class": GUARDED, "breaker": self.breaker, **options}
        return self.keep((sentinel or self.sentinel).master_for(SERVICE, **given))

    def replicas(self, sentinel: Any = None, **options: Any) -> tuple[Any, RedisCircuitBreaker]:
        breaker = quick(**options)
        self._stack.callback(breaker.close)
        client = (sentinel or self.sentinel).slave_for(
            SERVICE, connection_class=GUARDED, breaker=breaker
        )
        return self.keep(client), breaker

    def later(self, call: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
        """The call in another thread, which waits for its reply by now."""
        found: Future[Any] = self.pool.submit(call, *args, **options)
        until(lambda: any(c._sent is not None for c in list(self.breaker.connections)))
        return found

    def recovered(self) -> None:
        until(lambda: not self.breaker.busy, 10.0)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until(lambda: set(threading.enumerate()) <= before)
    gc.collect()  # a socket that was left open is told here, and not in the next test


@pytest.fixture
def service(old: Rig, new: Rig) -> Iterator[Service]:
    with ExitStack() as stack:
        yield Service(old, new, stack)


# -- the failover ----------------------------------------------------------------------------------


def derived() -> type[Any]:
    return type("Derived", (redis.sentinel.SentinelManagedConnection,), {})


WAYS: dict[str, Callable[[Service], Any]] = {
    "class": lambda s: s.master(),
    "bound class": lambda s: s.keep(
        s.sentinel.master_for(SERVICE, connection_class=GUARDED.bound_to(s.breaker))
    ),
    "redis_class": lambda s: s.keep(
        s.sentinel.master_for(SERVICE, redis_class=ResilientRedis, breaker=s.breaker)
    ),
    "facade over a client": lambda s: facade(s, s.sentinel.master_for(SERVICE)),
    "facade over a derived class": lambda s: facade(
        s, s.sentinel.master_for(SERVICE, connection_class=derived())
    ),
    "facade over a pool": lambda s: s.keep(
        ResilientRedis.from_pool(SentinelConnectionPool(SERVICE, s.sentinel), breaker=s.breaker)  # type: ignore[no-untyped-call]  # redis-py
    ),
}


def facade(service: Service, client: Any) -> Any:
    service.breaker.take_client(client)
    return service.keep(ResilientRedis(service.breaker))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_is_queued_goes_to_the_master_of_now(
    service: Service, old: Rig, new: Rig, way: Callable[[Service], Any]
) -> None:
    client = way(service)
    assert client.rpush("l", 0) == 1
    new.admin.rpush("l", 0)  # replicated
    old.kill()
    assert client.get("k") is None
    receipts = [client.rpush("l", n) for n in range(1, 50)]
    assert isinstance(raised(client.incr, "n"), CommandRefused)
    service.sentinel.master = None  # as long as there is none, it is asked again and again
    asked = service.sentinel.asked
    until(lambda: service.sentinel.asked > asked + 2)
    assert service.breaker.pending == 49
    service.sentinel.master = new.port
    service.recovered()
    assert client.lrange("l", 0, -1) == [b"%d" % n for n in range(50)]
    assert new.admin.lrange("l", 0, -1) == [str(n) for n in range(50)]
    assert receipts[-1].result() == 50


def test_nothing_goes_to_the_old_master_any_more(service: Service, old: Rig, new: Rig) -> None:
    """It lives, and would answer; connections of two clients are open to it, one is waited at."""
    old.admin.set("where", "old")
    new.admin.set("where", "new")
    client, other = service.master(), service.master(db=1)
    waiting = service.later(client.xread, {"s": "$"}, block=5000)
    popping = service.pool.submit(raised, client.blpop, "queue", 5)
    until(lambda: sum(c._sent is not None for c in list(service.breaker.connections)) == 2)
    assert client.get("where") == b"old"
    other.get("where")
    before = old.calls("get") + old.calls("set")
    service.sentinel.master = new.port
    client.connection_pool.disconnect(inuse_connections=False)
    assert client.get("where") == b"new"  # it hears of it, and all do
    assert other.set("k", "v") is True
    assert old.calls("get") + old.calls("set") == before
    assert isinstance(popping.result(5), OutcomeUnknown)
    until(lambda: any(c._sent is not None for c in list(service.breaker.connections)))
    new.admin.xadd("s", {"f": "v"})
    assert waiting.result(5) is not None
    assert service.breaker.outages == 0


def test_who_waits_at_a_frozen_old_master_is_called_away(
    service: Service, old: Rig, new: Rig
) -> None:
    new.admin.set("where", "new")
    client, other = service.master(), service.master(db=1)
    client.get("where")
    old.server.freeze()
    began = time.monotonic()
    waiting = service.later(client.get, "where")
    service.sentinel.master = new.port
    assert other.get("where") is None
    assert waiting.result(5) == b"new"
    assert time.monotonic() - began < DEADLINE / 2
    assert service.breaker.outages == 0


def test_a_failover_between_the_last_look_and_the_write(
    service: Service, old: Rig, new: Rig
) -> None:
    """Another thread reaches the new master when this one is about to write to the old one."""
    client = service.master()
    client.get("k")
    connection: Any = next(iter(service.breaker.connections))
    track = connection._track

    def track_late(calls: Any) -> None:
        connection._track = track
        service.sentinel.master = new.port
        with service.breaker.lock.held:
            connection._service.reached(("127.0.0.1", new.port), service.breaker.clock())
        track(calls)

    connection._track = track_late
    assert client.set("k", "v") is True
    assert new.admin.get("k") == "v"
    assert old.admin.get("k") is None
    assert service.breaker.outages == 0


def test_a_demoted_master(service: Service, old: Rig, new: Rig) -> None:
    """READONLY: the command did not run. It goes to the new master, whatever it is."""
    client = service.master()
    client.get("k")
    old.read_only()
    service.sentinel.master = new.port
    assert client.incr("n") == 1
    assert new.admin.get("n") == "1"
    old.writable()
    service.sentinel.master = old.port
    client.connection_pool.disconnect()
    client.get("k")
    old.read_only()
    service.sentinel.master = new.port
    pipe = client.pipeline(transaction=False)
    assert pipe.incr("n").rpush("l", 1, 2).get("n").lpop("l").execute() == [2, 2, b"2", b"1"]
    assert service.breaker.outages == 0


def test_writes_are_held_while_the_named_master_takes_none(
    service: Service, old: Rig, new: Rig
) -> None:
    """And no longer: each attempt asks Sentinel."""
    client = service.master()
    client.get("k")
    old.read_only()  # and Sentinel has not heard of it
    for n in range(5):
        client.rpush("l", n)
    assert service.breaker.snapshot().writes_held == "READONLY"
    service.sentinel.master = new.port
    service.recovered()
    assert new.admin.lrange("l", 0, -1) == [str(n) for n in range(5)]
    assert client.lrange("l", 0, -1) == [b"%d" % n for n in range(5)]


# -- replicas --------------------------------------------------------------------------------------


def test_one_replica_is_away_and_then_the_other(service: Service, old: Rig, new: Rig) -> None:
    for name, rig in (("old", old), ("new", new)):
        rig.admin.set("where", name)
        rig.admin.sadd("both", "old", "new")
    client, breaker = service.replicas(failure_threshold=5)
    at_once = [service.pool.submit(client.get, "where") for _ in range(6)]
    assert {one.result(5) for one in at_once} <= BOTH
    assert {client.get("where") for _ in range(1)} <= BOTH
    old.server.freeze()
    began = time.monotonic()
    at_once = [service.pool.submit(client.smembers, "both") for _ in range(6)]
    assert [one.result(5) for one in at_once] == [BOTH] * 6
    assert service.replicas()[0].get("where") == b"new"
    assert service.replicas()[0].get("where") == b"new"  # one of the two began with the frozen one
    assert time.monotonic() - began < 3 * DEADLINE
    assert breaker.outages == 0
    assert "neutral" not in breaker.snapshot().counters
    new.read_only()
    assert isinstance(raised(client.set, "k", "v"), ReadOnlyError)  # the caller's mistake
    new.kill()
    until(lambda: client.get("where") is None and breaker.state == "OPEN")
    assert isinstance(raised(client.set, "k", "v"), CommandRefused)
    assert breaker.pending == 0
    old.server.thaw()
    until(lambda: not breaker.busy)
    assert client.get("where") == b"old"


# -- sentinels that are away -----------------------------------------------------------------------


class OneByOne(Sentinel):
    """Asks like redis-py's: one after the other, each with all its retries."""

    def __init__(self, ports: list[int], master: int) -> None:
        # Longer than any caller waits, and shorter than redis-py's ten, which end by themselves.
        retry = Retry(ConstantBackoff(0.5), 1)
        addresses = [("127.0.0.1", port) for port in ports]
        super().__init__(addresses, sentinel_kwargs={"retry": retry})  # type: ignore[no-untyped-call]  # redis-py
        self._master = master

    def discover_master(self, service_name: str) -> tuple[str, int]:
        for number, client in enumerate(self.sentinels):
            try:
                client.execute_command("PING")  # type: ignore[no-untyped-call]  # redis-py
            except (ConnectionError, TimeoutError):
                continue
            self.sentinels[0], self.sentinels[number] = client, self.sentinels[0]
            return "127.0.0.1", self._master
        raise MasterNotFoundError(service_name)

    def discover_slaves(self, service_name: str) -> list[tuple[str, int]]:
        return [self.discover_master(service_name)]


@pytest.fixture
def one_is_away(away: int, old: Rig, new: Rig) -> Iterator[OneByOne]:
    sentinel = OneByOne([away, new.port], old.port)  # `new` stands for one that is there
    clients = list(sentinel.sentinels)
    yield sentinel
    for client in clients:
        client.connection_pool.disconnect()  # whoever still waits there
        client.close()


def test_a_sentinel_that_is_away_delays_nobody_for_long(
    one_is_away: OneByOne, service: Service, old: Rig, new: Rig
) -> None:
    old.admin.set("k", "v")
    replicas, breaker = service.replicas(one_is_away)
    away_first = list(one_is_away.sentinels)
    for client in (service.master(one_is_away), replicas):
        one_is_away.sentinels[:] = away_first
        began = time.monotonic()
        at_once = [service.pool.submit(client.get, "k") for _ in range(8)]
        assert [one.result(5) for one in at_once] == [b"v"] * 8
        assert time.monotonic() - began < DEADLINE
        first = one_is_away.sentinels[0]
        assert first.connection_pool.connection_kwargs["port"] == new.port
    assert service.breaker.outages == breaker.outages == 0


def test_the_time_for_sentinel_is_the_callers(service: Service) -> None:
    """What asking has taken is not given to the server once more."""
    given = []
    told = service.sentinel.discover_master

    class Noted(GUARDED):  # type: ignore[misc]  # a class that is known at run time
        def _connect(self) -> Any:
            given.append(self.socket_connect_timeout)
            return super()._connect()

    def slowly(name: str) -> Any:
        time.sleep(DEADLINE / 8)
        return told(name)

    service.sentinel.discover_master = slowly
    assert service.master(connection_class=Noted).get("k") is None
    assert given[0] <= DEADLINE * 7 / 8
    assert service.breaker.outages == 0


def test_no_sentinel_is_lost(service: Service, old: Rig) -> None:
    """redis-py swaps two by their numbers, in a list that another thread has put in order."""
    one, two, three = (redis.Redis(port=port) for port in (1, 2, 3))
    service.sentinel.sentinels = [one, two, three]
    told = service.sentinel.discover_master

    def swap(name: str) -> Any:
        service.sentinel.sentinels[:] = [two, two, three]
        return told(name)

    service.sentinel.discover_master = swap
    assert service.master().get("k") is None
    assert service.sentinel.sentinels == [two, three, one]


def test_what_the_parent_asked_is_nothing_to_the_child(service: Service) -> None:
    """A fork's child has no such thread: nobody there would ever be answered."""
    client = service.master()
    client.get("k")
    template: Any = service.breaker.template
    place = template.place
    place.unanswered = Question(service.breaker, [], lambda: "never told")
    until(place.unanswered.over)
    # As a fork leaves it.
    place.unanswered._asked_by._over = False
    client.connection_pool.disconnect()
    began = time.monotonic()
    assert client.get("k") is None
    assert service.breaker.outages == 0
    assert time.monotonic() - began < DEADLINE / 4


def test_no_sentinel_is_there(one_is_away: OneByOne, service: Service, old: Rig) -> None:
    """Open connections go on; a new one is an outage. No attempt leaves a thread of its own."""
    service.breaker.probe_timeout = 0.2
    gone, there = one_is_away.sentinels
    one_is_away.sentinels[:] = [there]
    client = service.master(one_is_away)
    assert client.set("k", "v") is True
    one_is_away.sentinels[:] = [gone]
    assert client.get("k") == b"v"
    client.connection_pool.disconnect()
    assert client.get("other") is None
    assert client.set("k", "new") is True
    assert service.breaker.state != "CLOSED"
    until(lambda: service.breaker.snapshot().counters.get("probes", 0) > 3)
    asking = [t for t in threading.enumerate() if t.name.endswith("-sentinels")]
    assert len(asking) <= 2
    one_is_away.sentinels[:] = [there]
    service.recovered()
    assert old.admin.get("k") == "new"
