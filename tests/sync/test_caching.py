"""redis-py's client-side cache (`CacheConfig`): its connections share it, step by step here, and
through an outage.
"""

from __future__ import annotations

import os
import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from redis.cache import CacheConfig
from redis.exceptions import ResponseError

from resilient_redis import RedisCircuitBreaker
from resilient_redis.seam.replies import HIREDIS
from tests.support.servers import Rig
from tests.sync.conftest import Make, until
from tests.sync.test_processes import in_child

pytestmark = pytest.mark.server
needs_hiredis = pytest.mark.skipif(not HIREDIS, reason="other parsers have no place to stall at")


def _caching(rig: Rig, make: Make, **options: Any) -> tuple[Any, RedisCircuitBreaker]:
    rig.needs("7.4", "what redis-py's cache wants")
    breaker = RedisCircuitBreaker(failure_threshold=3, recovery_timeout=0.1, deadline=0.4)
    options = {"protocol": 3, "cache_config": CacheConfig(), "socket_timeout": 3, **options}
    return make(rig.port, breaker, **options), breaker


def _asks(connection: Any, name: str) -> None:
    connection.send_command("GET", name, keys=[name])


def _gets(connection: Any, name: str) -> Any:
    _asks(connection, name)
    return connection.read_response()


def _in_thread(work: Any, *args: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *args).result()


def _length(connection: Any, name: str) -> Any:
    """As a pipeline asks: redis-py does not look first for what has come."""
    connection.send_packed_command(connection.pack_commands([("STRLEN", name)]))
    return connection.read_response()


def _two_of(client: Any) -> tuple[Any, Any]:
    """Two connections, as the pool gives them out."""
    pool = client.connection_pool
    return pool.get_connection(), pool.get_connection()


def _has_come(connection: Any) -> None:
    """Something has, on the wire."""
    assert select.select([connection._conn._sock], [], [], 3)[0]


