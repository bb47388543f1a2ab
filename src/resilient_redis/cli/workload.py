"""What the rehearsal's tasks do all the time, and what they were told.

The tasks know nothing of the breaker: they call an ordinary redis-py client and note its answers
in the history. Two habits keep the history judgeable:

- No task writes a key that it has read as absent. While Redis is away absent may be a neutral
  answer, and a write on top of it depends on the premise that it was true (DESIGN.md, section 1);
  the task takes a new key instead, as a cache does that reads before it writes.
- Every written value is unique.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import redis.exceptions

from ..errors import CommandRefused, OutcomeUnknown
from .history import Call, History, Kind, Outcome

ACK = Outcome.ACKNOWLEDGED
# Outlives the rehearsal; ends within an outage, and takes longer than the seconds of the
# time stamps in the append-only file (see `oracle.Judge`).
LONG_MS, SHORT_MS = 60_000, 1500
SHARED = 4  # lists, streams, sets and sorted sets that all tasks add to


class Tally:
    """What has been answered since the last look, for the display only."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.latencies: list[float] = []  # seconds, of all answers, errors included

    def take(self) -> Tally:
        taken = Tally()
        taken.outcomes, self.outcomes = self.outcomes, Counter()
        taken.latencies, self.latencies = self.latencies, []
        return taken


class Slot:
    """A key that one task writes; `renew` gives it another name."""

    def __init__(self, prefix: str, name: str) -> None:
        self._base = f"{prefix}{name}"
        self._generation = 0
        self.written = False

    @property
    def key(self) -> str:
        return f"{self._base}:{self._generation}"

    def renew(self) -> None:
        self._generation += 1
        self.written = False


