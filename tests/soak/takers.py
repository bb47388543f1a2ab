"""Who takes out what others have put in, and who listens; one of each for a team."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilient_redis import OutcomeUnknown
from resilient_redis.asyncio import RedisCircuitBreaker
from resilient_redis.cli.aof import Effect
from resilient_redis.cli.history import Kind
from resilient_redis.events import Event, SubscriptionGap
from tests.support.cancelling import cancelled_after

from .tally import Tally
from .workers import Worker, is_id, is_int, or_receipt

QUEUES = 2
GROUP = "takers"
LONGEST_BLOCK = 1.0  # s; less than any client's socket_timeout
ON_ITS_WAY = 3.0  # s; no fault holds a message longer
FULL = "max number of clients"  # such a server answers, and is no outage: as in redis-py
MAX_ENTRIES = 3  # that one XREADGROUP may take


class Producer(Worker):
    """Fills the queues and the stream; it never reads them, so nothing depends on a premise."""

    async def run(self, rate: float, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await asyncio.sleep(self.rng.expovariate(rate))
            if self.rng.random() < 0.3:
                key = f"{self.prefix}tasks"
                call, token = self._begin(key, Kind.APPEND)
                added = self.client.xadd(key, {"id": token})
                await self._write(call, added, or_receipt(is_id))
            else:
                key = f"{self.prefix}queue:{self.rng.randrange(QUEUES)}"
                call, token = self._begin(key, Kind.APPEND)
                await self._write(call, self.client.rpush(key, token), or_receipt(is_int))


class Taker:
    """Pops, waits where there is nothing, and is sometimes cancelled."""

    def __init__(
        self, client: Any, breaker: RedisCircuitBreaker, tally: Tally, rng: random.Random
    ) -> None:
        self.client = client
        self.tally = tally
        self.rng = rng
        self.prefix = f"{breaker.name}:"
        self.queues = [f"{self.prefix}queue:{number}" for number in range(QUEUES)]
        self.stream = f"{self.prefix}tasks"
        self.got: list[bytes] = []
        self.maybe = 0  # elements that may be gone with a call whose outcome nobody knows

    async def run(self, rate: float, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await asyncio.sleep(self.rng.expovariate(rate))
            await self._take()

    async def _take(self) -> None:
        seconds = round(self.rng.uniform(0.01, LONGEST_BLOCK), 2)
        at_stake, moves = 1, False
        call: Coroutine[Any, Any, Any]
        match self.rng.randrange(4):
            case 0:
                call = self.client.lpop(self.rng.choice(self.queues))
            case 1:
                call = self.client.blpop(self.queues, seconds)
            case 2:
                moves = True
                call = self.client.blmove(self.queues[0], f"{self.prefix}moved", seconds)
            case _:
                at_stake = MAX_ENTRIES
                call = self.client.xreadgroup(
                    GROUP, "me", {self.stream: ">"}, count=at_stake, block=int(1000 * seconds)
                )
        patience = self.rng.uniform(0.0, 0.3) if self.rng.random() < 0.1 else None
        try:
            reply = await (cancelled_after(call, patience) if patience is not None else call)
        except asyncio.TimeoutError:
            self.maybe += at_stake
        except redis.exceptions.RedisError as error:
            self.tally.errors[f"of a pop: {type(error).__name__}"] += 1
            if isinstance(error, OutcomeUnknown):
                self.maybe += at_stake
            elif isinstance(error, redis.exceptions.TimeoutError):
                self.tally.wrong.append(f"a pop of {seconds} s raised {error!r}")
            elif isinstance(error, redis.exceptions.ConnectionError) and not (
                moves
                or isinstance(error, redis.exceptions.MaxConnectionsError)
                or FULL in str(error)
            ):
                self.tally.wrong.append(f"a pop raised {error!r} {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, no caller may ever see it
            self.tally.wrong.append(f"a pop raised {error!r}")
        else:
            self.got += _tokens(reply, self.prefix.encode())

    def judge(self, effects: list[Effect], admin: Any) -> list[str]:
        """What is wrong, by the server's own file and by what is left at the end."""
        keys = {queue.encode() for queue in self.queues}
        pushed = {
            arg
            for effect in effects
            if effect.db == 0 and effect.name == b"RPUSH" and effect.args[1] in keys
            for arg in effect.args[2:]
        }
        added = [
            effect.args[-1]
            for effect in effects
            if effect.db == 0 and effect.name == b"XADD" and effect.args[1] == self.stream.encode()
        ]
        left = {_bytes(item) for queue in self.queues for item in admin.lrange(queue, 0, -1)}
        (group,) = admin.xinfo_groups(self.stream)
        waiting = admin.xrange(self.stream, "(" + _bytes(group["last-delivered-id"]).decode())
        left |= {_bytes(token) for _, fields in waiting for token in fields.values()}
        taken = (pushed | set(added)) - left
        wrong = []
        if len(set(self.got)) != len(self.got):
            wrong.append(f"{self.prefix} an element was given out twice")
        if not set(self.got) <= taken:
            wrong.append(f"{self.prefix} given out, and not taken: {set(self.got) - taken}"[:300])
        lost = taken - set(self.got)
        if len(lost) > self.maybe:
            wrong.append(
                f"{self.prefix} {len(lost)} elements given to nobody, {self.maybe} unknown"
            )
        return wrong


