"""Many threads, one breaker: through kills and freezes every write is applied once, in order."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from resilient_redis import CommandRefused, OutcomeUnknown, RedisCircuitBreaker
from resilient_redis.events import Event, StateChanged
from tests.support.servers import Rig
from tests.sync.conftest import Make, until

pytestmark = pytest.mark.server


class Pusher(threading.Thread):
    """Pushes 1, 2, 3 … to a list of its own, and writes down what it was told of each."""

    def __init__(self, client: Any, name: str) -> None:
        super().__init__(name=name)
        self.client = client
        self.ending = threading.Event()
        self.certain: list[int] = []
        self.unknown: set[int] = set()
        self.errors: list[Exception] = []
        self.longest = 0.0

    def run(self) -> None:
        number = 0
        while not self.ending.is_set():
            number += 1
            began = time.monotonic()
            try:
                self.client.rpush(self.name, number)
                self.client.set(f"last:{self.name}", number)
                self.certain.append(number)
            except OutcomeUnknown:
                self.unknown.add(number)
            except Exception as error:  # noqa: BLE001 - none is allowed: looked at by the test
                self.errors.append(error)
            self.longest = max(self.longest, time.monotonic() - began)


@pytest.mark.slow
def test_kills_and_freezes_under_load(rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(failure_threshold=3, recovery_timeout=0.3, deadline=0.5)
    client = make(rig.port, breaker, max_connections=64)
    pushers = [Pusher(client, f"l{n}") for n in range(16)]
    for pusher in pushers:
        pusher.start()
    for round_ in range(4):
        time.sleep(0.4)
        if round_ % 2:
            rig.server.freeze()
            until(lambda: breaker.state != "CLOSED")
            time.sleep(0.2)
            rig.server.thaw()
        else:
            rig.kill()
            until(lambda: breaker.state != "CLOSED")
            time.sleep(0.2)
            rig.restart()
        until(lambda: breaker.state == "CLOSED")
    time.sleep(0.3)
    for pusher in pushers:
        pusher.ending.set()
    for pusher in pushers:
        pusher.join(10)
    until(lambda: not breaker.busy)
    total = 0
    for pusher in pushers:
        assert not pusher.errors
        there = [int(item) for item in rig.admin.lrange(pusher.name, 0, -1)]
        assert there == sorted(set(there)), "twice, or out of order"
        assert set(pusher.certain) <= set(there), "acknowledged, and lost"
        assert set(there) - set(pusher.certain) <= pusher.unknown
        last = int(rig.admin.get(f"last:{pusher.name}"))
        assert last >= pusher.certain[-1], "an older value stands over a newer one"
        assert pusher.longest < breaker.deadline + breaker.drain_wait + 1
        total += len(pusher.certain)
    assert breaker.dead_letters == ()
    print(f"{total} acknowledged pushes of {len(pushers)} threads, 4 faults: 0 wrong")


def test_one_probe_for_all_threads(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(failure_threshold=3, recovery_timeout=0.2, name="one-probe")
    client = make(valkey_rig.port, breaker)
    client.ping()
    valkey_rig.kill()
    threads = [
        threading.Thread(target=lambda: [client.get("k") for _ in range(50)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    probes = breaker.counters["probes"]
    began = time.monotonic()
    time.sleep(0.5)
    assert breaker.counters["probes"] - probes <= (time.monotonic() - began) / 0.05 + 1
    recovering = [t for t in threading.enumerate() if t.name == "one-probe-recovery"]
    assert len(recovering) == 1
    valkey_rig.restart()
    until(lambda: breaker.state == "CLOSED")
    until(lambda: not any(t.name == "one-probe-recovery" for t in threading.enumerate()))


def test_observers_are_told_in_order_and_may_use_the_client(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker(failure_threshold=3, recovery_timeout=0.1)
    client = make(valkey_rig.port, breaker)
    eras: list[int] = []
    values: list[object] = []

    def observe(event: Event) -> None:
        if isinstance(event, StateChanged):
            eras.append(event.era)
            values.append(client.get("k"))  # nobody holds the lock now

    breaker.add_observer(observe)
    client.set("k", "v")
    for _ in range(3):
        valkey_rig.kill()
        client.get("other")
        until(lambda: breaker.state != "CLOSED")
        valkey_rig.restart()
        until(lambda: not breaker.busy)
    until(lambda: len(eras) == breaker.era)
    assert eras == sorted(eras)
    assert breaker.snapshot().state == "CLOSED"


def test_a_refusal_names_the_command(valkey_rig: Rig, make: Make) -> None:
    breaker = RedisCircuitBreaker()
    client = make(valkey_rig.port, breaker)
    breaker.force_open()
    with pytest.raises(CommandRefused, match="INCRBY"):
        client.incr("n")
    breaker.reset()


def test_a_pool_that_is_closed_all_the_time_trips_nothing(valkey_rig: Rig, make: Make) -> None:
    """By its owner, while six threads use it: what each was told is true."""
    breaker = RedisCircuitBreaker(failure_threshold=1)
    opened: list[Event] = []
    breaker.add_observer(opened.append)
    client = make(valkey_rig.port, breaker)
    errors: list[Exception] = []
    ending = threading.Event()
    counts: dict[str, tuple[int, int]] = {}

    def work(name: str) -> None:
        certain = unknown = 0
        while not ending.is_set():
            try:
                client.incr(name)
                certain += 1
                assert client.pipeline().set("a", 1).get("a").execute() == [True, b"1"]
                assert client.get("never") is None
            except OutcomeUnknown:
                unknown += 1
            except Exception as error:  # noqa: BLE001 - looked at below
                errors.append(error)
        counts[name] = certain, unknown

    threads = [threading.Thread(target=work, args=(f"n{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        time.sleep(0.02)
        client.connection_pool.disconnect()
    ending.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert errors == []
    assert opened == []
    for name, (certain, unknown) in counts.items():
        assert certain <= int(valkey_rig.admin.get(name)) <= certain + unknown
