"""What the soak's tasks do all the time, what they were told, and what no answer may ever be.

Every written value begins with the key that it was written to. So a reply that belongs to another
command is seen at once, and not only where it happens to be of another type.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import redis.exceptions

from resilient_redis import CommandRefused, OutcomeUnknown
from resilient_redis.cli.history import Call, History, Kind, Outcome
from resilient_redis.flow.breaker import CircuitBreaker
from resilient_redis.receipt import Queued
from tests.support.cancelling import cancelled_after

from .tally import Tally

Check = Callable[[Any], bool]

LONG_MS, SHORT_MS = 60_000, 1500
SHORT = ":short:"  # in the names of keys with the short time to live
SHARED = 4  # lists, streams, sets and sorted sets; a task adds to half of them, reads the others


def is_int(reply: Any) -> bool:
    return type(reply) is int


def is_true(reply: Any) -> bool:
    return reply is True


def is_id(reply: Any) -> bool:
    return isinstance(reply, (str, bytes)) and re.fullmatch(r"\d+-\d+", _text(reply)) is not None


def or_receipt(check: Check) -> Check:
    return lambda reply: isinstance(reply, Queued) or check(reply)


class Slot:
    """A key that one task writes; `renew` gives it another name.

    No task writes a key that it has read as absent: while Redis is away absent may be a neutral
    answer, and the write then depends on the premise that it was true (DESIGN.md, section 1).
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._generation = 0
        self.written = False

    @property
    def key(self) -> str:
        return f"{self._name}:{self._generation}"

    def renew(self) -> None:
        self._generation += 1
        self.written = False