class Listener:
    """A subscriber. Somebody else, who is not guarded, publishes numbers for it."""

    def __init__(
        self, client: Any, breaker: RedisCircuitBreaker, port: int, user: str, password: str
    ) -> None:
        self.channel = f"{breaker.name}:news"
        self.pubsub = client.pubsub()
        self.publisher = Redis(
            port=port,
            username=user,
            password=password,
            socket_timeout=0.5,
            socket_connect_timeout=0.5,
            retry=Retry(NoBackoff(), 0),
        )
        self.said: list[tuple[float, bool]] = []  # when each was published, and whether for certain
        self.heard: list[tuple[int, float]] = []
        self.gaps: list[tuple[float, float]] = []
        self.problems: list[str] = []
        breaker.add_observer(self._told)

    def _told(self, event: Event) -> None:
        if isinstance(event, SubscriptionGap) and self.channel.encode() in event.channels:
            self.gaps.append((event.start, event.end))

    async def say(self) -> None:
        number = len(self.said)
        self.said.append((time.monotonic(), False))
        try:
            await self.publisher.publish(self.channel, f"{number}")
        except (redis.exceptions.RedisError, OSError):
            return  # it may have come through
        self.said[number] = (time.monotonic(), True)

    async def publish(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await self.say()
            await asyncio.sleep(0.02)

    async def run(self, stopping: asyncio.Event, rng: random.Random) -> None:
        await self.pubsub.subscribe(self.channel)
        while not stopping.is_set():
            await self.hear(rng.uniform(0.0, 0.5), rng.random() < 0.01)

    async def hear(self, seconds: float, impatient: bool = False) -> None:
        call = self.pubsub.get_message(timeout=seconds)
        try:
            message = await (cancelled_after(call, seconds / 2) if impatient else call)
        except asyncio.TimeoutError:
            return
        except redis.exceptions.ResponseError:
            await asyncio.sleep(0.01)  # a fault's: LOADING, NOPERM, maxclients
        except Exception as error:  # noqa: BLE001 - whatever it is, no subscriber may ever see it
            if FULL not in str(error):
                self.problems.append(f"{self.channel} raised {error!r} {error}")
            await asyncio.sleep(0.05)
        else:
            if message is not None and message["type"] == "message":
                self.heard.append((int(message["data"]), time.monotonic()))

    async def end(self) -> None:
        """All is healed: it hears the next thing that is said."""
        for _ in range(10):
            await self.say()
            until = time.monotonic() + 1.0
            while self._behind and time.monotonic() < until:
                await self.hear(0.1)
            if not self._behind:
                break
        else:
            self.problems.append(f"{self.channel} hears nothing after the heal")
        await self.pubsub.aclose()
        await self.publisher.aclose()

    @property
    def _behind(self) -> bool:
        return not self.heard or self.heard[-1][0] != len(self.said) - 1

    def judge(self) -> list[str]:
        wrong = self.problems[:5]
        numbers = [number for number, _ in self.heard]
        if numbers != sorted(set(numbers)):
            wrong.append(f"{self.channel} was heard twice, or too late")
        for (last, then), (number, now) in zip(self.heard, self.heard[1:], strict=False):
            missing = [at for at, certain in self.said[last + 1 : number] if certain]
            if not missing:
                continue
            first = max(then, missing[0] + ON_ITS_WAY)
            if not any(start <= first and then <= end <= now for start, end in self.gaps):
                wrong.append(
                    f"{self.channel} {len(missing)} messages missed, in no gap, {then:.3f}"
                )
        return wrong


def _bytes(word: str | bytes) -> bytes:
    return word.encode() if isinstance(word, str) else word


def _tokens(reply: Any, prefix: bytes) -> list[bytes]:
    """The tokens in what a pop has answered, however deep."""
    if isinstance(reply, (str, bytes)):
        word = _bytes(reply)
        return [word] if word.startswith(prefix) and b"=" in word else []
    if isinstance(reply, dict):
        return _tokens(list(reply.values()), prefix)
    if isinstance(reply, (list, tuple)):
        return [token for part in reply for token in _tokens(part, prefix)]
    return []
