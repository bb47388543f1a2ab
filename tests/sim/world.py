"""What is cancelled takes place here: one server, one network, one breaker."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import RedisError

from resilient_redis.asyncio import CommandRefused
from resilient_redis.cli.history import Outcome

from .loop import SimLoop
from .network import Network
from .server import SimServer
from .swarm import SimBreaker, SimConnection

#: Virtual seconds after which whoever still waits waits for ever.
FOR_EVER = 40.0
#: In which all is well again once it is healed. A permit that nobody gives back lapses after 3 s.
SOON = 1.5


@dataclass(frozen=True)
class Cut:
    """How a call is ended from outside: at turn `at`, and again `again` turns later; or by a
    timeout around it, of as many seconds as it takes to that turn: `wait_for`'s, or (`scoped`)
    `asyncio.timeout`'s.
    """

    at: int = 0
    again: int = 0
    after: float | None = None
    scoped: bool = False

    def __str__(self) -> str:
        if self.after is not None:
            return f"{'timeout' if self.scoped else 'wait_for'}({self.after:.6f})"
        return f"cancelled at turn {self.at}" + (f", again {self.again} later" * bool(self.again))


@dataclass
class Found:
    """What a run came to."""

    turns: int = 0  # that the call took
    moments: list[float] = field(default_factory=list)  # when each of them began, in seconds
    ended: str = ""  # how the call ended
    wrong: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)  # what asyncio would have logged


class World:
    """One server, one network, one breaker; what a scenario is made of."""

    def __init__(self, seed: int, cut: Cut, **options: Any) -> None:
        self.cut = cut
        self.loop = loop = SimLoop(seed, until=400.0)
        self.server = SimServer(loop)
        self.server.later = loop.call_later
        self.net = Network(loop, self.server)
        self.net.relaying = 0.0
        loop.connector = self.net.connect
        self.breaker = self.make_breaker(**options)
        self.found = Found()
        self.tokens: dict[bytes, Outcome] = {}
        self.earlier: list[bytes] = []  # those whose writers were over when the call was
        self.count = 0  # of all that were issued by then
        self.open: set[bytes] = set()  # those whose writers are not over
        self.clients: list[Any] = []
        self.heals: list[Callable[[], None]] = []
        self.client = self.make_client()
        self._task: asyncio.Task[Any] | None = None
        self._began = 0.0

    def make_breaker(self, **options: Any) -> SimBreaker:
        defaults = {"failure_threshold": 2, "recovery_timeout": 0.2, "deadline": 0.4}
        breaker = SimBreaker(**{**defaults, "probe_timeout": 0.3, "batch_size": 2, **options})
        breaker.clock = self.loop.time
        return breaker

    def make_client(self, pool_class: type[ConnectionPool] = ConnectionPool, **more: Any) -> Any:
        single = more.pop("single", False)
        pool = pool_class(
            **{"connection_class": SimConnection, "breaker": self.breaker, "host": "sim", **more}
        )
        client = Redis(connection_pool=pool, single_connection_client=single)
        self.clients.append(client)
        return client

    def fail(self, what: str) -> None:
        self.found.wrong.append(what[:600])

    def check(self, fine: bool, what: str) -> None:
        if not fine:
            self.fail(what)

    # -- the call -----------------------------------------------------------------------------

    async def victim(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Makes `call` in a task, which is ended as `cut` says. Its result, or its error, or None
        where it was cancelled.
        """
        cut = self.cut
        if cut.after is not None:
            call = _scoped(call, cut.after) if cut.scoped else asyncio.wait_for(call, cut.after)
        task = self._task = self.loop.create_task(call, name="victim")
        self._began = self.loop.time()
        self.loop.clockwork.on_turn = self._turn
        await asyncio.wait({task}, timeout=FOR_EVER)
        self.loop.clockwork.on_turn = None
        if not task.done():
            stack = [f"{f.f_code.co_filename}:{f.f_lineno}" for f in task.get_stack()]
            self.fail(f"the call hangs: {stack}")
            task.cancel()
            await asyncio.wait({task})
        self.earlier = [token for token in self.tokens if token not in self.open]
        self.count = len(self.tokens)
        await self.early()
        if task.cancelled():
            self.found.ended = "cancelled"
            self.check(bool(cut.at), "cancelled by nobody")
            return None
        self.check(not cut.at, "the cancellation was swallowed")
        error = task.exception()
        self.found.ended = "returned" if error is None else type(error).__name__
        if error is None:
            return task.result()
        timed_out = cut.after is not None and isinstance(error, asyncio.TimeoutError)
        if not isinstance(error, RedisError) and not timed_out:
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            self.fail(f"the call raised {''.join(lines)[-500:]}")
        return error

    async def early(self) -> None:
        """The very next commands get their own replies, or what an outage answers."""

        async def own(client: Any, word: str) -> None:
            try:
                await self.push(client)
                stored, got = await client.set(word, word), await client.get(word)
            except RedisError:
                return  # the outage goes on
            except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
                self.fail(f"the very next command raised {error!r}")
                return
            self.check(stored is True, f"SET {word} was answered {stored!r}")
            self.check(got in (word.encode(), None), f"GET {word} was answered {got!r}")

        pairs = [(client, f"early{n}.{m}") for n, client in enumerate(self.clients) for m in (0, 1)]
        await asyncio.gather(*(own(client, word) for client, word in pairs))

    def _turn(self) -> bool:
        """A turn of the loop begins. Whether the call was cancelled now."""
        task = self._task
        if task is None or task.done():
            return False
        found = self.found
        found.turns += 1
        found.moments.append(self.loop.time() - self._began)
        if found.turns in (self.cut.at, self.cut.at + self.cut.again) and self.cut.at:
            task.cancel()
            return True
        return False

    # -- writes that are accounted for -----------------------------------------------------------

    def token(self) -> bytes:
        token = b"token%d" % len(self.tokens)
        self.tokens[token] = Outcome.UNKNOWN  # until more is known
        return token

    async def told(self, tokens: list[bytes], call: Awaitable[Any]) -> Any:
        """Awaits `call`, which writes `tokens`, and keeps what its caller may conclude."""
        self.open.update(tokens)
        try:
            answer = await call
        except CommandRefused:
            self.tokens.update(dict.fromkeys(tokens, Outcome.REFUSED))
            raise
        finally:
            self.open.difference_update(tokens)
        answers = answer if isinstance(answer, list) and len(tokens) > 1 else [answer]
        for token, each in zip(tokens, answers, strict=True):
            failed = isinstance(each, Exception)
            self.tokens[token] = Outcome.UNKNOWN if failed else Outcome.ACKNOWLEDGED
        return answer

    async def push(self, client: Any = None, key: str = "list") -> Any:
        """RPUSH: not safe to send twice."""
        token = self.token()
        return await self.told([token], (client or self.client).rpush(key, token))

    async def put(self, client: Any = None, key: str = "string") -> Any:
        """SET: safe to send twice."""
        token = self.token()
        return await self.told([token], (client or self.client).set(key, token))

    async def many(self, transaction: bool, size: int = 4, client: Any = None) -> Any:
        """A pipeline of pushes."""
        tokens = [self.token() for _ in range(size)]
        async with (client or self.client).pipeline(transaction=transaction) as pipe:
            for token in tokens:
                pipe.rpush("list", token)
            return await self.told(tokens, pipe.execute())

    # -- faults -----------------------------------------------------------------------------------

    def at(self, seconds: float, what: Callable[[], Any]) -> None:
        """Does `what` after so long, and at the latest when all is healed."""
        done = False

        def once() -> None:
            nonlocal done
            if not done:
                done = True
                what()

        self.heals.append(once)
        self.loop.call_later(seconds, once)

    async def outage(self, queued: int = 0) -> None:
        """The server is gone, and the breaker open."""
        await self.client.set("warm", "up")
        self.server.kill()
        while self.breaker.state == "CLOSED":
            await self.client.get("warm")
        for _ in range(queued):
            await self.push()

    def break_all(self) -> None:
        """Each connection is reset, and what was on its way is lost."""
        for conn in self.net.live():
            conn.break_now()

    def lose_replies(self, seconds: float) -> None:
        """What is asked now is executed; after so long its connection is reset instead."""
        conns = self.net.live()
        self.net.stall(conns, up=False)

        def over() -> None:
            for conn in conns:
                conn.break_now()

        self.at(seconds, over)

    def back(self) -> None:
        if self.server.down:
            self.server.restart()

    # -- the end ----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """All is healed; whatever has become of the call, nothing may be left of it."""
        for heal in self.heals:
            heal()
        self.server.mode = ""
        self.server.thaw()
        self.back()
        self.net.heal()
        breaker = self.breaker
        await asyncio.sleep(2 * breaker.deadline)  # a question about a hang may be under way
        until = self.loop.time() + SOON
        breaker.start_recovery()  # it may have been closed, and is open again
        while breaker.busy and self.loop.time() < until:
            await self.traffic()
            await asyncio.sleep(0.05)
        await self.follow()
        await asyncio.sleep(3 * breaker.deadline)
        self.check(
            breaker.state == "CLOSED" and breaker.gate_open and not breaker.pending,
            f"not recovered: {breaker!r} gate open: {breaker.gate_open}",
        )
        self.check(breaker._core._permit is None, "a permit was not given back")
        self.check(breaker.rights_known, "nobody has asked for the rights")
        self.check(breaker.timer is None, "the hang timer still runs")
        self.check(not breaker._waiting, f"still waiting: {breaker._waiting}")
        self.check(not breaker.stale, "a command went out on a socket older than the outage")
        for client in self.clients:
            used = client.connection_pool._in_use_connections
            holds = 1 if client.connection is not None else 0
            self.check(len(used) == holds, f"not given back to the pool: {used}")

    async def traffic(self) -> None:
        """What an object needs to be found healed; a server's recovery needs none."""

    async def follow(self) -> None:
        """The next commands get their own replies, on each connection that is left."""
        for number, client in enumerate(self.clients):

            async def own(word: str, client: Any = client) -> None:
                try:
                    await client.set(word, word)
                    got = await client.get(word)
                    length = await client.rpush(f"list:{word}", word)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
                    self.fail(f"the next command raised {error!r}")
                    return
                self.check(got == word.encode(), f"GET {word} was answered {got!r}")
                self.check(length == 1, f"RPUSH was answered {length!r}")

            await asyncio.gather(*(own(f"next{number}.{n}") for n in range(3)))

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()
            await client.connection_pool.disconnect()
        await self.breaker.aclose()
        await asyncio.sleep(1.0)
        left = [s.info() for s in self.server.sessions.values()]
        self.check(not left, f"connections left at the server: {left}")
        stale = [key for _, key in self.server.store.data if key.startswith(b"resilient-redis:")]
        self.check(not stale, f"keys left at the server: {stale}")

    def judge(self) -> None:
        """What callers were told against what the server has done."""
        for letter in self.breaker.dead_letters:
            self.fail(f"dead letter: {letter}")
        effects = self.effects()
        applied = Counter(arg for effect in effects for arg in effect)
        place: dict[bytes, int] = {}
        for number, effect in enumerate(effects):
            place.setdefault(effect[-1], number)
        later = list(self.tokens)[self.count :]
        newest = min((place[token] for token in later if token in place), default=1 << 60)
        for token in self.earlier:
            self.check(place.get(token, -1) < newest, f"{token!r} landed over a later write")
        for token, outcome in self.tokens.items():
            times = applied[token]
            name = token.decode()
            safe = token in self.rewritable
            if outcome is Outcome.ACKNOWLEDGED and not times:
                self.fail(f"{name} was acknowledged and is lost")
            elif outcome is Outcome.REFUSED and times:
                self.fail(f"{name} was refused and is there")
            elif times > 1 and not safe:
                self.fail(f"{name} was applied {times} times")

    def effects(self) -> list[tuple[bytes, ...]]:
        return [args for _, args in self.server.store.log]

    @property
    def rewritable(self) -> set[bytes]:
        """What was written by commands that are safe to send twice."""
        return {a[2] for a in self.effects() if a[0] == b"SET"}


async def _scoped(call: Coroutine[Any, Any, Any], seconds: float) -> Any:
    async with asyncio.timeout(seconds):  # type: ignore[attr-defined,unused-ignore]  # 3.11
        return await call
