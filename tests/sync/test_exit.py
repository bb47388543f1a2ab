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


@pytest.mark.server
def test_a_command_when_no_thread_can_begin(valkey_rig: Rig) -> None:
    """Celery's results unsubscribe in their `__del__`."""
    arguments = [sys.executable, "-c", SCRIPT, valkey_rig.url]
    ended = subprocess.run(arguments, timeout=10, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["True", "OPEN"], ended.stderr
