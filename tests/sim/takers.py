"""Workers of other kinds: who takes out what others have put in, and who listens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from resilient_redis.asyncio import CommandRefused, OutcomeUnknown
from resilient_redis.cli.history import Kind
from resilient_redis.events import Event, SubscriptionGap
from tests.support.cancelling import cancelled_after

from .pubsub import publish
from .work import INJECTED, Step, Worker

if TYPE_CHECKING:
    from .swarm import Run

GROUP = "g"
# Between a message and who hears it: the way, and what a client that is busy takes.
ON_ITS_WAY = 0.1


class Producer(Worker):
    """Fills lists and a stream, which nobody but the takers empties."""

    async def work(self, calls: int) -> None:
        for _ in range(calls):
            token = self.token()
            if self.rng.random() < 0.3:
                step = Step(("XADD", "st", "*", "n", token), Kind.APPEND, "st", token, safe=False)
            else:
                key = f"q{self.rng.randint(0, 1)}"
                step = Step(("RPUSH", key, token), Kind.APPEND, key, token, safe=False)
            await self.call([step])
            await asyncio.sleep(self.rng.expovariate(1 / self.run.config.pause))


class Taker:
    """Pops, waits where there is nothing, and gives up now and then."""

    def __init__(self, run: Run, client: Any) -> None:
        self.run = run
        self.rng = run.loop.rng
        self.client = client
        self.got: list[bytes] = []
        self.maybe = 0  # elements that may be gone with a call whose outcome nobody knows

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.take()
            await asyncio.sleep(self.rng.expovariate(1 / self.run.config.pause))

    async def take(self) -> None:
        # What waits longer than socket_timeout is sent again by redis-py's retry (see
        # tests/contract/test_not_an_outage.py), and then nobody can say what became of the first.
        longest = 0.8 * (self.run.config.socket_timeout or 1.25)
        seconds = round(min(10 ** self.rng.uniform(-2, 0), longest), 3)
        which, limit = self.rng.randint(0, 3), None
        match which:
            case 0:
                call = self.client.execute_command("LPOP", "q0")
            case 1:
                call = self.client.execute_command("BLPOP", "q0", "q1", seconds)
            case 2:
                call = self.client.execute_command(
                    "BLMOVE", "q1", "moved", "LEFT", "RIGHT", seconds
                )
            case _:
                ms = int(seconds * 1000)
                call = self.client.execute_command(
                    *("XREADGROUP", "GROUP", GROUP, "me", "COUNT", 3, "BLOCK", ms),
                    *("STREAMS", "st", ">"),
                )
        if self.rng.random() < self.run.config.cancels:
            limit = 10 ** self.rng.uniform(-4, -0.3)
        at_stake = 3 if which == 3 else 1
        try:
            reply = await (call if limit is None else cancelled_after(call, limit))
        except OutcomeUnknown:
            self.maybe += at_stake
        except CommandRefused as error:
            if which != 2:
                self.run.fail(f"a pop was refused: {error}")
        except asyncio.TimeoutError:
            if limit is None:
                self.run.fail("a pop raised TimeoutError")
            self.maybe += at_stake
        except ResponseError as error:
            allowed = tuple(c for mode in self.run.chaos.errors for c in INJECTED[mode])
            if not isinstance(error, allowed or (CommandRefused,)):
                self.run.fail(f"a pop raised {error!r}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
            self.run.fail(f"a pop raised {error!r}")
        else:
            self.got += list(_values(reply)) if which == 3 else _element(reply)

    def judge(self) -> None:
        taken = [value for _, _, value in self.run.server.store.taken]
        if len(set(self.got)) != len(self.got):
            self.run.fail("an element was given out twice")
        if not set(self.got) <= set(taken):
            self.run.fail("an element was given out that nobody has taken")
        lost = len(taken) - len(self.got)
        if lost > self.maybe:
            self.run.fail(f"{lost} elements were taken and given to nobody, {self.maybe} unknown")


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _element(reply: Any) -> list[bytes]:
    """The last of what a pop answers: [key, value], a value, or nothing."""
    value = reply[-1] if isinstance(reply, (list, tuple)) and reply else reply
    return [] if not value else [_bytes(value)]


def _values(reply: Any) -> list[bytes]:
    """What stands in the last field of each entry, however deep redis-py has put it."""
    if isinstance(reply, dict):
        found = [_bytes(v) for v in reply.values() if isinstance(v, (str, bytes))]
        return found + [
            v for x in reply.values() if isinstance(x, (dict, list)) for v in _values(x)
        ]
    if isinstance(reply, (list, tuple)):
        return [v for x in reply for v in _values(x)]
    return []


class Listener:
    """A subscriber; and the numbers that somebody else publishes for it."""

    def __init__(self, run: Run, client: Any, number: int) -> None:
        self.run = run
        self.rng = run.loop.rng
        self.channel = f"news{number}"
        self.pubsub = client.pubsub()
        self.said: list[float] = []  # when each number was published
        self.heard: list[tuple[int, float]] = []
        self.gaps: list[tuple[float, float]] = []
        self.quiet = False
        run.breaker.add_observer(self._told)

    def _told(self, event: Event) -> None:
        if isinstance(event, SubscriptionGap) and self.channel.encode() in event.channels:
            self.gaps.append((event.start, event.end))

    async def publish(self) -> None:
        while not self.quiet:
            await asyncio.sleep(self.rng.expovariate(1 / (self.run.config.pause / 2)))
            self.say()

    def say(self) -> None:
        server = self.run.server
        if not server.down and not server.frozen:
            publish(server, self.channel.encode(), b"%d" % len(self.said))
            self.said.append(self.run.loop.time())

    async def work(self) -> None:
        await self.pubsub.subscribe(self.channel)
        while not self.quiet:
            await self.hear(10 ** self.rng.uniform(-2.5, 0))

    async def hear(self, seconds: float) -> None:
        call, limit = self.pubsub.get_message(timeout=seconds), None
        if self.rng.random() < self.run.config.cancels:
            limit = seconds * self.rng.random()
        try:
            message = await (call if limit is None else cancelled_after(call, limit))
        except asyncio.TimeoutError as error:
            if limit is None:
                self.run.fail(f"a subscriber raised {error!r}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
            if not isinstance(error, INJECTED["LOADING"]):
                self.run.fail(f"a subscriber raised {error!r}")
            await asyncio.sleep(0.01)
        else:
            if message is not None and message["type"] == "message":
                self.heard.append((int(message["data"]), self.run.loop.time()))

    async def end(self) -> None:
        """All is healed: it hears again."""
        for _ in range(10):
            self.say()
            until = self.run.loop.time() + 1.0
            while self._behind and self.run.loop.time() < until:
                await self.hear(0.1)
            if not self._behind:
                break
        else:
            self.run.fail(f"the subscriber hears nothing after the heal: {self.heard[-1:]}")
        await self.pubsub.aclose()

    @property
    def _behind(self) -> bool:
        return not self.heard or self.heard[-1][0] != len(self.said) - 1

    def judge(self) -> None:
        numbers = [number for number, _ in self.heard]
        if numbers != sorted(set(numbers)):
            self.run.fail("a subscriber heard a message twice, or too late")
        for (last, then), (number, now) in zip(self.heard, self.heard[1:], strict=False):
            if number == last + 1:
                continue
            # What is missing was published from here on; who was told late was told of it late.
            first = max(then, self.said[last + 1] + ON_ITS_WAY)
            if not any(start <= first and end <= now for start, end in self.gaps if end >= then):
                gaps = [f"{s:.3f}..{e:.3f}" for s, e in self.gaps if e >= then][:2]
                self.run.fail(
                    f"{number - last - 1} messages missed, published from {self.said[last + 1]:.3f}"
                    f" on; heard {last} at {then:.3f}, {number} at {now:.3f}; told of {gaps}"
                )