class Stalled:
    """hiredis's reader, whose thread comes to a halt between socket and reader."""

    def __init__(self, parser: Any) -> None:
        self._real, parser._reader = parser._reader, self
        self.reached, self.go_on = threading.Event(), threading.Event()

    def feed(self, *data: Any) -> None:
        self.reached.set()
        self.go_on.wait(3)
        self._real.feed(*data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


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


@pytest.mark.parametrize("waits", [False, True], ids=["idle", "waits"])
def test_nothing_is_known_while_open(redis_rig: Rig, make: Make, waits: bool) -> None:
    """Though no connection of this cache has failed, and the server may be there."""
    client, breaker = _caching(redis_rig, make)
    redis_rig.admin.set("known", "old")
    filler, other = _two_of(client)
    assert _gets(filler, "known") == b"old"
    if waits:
        filler.send_command("BLPOP", "list", 10)  # nothing that is cut off before the replay
    breaker.force_open()
    assert _gets(other, "known") is None
    if waits:
        redis_rig.admin.rpush("list", "the end")
        assert filler.read_response() == [b"list", b"the end"]


def test_nothing_of_before_a_new_socket_is_known(redis_rig: Rig, make: Make) -> None:
    client, breaker = _caching(redis_rig, make)
    redis_rig.admin.set("known", "old")
    assert client.get("known") == b"old"
    redis_rig.kill()
    until(lambda: client.get("another") is None and breaker.state != "CLOSED")
    redis_rig.restart()
    redis_rig.admin.set("known", "new")
    until(lambda: not breaker.busy)
    assert _in_thread(client.get, "known") == b"new"


def test_a_neutral_answer_is_not_kept(redis_rig: Rig, make: Make) -> None:
    """Those that are not None: redis-py itself keeps no None."""
    client, breaker = _caching(redis_rig, make)
    redis_rig.admin.hset("hash", "field", "value")
    redis_rig.admin.set("string", "value")
    client.ping()
    redis_rig.kill()
    assert client.hgetall("hash") == {}
    assert client.mget("string", "other") == [None, None]
    assert client.strlen("string") == 0
    redis_rig.restart()
    until(lambda: not breaker.busy)
    assert client.hgetall("hash") == {b"field": b"value"}
    assert client.mget("string", "other") == [b"value", None]
    assert client.strlen("string") == 5


def test_nobody_takes_the_reply_of_another(redis_rig: Rig, make: Make) -> None:
    client, _ = _caching(redis_rig, make)
    redis_rig.admin.mset({"x": "1", "y": "22"})
    first, second = _two_of(client)
    assert _gets(first, "x") == b"1"
    first.send_command("STRLEN", "y", keys=["y"])
    _has_come(first)
    assert _gets(second, "x") == b"1"
    assert first.read_response() == 2
    assert redis_rig.calls("strlen") == 1, "it was asked again"


@needs_hiredis
@pytest.mark.parametrize("health_check", [0, 1e-6])
def test_nobody_reads_on_when_the_holder_begins(
    redis_rig: Rig, make: Make, health_check: float
) -> None:
    client, _ = _caching(redis_rig, make, health_check_interval=health_check)
    admin = redis_rig.admin
    admin.mset({"x": "1", "y": "22"})
    filler, other = _two_of(client)
    assert _gets(filler, "x") == b"1"
    assert _gets(filler, "y") == b"22"
    admin.set("y", "333")
    _has_come(filler)
    connections, pings = redis_rig.connections_received(), redis_rig.calls("ping")
    stalled = Stalled(filler._conn._parser)
    reads = threading.Thread(target=_gets, args=(other, "x"))
    reads.start()
    assert stalled.reached.wait(3)
    begins = threading.Thread(target=_length, args=(filler, "y"))
    begins.start()
    time.sleep(0.05)  # a reply would have come by then
    stalled.go_on.set()
    reads.join()
    begins.join()
    assert redis_rig.connections_received() == connections
    assert redis_rig.calls("strlen") == 1
    assert redis_rig.calls("ping") - pings == bool(health_check)


def test_the_end_of_a_socket_is_found_before_a_command(redis_rig: Rig, make: Make) -> None:
    """Of what is not safe to send twice nobody would know whether it ran."""
    client, _ = _caching(redis_rig, make)
    client.ping()
    redis_rig.kill_clients()
    assert client.incr("n") == 1


def test_what_was_found_is_answered(redis_rig: Rig, make: Make) -> None:
    """Whatever becomes of it meanwhile: nothing was sent."""
    client, _ = _caching(redis_rig, make)
    redis_rig.admin.set("x", "1")
    first, second = _two_of(client)
    assert _gets(first, "x") == b"1"
    _asks(second, "x")
    first.disconnect()
    assert second.read_response() == b"1"


def test_a_reply_that_was_late_is_not_kept_for_long(redis_rig: Rig, make: Make) -> None:
    client, _ = _caching(redis_rig, make)
    redis_rig.admin.set("x", "old")
    first, second = _two_of(client)
    _asks(first, "x")
    _has_come(first)
    redis_rig.admin.set("x", "new")
    assert _gets(second, "x") == b"new"
    assert first.read_response() == b"old"  # it was, when that was asked
    assert _gets(second, "x") == b"new"


@needs_hiredis
def test_what_has_come_and_was_not_looked_at(redis_rig: Rig, make: Make) -> None:
    """The one that has filled the entry waits for something else, and is told by then."""
    client, _ = _caching(redis_rig, make)
    redis_rig.admin.mset({"x": "old", "y": "old"})
    filler, other = _two_of(client)
    assert _gets(filler, "x") == _gets(filler, "y") == b"old"
    stalled = Stalled(filler._conn._parser)
    filler.send_command("BLPOP", "list", 10)
    waiting = threading.Thread(target=filler.read_response)
    waiting.start()
    calls = redis_rig.calls("get")
    assert _gets(other, "x") == _gets(other, "y") == b"old"
    assert redis_rig.calls("get") == calls, "they were not kept"
    redis_rig.admin.set("x", "new")
    assert stalled.reached.wait(3)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_gets, other, "x")
        time.sleep(0.05)  # it would have its answer by then
        stalled.go_on.set()
        assert asked.result() == b"new"
    redis_rig.admin.rpush("list", "the end")
    waiting.join()
    assert _gets(filler, "x") == b"new"


