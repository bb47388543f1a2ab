"""Sockets that block: what a silence means, and what it must not mean."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
from redis._parsers import _HiredisParser, _RESP2Parser, _RESP3Parser
from redis.exceptions import TimeoutError

from resilient_redis import OutcomeUnknown, RedisCircuitBreaker
from resilient_redis.seam.replies import HIREDIS
from tests.support.servers import Rig
from tests.sync.conftest import Make, until

pytestmark = pytest.mark.server


def test_a_frozen_server_costs_a_deadline(rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(deadline=0.4, recovery_timeout=0.2)
    client = make(rig.port, breaker)
    client.set("k", "v")
    rig.server.freeze()
    began = time.monotonic()
    assert client.get("k") is None
    assert 0.3 < time.monotonic() - began < 0.8
    assert breaker.state != "CLOSED"
    began = time.monotonic()
    assert client.set("k", "w") is True
    assert time.monotonic() - began < 0.1
    rig.server.thaw()
    until(lambda: not breaker.busy)
    assert breaker.snapshot().counters["premise"] == 1  # read as empty, and it is not
    assert client.get("k") == b"v"


def test_a_slow_command_on_a_healthy_server_trips_nothing(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(deadline=0.2)
    client = make(valkey_rig.port, breaker)
    client.rpush("ready", "x")
    assert client.blpop(["nothing"], timeout=1) is None
    pushed = threading.Timer(0.7, lambda: valkey_rig.admin.rpush("list", "x"))
    pushed.start()
    assert client.blpop(["list"], timeout=0) == (b"list", b"x")
    pushed.join()
    assert (breaker.state, breaker.failures) == ("CLOSED", 0)


@pytest.mark.parametrize("timeout", [0.15, 0.35, 0.7])
def test_redis_pys_own_timeout_holds(valkey_rig: Rig, make: Make, timeout: float) -> None:
    """A write that is not safe twice waits as long as redis-py does, whatever the slices are."""
    breaker = RedisCircuitBreaker(deadline=0.4, failure_threshold=100)
    client = make(valkey_rig.port, breaker, socket_timeout=timeout)
    client.ping()
    valkey_rig.admin.client_pause(3000, all=False)  # WRITE: a PING is answered
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        client.incr("n")
    assert timeout * 0.9 < time.monotonic() - began < timeout + 0.3
    valkey_rig.admin.client_unpause()


def test_without_a_timeout_of_redis_pys_it_waits_on(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(deadline=0.2)
    client = make(valkey_rig.port, breaker, socket_timeout=None)
    client.ping()
    valkey_rig.admin.client_pause(1000, all=False)
    began = time.monotonic()
    assert client.incr("n") == 1
    assert time.monotonic() - began > 0.8
    assert breaker.state == "CLOSED"


def test_the_timeouts_that_were_given_can_be_read(valkey_rig: Rig, make: Make) -> None:
    client = make(
        valkey_rig.port, RedisCircuitBreaker(), socket_timeout=7, socket_connect_timeout=3
    )
    connection = client.connection_pool.get_connection()
    assert (connection.socket_timeout, connection.socket_connect_timeout) == (7, 3)
    connection.socket_timeout = 5
    assert connection.socket_timeout == 5
    client.connection_pool.release(connection)


def test_monitor_waits_longer_than_a_slice(valkey_rig: Rig, make: Make) -> None:
    client = make(valkey_rig.port, RedisCircuitBreaker(deadline=0.2), socket_timeout=2)
    with client.monitor() as monitor:
        timer = threading.Timer(0.6, lambda: valkey_rig.admin.set("seen", "1"))
        timer.start()
        assert "seen" in monitor.next_command()["command"].lower()
        timer.join()
    client.set("k", "v")
    assert client.get("k") == b"v"


def test_a_reply_that_was_looked_at_is_read(valkey_rig: Rig, make: Make) -> None:
    """Before redis-py 8 `can_read` takes it out of the reader, at the second time."""
    client = make(valkey_rig.port, RedisCircuitBreaker(), socket_timeout=1)
    connection = client.connection_pool.get_connection()
    for value in (1, 2):
        connection.send_command("INCR", "n")
        assert connection.can_read(1)
        assert connection.can_read(0)
        assert connection.read_response() == value
    client.connection_pool.release(connection)


def test_a_value_larger_than_any_buffer(rig: Rig, make: Make) -> None:
    client = make(rig.port, RedisCircuitBreaker(deadline=0.5))
    value = b"x" * 30_000_000
    assert client.set("big", value) is True
    assert client.get("big") == value


def test_of_half_a_command_nothing_has_run(valkey_rig: Rig, make: Make) -> None:
    """The server is frozen in the middle of a large write: it is queued, and applied once."""
    breaker = RedisCircuitBreaker(deadline=0.3, recovery_timeout=0.2, failure_threshold=2)
    client = make(valkey_rig.port, breaker, socket_timeout=1)
    client.ping()
    valkey_rig.server.freeze()
    receipt = client.rpush("l", b"x" * 30_000_000)
    assert receipt == "OK"  # a receipt: no part of it can have run
    valkey_rig.server.thaw()
    until(lambda: not breaker.busy, 15)
    assert valkey_rig.admin.llen("l") == 1


def test_a_subscriber_waits_through_an_outage(rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    client = make(rig.port, breaker)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("a")
    heard: list[object] = []
    pubsub.subscribe(b=lambda message: heard.append(message["data"]))
    until(lambda: pubsub.get_message(timeout=0.1) is None)
    for n in (1, 2):
        rig.kill()
        client.get("k")
        until(lambda: breaker.state != "CLOSED")
        rig.restart()
        until(lambda: not breaker.busy)
        deadline = time.monotonic() + 5
        while len(heard) < n and time.monotonic() < deadline:
            rig.admin.publish("b", str(n))
            pubsub.get_message(timeout=0.1)
        assert len(heard) >= n
        heard[:] = heard[:n]
    pubsub.close()


def test_run_in_thread(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    client = make(valkey_rig.port, breaker)
    heard: list[bytes] = []
    pubsub = client.pubsub()
    pubsub.subscribe(a=lambda message: heard.append(message["data"]))
    thread = pubsub.run_in_thread(sleep_time=0.05, daemon=True)
    try:
        until(lambda: valkey_rig.admin.publish("a", "1") and b"1" in heard)
        valkey_rig.kill()
        client.get("k")
        until(lambda: breaker.state != "CLOSED")
        valkey_rig.restart()
        until(lambda: valkey_rig.admin.publish("a", "2") and b"2" in heard)
    finally:
        thread.stop()
        thread.join(5)
    assert not thread.is_alive()


def test_the_end_of_redis_pys_timeout_is_its_own_error(valkey_rig: Rig, make: Make) -> None:
    client = make(valkey_rig.port, RedisCircuitBreaker(deadline=5), socket_timeout=0.3)
    with pytest.raises(TimeoutError):
        client.blpop(["nothing"], timeout=0)  # as in redis-py: a longer block than the timeout


@pytest.mark.parametrize(
    "parser", [_RESP2Parser, _RESP3Parser, *((_HiredisParser,) if HIREDIS else ())]
)
def test_a_socket_that_fails_at_the_send(valkey_rig: Rig, make: Make, parser: Any) -> None:
    """Nothing was handed over: the command is sent anew, whichever parser finds it out."""
    client = make(valkey_rig.port, RedisCircuitBreaker(), parser_class=parser)
    client.set("k", "v")
    connection = client.connection_pool.get_connection()
    connection._sock.shutdown(socket.SHUT_WR)
    connection.send_command("GET", "k")
    assert connection.read_response() == b"v"
    client.connection_pool.release(connection)
