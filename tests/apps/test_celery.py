"""Celery, prefork: who gives tasks, the tasks and their results, all with the same two settings."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command, Kind
from resilient_redis.core.rules import apply_rules
from tests.support.servers import Rig

from .queues import Producer
from .running import Process, needs, until
from .users import KILLED, LIMIT

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Celery's and kombu's own
]


@pytest.fixture
def tasks(valkey_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    needs("celery")
    monkeypatch.setenv("REDIS_URL", valkey_rig.url)
    from tests.apps import celery_app

    yield celery_app
    celery_app.app.close()


def worker(rig: Rig, *options: str, **env: str) -> Process:
    quick = ("--without-mingle",)  # it waits a second for others
    arguments = ("celery", "-A", "tests.apps.celery_app", "worker", "-l", "warning", *quick)
    return Process((*arguments, *options), rig.url, **env)


def test_who_gives_tasks(tasks: Any, valkey_rig: Rig, tmp_path: Path) -> None:
    """No `delay` raises, and each task is done. The one that is on its way when Redis freezes is
    given twice: kombu repeats what has failed, whatever the reason.
    """
    from celery import chord

    done = tmp_path / "done"
    given: dict[int, Any] = {}

    def enqueue(number: int) -> None:
        task = tasks.work.s(number)
        # Every fifth is a chord: its size is to be there before its parts.
        given[number] = task.delay() if number % 5 else chord([task])(tasks.total.s())

    producer = Producer(
        enqueue,
        done,
        settled=lambda: all(given[number].ready() for number in producer.acknowledged),
        repeats=True,
    )
    with worker(valkey_rig, "-c", "2", DONE=str(done)):
        producer.live_through(valkey_rig)
        for number in producer.acknowledged:
            assert given[number].get(timeout=5) == 2 * number


def test_a_task_that_must_not_be_given_twice(tasks: Any, valkey_rig: Rig) -> None:
    """`retry=False` is Celery's way to say so. And no task goes nowhere because its exchange looks
    as if it had no queues.
    """
    longest = 0.0

    def give(number: int, **options: Any) -> Any:
        nonlocal longest
        began = time.monotonic()
        try:
            return tasks.work.apply_async((number,), retry=False, **options).id
        finally:
            longest = max(longest, time.monotonic() - began)

    def given(queue: str) -> list[str]:
        return [json.loads(m)["headers"]["id"] for m in valkey_rig.admin.lrange(queue, 0, -1)]

    from kombu.exceptions import OperationalError

    acknowledged = [give(1)]
    by_topic = [give(1, queue=tasks.BY_TOPIC)]
    valkey_rig.freeze()
    with pytest.raises(OperationalError, match="applied once or not at all"):
        give(2)
    acknowledged.append(give(3))
    with pytest.raises(OperationalError, match="PING refused"):
        tasks.app.control.revoke("a task")
    by_topic.append(give(4, queue=tasks.BY_TOPIC))
    valkey_rig.thaw()
    until(lambda: set(acknowledged) <= set(given("celery")))
    until(lambda: set(by_topic) == set(given(tasks.BY_TOPIC.name)))
    assert len(given("celery")) == len(set(given("celery"))) <= 3
    assert longest < LIMIT


def test_who_waits_for_a_result_that_comes_unheard(tasks: Any, valkey_rig: Rig) -> None:
    """It is stored while its subscriber is away. Who waits finds it then, and is idle before."""
    result = tasks.app.AsyncResult("unheard")
    breaker = tasks.app.backend.guard.breaker
    meta = {"task_id": result.id, "status": "SUCCESS", "result": 5, "traceback": None}
    used: list[float] = []

    def wait() -> None:
        before = time.thread_time()
        assert result.get(timeout=10) == 5
        used.append(time.thread_time() - before)

    asking = threading.Thread(target=wait)
    asking.start()
    until(lambda: valkey_rig.admin.pubsub_numsub("celery-task-meta-unheard")[0][1])
    breaker.force_open()
    valkey_rig.admin.set("celery-task-meta-unheard", json.dumps({**meta, "children": []}))
    time.sleep(0.5)
    assert asking.is_alive()
    breaker.reset()
    asking.join(10)
    assert used
    assert used[0] < 0.05, "it asks again and again"


@pytest.mark.parametrize(
    "url, said",
    [
        ("sentinel://localhost:26379", "not for sentinel"),
        ("rediss://localhost:6379", "ssl_cert_reqs"),
    ],
)
def test_what_it_is_not_for(
    tasks: Any, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    """Nothing is left unguarded, or without TLS, and does not say so."""
    from resilient_redis.contrib.celery import Backend

    monkeypatch.setenv("CELERY_BROKER_URL", url)
    with pytest.raises(ValueError, match=said):
        tasks.app.connection_for_write().channel()
    with pytest.raises(ValueError, match=said):
        Backend(app=tasks.app, url=url)


@pytest.mark.parametrize(
    "line, kind, max_age",
    [
        ("LPUSH celery task", Kind.WRITE, 86400.0),
        ("SETEX celery-task-meta-1 86400 done", Kind.WRITE, 86400.0),
        ("PUBLISH celery-task-meta-1 done", Kind.WRITE, 86400.0),
        ("GET celery-task-meta-1", Kind.REFUSED, None),
        ("INCR counter", Kind.COUNTER, None),
    ],
)
def test_what_is_queued_is_kept_for_a_day(line: str, kind: Kind, max_age: float | None) -> None:
    needs("celery")
    from resilient_redis.contrib.celery import POLICY

    args = tuple(line.encode().split())
    rules = [rule.compiled for rule in POLICY.rules]
    ((_, shape, _),) = apply_rules(rules, [Command(args, shape_of(args))])
    assert (shape.kind, shape.max_age) == (kind, max_age)


def test_tasks_and_their_results(tasks: Any, valkey_rig: Rig, tmp_path: Path) -> None:
    """What a task writes with a client that was made before the fork, and what it returns, is taken
    and there afterwards, even where the child ends with its task; what is lost is logged. Tasks
    that the worker had been given and had not begun are done.
    """
    from celery import chord

    admin, end, leaves = valkey_rig.admin, tmp_path / "end", tmp_path / "leaves"
    keys = ("first", "second")

    def more() -> None:
        """Each task goes on writing."""
        had = [admin.llen(key) for key in keys]
        until(
            lambda: all(admin.llen(k) > n + 5 for k, n in zip(keys, had, strict=True)),
            seconds=20,
            of="a write of each task",
        )

    done = tmp_path / "done"
    done.touch()
    options = ("-c", "3", "--max-tasks-per-child", "1")
    with worker(valkey_rig, *options, DONE=str(done)) as process:
        both = chord([tasks.write.s(key, str(end)) for key in keys])(tasks.children.s())
        given = both.parent.results
        tasks.leave.delay("left", str(leaves))
        until(lambda: admin.llen("left"), seconds=20, of="the task that leaves something behind")
        waiting = [tasks.work.delay(number) for number in (1, 2)]  # in the worker: no child is free
        until(lambda: admin.hlen("unacked") == 2, of="the delivery")
        more()
        valkey_rig.freeze()
        time.sleep(LIMIT + 0.5)
        valkey_rig.thaw()
        more()
        valkey_rig.kill()
        last: list[int] = []
        asking = threading.Thread(target=lambda: last.extend(both.get(timeout=30)))
        asking.start()
        time.sleep(KILLED)
        end.touch()
        time.sleep(KILLED)
        assert {result.state for result in (*given, both)} == {"PENDING"}
        valkey_rig.restart()
        said = [result.get(timeout=20) for result in given]
        asking.join(30)
        assert [result.get(timeout=20) for result in waiting] == [2, 4]
        assert sorted(done.read_text().split()) == ["1", "2"]
        valkey_rig.kill()
        leaves.touch()
        process.end()
        log = process.log.splitlines()
        valkey_rig.restart()
    for key, found in zip(keys, said, strict=True):
        there = [int(number) for number in admin.lrange(key, 0, -1)]
        assert [n for n in there if n not in found["unknown"]] == found["acknowledged"]
        assert len(there) == len(set(there)), "applied twice"
        assert len(found["unknown"]) <= 2  # one for each time that Redis went away
        assert found["longest"] < LIMIT
        print(f"{len(there)} writes, the longest took {found['longest']:.2f} s")
    assert last == [found["child"] for found in said]
    assert len(set(last)) == 2
    assert not any("CRITICAL" in line for line in log)
    lost = [line for line in log if "unapplied" in line and "/ForkPoolWorker" in line]
    assert all("ERROR" in line for line in lost)
    assert sorted(line.partition("closed with ")[2] for line in lost) == [
        "1 acknowledged writes unapplied",  # its result
        "2 acknowledged writes unapplied",
    ]
