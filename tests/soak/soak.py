"""One soak: servers, clients, tasks and faults for so many seconds, then the oracle's verdict."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from resilient_redis.asyncio import (
    MemoryJournal,
    RedisCircuitBreaker,
)
from resilient_redis.cli.aof import Effect
from resilient_redis.cli.history import History, Op, Outcome
from resilient_redis.cli.oracle import check
from resilient_redis.cli.verdict import Verdict
from resilient_redis.events import EntryDeadLettered, Event
from resilient_redis.flow.breaker import CircuitBreaker
from tests.support.proxy import ChaosProxy
from tests.support.servers import ADMIN, PASSWORD, Rig, own_rig
from tests.surface.tls import TlsProxy, self_signed

from .chaos import Chaos
from .clients import Kit, Tls, clients_of
from .takers import GROUP, Listener, Producer, Taker
from .tally import Tally
from .workers import SHORT, Worker

TASKS = {"a": 14, "b": 12, "tls": 10}  # of each team; a taker and a listener come on top
LONGEST_HOLD_MS = 3000.0  # no fault holds a request longer; see `chaos`
RECOVERY = 25.0  # s; in which everything must be back without any traffic
# What a kill -9 cannot take is enough here: the write to the file comes before the reply, the
# fsync may wait. A disk that syncs in 5 ms would be all that is tested.
FAST = ("--appendfsync", "no")


@dataclass
class Report:
    """What a soak found. `ok`: no anomaly, nothing left behind, nobody told nonsense."""

    server: str
    seed: str
    seconds: float
    verdict: Verdict
    faults: Counter[str]
    tally: Tally
    problems: list[str]
    ops: list[Op]
    effects: list[Effect]
    log: list[tuple[float, str]]
    counters: Counter[str]
    shapes: Counter[str]

    @property
    def ok(self) -> bool:
        return self.verdict.ok and not self.problems

    @property
    def acknowledged(self) -> int:
        return self.tally.acknowledged


@dataclass
class Team:
    """Those who share a breaker. Another team stands for another process: no key in common."""

    name: str
    breaker: CircuitBreaker
    clients: list[tuple[Any, int]] = field(default_factory=list)  # with their databases
    workers: list[Worker] = field(default_factory=list)
    taker: Taker | None = None
    listener: Listener | None = None


class Soak:
    """`run` once. `rate`: operations per second and task."""

    usual_rate: ClassVar[float] = 45.0
    wanted = 0  # acknowledged writes: it goes on for them, up to twice its time

    def __init__(self, flavour: str, seconds: float, seed: str, rate: float | None = None) -> None:
        self.flavour = flavour
        self.seconds = seconds
        self.seed = seed
        self.rate = self.usual_rate if rate is None else rate
        self.rng = random.Random(seed)
        self.history = History()
        self.tally = Tally()
        self.problems: list[str] = []
        self.log: list[tuple[float, str]] = []
        self.teams: list[Team] = []
        self._stopping = asyncio.Event()

    async def run(self, tell: Callable[[str], None] = print) -> Report:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unseen)
        logger, listener = logging.getLogger("resilient_redis"), _Listener(self.problems)
        logger.addHandler(listener)
        try:
            with own_rig(self.flavour, *FAST) as rig:
                async with ChaosProxy(rig.port) as proxy:
                    chaos = Chaos(rig, proxy, self.seed)
                    try:
                        async with _tls_in_front_of(proxy) as tls:
                            await self._soak(chaos, tls, tell)
                    finally:
                        await chaos.aclose()
                return self._judge(rig, chaos)
        finally:
            logger.removeHandler(listener)

    # -- the run

    async def _soak(self, chaos: Chaos, tls: Tls | None, tell: Callable[[str], None]) -> None:
        self._make_teams(chaos, tls)
        tasks = self._start(chaos.rig)
        start = time.monotonic()
        live = asyncio.ensure_future(self._live(chaos, start, tell))
        try:
            await chaos.run(start + self.seconds)
            while self._so_far().acknowledged < self.wanted and self._lasts(start):
                await chaos.run(time.monotonic() + 1.0)
            await chaos.heal()
            await asyncio.sleep(1.0)  # the tasks go on for a while
            self._stopping.set()
            await self._end(tasks)
            for team in self.teams:
                if team.listener is not None:
                    await team.listener.end()
            await self._recover()
        finally:
            live.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.wait([live, *tasks])
            for team in self.teams:
                if left := await self._close(team):
                    self.problems.append(f"{team.name}: {left} acknowledged writes unapplied")

    def _lasts(self, start: float) -> bool:
        return time.monotonic() < start + 2 * self.seconds

    def _start(self, rig: Rig) -> list[asyncio.Future[None]]:
        workers = [worker for team in self.teams for worker in team.workers]
        calls = [worker.run(self._rate_of(worker), self._stopping) for worker in workers]
        return [asyncio.ensure_future(call) for call in calls + self._others(rig)]

    async def _close(self, team: Team) -> int:
        """Returns how many writes are left unapplied."""
        for client, _ in team.clients:
            await client.aclose()
            await client.connection_pool.disconnect()
        assert isinstance(team.breaker, RedisCircuitBreaker)
        return await team.breaker.aclose()

    def _so_far(self) -> Tally:
        return self.tally

    def _make_teams(self, chaos: Chaos, tls: Tls | None) -> None:
        number = 0
        for name, tasks in TASKS.items():
            breaker = RedisCircuitBreaker(**self._options(name))
            if name == "tls" and tls is None:
                continue
            breaker.add_observer(self._heard)
            over_tls = tls if name == "tls" else None
            team = Team(name, breaker, clients_of(Kit(), chaos.proxy, breaker, over_tls))
            for i in range(tasks):
                rng = random.Random(f"{self.seed}:worker:{number}")
                client, db = team.clients[i % len(team.clients)]
                if db and (name == "b" or i >= len(team.clients)):
                    client, db = team.clients[0]
                kind = Producer if i == tasks - 1 else Worker
                worker = kind(number, client, db, breaker, self.history, self.tally, rng)
                team.workers.append(worker)
                number += 1
            for worker in team.workers:
                worker.peers = [w for w in team.workers if w.db == worker.db]
            client, rng = team.clients[1][0], random.Random(f"{self.seed}:taker:{name}")
            team.taker = Taker(client, breaker, self.tally, rng)
            team.listener = Listener(client, breaker, chaos.rig.port, ADMIN, PASSWORD)
            self.teams.append(team)

    def _options(self, name: str) -> dict[str, Any]:
        """Those of a breaker."""
        rng = self.rng
        return {
            "name": name,
            "failure_threshold": rng.choice((1, 3, 5)),
            "recovery_timeout": rng.choice((0.3, 1.0)),
            "deadline": rng.choice((0.3, 0.6, 1.0)),
            "probe_timeout": rng.choice((0.3, 1.0)),
            "drain_wait": rng.choice((0.05, 0.3, 1.0)),
            "batch_size": rng.choice((7, 50, 1000)),
            "journal": MemoryJournal(),
        }

    def _others(self, rig: Rig) -> list[Any]:
        """Who takes and who listens; the groups are made before anything goes wrong."""
        calls: list[Any] = []
        for team in self.teams:
            taker, listener = team.taker, team.listener
            assert taker is not None
            assert listener is not None
            rig.admin.xgroup_create(taker.stream, GROUP, mkstream=True)
            rng = random.Random(f"{self.seed}:listener:{team.name}")
            calls += [taker.run(self.rate, self._stopping), listener.publish(self._stopping)]
            calls.append(listener.run(self._stopping, rng))
        return calls

    def _rate_of(self, worker: Worker) -> float:
        """Little in the second database: going to and fro makes a replay 60 times slower."""
        return self.rate / 5 if worker.db else self.rate

    async def _end(self, tasks: list[asyncio.Future[None]]) -> None:
        done, late = await asyncio.wait(tasks, timeout=10.0)
        for task in done:
            task.result()
        if late:
            self.problems.append(f"{len(late)} tasks still waited 10 s after all was healed")

    async def _recover(self) -> None:
        """Without traffic: everything that is queued gets applied, and the breakers close."""
        deadline = time.monotonic() + RECOVERY
        while any(team.breaker.busy for team in self.teams):
            if time.monotonic() > deadline:
                for team in self.teams:
                    self.problems.append(f"no recovery: {team.breaker.snapshot()}")
                return
            await asyncio.sleep(0.01)

    async def _live(self, chaos: Chaos, start: float, tell: Callable[[str], None]) -> None:
        told: Counter[Outcome] = Counter()
        while True:
            before, due = Counter(self._so_far().outcomes), time.monotonic() + 1.0
            await asyncio.sleep(1.0)
            lag = time.monotonic() - due
            tally = self._so_far()
            told = Counter(tally.outcomes)
            told.subtract(before)
            states = " ".join(
                f"{team.breaker.state.lower()}/{team.breaker.pending}" for team in self.teams
            )
            faults = ",".join(kind for kind, n in chaos.current.items() if n)
            counts = " ".join(f"{o.value[:3]} {n}" for o, n in sorted_by_name(told) if n)
            tell(
                f"{time.monotonic() - start:6.1f}s {self.flavour:6} ack {tally.acknowledged}"
                f" | {counts} | {states} | faults {chaos.fired.total()} [{faults}]"
                + (f" | lag {lag:.2f}" if lag > 0.2 else "")
                + (f" | WRONG {len(tally.wrong)}" if tally.wrong else "")
            )

    # -- what is found

    def _judge(self, rig: Rig, chaos: Chaos) -> Report:
        effects = rig.effects()
        self.tally = self._so_far()
        shapes = self._judge_shapes(rig, effects)
        ops = [_loose(op) if op.id in self.tally.cancelled else op for op in self.history.ops()]
        counters: Counter[str] = Counter()
        for team in self.teams:
            counters.update(team.breaker.counters)
            for letter in team.breaker.dead_letters[:5]:
                self.problems.append(f"{team.name}: dead letter {letter} {letter.payload[:120]!r}")
        for what in self.tally.wrong[:10]:
            self.problems.append(f"nonsense: {what}")
        return Report(
            self.flavour,
            self.seed,
            self.seconds,
            _verdict(ops, effects),
            chaos.fired,
            self.tally,
            self.problems,
            ops,
            effects,
            sorted(self.log + chaos.log),
            counters,
            shapes,
        )

    def _judge_shapes(self, rig: Rig, effects: list[Effect]) -> Counter[str]:
        """Elements, messages, transactions."""
        shapes: Counter[str] = Counter(transactions=len(self.tally.units))
        for team in self.teams:
            if team.name == "tls":
                shapes["over TLS"] = sum(op.key.startswith(b"tls:") for op in self.history)
            if team.taker is None or team.listener is None:
                continue
            self.problems += team.taker.judge(effects, rig.admin)
            self.problems += team.listener.judge()
            shapes["taken"] += len(team.taker.got)
            shapes["heard"] += len(team.listener.heard)
            shapes["gaps"] += len(team.listener.gaps)
        there = {arg for effect in effects for arg in effect.args[2:]}
        for unit in self.tally.units:
            if there & unit and not unit <= there:
                self.problems.append(f"half a transaction: {there & unit} of {unit}")
        return shapes

    def _heard(self, event: Event) -> None:
        if isinstance(event, EntryDeadLettered) or len(self.log) < 200_000:
            self.log.append((event.at, f"  {event}"))

    def _unseen(self, _: Any, context: dict[str, Any]) -> None:
        error, task = context.get("exception"), context.get("task") or context.get("future")
        self.problems.append(f"nobody saw: {context.get('message')} {error!r} of {task!r}")


class _Listener(logging.Handler):
    """Errors that the library logs."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        self.problems.append(f"logged: {logging.Formatter().format(record)}")


