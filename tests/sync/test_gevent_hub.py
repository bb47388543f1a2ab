"""Monkey-patched by gevent: everything is a greenlet, and nothing blocks the hub."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap

import pytest

from tests.support.servers import Rig

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        importlib.util.find_spec("gevent") is None, reason="gevent is not installed here"
    ),
]

OUTAGE = """
    from gevent import monkey
    monkey.patch_all()

    import json, os, signal, sys, threading, time
    import gevent
    from redis import ConnectionPool, Redis
    from resilient_redis import RedisCircuitBreaker, ResilientConnection

    port, pid = map(int, sys.argv[1:])
    breaker = RedisCircuitBreaker(failure_threshold=3, recovery_timeout=0.2, deadline=2.0)
    client = Redis.from_pool(ConnectionPool(
        connection_class=ResilientConnection, breaker=breaker, host="127.0.0.1", port=port,
    ))
    written, longest = [0] * 50, 0.0
    ending = False

    def tick():
        global longest
        while not ending:
            before = time.monotonic()
            gevent.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    def write(number):
        while not ending:
            client.set(f"k{number}", written[number] + 1)
            written[number] += 1
            gevent.sleep(0.02)

    def until(what):
        end = time.monotonic() + 15
        while not what():
            assert time.monotonic() < end, breaker
            gevent.sleep(0.005)

    writers = [gevent.spawn(write, number) for number in range(50)]
    until(lambda: min(written) > 2)
    ticker = gevent.spawn(tick)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: breaker.state != "CLOSED")
    before = list(written)
    until(lambda: all(now > then for now, then in zip(written, before)))
    recovery = breaker._recovery.thread.native_id
    os.kill(pid, signal.SIGCONT)
    until(lambda: breaker.state == "CLOSED")
    gevent.sleep(0.2)
    ending = True
    gevent.joinall([*writers, ticker], raise_error=True)
    until(lambda: not breaker.busy)
    there = [int(client.get(f"k{number}")) for number in range(50)]
    client.close()
    print(json.dumps({
        "longest": longest,
        "written": written,
        "there": there,
        "greenlet": recovery == threading.main_thread().native_id,
    }))
"""


def test_an_outage_under_greenlets(valkey_rig: Rig) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(OUTAGE),
            f"{valkey_rig.port}",
            f"{valkey_rig.server.pid}",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    print(f"{sum(said['written'])} writes, the hub waited {said['longest']:.3f} s at most")
    # Who waits at a socket does so for a second at a time: that would be a hub that waits.
    assert said["longest"] < 0.7
    assert said["greenlet"], "recovery runs in a thread of the system"
    assert said["there"] == said["written"]
    assert "Traceback" not in done.stderr
