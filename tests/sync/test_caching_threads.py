"""redis-py's client-side cache among threads, through kills and freezes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from redis.cache import CacheConfig

from resilient_redis import RedisCircuitBreaker, track
from tests.support.servers import Rig
from tests.sync.conftest import Make, until

pytestmark = pytest.mark.server

DEADLINE = 0.5
# What a reader finds is a number that only ever grows: {} is nothing there, [None, None] neither.
READS: list[Callable[[Any, str], Any]] = [
    lambda client, name: client.get(f"{name}:string"),
    lambda client, name: client.hgetall(f"{name}:hash").get(b"n"),
    lambda client, name: max(client.mget(f"{name}:string", f"{name}:other"), key=bool),
]


def put(client: Any, name: str, number: int) -> None:
    client.set(f"{name}:string", number)
    client.hset(f"{name}:hash", "n", number)
    client.set(f"{name}:other", 0)


def known(rig: Rig, name: str) -> int:
    """What all of it is, or was a moment before."""
    return min(int(rig.admin.get(f"{name}:string")), int(rig.admin.hget(f"{name}:hash", "n")))


class Truth:
    """What every reader must find by now."""

    def __init__(self) -> None:
        self.floor: dict[str, int] = {}
        self.steady = 1  # goes up with each fault, and is 0 during one


class Worker(threading.Thread):
    """Does the same thing again and again, and writes down what is not allowed."""

    def __init__(self, client: Any, truth: Truth, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.client = client
        self.truth = truth
        self.ending = threading.Event()
        self.wrong: list[str] = []
        self.turns = 0
        self.longest = 0.0

    def run(self) -> None:
        while not self.ending.is_set():
            self.turns += 1
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001 - none is allowed: looked at by the test
                self.wrong.append(repr(error))

    def turn(self) -> None:
        raise NotImplementedError

    def timed(self, work: Callable[..., Any], *args: Any) -> Any:
        began = time.monotonic()
        try:
            return work(*args)
        finally:
            self.longest = max(self.longest, time.monotonic() - began)


class Reader(Worker):
    def turn(self) -> None:
        truth = self.truth
        for name in list(truth.floor):
            if name.startswith("resting") and not truth.steady:
                continue  # else what is kept of it gives way to a neutral answer
            for kind, read in enumerate(READS):
                steady, floor = truth.steady, truth.floor[name]
                with track() as told:
                    found = self.timed(read, self.client, name)
                if not told.neutral and int(found or -1) < floor:
                    self.wrong.append(f"{name}, {kind}: {found} and not {floor}")
                if told.neutral and steady and steady == truth.steady:
                    self.wrong.append(f"{name}, {kind}: neutral, and nothing has happened")


class Writer(Worker):
    """Its own numbers, with pauses in which what is read can be kept."""

    last = 0

    def turn(self) -> None:
        self.last += 1
        self.timed(put, self.client, self.name, self.last)
        self.ending.wait(0.02)


def outage(rig: Rig, breaker: RedisCircuitBreaker, fault: int) -> None:
    frozen = fault % 2 == 0
    rig.freeze() if frozen else rig.kill()
    until(lambda: breaker.state != "CLOSED")
    time.sleep(0.1)
    rig.thaw() if frozen else rig.restart()


@pytest.mark.slow
def test_kills_and_freezes(redis_rig: Rig, make: Make) -> None:
    """No error, nothing stale, no neutral answer after it, and nobody waits for long."""
    breaker = RedisCircuitBreaker(failure_threshold=3, recovery_timeout=0.1, deadline=DEADLINE)
    redis_rig.needs("7.4", "what redis-py's cache wants")
    client = make(redis_rig.port, breaker, protocol=3, cache_config=CacheConfig())
    truth = Truth()
    # What others write, whom nobody here knows of but the server.
    others = [f"{kind}{n}" for kind in ("read-always", "resting") for n in range(2)]
    writers = [Writer(client, truth, f"writer{n}") for n in range(4)]
    readers = [Reader(client, truth, f"reader{n}") for n in range(6)]
    workers = [*writers, *readers]
    for name in others:
        put(redis_rig.admin, name, 1)
    for writer in writers:
        put(client, writer.name, 0)
    truth.floor = dict.fromkeys([*others, *(writer.name for writer in writers)], 0)
    for worker in workers:
        worker.start()
    try:
        for fault in range(1, 5):
            time.sleep(0.3)
            truth.steady = 0
            outage(redis_rig, breaker, fault)
            for name in others:
                put(redis_rig.admin, name, fault + 1)
            until(lambda: not breaker.busy)
            # Its answer comes behind what it tells the others of the writes before.
            redis_rig.admin.ping()
            for name in truth.floor:
                truth.floor[name] = known(redis_rig, name)
            truth.steady = fault + 1
        time.sleep(0.3)
    finally:
        for worker in workers:
            worker.ending.set()
        for worker in workers:
            worker.join(DEADLINE + 1)
    assert not [worker.name for worker in workers if worker.is_alive()]
    wrong = Counter(wrong for worker in workers for wrong in worker.wrong)
    assert not wrong, wrong.most_common(20)
    reads = sum(3 * len(truth.floor) * reader.turns for reader in readers)
    asked = sum(redis_rig.calls(command) for command in ("get", "hgetall", "mget"))
    longest = max(worker.longest for worker in workers)
    assert longest < DEADLINE + 1
    print(f"{reads} reads; since the last restart {asked} were asked; the longest: {longest:.2f} s")
    for name in others:
        assert [int(read(client, name)) for read in READS] == [5, 5, 5]
    for writer in writers:
        assert [int(read(client, writer.name)) for read in READS] == [writer.last] * 3