@asynccontextmanager
async def _tls_in_front_of(proxy: ChaosProxy) -> AsyncIterator[Tls | None]:
    """What is said over TLS passes the same faults. None where no certificate can be made."""
    if shutil.which("openssl") is None:
        print("no openssl here: nothing of this soak goes over TLS")
        yield None
        return
    with tempfile.TemporaryDirectory() as place:
        certificate, key = self_signed(Path(place))
        async with TlsProxy(proxy.port, certificate, key) as tls:
            yield Tls(tls.port, certificate)


def _verdict(ops: list[Op], effects: list[Effect]) -> Verdict:
    """The oracle's, with more tolerance for the short times to live.

    A SET that a frozen server executes as it wakes up counts from then, until the replay mends it.
    Valkey writes the mending SET down as UNLINK, if its deadline has passed: then it looks like an
    expiry at the wrong time.
    """
    short = [op for op in ops if SHORT in op.key.decode()]
    verdict = check([op for op in ops if SHORT not in op.key.decode()], effects)
    verdict.include(check(short, effects, ttl_tolerance_ms=LONGEST_HOLD_MS))
    verdict.operations = len(ops)
    verdict.acknowledged = sum(op.acknowledged for op in ops)
    verdict.outcomes = Counter(op.outcome.value for op in ops)
    return verdict


def _loose(op: Op) -> Op:
    """An operation whose caller went away: it may take effect whenever it likes, but only once."""
    return dataclasses.replace(op, worker=1_000_000 + op.id, ended=math.inf)


def sorted_by_name(told: Counter[Outcome]) -> list[tuple[Outcome, int]]:
    return sorted(told.items(), key=lambda pair: pair[0].value)
