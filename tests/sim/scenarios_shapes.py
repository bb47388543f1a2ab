"""What is cancelled: transactions, blocking commands, subscribers."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import WatchError

from .cancelling import Scenario
from .pubsub import publish
from .scenarios import scenario, warm
from .world import Cut, World

# -- transactions -------------------------------------------------------------------------------


class Whole(World):
    """Of each transaction all or nothing is there."""

    def judge(self) -> None:
        super().judge()
        store = self.server.store
        for start, end in zip(store.wholes, [*store.wholes[1:], len(store.log)], strict=True):
            there = {arg for _, args in store.log[start:end] for arg in args}
            for unit in self.units:
                if there & unit and not unit <= there:
                    self.fail(f"half a transaction: {there & unit} of {unit}")

    def __init__(self, seed: int, cut: Cut, **options: Any) -> None:
        self.units: list[set[bytes]] = []
        super().__init__(seed, cut, **options)

    async def together(self, size: int = 3, client: Any = None) -> Any:
        tokens = [self.token() for _ in range(size)]
        self.units.append(set(tokens))
        async with (client or self.client).pipeline(transaction=True) as pipe:
            for token in tokens:
                pipe.rpush("list", token)
            return await self.told(tokens, pipe.execute())


def whole(function: Any) -> Scenario:
    return scenario(function, Whole)


@whole
async def transaction(w: Whole) -> None:
    await warm(w)
    await w.victim(w.together())


@whole
async def transaction_that_connects(w: Whole) -> None:
    await w.victim(w.together())


@whole
async def transaction_sent_in_pieces(w: Whole) -> None:
    """The kernel takes little at a time, and the connection breaks: sent again, or not."""
    w.net.window, w.net.high_water, w.net.low_water = 60, 50, 20
    await warm(w)
    w.at(4 * w.net.latency, w.break_all)
    await w.victim(w.together(8))


@whole
async def transaction_while_writes_are_held(w: Whole) -> None:
    await warm(w)
    w.server.mode = "NOREPLICAS"
    w.at(0.4, lambda: setattr(w.server, "mode", ""))
    await w.victim(w.together())


@whole
async def transaction_under_watch(w: Whole) -> None:
    await w.client.set("watched", "1")

    async def change() -> Any:
        tokens = [w.token(), w.token()]
        w.units.append(set(tokens))
        async with w.client.pipeline() as pipe:
            await pipe.watch("watched")
            await pipe.get("watched")
            pipe.multi()
            for token in tokens:
                pipe.rpush("list", token)
            return await w.told(tokens, pipe.execute())

    await w.victim(change())


@whole
async def transaction_under_watch_that_is_broken(w: Whole) -> None:
    await w.client.set("watched", "1")
    w.at(6 * w.net.latency, w.break_all)

    async def change(pipe: Any) -> None:
        await pipe.get("watched")
        pipe.multi()
        token = w.token()
        pipe.rpush("list", token)

    async def attempt() -> Any:
        try:
            return await w.client.transaction(change, "watched")
        except WatchError:
            return None

    await w.victim(attempt())


# -- blocking -------------------------------------------------------------------------------------


class Popped(World):
    """What was taken out was given to one caller, or may be with one who went away."""

    def __init__(self, seed: int, cut: Cut, **options: Any) -> None:
        self.got: list[bytes] = []
        super().__init__(seed, cut, **options)

    async def pop(self, seconds: float, client: Any = None) -> Any:
        reply = await (client or self.client).blpop("queue", seconds)
        if reply is not None:
            self.got.append(reply[1])
        return reply

    async def read_group(self, ms: int) -> Any:
        reply = await self.client.xreadgroup("g", "me", {"stream": ">"}, block=ms)
        for _, entries in reply.items() if isinstance(reply, dict) else reply or ():
            batch = entries[0] if entries and isinstance(entries[0], list) else entries
            self.got += [fields[b"n"] for _, fields in batch]
        return reply

    def judge(self) -> None:
        super().judge()
        taken = [value for _, _, value in self.server.store.taken]
        self.check(len(set(self.got)) == len(self.got), f"given out twice: {self.got}")
        lost = [value for value in taken if value not in self.got]
        allowed = 0 if self.found.ended == "returned" else 1  # OutcomeUnknown, or cancelled
        self.check(len(lost) <= allowed, f"taken out and given to nobody: {lost}")


def popping(function: Any) -> Scenario:
    return scenario(function, Popped)


@popping
async def pop_that_finds(w: Popped) -> None:
    await w.client.rpush("queue", "a", "b")
    await w.victim(w.pop(1.0))
    await w.pop(1.0)


@popping
async def pop_that_waits_at_the_server(w: Popped) -> None:
    await warm(w)
    pusher = w.make_client()
    w.at(0.3, lambda: w.loop.create_task(pusher.rpush("queue", "a")))
    await w.victim(w.pop(2.0))
    await asyncio.sleep(0.5)
    await pusher.rpush("queue", "b")
    await w.pop(1.0)


@popping
async def pop_in_vain(w: Popped) -> None:
    await warm(w)
    await w.victim(w.pop(0.3))
    await w.client.rpush("queue", "a")
    await w.pop(1.0)


@popping
async def pop_through_an_outage(w: Popped) -> None:
    """It waits for Redis, connects anew, and waits for the rest of its time there."""
    await w.outage()
    w.at(0.4, w.back)
    w.at(1.5, lambda: w.loop.create_task(w.client.rpush("queue", "a")))
    await w.victim(w.pop(4.0))
    await asyncio.sleep(1.6)


@popping
async def pop_whose_connection_breaks(w: Popped) -> None:
    await w.client.rpush("queue", "a")
    w.lose_replies(0.05)
    await w.victim(w.pop(1.0))


@popping
async def read_of_a_group(w: Popped) -> None:
    await w.client.xgroup_create("stream", "g", mkstream=True)
    w.at(0.2, lambda: w.loop.create_task(w.client.xadd("stream", {"n": "1"})))
    await w.victim(w.read_group(1000))
    await asyncio.sleep(0.3)
    await w.client.xadd("stream", {"n": "2"})
    await w.read_group(1000)


# -- subscribers ---------------------------------------------------------------------------


class Listening(World):
    """A subscriber, and somebody else who publishes numbers."""

    def __init__(self, seed: int, cut: Cut, **options: Any) -> None:
        self.heard: list[int] = []
        self.said = 0
        super().__init__(seed, cut, **options)
        self.pubsub = self.client.pubsub()

    def say(self) -> None:
        if not self.server.down and not self.server.frozen:
            self.said += 1
            publish(self.server, b"news", b"%d" % self.said)

    def note(self, message: Any) -> None:
        if message is not None and message["type"] == "message":
            self.heard.append(int(message["data"]))

    async def hear(self, count: int) -> None:
        while len(self.heard) < count:
            self.note(await self.pubsub.get_message(timeout=0.5))

    async def settle(self) -> None:
        """Whatever has become of the call, it can subscribe and hear again."""
        for heal in self.heals:
            heal()
        self.back()
        await asyncio.sleep(0.2)
        try:
            await self.pubsub.subscribe("news")
            for _ in range(60):
                self.say()
                self.note(await self.pubsub.get_message(timeout=0.1))
                if self.heard and self.heard[-1] == self.said:
                    break
            self.check(bool(self.heard) and self.heard[-1] > 3, f"hears nothing: {self.heard}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
            self.fail(f"the subscriber raised {error!r}")
        self.check(self.heard == sorted(set(self.heard)), f"heard: {self.heard}")
        await self.pubsub.aclose()
        await super().settle()


def listening(function: Any) -> Scenario:
    return scenario(function, Listening)


@listening
async def subscribe_first(w: Listening) -> None:
    w.said = 3
    await w.victim(w.pubsub.subscribe("news", "other"))


@listening
async def subscribe_more(w: Listening) -> None:
    await w.pubsub.subscribe("news")
    await w.hear(0)
    w.say()
    await w.victim(w.pubsub.psubscribe("n*x"))
    w.say()
    w.say()


@listening
async def unsubscribe(w: Listening) -> None:
    await w.pubsub.subscribe("news", "other")
    w.said = 3
    await w.victim(w.pubsub.unsubscribe("other"))


@listening
async def ping_of_a_subscriber(w: Listening) -> None:
    await w.pubsub.subscribe("news")
    w.said = 3
    await w.victim(w.pubsub.ping())


@listening
async def listen(w: Listening) -> None:
    """Messages come, an outage comes, messages come again."""
    await w.pubsub.subscribe("news")
    for n in range(40):
        w.at(0.05 * n, w.say)
    w.at(0.42, w.server.kill)
    w.at(0.9, w.back)

    async def listener() -> None:
        async for message in w.pubsub.listen():
            w.note(message)
            if w.heard and w.heard[-1] > 20:
                return

    await w.victim(listener())


@listening
async def poll(w: Listening) -> None:
    await w.pubsub.subscribe("news")
    for n in range(8):
        w.at(0.05 * n, w.say)
    w.at(0.12, w.break_all)
    await w.victim(w.hear(4))