def test_a_connection_that_the_server_closes_vouches_for_nothing(
    redis_rig: Rig, make: Make
) -> None:
    client, _ = _caching(redis_rig, make)
    redis_rig.admin.set("x", "old")
    first, second = _two_of(client)
    assert _gets(first, "x") == b"old"
    redis_rig.kill_clients(_id=str(first._conn.identity.client_id))
    redis_rig.admin.set("x", "new")
    assert _gets(second, "x") == b"new"


def test_an_error_leaves_no_place_behind(redis_rig: Rig, make: Make) -> None:
    """And before 8.1 redis-py takes the reply of a pipeline for that of the command before."""
    client, _ = _caching(redis_rig, make, max_connections=1)
    redis_rig.admin.rpush("list", "1")
    for _ in range(3):
        with pytest.raises(ResponseError, match="wrong kind"):
            client.get("list")
        with client.pipeline(transaction=False) as pipe:
            assert pipe.strlen("other").execute() == [0]


def test_who_was_told_that_there_is_nothing_asks_again(redis_rig: Rig, make: Make) -> None:
    client, breaker = _caching(redis_rig, make)
    redis_rig.admin.set("x", "there")
    client.ping()
    redis_rig.kill()
    assert client.get("x") is None
    redis_rig.restart()
    until(lambda: not breaker.busy)
    assert _in_thread(client.get, "x") == b"there"
    assert client.get("x") == b"there"
    client.set("x", "mine")  # it knows what it writes over
    assert redis_rig.admin.get("x") == "mine"


def test_messages_are_for_their_holder(redis_rig: Rig, make: Make) -> None:
    client, _ = _caching(redis_rig, make)
    redis_rig.admin.set("x", "1")
    filler, other = _two_of(client)
    assert _gets(filler, "x") == b"1"
    filler.send_command("MONITOR")
    assert filler.read_response() == b"OK"
    redis_rig.admin.echo("hello")
    _has_come(filler)
    assert _gets(other, "x") == b"1"
    assert b"hello" in filler.read_response()


def test_a_child_does_not_read_the_sockets_of_its_parent(redis_rig: Rig, make: Make) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    client, _ = _caching(redis_rig, make)
    redis_rig.admin.set("x", "old")
    assert client.get("x") == b"old"
    redis_rig.admin.set("x", "new")
    redis_rig.admin.ping()
    assert in_child(lambda: client.get("x").decode()) == "new"
    assert client.get("x") == b"new"


def test_closing_does_not_wait_for_who_waits(redis_rig: Rig, make: Make) -> None:
    """Of redis-py's locks one is held while a command is sent: here, that is through an outage."""
    client, breaker = _caching(redis_rig, make)
    client.ping()
    redis_rig.kill()
    until(lambda: client.get("x") is None and breaker.state != "CLOSED")
    waiter = threading.Thread(target=client.blpop, args=("x",), kwargs={"timeout": 1})
    waiter.start()
    time.sleep(0.05)  # it is under way by then, or this proves nothing
    began = time.monotonic()
    client.connection_pool.disconnect()
    assert time.monotonic() - began < 0.5
    waiter.join()


def test_the_facade_over_a_client_that_is_in_use(redis_rig: Rig, make: Make) -> None:
    """Its connections are kept when they come back, though a proxy is before them."""
    redis_rig.needs("7.4", "what redis-py's cache wants")
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
