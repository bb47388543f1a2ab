"""Celery, prefork: who gives the tasks is guarded, broker and results; the worker is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Rig

from .queues import Producer
from .running import Process, needs
from .users import DEADLINE

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.filterwarnings("ignore")  # Celery's and kombu's own
def test_celery(valkey_rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("celery")
    monkeypatch.setenv("REDIS_URL", valkey_rig.url)
    monkeypatch.setenv("GUARDED", "yes")
    from kombu.exceptions import OperationalError

    from tests.apps.celery_app import SOCKET_TIMEOUT, app, work

    monkeypatch.delenv("GUARDED")
    done = tmp_path / "done"
    given: dict[int, Any] = {}

    def enqueue(number: int) -> None:
        given[number] = work.delay(number)

    # Kombu tries twice, and then opens another channel, which it asks for a PING.
    producer = Producer(
        enqueue,
        done,
        may_raise=(OperationalError,),
        settled=lambda: all(given[number].ready() for number in producer.acknowledged),
        limit=SOCKET_TIMEOUT + 2 * DEADLINE,
    )
    arguments = ("celery", "-A", "tests.apps.celery_app", "worker", "-c", "2", "-l", "warning")
    with Process(arguments, valkey_rig.url, DONE=str(done)):
        producer.live_through(valkey_rig)
        for number in producer.acknowledged:
            assert given[number].get(timeout=5) == 2 * number
    app.close()
