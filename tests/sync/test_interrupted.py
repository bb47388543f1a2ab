"""An exception raised into a call that waits, as by a signal handler: Celery's soft time limit, a
worker that is told to end. What a cancelled task is on asyncio.

Only of calls that wait: between any two instructions not even `threading.Condition` is safe.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from resilient_redis import RedisCircuitBreaker
from tests.support.servers import Rig
from tests.sync.conftest import Client, Make, until
from tests.sync.limits import TimeLimit, limited

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here"),
]


CALLS: dict[str, Callable[[Client], Any]] = {
    "GET": lambda c: c.get("k"),
    "SET": lambda c: c.set("k", "v"),
    "INCR": lambda c: c.incr("n"),
    "RPUSH": lambda c: c.rpush("l", "x"),
    "pipeline": lambda c: c.pipeline(transaction=False).set("k", "v").get("k").execute(),
    "transaction": lambda c: c.pipeline().set("k", "v").incr("n").execute(),
}


def sound(client: Client, breaker: RedisCircuitBreaker) -> None:
    """No reply is off by one, no connection is lost to the pool, nobody holds the lock."""
    for n in range(3):
        assert client.echo(f"word-{n}") == b"word-%d" % n
    assert not client.connection_pool._in_use_connections
    done = threading.Thread(target=breaker.wake, daemon=True)
    done.start()
    done.join(2)
    assert not done.is_alive(), "the breaker's lock is held by nobody who is there"


@pytest.mark.parametrize("name", CALLS)
def test_while_it_waits_for_its_reply(valkey_rig: Rig, make: Make, name: str) -> None:
    breaker = RedisCircuitBreaker(deadline=5)
    client = make(valkey_rig.port, breaker)
    client.ping()
    before = valkey_rig.calls("incrby"), valkey_rig.calls("rpush")
    valkey_rig.admin.client_pause(300, all=True)
    began = time.monotonic()
    with pytest.raises(TimeLimit), limited(0.1):
        CALLS[name](client)
    assert time.monotonic() - began < 0.2
    assert (breaker.state, breaker.failures, breaker.pending) == ("CLOSED", 0, 0)
    sound(client, breaker)  # waits for the end of the pause
    # What is not safe twice is never sent again behind the caller's back.
    assert valkey_rig.calls("incrby") - before[0] <= 1
    assert valkey_rig.calls("rpush") - before[1] <= 1


@pytest.mark.parametrize("name", ["GET", "INCR", "pipeline"])
def test_while_it_connects(valkey_rig: Rig, make: Make, name: str) -> None:
    breaker = RedisCircuitBreaker(deadline=5)
    client = make(valkey_rig.port, breaker)
    valkey_rig.freeze()
    with pytest.raises(TimeLimit), limited(0.1):
        CALLS[name](client)
    valkey_rig.thaw()
    assert (breaker.state, breaker.failures) == ("CLOSED", 0)
    sound(client, breaker)


def test_while_it_waits_through_an_outage(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    client = make(valkey_rig.port, breaker)
    client.ping()
    valkey_rig.kill()
    client.get("k")
    until(lambda: breaker.state != "CLOSED")
    began = time.monotonic()
    with pytest.raises(TimeLimit), limited(0.1):
        client.blpop(["l"], timeout=0)
    assert time.monotonic() - began < 0.3
    client.rpush("l", "x")
    valkey_rig.restart()
    until(lambda: not breaker.busy)
    assert client.lpop("l") == b"x"
    sound(client, breaker)


@pytest.mark.parametrize("name", ["GET", "SET", "RPUSH", "INCR"])
def test_while_it_waits_for_the_drain(valkey_rig: Rig, make: Make, name: str) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1, drain_wait=5, probe_timeout=5)
    client = make(valkey_rig.port, breaker)
    client.ping()
    breaker.force_open()
    client.rpush("first", "x")
    valkey_rig.admin.client_pause(300, all=False)  # WRITE: a PING is answered, the replay waits
    breaker.reset()
    until(lambda: breaker.state == "CLOSED")
    with pytest.raises(TimeLimit), limited(0.1):
        CALLS[name](client)
    until(lambda: not breaker.busy)
    assert valkey_rig.admin.lrange("first", 0, -1) == ["x"]
    assert valkey_rig.admin.llen("l") <= 1
    assert breaker.dead_letters == ()
    sound(client, breaker)


def test_a_subscriber_hears_on(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    client = make(valkey_rig.port, breaker)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("a")
    with pytest.raises(TimeLimit), limited(0.1):
        for _ in pubsub.listen():
            pass
    until(lambda: valkey_rig.admin.publish("a", "1") and pubsub.get_message(timeout=0.1))
    pubsub.close()
    sound(client, breaker)


@pytest.mark.parametrize("interrupted", ["by a signal", "closed by himself"])
def test_its_write_does_not_land_late(valkey_rig: Rig, make: Make, interrupted: str) -> None:
    """What is on the wire then may not go over what is written after it: it is fenced off."""
    breaker = RedisCircuitBreaker(deadline=5)
    client = make(valkey_rig.port, breaker)
    client.set("k", "first")
    valkey_rig.freeze()
    connection = client.connection_pool.get_connection()
    connection.send_command("SET", "k", "late")
    if interrupted == "by a signal":
        with pytest.raises(TimeLimit), limited(0.1):
            connection.read_response()
    else:
        connection.disconnect()
    client.connection_pool.release(connection)
    assert len(breaker.suspects) == 1
    valkey_rig.thaw()
    assert client.set("k", "last") is True
    assert not breaker.suspects
    assert client.get("k") == b"last"
