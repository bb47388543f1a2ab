"""gevent, where the breaker is older than the patch: gunicorn's `--preload`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.servers import Rig

pytestmark = pytest.mark.server

SCRIPT = """
import os, sys
from redis import Redis
from resilient_redis import RedisCircuitBreaker, ResilientConnection

breaker = RedisCircuitBreaker(failure_threshold=2)
redis = Redis.from_url(sys.argv[1], connection_class=ResilientConnection, breaker=breaker)
redis.set("k", "v")
Redis.from_url(sys.argv[1]).shutdown(nosave=True)
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
from gevent import joinall, monkey, spawn
monkey.patch_all()

def work(n):
    for m in range(20):
        redis.set(f"{n}:{m}", "v")
        redis.get("k")

greenlets = [spawn(work, n) for n in range(20)]
joinall(greenlets, raise_error=True)
print(breaker.pending, flush=True)
os._exit(0)
"""


def test_many_greenlets_meet_an_outage(valkey_rig: Rig) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    arguments = [sys.executable, "-c", SCRIPT, valkey_rig.url]
    ended = subprocess.run(arguments, timeout=20, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "400"), ended.stderr
