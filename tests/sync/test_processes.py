"""What a fork gives to the child, and what a process says at its end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
from redis import Redis

from resilient_redis import Queued, RedisCircuitBreaker, ResilientConnection
from tests.support.servers import Rig
from tests.sync.conftest import Make, until

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Python 3.12 and newer warn of every fork of a process with threads: that is what is tried.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


def in_child(work: Any) -> Any:
    """What `work()` returns in a forked child, as JSON has it. One that hangs is ended."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(15)
        try:
            os.write(writer, json.dumps(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child has failed, or hung: {status}"
    return json.loads(said)


def test_what_was_queued_before_is_the_parents_alone(rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(recovery_timeout=0.2)
    client = make(rig.port, breaker)
    client.ping()
    rig.kill()
    receipt = client.rpush("parent", "1")
    client.rpush("parent", "2")

    def child() -> Any:
        begun = (breaker.pending, breaker.state, repr(receipt))
        client.rpush("child", "1")
        until(lambda: not breaker.busy, 10)
        return [*begun, breaker.pending, client.lrange("child", 0, -1) == [b"1"]]

    restart = threading.Timer(0.5, rig.restart)
    restart.start()
    begun, state, said, left, applied = in_child(child)
    restart.join()
    assert begun == 0
    assert state != "CLOSED"
    assert "set aside" in said  # for the child: it is not its own
    assert (left, applied) == (0, True)
    until(lambda: not breaker.busy)
    assert isinstance(receipt, Queued)
    assert receipt.outcome(5) == 1
    assert rig.admin.lrange("parent", 0, -1) == ["1", "2"]
    assert rig.admin.lrange("child", 0, -1) == ["1"]


def test_a_childs_end_does_not_touch_the_parents_sockets(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker()
    client = make(valkey_rig.port, breaker)
    before = client.client_id()

    def child() -> Any:
        mine = client.client_id()
        client.close()
        breaker.close()
        return mine

    assert in_child(child) != before
    assert client.client_id() == before
    assert client.set("k", "v") is True


def test_a_fork_while_other_threads_are_at_it(valkey_rig: Rig, make: Make) -> None:
    """No lock is inherited locked, and no step half done.

    The child takes a pool of its own: redis-py's inherits its lock, which may be locked.
    """
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    client = make(valkey_rig.port, breaker)
    breaker.force_open()
    ending = threading.Event()

    def write() -> None:
        while not ending.is_set():
            client.set("k", "v")
            for _ in range(20):  # a journal is soon full
                client.get("other")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert in_child(lambda: make(valkey_rig.port, breaker).set("child", "v")) is True
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    breaker.reset()
    until(lambda: not breaker.busy)


def test_multiprocessing(valkey_rig: Rig) -> None:
    """Two workers and their parent share the breaker of an endpoint that none was given for."""
    where = f"redis://127.0.0.1:{valkey_rig.port}/0"
    client: Any = Redis.from_url(where, connection_class=ResilientConnection)

    def push(key: str) -> None:
        for number in range(20):
            client.rpush(key, number)

    context: Any = multiprocessing.get_context("fork")
    workers = [context.Process(target=push, args=(f"worker:{n}",)) for n in range(2)]
    client.ping()
    for worker in workers:
        worker.start()
    push("parent")
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    for key in ("parent", "worker:0", "worker:1"):
        assert valkey_rig.admin.lrange(key, 0, -1) == [str(n) for n in range(20)]
    client.close()


ENDING = """
    import logging, sys
    logging.basicConfig(format="%(levelname)s %(message)s")
    from redis import Redis
    from resilient_redis import RedisCircuitBreaker, ResilientConnection
    breaker = RedisCircuitBreaker(name="cache")
    client = Redis.from_url(
        "redis://127.0.0.1:1/0", connection_class=ResilientConnection, breaker=breaker
    )
    for n in range(3):
        client.rpush("l", n)
    if "close" in sys.argv:
        breaker.close()
"""


def lines_at_error(code: str, *arguments: str, warnings: str = "error") -> list[str]:
    """What a process that runs `code` logs at ERROR."""
    done = subprocess.run(
        [sys.executable, "-W", warnings, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("ERROR")]


@pytest.mark.parametrize("close", [[], ["close"]])
def test_a_process_says_what_it_leaves(close: list[str]) -> None:
    """Once, by its number, without keys; and its daemon threads do not keep it alive."""
    (error,) = lines_at_error(ENDING, *close)
    assert "cache" in error
    assert "3 acknowledged writes unapplied" in error


FILL = """
    def fill():
        client.rpush("l", "of the child")
"""
CHILD_OF_MULTIPROCESSING = """
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=fill)
    process.start()
    process.join()
"""
# How billiard's pool, and so Celery's, ends a child.
CHILD_OF_CELERY = """
    import os
    from celery.signals import worker_process_shutdown
    if not os.fork():
        fill()
        worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("child", [CHILD_OF_MULTIPROCESSING, CHILD_OF_CELERY])
def test_a_child_that_ends_without_atexit_says_what_it_leaves(child: str) -> None:
    """Its own, and not what its parent has queued before the fork."""
    if child is CHILD_OF_CELERY:
        pytest.importorskip("celery", reason="pip install 'resilient-redis[apps]'")
    errors = lines_at_error(ENDING + FILL + child, warnings="ignore")
    assert [error.partition("with ")[2] for error in errors] == [
        "1 acknowledged writes unapplied",
        "3 acknowledged writes unapplied",
    ]
