"""The workers: what they call, and what they note down of each answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import (
    BusyLoadingError,
    ExecAbortError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from resilient_redis.asyncio import CommandRefused, JournalFull, OutcomeUnknown, Queued
from resilient_redis.cli.history import Kind, Op, Outcome
from tests.support.cancelling import cancelled_after

if TYPE_CHECKING:
    from .swarm import Run

# What a run may answer with while it makes that error
INJECTED: dict[str, tuple[type[Exception], ...]] = {
    "LOADING": (BusyLoadingError, ExecAbortError),
    "OOM": (OutOfMemoryError, ExecAbortError),
    "READONLY": (ReadOnlyError, ExecAbortError),
    "NOREPLICAS": (ResponseError,),
}


class Step(NamedTuple):
    """One command: its arguments, and what the oracle is to know of it."""

    args: tuple[Any, ...]
    kind: Kind
    key: str
    value: str | None = None
    field: str | None = None
    ttl_ms: int | None = None
    safe: bool = True  # to send twice


class Worker:
    """Issues one call after the other. Its registers are its own, its lists are shared."""

    def __init__(self, run: Run, number: int, client: Any, db: int) -> None:
        self.run = run
        self.rng = run.loop.rng
        self.number = number
        self.client = client
        self.db = db
        self.read_safe = not run.lossy
        self.told: set[str] = set()  # keys that were, perhaps, answered neutrally

    def token(self) -> str:
        return f"w{self.number}.{self.run.next_id()}"

    # -- what to call -----------------------------------------------------------------------

    def append(self) -> Step:
        token, which = self.token(), self.rng.randint(0, 1)
        match self.rng.randint(0, 5):
            case 0:
                return Step(("SADD", f"s{which}", token), Kind.APPEND, f"s{which}", token)
            case 1:
                return Step(("ZADD", f"z{which}", 1, token), Kind.APPEND, f"z{which}", token)
        key = f"l{which}"
        return Step(("RPUSH", key, token), Kind.APPEND, key, token, safe=False)

    def register(self) -> Step:
        token, key = self.token(), f"r{self.number}.{self.rng.randint(0, 1)}"
        if self.rng.random() < 0.2:
            field = f"f{self.rng.randint(0, 2)}"
            key = f"h{self.number}"
            return Step(("HSET", key, field, token), Kind.REGISTER, key, token, field)
        if self.rng.random() < 0.1 and not self.run.lossy:
            return Step(("DEL", key), Kind.DELETE, key)
        return Step(("SET", key, token), Kind.REGISTER, key, token)

    def mortal(self) -> Step:
        """Writes that expire."""
        key, ms = f"t{self.number}", self.rng.choice((20, 500, 3000, 60000))
        if self.rng.random() < 0.3:
            return Step(("PEXPIRE", key, ms), Kind.EXPIRE, key, ttl_ms=ms)
        token = self.token()
        return Step(("SET", key, token, "PX", ms), Kind.REGISTER, key, token, ttl_ms=ms)

    def write(self) -> Step:
        chance = self.rng.random()
        if chance < 0.5:
            return self.append()
        if chance < 0.9 or self.run.lossy:
            return self.register()
        return self.mortal()

    def counter(self) -> Step:
        return Step(("INCR", "n"), Kind.COUNTER, "n", safe=False)

    def read(self) -> Step:
        if self.rng.random() < 0.2:
            key = f"h{self.number}"
            return Step(("HGET", key, "f0"), Kind.READ, key, field="f0")
        key = f"r{self.number}.{self.rng.randint(0, 1)}"
        return Step(("GET", key), Kind.READ, key)

    # -- calling ----------------------------------------------------------------------------

    async def work(self, calls: int) -> None:
        for _ in range(calls):
            chance = self.rng.random()
            if chance < self.run.config.pipelines:
                size = self.rng.randint(2, self.run.config.pipeline_size)
                steps = [self.write() for _ in range(size)]
                transaction = self.rng.random() < 0.25
                if not transaction and self.rng.random() < 0.3:
                    steps.insert(self.rng.randrange(size), self.read())
                await self.call(steps, pipeline=True, transaction=transaction)
            elif chance < 0.92:
                await self.call([self.write() if self.rng.random() < 0.6 else self.read()])
            else:
                await self.call([self.counter()])
            if self.rng.random() < self.run.config.idle:
                await asyncio.sleep(self.rng.expovariate(1 / self.run.config.pause))

    async def call(
        self, steps: list[Step], pipeline: bool = False, transaction: bool = False
    ) -> None:
        run = self.run
        loop, breaker = run.loop, run.breaker
        ids = [run.next_id() for _ in steps]
        if transaction:
            run.units.append({step.value.encode() for step in steps if step.value})
        started, wall = loop.time(), float(run.server.unix_ms())
        neutral, holds = breaker.counters["neutral"], breaker.holds
        held = breaker.snapshot().writes_held
        answers: list[Any]
        body = self._pipeline(steps, transaction) if pipeline else self._single(steps[0])
        limit: float | None = None
        cut: Callable[[Any, float], Any] = asyncio.wait_for
        if self.rng.random() < run.config.cancels:
            limit = 10 ** self.rng.uniform(-4, -0.3)
            cut = self.rng.choice((asyncio.wait_for, cancelled_after))
        try:
            answers = await (body if limit is None else cut(body, limit))
        except asyncio.TimeoutError as error:
            # builtins' own or redis-py's? `wait_for` raises its own, exactly
            if limit is None or type(error) is not asyncio.TimeoutError:
                run.fail(f"{type(error).__name__} from {steps[0].args}")
            answers = [asyncio.CancelledError()] * len(steps)
            run.cancelled.update(ids)
        except Exception as error:  # noqa: BLE001 - judged below
            answers = [error] * len(steps)
        ended = loop.time()
        certain = breaker.counters["neutral"] == neutral
        live = held is None and breaker.holds == holds
        whole = pipeline and isinstance(answers[0], Exception) and answers[0] is answers[-1]
        for number, step, answer in zip(ids, steps, answers, strict=True):
            blamed = steps if whole else [step]
            outcome = self.judge(step, answer, blamed, certain and live, transaction)
            value = step.value.encode() if step.value else None
            if step.kind is Kind.READ:
                value = answer.encode() if isinstance(answer, str) else answer
                if not isinstance(value, bytes):
                    value = None
                elif not live:
                    outcome = Outcome.NEUTRAL  # while writes are held a read passes them
            run.note(
                Op(
                    number,
                    self.number,
                    step.key.encode(),
                    step.kind,
                    value,
                    outcome,
                    started,
                    ended,
                    step.field.encode() if step.field else None,
                    self.db,
                    step.ttl_ms,
                    wall,
                )
            )

    async def _single(self, step: Step) -> list[Any]:
        return [await self.client.execute_command(*step.args)]

    async def _pipeline(self, steps: list[Step], transaction: bool) -> list[Any]:
        async with self.client.pipeline(transaction=transaction) as pipe:
            for step in steps:
                pipe.execute_command(*step.args)
            answers = await pipe.execute(raise_on_error=False)
        assert len(answers) == len(steps), f"{len(answers)} answers to {len(steps)} commands"
        return list(answers)

    # -- what the answer means --------------------------------------------------------------

    def judge(
        self, step: Step, answer: Any, blamed: list[Step], certain: bool, transaction: bool
    ) -> Outcome:
        run = self.run
        kind = step.kind
        name = type(answer).__name__
        run.answers[f"{kind.value} {name}"] += 1
        if isinstance(answer, asyncio.CancelledError):
            return Outcome.UNKNOWN
        if isinstance(answer, JournalFull):
            if not run.config.small_journal:
                run.fail(f"JournalFull for {step.args}")
            return Outcome.REFUSED
        if isinstance(answer, CommandRefused):
            premise = "told during the outage" in answer.reason
            if premise and self.told.isdisjoint(s.key for s in blamed):
                run.fail(f"refused for a premise that nobody gave {step.args}: {answer}")
            elif (
                not premise and not transaction and all(s.kind is not Kind.COUNTER for s in blamed)
            ):
                run.fail(f"refused {step.args}: {answer}")
            return Outcome.REFUSED
        if isinstance(answer, OutcomeUnknown):
            # Where a repetition is answered with an error, or not at all, the first may have run.
            excused = transaction or run.chaos.errors or run.config.small_journal
            if not excused and all(s.safe for s in blamed) and not _fetches_and_changes(blamed):
                run.fail(f"OutcomeUnknown for {[s.args for s in blamed][:3]}")
            return Outcome.UNKNOWN
        if isinstance(answer, Exception):
            allowed = tuple(c for mode in run.chaos.errors for c in INJECTED[mode])
            if not isinstance(answer, allowed or (CommandRefused,)):
                run.fail(f"{name} for {step.args}: {answer}")
                return Outcome.UNKNOWN
            if kind is Kind.READ:
                run.remark("error to a read", f"{step.args}: {answer!r}")
            elif step.kind is not Kind.COUNTER:
                run.remark("error to a write", f"{step.args}: {answer!r}")
            return Outcome.ERROR
        if kind is Kind.READ:
            if answer is None and not certain:
                self.told.add(step.key)
            if answer is not None or certain:
                return Outcome.VALUE if self.read_safe else Outcome.NEUTRAL
            return Outcome.NEUTRAL
        if kind is Kind.COUNTER:
            return Outcome.APPLIED if isinstance(answer, int) else self._wrong(step, answer)
        if isinstance(answer, Queued):
            return Outcome.QUEUED
        expected: tuple[type, ...] = (bool,) if step.args[0] == "SET" else (bool, int)
        if step.args[0] == "XADD":
            expected = (str, bytes)
        return Outcome.ACKNOWLEDGED if isinstance(answer, expected) else self._wrong(step, answer)

    def _wrong(self, step: Step, answer: Any) -> Outcome:
        self.run.fail(f"{step.args} answered {answer!r}")
        return Outcome.UNKNOWN


def _fetches_and_changes(steps: list[Step]) -> bool:
    """GET k, DEL k: a repetition would answer the GET with what the DEL has left."""
    read: set[str] = set()
    for step in steps:
        if step.kind is Kind.READ:
            read.add(step.key)
        elif step.key in read:
            return True
    return False
