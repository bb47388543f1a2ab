"""Sentinel in two forms: a whole deployment out of the wheels, and one that says what a test wants.

A deployment is used for one failover only: whether and when an old master comes back as a replica
is up to the sentinels (FACTS: "erratic"), and what a test sees must not be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import redis.sentinel
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel

from resilient_redis.cli.servers import VALKEY, ServerProcess, find_binary, free_port
from tests.support.flavours import threads

SERVICE = "mymaster"
# A replica is in sync, and a sentinel knows the others, after about 2 s.
READY = 15.0
# One sentinel misses the master at once, and the others vote for it. Where all three did, in one
# run of six two of them promoted a replica each, one after the other: a second failover, with
# losses of its own, while the test looked at the first.
DOWN_AFTER_MS = (300, 60_000, 60_000)
QUORUM = 1
# What redis-py takes for a sentinel's client: one that is gone must not cost its ten retries.
QUICK: dict[str, Any] = {"socket_timeout": 0.5, "retry": None}


class SentinelProcess(ServerProcess):
    """One sentinel that watches the server on `master_port`."""

    def __init__(
        self, flavour: str, master_port: int, password: str | None, down_after_ms: int
    ) -> None:
        super().__init__(flavour)
        self._down_after_ms = down_after_ms
        self._master_port = master_port
        self._password = password

    def _command(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.directory}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._master_port} {QUORUM}",
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        if self._password is not None:
            lines.append(f"sentinel auth-pass {SERVICE} {self._password}")
        path.write_text("\n".join(lines) + "\n")
        return [str(self.binary), str(path), "--sentinel"]


class Deployment:
    """One master, two replicas, three sentinels."""

    def __init__(self, flavour: str = VALKEY, password: str | None = None) -> None:
        find_binary(flavour)
        self.flavour = flavour
        self.password = password
        self.servers: list[ServerProcess] = []
        self.sentinels: list[SentinelProcess] = []

    def __enter__(self) -> Deployment:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        options = ["--repl-diskless-sync-delay", "0"]
        if self.password is not None:
            options += ["--requirepass", self.password, "--masterauth", self.password]
        master = ServerProcess(self.flavour, *options).start()
        self.servers.append(master)
        for _ in range(2):
            follow = ("--replicaof", f"127.0.0.1 {master.port}")
            self.servers.append(ServerProcess(self.flavour, *options, *follow).start())
        for down_after in DOWN_AFTER_MS:
            sentinel = SentinelProcess(self.flavour, master.port, self.password, down_after)
            self.sentinels.append(sentinel)
            sentinel.start()
        self._wait_until(self._complete)

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            with redis.Redis(port=sentinel.port, decode_responses=True) as admin:
                state = admin.sentinel_masters()[SERVICE]
            if (state["num-slaves"], state["num-other-sentinels"]) != (2, 2):
                return False
        with self.admin(self.servers[0]) as admin:
            found = admin.info("replication")
        return all(found.get(f"slave{n}", {}).get("state") == "online" for n in (0, 1))

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY
        while not condition():
            assert time.monotonic() < deadline, "the sentinels did not find each other"
            time.sleep(0.02)

    def stop(self) -> None:
        for process in (*self.sentinels, *self.servers):
            process.kill()  # nothing of it is needed any more
            process.stop()

    # -- what it is

    def sentinel(self) -> Any:
        """redis-py's client of the three sentinels, of the flavour that is under test."""
        addresses = [("127.0.0.1", each.port) for each in self.sentinels]
        made: Any = redis.sentinel.Sentinel if threads() else Sentinel
        return made(addresses, sentinel_kwargs=QUICK, password=self.password)

    def admin(self, server: ServerProcess) -> Any:  # redis.Redis, of which much is untyped
        return redis.Redis(port=server.port, password=self.password, decode_responses=True)

    @property
    def master(self) -> ServerProcess:
        return self.servers[0]

    def promoted(self) -> ServerProcess | None:
        """The replica that is a master now."""
        for server in self.servers[1:]:
            with self.admin(server) as admin:
                if admin.info("replication")["role"] == "master":
                    return server
        return None

    @property
    def directory(self) -> Path:
        return self.master.directory


class ScriptedSentinel(Sentinel):
    """Names the master and the replicas that a test says: a failover at a chosen moment."""

    def __init__(self, master: int | None, replicas: tuple[int, ...] = ()) -> None:
        super().__init__([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]  # redis-py
        self.master = master
        self.replicas = replicas
        self.asked = 0

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        self.asked += 1
        if self.master is None:
            raise MasterNotFoundError(f"No master found for {service_name!r}")
        return "127.0.0.1", self.master

    async def discover_slaves(self, service_name: str) -> list[tuple[str, int]]:
        self.asked += 1
        return [("127.0.0.1", port) for port in self.replicas]


class SyncScriptedSentinel(redis.sentinel.Sentinel):
    """The same for `redis.Redis`."""

    def __init__(self, master: int | None, replicas: tuple[int, ...] = ()) -> None:
        super().__init__([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]  # redis-py
        self.master = master
        self.replicas = replicas
        self.asked = 0

    def discover_master(self, service_name: str) -> tuple[str, int]:
        self.asked += 1
        if self.master is None:
            raise redis.sentinel.MasterNotFoundError(f"No master found for {service_name!r}")
        return "127.0.0.1", self.master

    def discover_slaves(self, service_name: str) -> list[tuple[str, int]]:
        self.asked += 1
        return [("127.0.0.1", port) for port in self.replicas]


def unused_port() -> int:
    """Where nobody listens."""
    return free_port()


async def close(sentinel: Any) -> None:
    """`Sentinel.aclose`, which redis-py has from 8.1 on."""
    for client in sentinel.sentinels:
        if isinstance(client, redis.Redis):
            client.close()
        else:
            await client.aclose()
