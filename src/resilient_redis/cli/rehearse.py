"""`resilient-redis rehearse`: an outage of a real server under load, with a verdict.

The verdict is the oracle's: it compares what the tasks were told with the server's own
append-only file, and never asks the library. The library's counters feed the display only.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import redis.exceptions
from redis.asyncio import Redis

from ..asyncio import RedisCircuitBreaker, ResilientConnection
from .aof import read_effects
from .display import Display, Result, Sample, Title
from .fake import FakeServer
from .history import History, Outcome
from .oracle import check
from .readback import read_back
from .servers import ServerError, ServerProcess, pick
from .verdict import Verdict
from .workload import Tally, Workload

FAKE = "fake"
CYCLE = 20.0  # seconds of one round of faults at full length
FAILED = (Outcome.REFUSED, Outcome.UNKNOWN, Outcome.ERROR)
DRAIN_PATIENCE = 15.0  # seconds for the journal to empty at the end


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    seconds: float = 20.0
    url: str | None = None
    server: str | None = None
    tasks: int = 50
    rate: float | None = None  # operations per second of all tasks; None: what the server bears
    guard: bool = True


class Rehearsal:
    """One run; `run` returns the exit code."""

    def __init__(self, options: Options, display: Display) -> None:
        self.options = options
        self.display = display
        self.server: ServerProcess | FakeServer | None = None
        if options.url is None:
            flavour = options.server or pick() or FAKE
            self.server = FakeServer() if flavour == FAKE else ServerProcess(flavour)
        self.server_state = "up"
        self.history = History()
        self.breaker: RedisCircuitBreaker | None = None
        self._began = time.monotonic()
        self._counters: Counter[str] = Counter()

    async def run(self) -> int:
        try:
            if self.server is not None:
                self.server.start()
            return await self._rehearse()
        finally:
            self.display.close()
            if self.server is not None:
                self.server.stop()

    # -- the run

    async def _rehearse(self) -> int:
        url = self.options.url or (self.server.url if self.server is not None else "")
        client = self._client(url)
        # A user's own server holds other data: our keys get a name of their own, and go at the end.
        prefix = f"rehearse:{uuid.uuid4().hex[:8]}:" if self.options.url else ""
        rate = self.options.rate or (300.0 if isinstance(self.server, FakeServer) else 2000.0)
        tasks = self.options.tasks
        workload = Workload(client, self.history, tasks, rate / tasks, prefix)
        fake = isinstance(self.server, FakeServer)
        name = "a simulated server" if fake else await _server_name(url)
        self.display.begin(Title(name, tasks, self.options.seconds, self.options.guard))
        self._began = time.monotonic()
        sampler = asyncio.ensure_future(self._sample(workload))
        workload.start()
        try:
            await self._faults()
            late = await workload.stop()
            left = await self._drain()
        finally:
            sampler.cancel()
            await asyncio.wait([sampler])
        if not sampler.cancelled():
            sampler.result()  # the display failed: its error, not a silent stop
        await client.aclose()
        result = await self._judge(url, name, late, left)
        self.display.end(result)
        return 0 if result.ok else 1

    def _client(self, url: str) -> Any:
        room = max(100, 2 * self.options.tasks)
        if not self.options.guard:
            return Redis.from_url(url, max_connections=room)
        self.breaker = RedisCircuitBreaker(failure_threshold=5, recovery_timeout=1.0)
        self.breaker.add_observer(self._heard)
        return Redis.from_url(
            url,
            connection_class=ResilientConnection,
            breaker=self.breaker,
            max_connections=room,
        )

    async def _faults(self) -> None:
        seconds = self.options.seconds
        if self.server is None:
            self._note("kill, freeze or restart your server meanwhile")
            await asyncio.sleep(seconds)
            return
        rounds = max(1, round(seconds / CYCLE))
        unit = seconds / rounds / CYCLE
        steps: list[tuple[Callable[[], Awaitable[None]] | None, float]] = [
            (None, 2.5),
            (self._kill, 2.0),
            (self._restart, 3.5),
            (self._freeze, 3.0),
            (self._thaw, 4.0),
            (self._kill, 0.3),
            (self._restart, 4.7),
        ]
        if isinstance(self.server, FakeServer):
            self._note("no append-only file, and it cannot be frozen")
            steps = [step for step in steps if step[0] not in (self._freeze, self._thaw)]
        for _ in range(rounds):
            for action, length in steps:
                if action is not None:
                    await action()
                await asyncio.sleep(length * unit)

    async def _kill(self) -> None:
        assert self.server is not None
        self._note("kill -9")
        self.server.kill()
        self.server_state = "down"

    async def _restart(self) -> None:
        assert self.server is not None
        self._note("restart")
        self.server.restart(wait=False)
        await _until(self.server.ready)
        self.server_state = "up"

    async def _freeze(self) -> None:
        assert self.server is not None
        self._note("freeze (SIGSTOP)")
        self.server.freeze()
        self.server_state = "frozen"

    async def _thaw(self) -> None:
        assert self.server is not None
        self._note("thaw (SIGCONT)")
        self.server.thaw()
        self.server_state = "up"

    async def _drain(self) -> int:
        """Wait until everything that was acknowledged is applied; say what is left."""
        if self.breaker is None:
            return 0
        if self.breaker.pending:
            self._note(f"the load ends; {self.breaker.pending:,} queued writes to go")
        return await self.breaker.aclose(drain_timeout=DRAIN_PATIENCE)

    # -- the verdict

    async def _judge(self, url: str, name: str, late: int, left: int) -> Result:
        ops = self.history.ops()
        failed = sum(op.outcome in FAILED for op in ops)
        share = 1 - failed / max(1, len(ops))
        remarks = [f"answered: {share:.2%}; {failed:,} operations raised an error"]
        if late:
            remarks.append(f"{late} tasks still waited for an answer 10 s after the end")
        if left:
            remarks.append(f"{left} acknowledged writes were still queued at the end")
        if isinstance(self.server, ServerProcess):
            witness = f"{name}'s append-only file"
            verdict = check(ops, read_effects(self.server.directory))
        else:
            witness = f"what {name} holds now (no append-only file to read)"
            async with Redis.from_url(url) as client:
                verdict = await read_back(client, ops)
                await self._clean_up(client, {op.key for op in ops})
        remarks += _vacuous(verdict)
        ok = verdict.ok and not _vacuous(verdict)
        return Result(verdict, witness, ok, tuple(remarks), self.options.guard)

    async def _clean_up(self, client: Any, keys: set[bytes]) -> None:
        if self.options.url:
            ordered = sorted(keys)
            for at in range(0, len(ordered), 500):
                await client.unlink(*ordered[at : at + 500])

    # -- the display

    async def _sample(self, workload: Workload) -> None:
        last = self._now()
        while True:
            await asyncio.sleep(self.display.interval)
            now = self._now()
            self.display.sample(self._take(workload.tally.take(), now, now - last))
            last = now

    def _take(self, tally: Tally, now: float, span: float) -> Sample:
        state, journal, delta = "-", 0, Counter[str]()
        if self.breaker is not None:
            snapshot = self.breaker.snapshot()
            state = "DRAINING" if snapshot.draining else snapshot.state
            journal = snapshot.pending
            delta = Counter(snapshot.counters)
            delta.subtract(self._counters)
            self._counters = Counter(snapshot.counters)
        told = tally.outcomes
        answered = sum(
            told[each] for each in (Outcome.ACKNOWLEDGED, Outcome.VALUE, Outcome.NEUTRAL)
        )
        neutral, queued = delta["neutral"], delta["queued"]
        latencies = sorted(tally.latencies)
        return Sample(
            at=now,
            span=span,
            server=self.server_state if self.server is not None else "yours",
            state=state,
            live=max(0, answered - neutral - queued),
            neutral=neutral,
            queued=queued,
            refused=told[Outcome.REFUSED],
            unknown=told[Outcome.UNKNOWN],
            errors=told[Outcome.ERROR],
            journal=journal,
            p50=_percentile(latencies, 0.50),
            p99=_percentile(latencies, 0.99),
        )

    def _heard(self, event: Any) -> None:
        """The breaker's events, in a few words."""
        name = type(event).__name__
        if name == "StateChanged":
            if (event.new != "HALF-OPEN" and event.old != "HALF-OPEN") or event.new == "CLOSED":
                self._note(f"breaker {event.old} -> {event.new} ({event.reason})")
        elif name == "ReplayFinished":
            self._note(f"replayed {event.applied:,} writes in {event.seconds:.2f} s")
        elif name not in ("ReplayStarted", "ReplayProgress", "ProbeFailed"):
            self._note(str(event))

    def _note(self, text: str) -> None:
        self.display.note(self._now(), text)

    def _now(self) -> float:
        return time.monotonic() - self._began


async def _until(true: Callable[[], bool], timeout: float = 10.0) -> None:
    """Look every 10 ms; another process has no event to wait for."""
    for _ in range(int(timeout / 0.01)):
        if true():
            return
        await asyncio.sleep(0.01)
    raise ServerError(f"the server was not back within {timeout:.0f} s")


async def _server_name(url: str) -> str:
    """What the server calls itself; this also fails early where there is none."""
    async with Redis.from_url(url) as client:
        try:
            info = await client.info("server")
        except redis.exceptions.ResponseError:
            return "a server"  # without the right to ask; it answers, that is enough
        except redis.exceptions.ConnectionError as error:
            raise ServerError(f"no server at {url}: {error}") from error
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '?')}"


def _vacuous(verdict: Verdict) -> list[str]:
    """A verdict about nothing is not a good one."""
    if not verdict.acknowledged or not verdict.effects:
        return ["nothing was acknowledged, or no effect was seen: nothing was tested"]
    return []


def _percentile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 if ordered else None