class Worker:
    """One task: one operation after the other, at random times and of random kinds."""

    def __init__(self, number: int, workload: Workload) -> None:
        self.number = number
        self.all = workload
        self.rng = random.Random(number)
        self.slots = [Slot(workload.prefix, f"reg:{number}:{n}") for n in range(3)]
        self.hash = Slot(workload.prefix, f"hash:{number}")
        self.expiring = [Slot(workload.prefix, f"ttl:{number}:{n}") for n in range(2)]
        self.steps: list[Callable[[], Awaitable[None]]] = [
            *[self.set] * 18,
            *[self.get] * 16,
            *[self.get_of_another] * 10,
            *[self.set_expiring] * 8,
            *[self.delete] * 4,
            *[self.rpush] * 10,
            *[self.hset] * 8,
            *[self.hget] * 6,
            *[self.xadd] * 6,
            *[self.zadd] * 4,
            *[self.sadd] * 3,
            *[self.pipeline] * 5,
            *[self.incr] * 2,
        ]

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.rng.expovariate(self.all.rate))
            if self.all.stopping.is_set():
                return
            await self.rng.choice(self.steps)()

    # -- the kinds of operation

    async def set(self) -> None:
        slot = self.rng.choice(self.slots)
        call, token = self._begin(slot.key, Kind.REGISTER)
        await self._write(call, self.all.client.set(slot.key, token), slot)

    async def set_expiring(self) -> None:
        slot = self.rng.choice(self.expiring)
        ttl = self.rng.choice((LONG_MS, SHORT_MS))
        call, token = self._begin(slot.key, Kind.REGISTER, ttl_ms=ttl)
        await self._write(call, self.all.client.set(slot.key, token, px=ttl), slot)

    async def delete(self) -> None:
        slot = self.rng.choice(self.slots)
        call = self.all.history.begin(self.number, slot.key, Kind.DELETE)
        await self._write(call, self.all.client.delete(slot.key))

    async def get(self) -> None:
        slot = self.rng.choice(self.slots)
        if not slot.written:
            return await self.set()
        call = self.all.history.begin(self.number, slot.key, Kind.READ)
        if await self._read(call, self.all.client.get(slot.key)) is None:
            slot.renew()
        return None

    async def get_of_another(self) -> None:
        other = self.rng.choice(self.all.workers)
        key = self.rng.choice(other.slots).key
        if other is self:
            return
        call = self.all.history.begin(self.number, key, Kind.READ)
        await self._read(call, self.all.client.get(key))

    async def hset(self) -> None:
        field = f"f{self.rng.randrange(3)}"
        call, token = self._begin(self.hash.key, Kind.REGISTER, field=field)
        await self._write(call, self.all.client.hset(self.hash.key, field, token), self.hash)

    async def hget(self) -> None:
        if not self.hash.written:
            return await self.hset()
        field = f"f{self.rng.randrange(3)}"
        call = self.all.history.begin(self.number, self.hash.key, Kind.READ, field=field)
        if await self._read(call, self.all.client.hget(self.hash.key, field)) is None:
            self.hash.renew()
        return None

    async def rpush(self) -> None:
        key = self._shared("list")
        call, token = self._begin(key, Kind.APPEND)
        await self._write(call, self.all.client.rpush(key, token))

    async def xadd(self) -> None:
        key = self._shared("stream")
        call, token = self._begin(key, Kind.APPEND)
        await self._write(call, self.all.client.xadd(key, {"id": token}))

    async def zadd(self) -> None:
        key = self._shared("zset")
        call, token = self._begin(key, Kind.APPEND)
        await self._write(call, self.all.client.zadd(key, {token: self.rng.random()}))

    async def sadd(self) -> None:
        key = self._shared("set")
        call, token = self._begin(key, Kind.APPEND)
        await self._write(call, self.all.client.sadd(key, token))

    async def incr(self) -> None:
        key = f"{self.all.prefix}count:{self.number}"
        call = self.all.history.begin(self.number, key, Kind.COUNTER)
        await self._write(call, self.all.client.incr(key))

    async def pipeline(self) -> None:
        slot, shared = self.rng.choice(self.slots), self._shared("list")
        pipe = self.all.client.pipeline(transaction=False)
        calls = []
        for queue, key, kind in (
            (pipe.set, slot.key, Kind.REGISTER),
            (pipe.rpush, shared, Kind.APPEND),
        ):
            call, token = self._begin(key, kind)
            queue(key, token)
            calls.append(call)
        call, token = self._begin(self.hash.key, Kind.REGISTER, field="f0")
        pipe.hset(self.hash.key, "f0", token)
        calls.append(call)
        started = time.perf_counter()
        outcome, replies = await outcome_of(pipe.execute(raise_on_error=False))
        self.all.tally.latencies.append(time.perf_counter() - started)
        if outcome is ACK:
            outcomes = [Outcome.ERROR if isinstance(r, Exception) else ACK for r in replies]
            slot.written = self.hash.written = True
        else:
            outcomes = [outcome] * len(calls)
        for call, each in zip(calls, outcomes, strict=True):
            call.end(each)
            self.all.tally.outcomes[each] += 1

    # -- how

    def _shared(self, kind: str) -> str:
        return f"{self.all.prefix}{kind}:{self.rng.randrange(SHARED)}"

    def _begin(self, key: str, kind: Kind, **more: Any) -> tuple[Call, str]:
        token = self.all.history.token(self.number)
        return self.all.history.begin(self.number, key, kind, token, **more), token

    async def _write(self, call: Call, command: Awaitable[Any], slot: Slot | None = None) -> None:
        started = time.perf_counter()
        outcome, _ = await outcome_of(command)
        self.all.tally.latencies.append(time.perf_counter() - started)
        self.all.tally.outcomes[outcome] += 1
        call.end(outcome)
        if slot is not None and outcome is ACK:
            slot.written = True

    async def _read(self, call: Call, command: Awaitable[Any]) -> Any:
        started = time.perf_counter()
        outcome, reply = await outcome_of(command)
        self.all.tally.latencies.append(time.perf_counter() - started)
        if outcome is ACK:  # None: absent, or a neutral answer; a caller cannot tell
            outcome = Outcome.NEUTRAL if reply is None else Outcome.VALUE
        self.all.tally.outcomes[outcome] += 1
        call.end(outcome, reply)
        return reply


class Workload:
    """All tasks together; `rate` is operations per second and task."""

    def __init__(
        self, client: Any, history: History, tasks: int, rate: float, prefix: str = ""
    ) -> None:
        self.client = client
        self.history = history
        self.prefix = prefix
        self.rate = rate
        self.tally = Tally()
        self.stopping = asyncio.Event()
        self.workers = [Worker(number, self) for number in range(tasks)]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.ensure_future(worker.run()) for worker in self.workers]

    async def stop(self, patience: float = 10.0) -> int:
        """End the tasks; those that still wait then are cancelled. Returns how many were.

        A task that failed by itself is a bug of the rehearsal: its error is raised here.
        """
        self.stopping.set()
        done, late = await asyncio.wait(self._tasks, timeout=patience)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        for task in done:
            task.result()
        return len(late)


async def outcome_of(command: Awaitable[Any]) -> tuple[Outcome, Any]:
    """What a caller can conclude from an answer, or from the error in its place."""
    try:
        return ACK, await command
    except CommandRefused:
        return Outcome.REFUSED, None
    except OutcomeUnknown:
        return Outcome.UNKNOWN, None
    except redis.exceptions.MaxConnectionsError:
        return Outcome.ERROR, None  # nothing was sent
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
        # Plain redis-py does not say whether the command was executed.
        return Outcome.UNKNOWN, None
    except redis.exceptions.RedisError:
        return Outcome.ERROR, None  # an error reply: it was not executed