class Worker:
    """One task: one operation after the other, at random times and of random kinds."""

    cancelled_share = 0.03

    def __init__(
        self,
        number: int,
        client: Any,
        db: int,
        breaker: CircuitBreaker,
        history: History,
        tally: Tally,
        rng: random.Random,
    ) -> None:
        self.number = number
        self.client = client
        self.db = db
        self.history = history
        self.tally = tally
        self.peers: list[Worker] = []  # on the same breaker and database
        self.breaker = breaker
        self.rng = rng
        self.prefix = f"{breaker.name}:"
        base = f"{breaker.name}:{number}"
        self.registers = [Slot(f"{base}:reg:{n}") for n in range(3)]
        self.hash = Slot(f"{base}:hash")
        self.long = Slot(f"{base}:long")
        self.short = Slot(f"{base}{SHORT}")
        self.lease = Slot(f"{base}:lease")
        self.counter = f"{base}:count"
        self.counted = 0  # the highest value that this task's counter has answered
        steps: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.set, 20),
            (self.get, 12),
            (self.get_of_another, 8),
            (self.set_expiring, 7),
            (self.renew_lease, 3),
            (self.delete, 5),
            (self.rpush, 14),
            (self.hset, 6),
            (self.hget, 4),
            (self.xadd, 6),
            (self.zadd, 5),
            (self.sadd, 5),
            (self.pipeline, 7),
            (self.transaction, 3),
            (self.incr, 4),
            (self.read_shared, 3),
        ]
        self._steps = [step for step, weight in steps for _ in range(weight)]

    async def run(self, rate: float, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await asyncio.sleep(self.rng.expovariate(rate))
            await self.rng.choice(self._steps)()

    # -- the kinds of operation

    async def set(self) -> None:
        slot = self.rng.choice(self.registers)
        call, token = self._begin(slot.key, Kind.REGISTER)
        await self._write(call, self.client.set(slot.key, token), is_true, slot)

    async def set_expiring(self) -> None:
        slot, ttl = self.rng.choice(((self.long, LONG_MS), (self.short, SHORT_MS)))
        call, token = self._begin(slot.key, Kind.REGISTER, ttl_ms=ttl)
        await self._write(call, self.client.set(slot.key, token, px=ttl), is_true, slot)

    async def renew_lease(self) -> None:
        slot = self.lease
        if not slot.written or self.rng.random() < 0.5:
            call, token = self._begin(slot.key, Kind.REGISTER)
            await self._write(call, self.client.set(slot.key, token), is_true, slot)
            return
        call = self._call(slot.key, Kind.EXPIRE, ttl_ms=LONG_MS)
        await self._write(call, self.client.pexpire(slot.key, LONG_MS), is_bool)

    async def delete(self) -> None:
        slot = self.rng.choice(self.registers)
        call = self._call(slot.key, Kind.DELETE)
        await self._write(call, self.client.delete(slot.key), is_int)

    async def get(self) -> None:
        slot = self.rng.choice(self.registers)
        if not slot.written:
            return await self.set()
        call = self._call(slot.key, Kind.READ)
        if await self._read(call, self.client.get(slot.key)) is None:
            slot.renew()  # also where the answer was not waited for
        return None

    async def get_of_another(self) -> None:
        other = self.rng.choice(self.peers)
        if other is self:
            return
        key = self.rng.choice(other.registers).key
        await self._read(self._call(key, Kind.READ), self.client.get(key))

    async def hset(self) -> None:
        field = f"f{self.rng.randrange(3)}"
        call, token = self._begin(self.hash.key, Kind.REGISTER, field=field)
        command = self.client.hset(self.hash.key, field, token)
        await self._write(call, command, or_receipt(is_int), self.hash)

    async def hget(self) -> None:
        if not self.hash.written:
            return await self.hset()
        field = f"f{self.rng.randrange(3)}"
        call = self._call(self.hash.key, Kind.READ, field=field)
        if await self._read(call, self.client.hget(self.hash.key, field)) is None:
            self.hash.renew()
        return None

    async def rpush(self) -> None:
        key = self._shared("list")
        call, token = self._begin(key, Kind.APPEND)
        await self._write(call, self.client.rpush(key, token), or_receipt(is_int))

    async def xadd(self) -> None:
        key = self._shared("stream")
        call, token = self._begin(key, Kind.APPEND)
        await self._write(call, self.client.xadd(key, {"id": token}), or_receipt(is_id))

    async def zadd(self) -> None:
        key = self._shared("zset")
        call, token = self._begin(key, Kind.APPEND)
        command = self.client.zadd(key, {token: self.rng.random()})
        await self._write(call, command, or_receipt(is_int))

    async def sadd(self) -> None:
        key = self._shared("set")
        call, token = self._begin(key, Kind.APPEND)
        await self._write(call, self.client.sadd(key, token), or_receipt(is_int))

    async def incr(self) -> None:
        call = self._call(self.counter, Kind.COUNTER)
        outcome, value = await self._write(call, self.client.incr(self.counter), is_int)
        if outcome is Outcome.ACKNOWLEDGED and type(value) is int:
            if value <= self.counted:
                self._is_wrong(call, f"INCR answered {value} after {self.counted}")
            self.counted = value

    async def read_shared(self) -> None:
        """Reads of other types; their answers are checked, the oracle does not see them."""
        length, kind = self._shared("list", 1), self._shared("zset", 1)
        for command, check in (
            (self.client.llen(length), is_int),
            (self.client.lrange(length, -2, -1), lambda reply: self._all_of(reply, length)),
            (self.client.type(kind), lambda reply: _text(reply) in ("zset", "none")),
            (self.client.zcard(kind), is_int),
        ):
            await self._told(self._nowhere(), command, check)

    async def pipeline(self) -> None:
        slot, shared = self.rng.choice(self.registers), self._shared("list")
        pipe = self.client.pipeline(transaction=False)
        calls, checks = self._fill(pipe, slot, shared)
        if slot.written and self.rng.random() < 0.3:
            calls.append(self._call(slot.key, Kind.READ))
            pipe.get(slot.key)
            checks.append(lambda reply: reply is None or self._all_of([reply], slot.key))
        await self._execute(pipe, calls, checks, slot)

    async def transaction(self) -> None:
        slot, shared = self.rng.choice(self.registers), self._shared("list")
        pipe = self.client.pipeline(transaction=True)
        calls, checks = self._fill(pipe, slot, shared)
        self.tally.units.append({call.value for call in calls if call.value})
        await self._execute(pipe, calls, checks, slot)

    def _fill(self, pipe: Any, slot: Slot, shared: str) -> tuple[list[Call], list[Check]]:
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
        return [*calls, call], [is_true, or_receipt(is_int), or_receipt(is_int)]

    async def _execute(self, pipe: Any, calls: list[Call], checks: list[Check], slot: Slot) -> None:
        held = self._held()
        outcome, replies = await self._told(calls[0], pipe.execute(raise_on_error=False), is_list)
        if outcome is not Outcome.ACKNOWLEDGED:
            replies = [None] * len(calls)
            slot.renew()
        elif len(replies) != len(calls):
            self._is_wrong(calls[0], f"{len(replies)} replies to {len(calls)} commands")
        for call, check, reply in zip(calls, checks, replies, strict=True):
            each = outcome
            if isinstance(reply, Exception):
                self.tally.errors[f"in pipeline: {type(reply).__name__}"] += 1
                each = outcome_of(reply)
            elif outcome is Outcome.ACKNOWLEDGED:
                if not check(reply):
                    self._is_wrong(call, f"answered {reply!r}")
                if call.kind is Kind.READ:
                    each = self._read_outcome(outcome, reply, held)
                    if reply is None:
                        slot.renew()
                elif call.kind is Kind.REGISTER:
                    (self.hash if call.field else slot).written = True
            if outcome is Outcome.UNKNOWN and calls[0].id in self.tally.cancelled:
                self.tally.cancelled.add(call.id)
            self._end(call, each, reply)

    # -- how

    def _shared(self, kind: str, others: int = 0) -> str:
        number = 2 * self.rng.randrange(SHARED // 2) + (self.number + others) % 2
        return f"{self.prefix}{kind}:{number}"

    def _call(self, key: str, kind: Kind, **more: Any) -> Call:
        return self.history.begin(self.number, key, kind, db=self.db, **more)

    def _begin(self, key: str, kind: Kind, **more: Any) -> tuple[Call, str]:
        token = f"{key}={self.history.token(self.number)}"
        call = self.history.begin(self.number, key, kind, token, db=self.db, **more)
        return call, token

    def _nowhere(self) -> Call:
        """A call that is noted nowhere: a history of its own."""
        return History().begin(self.number, "", Kind.READ)

    async def _write(
        self, call: Call, command: Coroutine[Any, Any, Any], check: Check, slot: Slot | None = None
    ) -> tuple[Outcome, Any]:
        outcome, reply = await self._told(call, command, check)
        self._end(call, outcome, None)
        if slot is not None and outcome is Outcome.ACKNOWLEDGED:
            slot.written = True
        return outcome, reply

    async def _read(self, call: Call, command: Coroutine[Any, Any, Any]) -> Any:
        key = call.key.decode()
        check: Check = lambda reply: reply is None or self._all_of([reply], key)  # noqa: E731
        held = self._held()
        outcome, reply = await self._told(call, command, check)
        self._end(call, self._read_outcome(outcome, reply, held), reply)
        return reply

    def _held(self) -> bool:
        return self.breaker.snapshot().writes_held is not None

    def _read_outcome(self, outcome: Outcome, reply: Any, held: bool) -> Outcome:
        """A write outage leaves reads live (DESIGN.md, section 1), also behind queued writes: what
        is read then is not held against them.
        """
        if outcome is not Outcome.ACKNOWLEDGED:
            return outcome
        if reply is not None and (held or self._held()):
            self.tally.while_held += 1
            return Outcome.NEUTRAL
        return Outcome.NEUTRAL if reply is None else Outcome.VALUE

    def _end(self, call: Call, outcome: Outcome, reply: Any) -> None:
        read = None if not isinstance(reply, (str, bytes)) else _text(reply).encode()
        op = call.end(outcome, read)
        self.tally.outcomes[outcome] += 1
        self.tally.acknowledged += op.acknowledged

    async def _told(
        self, call: Call, command: Coroutine[Any, Any, Any], check: Check
    ) -> tuple[Outcome, Any]:
        """What the caller can conclude from the answer, or from the error in its place."""
        patience = None
        if self.rng.random() < self.cancelled_share:
            patience = self.rng.choice((0.001, 0.005, 0.05, 0.3))
        by_hand = patience is not None and self.rng.random() < 0.5
        cut_short = cancelled_after if by_hand else asyncio.wait_for
        try:
            reply = await (cut_short(command, patience) if patience else command)
        except asyncio.TimeoutError as error:
            if patience is None:
                return self._crashed(call, error)
            self.tally.cancelled.add(call.id)
            return Outcome.UNKNOWN, None
        except redis.exceptions.RedisError as error:
            self.tally.errors[type(error).__name__] += 1
            return outcome_of(error), None
        except Exception as error:  # noqa: BLE001 - whatever it is, no caller may ever see it
            return self._crashed(call, error)
        if not check(reply):
            self._is_wrong(call, f"answered {reply!r}")
        return Outcome.ACKNOWLEDGED, reply

    def _crashed(self, call: Call, error: BaseException) -> tuple[Outcome, Any]:
        self._is_wrong(call, f"raised {error!r}")
        return Outcome.UNKNOWN, None

    def _is_wrong(self, call: Call, what: str) -> None:
        self.tally.wrong.append(f"{call.kind.value} {call.key.decode()} (op {call.id}): {what}")

    def _all_of(self, replies: Any, key: str) -> bool:
        return isinstance(replies, list) and all(_text(r).startswith(f"{key}=") for r in replies)


def outcome_of(error: Exception) -> Outcome:
    if isinstance(error, CommandRefused):
        return Outcome.REFUSED
    if isinstance(error, OutcomeUnknown):
        return Outcome.UNKNOWN
    if isinstance(error, redis.exceptions.MaxConnectionsError):
        return Outcome.ERROR  # nothing was sent
    if isinstance(error, (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)):
        return Outcome.UNKNOWN
    return Outcome.ERROR  # an error reply: it was not executed


def is_list(reply: Any) -> bool:
    return isinstance(reply, list)


def is_bool(reply: Any) -> bool:
    return isinstance(reply, bool)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
