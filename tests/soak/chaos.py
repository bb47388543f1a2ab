"""Random faults, one after the other and on top of each other, until all of them are taken back."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilient_redis.cli.servers import ServerError, free_port
from tests.support.faults import DOWN, FIN, RST, UP, Fault
from tests.support.proxy import ChaosProxy, Link
from tests.support.servers import ADMIN, PASSWORD, Rig

from .faults import Answer, CutOff, Hole, OnBatch, is_recovery

if TYPE_CHECKING:
    from tests.support.faults import Match

Kind = Callable[[], Awaitable[bool]]
NOT_FIRED = (OSError, redis.exceptions.RedisError, asyncio.TimeoutError, ServerError)


class Chaos:
    """What it does is drawn from `seed`; when it happens depends on the machine as well."""

    def __init__(self, rig: Rig, proxy: ChaosProxy, seed: str) -> None:
        self.rig = rig
        self.proxy = proxy
        self.rng = random.Random(f"{seed}:chaos")
        self.fired: Counter[str] = Counter()
        self.current: Counter[str] = Counter()
        self.log: list[tuple[float, str]] = []
        self._process = asyncio.Lock()  # kill and freeze take turns
        self._tasks: set[asyncio.Task[None]] = set()
        self._admin: Any = None
        self._kinds: list[Kind] = [
            *(self.kill, self.kill, self.freeze, self.freeze, self.pause, self.pause_writes),
            *(self.kill_clients, self.kill_recovery, self.kill_server_in_replay),
            *(self.lose_replies, self.lose_replies, self.lose_requests, self.lose_replay_replies),
            *(self.reset, self.finish, self.cut_anywhere, self.cut_in_replay),
            *(self.stall, self.stall, self.stall_replay, self.stall_replies),
            *(self.latency, self.trickle, self.refuse, self.half_open, self.black_hole),
            *(self.loading, self.readonly, self.replica, self.no_replicas, self.out_of_memory),
            *(self.max_clients, self.acl, self.slow_script),
        ]

    async def run(self, until: float) -> None:
        """Bursts of one to four faults that overlap; then a time to recover in."""
        while time.monotonic() < until:
            for _ in range(self.rng.choice((1, 1, 2, 2, 3, 4))):
                kind = self.rng.choice(self._kinds)
                task = asyncio.ensure_future(self._one(kind))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                await asyncio.sleep(self.rng.choice((0.0, 0.05, 0.2, 0.5)))
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self.rng.uniform(0.3, 1.5))
            await asyncio.sleep(self.rng.choice((0.05, 0.2, 0.5, 0.8)))

    async def heal(self) -> None:
        """Take everything back, whatever the state it is in."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for fault in self.proxy.faults[:]:
            fault.release() if isinstance(fault, Hole) else fault.end()
        self.proxy.half_open(False)
        await self.proxy.accept()
        if self.rig.server.frozen:
            self.rig.thaw()
        if not self.rig.server.running:
            await self._restart()
        deadline = time.monotonic() + 20
        while True:
            try:
                await self._admin_do("REPLICAOF", "NO", "ONE")
                await self._admin_do("CLIENT", "UNPAUSE")
                for name, value in (
                    *(("maxmemory", "0"), ("min-replicas-to-write", "0")),
                    *(("maxclients", "10000"), ("busy-reply-threshold", "5000")),
                ):
                    await self._admin_do("CONFIG", "SET", name, value)
                await self._admin_do("ACL", "SETUSER", "default", "+incr")
                break
            except NOT_FIRED as error:
                if time.monotonic() > deadline:
                    raise RuntimeError("the server cannot be healed") from error
                self.proxy.cut_all(RST)  # maxclients: make room
                await asyncio.sleep(0.1)
        self._note("healed")

    async def aclose(self) -> None:
        if self._admin is not None:
            await self._admin.aclose()

    async def _one(self, kind: Kind) -> None:
        name = getattr(kind, "__name__", "?")
        self.current[name] += 1
        self._note(f"{name} ...")
        try:
            fired = await kind()
        except NOT_FIRED as error:
            # It met another fault: what is not there cannot be harmed.
            self._note(f"{name} did not happen: {type(error).__name__}")
        else:
            self.fired[name] += fired
        finally:
            self.current[name] -= 1
            self._note(f"{name} is over")

    def _note(self, what: str) -> None:
        self.log.append((time.monotonic(), what))

    def _seconds(self, low: float = 0.05, high: float = 2.0) -> float:
        """Short ones are more frequent."""
        return low + (high - low) * self.rng.random() ** 2

    # -- the server's process

    async def kill(self) -> bool:
        async with self._process:
            self._drop_admin()
            self.rig.server.kill()
            try:
                await asyncio.sleep(self._seconds(0.01, 1.5))
            finally:
                await asyncio.shield(asyncio.ensure_future(self._restart()))
        return True

    async def _restart(self) -> None:
        server = self.rig.server
        self._drop_admin()
        server.restart(wait=False)
        deadline = time.monotonic() + 30
        while not await asyncio.to_thread(server.ready):
            assert time.monotonic() < deadline, "the server did not come back"
            await asyncio.sleep(0.01)

    async def freeze(self) -> bool:
        async with self._process:
            self.rig.freeze()
            try:
                await asyncio.sleep(self._seconds())
            finally:
                self.rig.thaw()
        return True

    async def kill_server_in_replay(self) -> bool:
        async def strike(_: Link) -> None:
            await asyncio.sleep(self.rng.choice((0, 0, 0.001, 0.003)))
            if not self._process.locked():
                self.rig.server.kill()

        fired = await self._until_fired(OnBatch(strike, after=self.rng.random() < 0.7))
        if fired:
            async with self._process:
                if not self.rig.server.running:
                    await asyncio.shield(asyncio.ensure_future(self._restart()))
        return fired

    # -- what the server is told

    async def pause(self) -> bool:
        return await self._pause("ALL")

    async def pause_writes(self) -> bool:
        return await self._pause("WRITE")

    async def _pause(self, what: str) -> bool:
        milliseconds = int(1000 * self._seconds(0.1, 1.8))
        await self._admin_do("CLIENT", "PAUSE", milliseconds, what)
        await asyncio.sleep(milliseconds / 1000)
        return True

    async def kill_clients(self) -> bool:
        killed = await self._admin_do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return int(killed) > 0

    async def kill_recovery(self) -> bool:
        async def strike(link: Link) -> None:
            assert link.server is not None
            host, port = link.server.get_extra_info("sockname")
            try:
                await self._admin_do("CLIENT", "KILL", "ADDR", f"{host}:{port}")
            except NOT_FIRED as error:
                self._note(f"the recovery connection was not killed: {error!r}")

        return await self._until_fired(OnBatch(strike, after=self.rng.random() < 0.5))

    async def replica(self) -> bool:
        return await self._set_for_a_while(
            ("REPLICAOF", "127.0.0.1", str(free_port())), ("REPLICAOF", "NO", "ONE")
        )

    async def no_replicas(self) -> bool:
        name = "min-replicas-to-write"
        return await self._set_for_a_while(("CONFIG", "SET", name, 1), ("CONFIG", "SET", name, 0))

    async def out_of_memory(self) -> bool:
        await self._admin_do("CONFIG", "SET", "maxmemory-policy", "noeviction")
        return await self._set_for_a_while(
            ("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0)
        )

    async def max_clients(self) -> bool:
        limit = int((await self._admin_do("INFO", "clients"))["connected_clients"])
        limit = max(3, limit - self.rng.randrange(10))
        fired = self._set_for_a_while(
            ("CONFIG", "SET", "maxclients", limit), ("CONFIG", "SET", "maxclients", 10000)
        )
        if self.rng.random() < 0.7:
            self.proxy.cut_all(RST, match=self._some(0.8))  # all come back at once, some too many
        return await fired

    async def acl(self) -> bool:
        return await self._set_for_a_while(
            ("ACL", "SETUSER", "default", "-incr"), ("ACL", "SETUSER", "default", "+incr")
        )

    async def slow_script(self) -> bool:
        seconds = self._seconds(0.1, 1.5)
        if self.rng.random() < 0.5:
            await self._admin_do("CONFIG", "SET", "busy-reply-threshold", 50)
        client = self._new_admin(timeout=5)
        try:
            # By os.clock: TIME stands still within a script.
            script = "local stop = os.clock() + ARGV[1] repeat until os.clock() >= stop"
            await client.eval(script, 0, str(seconds))
        finally:
            await client.aclose()
        await self._admin_do("CONFIG", "SET", "busy-reply-threshold", 5000)
        return True

    async def _set_for_a_while(self, on: tuple[Any, ...], off: tuple[Any, ...]) -> bool:
        await self._admin_do(*on)
        await asyncio.sleep(self._seconds(0.1, 1.5))
        for _ in range(50):
            try:
                await self._admin_do(*off)
                break
            except NOT_FIRED:
                # A server that was restarted meanwhile has forgotten it anyway.
                await asyncio.sleep(0.1)
        return True

    async def _admin_do(self, *command: Any) -> Any:
        if self._admin is None:
            self._admin = self._new_admin()
        return await self._admin.execute_command(*command)

    def _new_admin(self, timeout: float = 1.0) -> Any:
        return Redis(
            port=self.rig.port,
            username=ADMIN,
            password=PASSWORD,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )

    def _drop_admin(self) -> None:
        old, self._admin = self._admin, None
        if old is not None:
            task = asyncio.ensure_future(old.aclose())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # -- the network

    async def lose_replies(self) -> bool:
        return await self._in_force(self._hole(self._some(), DOWN))

    async def lose_requests(self) -> bool:
        return await self._in_force(self._hole(self._some(), UP))

    async def lose_replay_replies(self) -> bool:
        return await self._in_force(self._hole(is_recovery, DOWN), 2.0)

    async def stall(self) -> bool:
        """Requests are held back; they come later, though their clients have gone."""
        return await self._in_force(self.proxy.stall(self._some(), UP))

    async def stall_replies(self) -> bool:
        return await self._in_force(self.proxy.stall(self._some(), DOWN))

    async def stall_replay(self) -> bool:
        return await self._in_force(self.proxy.stall(is_recovery, UP), 2.0)

    async def latency(self) -> bool:
        fault = self.proxy.latency(self._seconds(0.001, 0.3), self._seconds(0, 0.2), self._some())
        return await self._in_force(fault)

    async def trickle(self) -> bool:
        size = self.rng.choice((1, 3, 20))
        return await self._in_force(self.proxy.trickle(size, 0.0005, self._some(0.3)), 1.0)

    async def reset(self) -> bool:
        return self.proxy.cut_all(RST, match=self._some()) > 0

    async def finish(self) -> bool:
        return self.proxy.cut_all(FIN, match=self._some()) > 0

    async def cut_anywhere(self) -> bool:
        how, byte = self.rng.choice((FIN, RST)), self.rng.randrange(1, 500)
        return await self._in_force(self.proxy.add(CutOff(byte, how, self._some(), 10)))

    async def cut_in_replay(self) -> bool:
        how, byte = self.rng.choice((FIN, RST)), self.rng.randrange(1, 3000)
        fault = self.proxy.add(CutOff(byte, how, is_recovery, 2))
        return await self._in_force(fault, 3.0)

    async def refuse(self) -> bool:
        await self.proxy.refuse()
        try:
            if self.rng.random() < 0.7:
                self.proxy.cut_all(self.rng.choice((FIN, RST)))
            await asyncio.sleep(self._seconds())
        finally:
            await self.proxy.accept()
        return True

    async def half_open(self) -> bool:
        self.proxy.half_open()
        try:
            if self.rng.random() < 0.7:
                self.proxy.cut_all(self.rng.choice((FIN, RST)), match=self._some())
            await asyncio.sleep(self._seconds())
        finally:
            self.proxy.half_open(False)
        return True

    async def black_hole(self) -> bool:
        return await self._in_force(self._hole(None, None))

    def _hole(self, match: Match, direction: str | None) -> Fault:
        for fault in self.proxy.faults[:]:
            if isinstance(fault, Hole) and fault.moot:
                fault.release()
        return self.proxy.add(Hole(match, direction, reset=self.rng.random() < 0.5))

    async def loading(self) -> bool:
        error = "LOADING Redis is loading the dataset in memory"
        return await self._in_force(
            self.proxy.add(Answer(error, self.rng.choice((1, 20, 200)), writes_only=False))
        )

    async def readonly(self) -> bool:
        error = "READONLY You can't write against a read only replica."
        return await self._in_force(
            self.proxy.add(Answer(error, self.rng.choice((1, 20, 200)), writes_only=True))
        )

    # -- how

    def _some(self, share: float | None = None) -> Callable[[Link], bool]:
        """A random choice of connections, kept for each."""
        chosen = self.rng.choice((0.05, 0.3, 1.0)) if share is None else share
        salt = self.rng.random()
        return lambda link: random.Random(f"{salt}:{link.number}").random() < chosen

    @contextmanager
    def _on(self, fault: Fault) -> Iterator[None]:
        try:
            yield
        finally:
            fault.end()

    async def _in_force(self, fault: Fault, seconds: float | None = None) -> bool:
        """Whether it hit anything."""
        with self._on(fault):
            await asyncio.sleep(self._seconds() if seconds is None else seconds)
        return fault.fired > 0

    async def _until_fired(self, fault: Fault, seconds: float = 4.0) -> bool:
        self.proxy.add(fault)
        with self._on(fault):
            deadline = time.monotonic() + seconds
            while not fault.fired and time.monotonic() < deadline:  # noqa: ASYNC110 - a test's eye
                await asyncio.sleep(0.01)
        return fault.fired > 0
