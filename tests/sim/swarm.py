"""One run of the simulation: a seed in, a report out.

python -m tests.sim.swarm SEED...        runs seeds and prints what they found
python -m tests.sim.swarm --from 0 --count 200
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import utils
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from resilient_redis.asyncio import MemoryJournal, RedisCircuitBreaker, ResilientConnection
from resilient_redis.cli.history import Op

from .faults import Chaos
from .judging import judge
from .loop import SimLoop
from .network import Network
from .server import SimServer
from .takers import GROUP, Listener, Producer, Taker
from .work import Worker

SETTLE = 60.0  # virtual seconds in which recovery must be over once all is healed


class SimBreaker(RedisCircuitBreaker):
    """Counts what its own counters do not."""

    holds = 0  # how often writes were held
    stale = 0  # commands sent on a socket older than the last outage

    def hold(self, code: str | None) -> None:
        self.holds += 1
        super().hold(code)


class SimConnection(ResilientConnection):
    """Hashes by a serial number: `breaker.connections` is a set, and its order must repeat."""

    made = 0

    def __init__(self, **kwargs: Any) -> None:
        SimConnection.made += 1
        self.serial = SimConnection.made
        super().__init__(**kwargs)

    def __hash__(self) -> int:
        return self.serial

    def _track(self, calls: Any) -> None:
        if self._outage != self.breaker.outages and isinstance(self.breaker, SimBreaker):
            self.breaker.stale += 1
        super()._track(calls)


class Config:
    """What differs from run to run besides the faults."""

    def __init__(self, rng: random.Random) -> None:
        self.protocol = rng.choice((2, 3))
        self.retries = rng.choice((0, 3, 10))
        self.socket_timeout = rng.choice((None, 5.0, 0.3))
        self.connect_timeout = rng.choice((None, 0.5, 5.0))
        self.decode = rng.random() < 0.3
        self.health_check = rng.choice((0, 0, 1))
        self.single = rng.random() < 0.1
        self.workers = rng.randint(2, 5)
        self.clients = rng.randint(1, 2)
        self.calls = rng.randint(15, 35)
        self.pipelines = rng.choice((0.1, 0.3, 0.6))
        self.pipeline_size = rng.choice((3, 10, 25))
        self.cancels = rng.choice((0.0, 0.0, 0.1))
        self.idle = rng.choice((0.3, 1.0))
        self.pause = 10 ** rng.uniform(-3, -0.7)
        self.small_journal = rng.random() < 0.1
        self.faults = rng.randint(4, 10)
        self.threshold = rng.choice((1, 2, 5))
        self.deadline = rng.choice((0.1, 0.4, 1.0))
        self.probe_timeout = rng.choice((0.2, 1.0))
        self.drain_wait = rng.choice((0.0, 0.05, 1.0))
        self.batch_size = rng.choice((1, 2, 5, 1000))
        self.no_eval = rng.random() < 0.12
        self.no_kill = rng.random() < 0.08
        self.takes = rng.random() < 0.5
        self.listens = rng.random() < 0.5


@dataclass
class Report:
    """What a run came to. `ok` if nothing is wrong; `remarks` are worth a look, no more."""

    seed: int
    trace: str = ""
    faults: int = 0
    acknowledged: int = 0
    operations: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)  # transactions, elements, messages, …
    wrong: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.wrong


class Run:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loop = SimLoop(seed)
        rng = self.loop.rng
        self.config = config = Config(rng)
        self.lossy = rng.random() < 0.15
        self.server = SimServer(self.loop)
        self.server.later = self.loop.call_later
        self.server.forbidden = frozenset(
            ([b"EVAL"] if config.no_eval else []) + ([b"CLIENT KILL"] if config.no_kill else [])
        )
        self.net = Network(self.loop, self.server)
        self.loop.connector = self.net.connect
        # A handshake is some eight round trips.
        config.deadline = max(config.deadline, 60 * self.net.latency)
        config.probe_timeout = max(config.probe_timeout, 60 * self.net.latency)
        self.chaos = Chaos(self.loop, self.net, self.server, self.lossy)
        journal = MemoryJournal(max_entries=40) if config.small_journal else None
        self.breaker = SimBreaker(
            failure_threshold=config.threshold,
            recovery_timeout=0.5,
            journal=journal,
            deadline=config.deadline,
            probe_timeout=config.probe_timeout,
            drain_wait=config.drain_wait,
            batch_size=config.batch_size,
        )
        self.breaker.clock = self.loop.time
        self.report = Report(seed)
        self.answers = self.report.answers
        self.ops: list[Op] = []
        self.units: list[set[bytes]] = []  # what each transaction writes
        self.over = asyncio.Event()
        self.taker: Taker | None = None
        self.listeners: list[Listener] = []
        self._ids = 0
        self.cancelled: set[int] = set()

    def next_id(self) -> int:
        self._ids += 1
        return self._ids

    def note(self, op: Op) -> None:
        self.ops.append(op)
        self.net.note(op.outcome.value.encode(), None, op.value or b"")

    def fail(self, what: str) -> None:
        self.report.wrong.append(what[:300])

    def remark(self, kind: str, what: str) -> None:
        self.report.remarks.append(f"{kind}: {what[:200]}")

    def client(self, db: int, single: bool = False) -> Any:
        config = self.config
        pool = ConnectionPool(
            connection_class=SimConnection,
            breaker=self.breaker,
            host="redis.sim",
            db=db,
            protocol=config.protocol,
            decode_responses=config.decode,
            socket_timeout=config.socket_timeout,
            socket_connect_timeout=config.connect_timeout,
            health_check_interval=config.health_check,
            retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=1.0), config.retries),
        )
        return Redis(connection_pool=pool, single_connection_client=single)

    async def main(self) -> None:
        config, rng = self.config, self.loop.rng
        dbs = [0] + [rng.randint(0, 1) for _ in range(config.clients - 1)]
        clients = [(self.client(db, config.single), db) for db in dbs]
        await clients[0][0].ping()
        tasks = []
        for number in range(config.workers):
            client, db = clients[number % len(clients)]
            worker = Worker(self, number, client, db)
            tasks.append(self.loop.create_task(worker.work(config.calls)))
        if config.single:
            clients.append((self.client(0), 0))  # a blocking command would keep it from all others
        others = await self.others(clients[-1 if config.single else 0][0])
        chaos = self.loop.create_task(self.disturb())
        for task in tasks:
            await task
        chaos.cancel()
        await asyncio.wait({chaos})
        self.chaos.heal()
        await self.end(others)
        await self.recover()
        self.net.let_go(self.net.held)  # zombies, now that everything has been replayed
        await asyncio.sleep(0.1)
        for client, _ in clients:
            await client.aclose()
            await client.connection_pool.disconnect()
        await self.breaker.aclose()
        await asyncio.sleep(0.01)

    async def others(self, client: Any) -> list[asyncio.Task[None]]:
        """Who takes, and who listens."""
        start, tasks = self.loop.create_task, []
        if self.config.takes and not self.lossy:
            await client.xgroup_create("st", GROUP, mkstream=True)
            producer = Producer(self, self.config.workers, client, 0)
            self.taker = Taker(self, client)
            tasks = [start(producer.work(self.config.calls)), start(self.taker.work(self.over))]
        if self.config.listens:
            self.listeners = [Listener(self, client, n) for n in range(self.loop.rng.randint(1, 2))]
            tasks += [start(x) for each in self.listeners for x in (each.work(), each.publish())]
        return tasks

    async def end(self, others: list[asyncio.Task[None]]) -> None:
        self.over.set()
        for listener in self.listeners:
            listener.quiet = True
        for task in others:
            await task
        for listener in self.listeners:
            await listener.end()

    async def disturb(self) -> None:
        """The faults, spread over the time that the work takes."""
        rng = self.loop.rng
        for _ in range(self.config.faults):
            await asyncio.sleep(rng.expovariate(1 / (2 * self.config.pause + 0.01)))
            self.chaos.strike()

    async def recover(self) -> None:
        """Without any traffic."""
        breaker = self.breaker
        until = self.loop.time() + SETTLE
        while breaker.busy and self.loop.time() < until:  # noqa: ASYNC110 - from outside
            await asyncio.sleep(0.25)
        await asyncio.sleep(3 * self.config.deadline + 0.2)  # W is deleted after the gate opens
        if breaker.state != "CLOSED" or not breaker.gate_open or breaker.pending:
            self.fail(f"not recovered {SETTLE} s after the heal: {breaker!r}")
        if breaker.stale:
            self.fail(f"{breaker.stale} commands on sockets older than the outage")
        if breaker.timer is not None:
            self.fail("the hang timer still runs")
        undone = {arg for _, args in self.server.lost for arg in args}  # by a lossy restart
        data = self.server.store.data
        left = [key for _, key in data if key.startswith(b"resilient-redis:") and key not in undone]
        if left:
            self.fail(f"left at the server: {left}")


@contextmanager
def no_chance(seed: int) -> Iterator[None]:
    """redis-py's and tenacity's jitter and our session tokens come from the seed."""
    state, uuid4 = random.getstate(), uuid.uuid4
    # It reads its own metadata for each connection: a seventh of the time of a run.
    get_version: Callable[[], str] = utils.get_lib_version
    version = get_version()
    utils.get_lib_version = lambda: version
    random.seed(seed)
    tokens = random.Random(seed ^ 0x5EED)
    uuid.uuid4 = lambda: uuid.UUID(int=tokens.getrandbits(128), version=4)
    SimConnection.made = 0
    collecting = gc.isenabled()
    gc.disable()  # weak references end when they are told to
    try:
        yield
    finally:
        uuid.uuid4 = uuid4
        utils.get_lib_version = get_version
        random.setstate(state)
        if collecting:
            gc.enable()


def simulate(seed: int) -> Report:
    """Runs `seed`, judges it, and never raises."""
    with no_chance(seed):
        run = Run(seed)
        loop = run.loop
        try:
            main = loop.create_task(run.main())
            loop.run_until_complete(main)
            left = [task.get_name() for task in asyncio.all_tasks(loop)]
            if left:
                run.fail(f"tasks left: {left}")
            judge(run)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            run.fail(f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}")
            for task in asyncio.all_tasks(loop):
                stack = task.get_stack(limit=3)
                where = stack[-1] if stack else None
                run.fail(f"  task {task.get_name()} {where}")
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            try:
                loop.run_until_complete(loop.shutdown_asyncgens())
            except BaseException as error:  # noqa: BLE001 - it was broken before
                run.fail(f"at the end: {error!r}")
            loop.close()
        run.report.trace = run.net.trace.hexdigest()
        return run.report


def main(argv: list[str]) -> int:
    if argv[0] == "--from":
        seeds = list(range(int(argv[1]), int(argv[1]) + int(argv[3])))
    else:
        seeds = [int(word) for word in argv]
    bad = 0
    total: Counter[str] = Counter()
    for seed in seeds:
        report = simulate(seed)
        total["runs"] += 1
        total["faults"] += report.faults
        total["acknowledged"] += report.acknowledged
        total["operations"] += report.operations
        total.update({remark.split(":")[0]: 1 for remark in report.remarks})
        if not report.ok:
            bad += 1
            print(f"seed {seed}: {len(report.wrong)} wrong")
            for what in report.wrong[:4]:
                print(f"    {what}")
        if len(seeds) == 1:
            print(report.outcomes, report.kinds, report.trace, *report.remarks[:10], sep="\n")
            print(report.answers)
    print(f"{bad} of {len(seeds)} runs are wrong; {dict(total)}")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
