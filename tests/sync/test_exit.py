"""The end of the interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.servers import Rig

# A cycle of module globals goes last, when no thread can begin any more.
SCRIPT = """
import sys
from redis import Redis
from resilient_redis import RedisCircuitBreaker, ResilientConnection

class Late:
    def __init__(self):
        self.breaker = RedisCircuitBreaker(failure_threshold=1)
        self.redis = Redis.from_url(
            sys.argv[1], connection_class=ResilientConnection, breaker=self.breaker
        )
        self.redis.set("k", "v")

    def __del__(self, finalizing=sys.is_finalizing):
        try:
            self.redis.get("k")
        except ImportError:
            pass  # what redis-py imports late can be imported no more
        print(finalizing(), self.breaker.state, flush=True)

late = Late()
late.itself = late
Redis.from_url(sys.argv[1]).shutdown(nosave=True)
"""

OVER_AN_OBJECT = """
import sys
from time import monotonic, sleep
from redis.exceptions import ConnectionError
from resilient_redis import RedisCircuitBreaker, ResilientRedis

class Store:
    down, data = True, {}

    def get(self, key):
        if self.down:
            raise ConnectionError("it is away")
        return self.data.get(key)

    def set(self, key, value):
        if self.down:
            raise ConnectionError("it is away")
        self.data[key] = value
        return True

class Late:
    def __init__(self):
        self.store = Store()
        self.breaker = RedisCircuitBreaker(self.store, failure_threshold=1, recovery_timeout=0.01)
        self.redis = ResilientRedis(self.breaker)
        try:
            self.redis.set("k", "v")
        except ConnectionError as error:
            assert error.queued

    def __del__(self, finalizing=sys.is_finalizing, now=monotonic, wait=sleep, how=sys.argv[1]):
        self.store.down = False
        if how == "closed":
            self.breaker.reset()
        wait(0.02)
        began = now()
        said = self.redis.get("other"), self.redis.set("k", "w"), self.redis.get("k")
        quick = now() - began < 0.5
        print(finalizing(), *said, self.breaker.flush_re_sync_queue(), quick, flush=True)

late = Late()
late.itself = late
"""


@pytest.mark.parametrize("how", ["open", "closed"])
def test_a_call_of_an_object_when_no_replay_can_begin(how: str) -> None:
    """It is answered as while open, at once; how much is left is said as always."""
    arguments = [sys.executable, "-c", OVER_AN_OBJECT, how]
    ended = subprocess.run(arguments, timeout=10, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["True", "None", "OK", "None", "0", "True"], ended.stderr
    assert "the process ends with 1 acknowledged writes unapplied" in ended.stderr


@pytest.mark.server
def test_a_command_when_no_thread_can_begin(valkey_rig: Rig) -> None:
    """Celery's results unsubscribe in their `__del__`."""
    arguments = [sys.executable, "-c", SCRIPT, valkey_rig.url]
    ended = subprocess.run(arguments, timeout=10, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["True", "OPEN"], ended.stderr
