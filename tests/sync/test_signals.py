"""A call that a signal's handler ends by an exception, as Celery's soft time limit does."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from resilient_redis import RedisCircuitBreaker
from tests.support.servers import Rig
from tests.sync.conftest import Make, until
from tests.sync.limits import TimeLimit, limited

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no setitimer"),
]


def _limited(seconds: float, call: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(TimeLimit), limited(seconds):
        call()
    assert time.monotonic() - began < seconds + 0.5


def test_a_blocking_command(valkey_rig: Rig, make: Make) -> None:
    """No late reply is left on the connection, and it is given back."""
    breaker = RedisCircuitBreaker()
    client = make(valkey_rig.port, breaker, max_connections=1)
    for number in range(3):
        _limited(0.2, lambda: client.blpop("nothing", 30))
        until(lambda: not valkey_rig.admin.info("clients")["blocked_clients"])
        valkey_rig.admin.rpush("nothing", number)  # nobody may take it any more
        assert client.echo("mine") == b"mine"
        assert client.lpop("nothing") == str(number).encode()
    assert (breaker.state, breaker.failures) == ("CLOSED", 0)


def test_a_server_that_hangs(valkey_rig: Rig, make: Make) -> None:
    """It opens the breaker all the same, and nothing blocks the recovery."""
    breaker = RedisCircuitBreaker(deadline=1.0, recovery_timeout=0.2)
    client = make(valkey_rig.port, breaker, max_connections=1)
    client.ping()
    valkey_rig.server.freeze()
    _limited(0.3, lambda: client.incr("n"))
    _limited(0.3, lambda: client.get("k"))
    until(lambda: breaker.state != "CLOSED")
    receipt = client.rpush("l", "1")
    valkey_rig.server.thaw()
    until(lambda: not breaker.busy)
    assert receipt.outcome(5) == 1
    assert client.echo("mine") == b"mine"
    assert client.get("n") in (None, b"1")


def test_while_it_waits_for_the_recovery(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    client = make(valkey_rig.port, breaker, max_connections=1)
    client.ping()
    valkey_rig.kill()
    client.get("k")
    until(lambda: breaker.state != "CLOSED")
    _limited(0.2, lambda: client.blpop("nothing", 30))
    valkey_rig.restart()
    until(lambda: not breaker.busy)
    assert client.echo("mine") == b"mine"
