"""RQ: who gives the jobs is guarded. The worker is not: an error of Redis at some places ends it,
and its supervisor starts another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from resilient_redis import RedisCircuitBreaker, ResilientConnection
from tests.support.servers import Rig

from .queues import Producer
from .running import Process, needs, until

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_rq(valkey_rig: Rig, tmp_path: Path) -> None:
    needs("rq")
    from rq import Queue

    from tests.apps.rq_tasks import work

    done = tmp_path / "done"
    breaker = RedisCircuitBreaker()
    client: Any = Redis.from_url(
        valkey_rig.url, connection_class=ResilientConnection, breaker=breaker
    )
    queue = Queue(connection=client)

    def run_worker() -> None:
        until(lambda: not breaker.busy)
        arguments = ("rq.cli", "worker", "--burst", "--url", valkey_rig.url)
        with Process(arguments, valkey_rig.url, DONE=str(done)) as worker:
            worker.ended()

    producer = Producer(lambda number: queue.enqueue(work, number), done, work=run_worker)
    producer.live_through(valkey_rig)
    client.close()
    breaker.close()
