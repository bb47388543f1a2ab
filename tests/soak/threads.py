"""The soak among threads: the same faults and the same oracle, 16 threads with the sync flavour."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from redis import BlockingConnectionPool, ConnectionPool, Redis

from resilient_redis import (
    RedisCircuitBreaker,
    ResilientConnection,
    ResilientSSLConnection,
)
from resilient_redis.cli.history import Call, Kind
from tests.support.servers import Rig

from .chaos import Chaos
from .clients import Kit, Tls, clients_of
from .soak import Report, Soak, Team
from .tally import Tally
from .workers import Worker, is_id, is_int, or_receipt

THREADS = {"a": 12, "tls": 4}  # of each team
KIT = Kit(
    Redis, ConnectionPool, BlockingConnectionPool, ResilientConnection, ResilientSSLConnection
)


class Awaitable:
    """A client or a pipeline, made to look like its asynchronous sister: what waits is done when
    it is awaited, and nothing is ever suspended.
    """

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        return call

    def pipeline(self, **options: Any) -> Any:
        pipe = self._real.pipeline(**options)
        pipe.execute = Awaitable(pipe).execute
        return pipe


class ThreadWorker(Worker):
    """A worker in a thread of its own, with a tally of its own."""

    cancelled_share = 0.0  # nobody can cancel a thread

    def work(self, rate: float, stopping: threading.Event) -> None:
        while not stopping.wait(self.rng.expovariate(rate)):
            _to_its_end(self.bulk() if self.rng.random() < 0.05 else self.rng.choice(self._steps)())

    async def bulk(self) -> None:
        """A long pipeline."""
        pipe = self.client.pipeline(transaction=False)
        calls: list[Call] = []
        for n in range(self.rng.randrange(5, 40)):
            key = self._shared("list" if n % 2 else "stream")
            call, token = self._begin(key, Kind.APPEND)
            pipe.rpush(key, token) if n % 2 else pipe.xadd(key, {"id": token})
            calls.append(call)
        checks = [or_receipt(is_int if n % 2 else is_id) for n in range(len(calls))]
        await self._execute(pipe, calls, checks, self.rng.choice(self.registers))


def _to_its_end(steps: Any) -> None:
    try:
        steps.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for an event loop, and there is none")


class ThreadSoak(Soak):
    """As `Soak`; the faults are done by an event loop, the work by threads."""

    usual_rate = 250.0

    def __init__(self, flavour: str, seconds: float, seed: str, rate: float | None = None) -> None:
        super().__init__(flavour, seconds, seed, rate)
        self._over: Any = threading.Event()

    async def run(self, tell: Callable[[str], None] = print) -> Report:
        before, seen = sys.getswitchinterval(), threading.excepthook
        # The proxy is a thread among these: it must not be what all the others wait for.
        sys.setswitchinterval(0.0005)
        threading.excepthook = self._unseen_in_thread
        try:
            return await super().run(tell)
        finally:
            sys.setswitchinterval(before)
            threading.excepthook = seen

    def _make_teams(self, chaos: Chaos, tls: Tls | None) -> None:
        number = 0
        for name, threads in THREADS.items():
            if name == "tls" and tls is None:
                continue
            breaker = RedisCircuitBreaker(**self._options(name))
            breaker.add_observer(self._heard)
            over_tls = tls if name == "tls" else None
            team = Team(name, breaker, clients_of(KIT, chaos.proxy, breaker, over_tls))
            for i in range(threads):
                client, db = team.clients[i % len(team.clients)]
                rng = random.Random(f"{self.seed}:worker:{number}")
                team.workers.append(
                    ThreadWorker(number, Awaitable(client), db, breaker, self.history, Tally(), rng)
                )
                number += 1
            for worker in team.workers:
                worker.peers = [w for w in team.workers if w.db == worker.db]
            self.teams.append(team)

    def _start(self, rig: Rig) -> list[asyncio.Future[None]]:
        return [self._in_thread(worker) for team in self.teams for worker in team.workers]

    def _in_thread(self, worker: Any) -> asyncio.Future[None]:
        """What a thread has come to, for who waits in the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def work() -> None:
            try:
                worker.work(self._rate_of(worker), self._over)
            finally:
                loop.call_soon_threadsafe(future.set_result, None)

        threading.Thread(target=work, name=f"worker-{worker.number}", daemon=True).start()
        return future

    async def _end(self, tasks: list[asyncio.Future[None]]) -> None:
        self._over.set()
        await super()._end(tasks)
        if not all(task.done() for task in tasks):
            for thread, frame in sys._current_frames().items():
                self.problems.append(f"{thread}: {traceback.format_stack(frame)[-6:]}")

    async def _close(self, team: Team) -> int:
        self._over.set()
        for client, _ in team.clients:
            client.close()
            client.connection_pool.disconnect()
        assert isinstance(team.breaker, RedisCircuitBreaker)
        left = await asyncio.to_thread(team.breaker.close)
        names = [thread.name for thread in threading.enumerate()]
        begun = (f"{team.name}-recovery", f"{team.name}-hang-check")
        if still := [name for name in names if name in begun]:
            self.problems.append(f"threads were left behind: {still}")
        return left

    def _so_far(self) -> Tally:
        tally = Tally()
        for team in self.teams:
            for worker in team.workers:
                tally.include(worker.tally)
        return tally

    def _unseen_in_thread(self, what: threading.ExceptHookArgs) -> None:
        told = "".join(traceback.format_exception(what.exc_value)) if what.exc_value else "?"
        self.problems.append(f"nobody saw in {what.thread}: {told}")
