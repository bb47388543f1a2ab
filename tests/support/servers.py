"""A real server and everything that can go wrong with it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from resilient_redis.cli.aof import Effect, position, read_effects
from resilient_redis.cli.history import Op
from resilient_redis.cli.oracle import check
from resilient_redis.cli.servers import (
    REDIS_6,
    ServerError,
    ServerProcess,
    find_binary,
    free_port,
    ping,
)
from resilient_redis.cli.verdict import Verdict

# The rig's own user: a test may take every right from `default` and still be cleaned up after.
ADMIN, PASSWORD = "rig-admin", "rig"


class Rig:
    """One server process; faults are methods, `reset` takes all of them back."""

    def __init__(self, flavour: str, *args: str) -> None:
        user = ("--user", ADMIN, "on", f">{PASSWORD}", "~*", "&*", "+@all")
        self.server = ServerProcess(flavour, *user, *args)
        self.flavour = flavour
        self._client: redis.Redis | None = None
        self._config: dict[str, str] = {}
        self._busy: socket.socket | None = None
        self._snapshots: list[Path] = []
        self._mark = 0

    # -- life

    def start(self) -> Rig:
        self.server.start()
        self._config = self.admin.config_get("*")
        self._mark = position(self.server.directory)
        return self

    def stop(self) -> None:
        if self._busy is not None:
            self._busy.close()
            self._busy = None
        self._drop_admin()
        self.server.stop()
        for path in self._snapshots:
            shutil.rmtree(path, ignore_errors=True)

    def reset(self) -> bool:
        """Back to an empty healthy server; False if this one is beyond that."""
        if not self.server.running:
            return False
        if self.server.frozen:
            self.server.thaw()
        self._end_busy()
        if not ping(self.port, timeout=0.3):
            return False
        admin = self.admin
        try:
            admin.execute_command("REPLICAOF", "NO", "ONE")
            admin.client_unpause()
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            now: dict[str, str] = admin.config_get("*")
            for name, value in self._config.items():
                # A replica that was promoted keeps a line about it; it cannot be set and is moot.
                if now.get(name) != value and name not in ("replicaof", "slaveof"):
                    admin.config_set(name, value)
            for user in admin.acl_users():
                if user not in ("default", ADMIN):
                    admin.acl_deluser(user)
            admin.execute_command(
                *("ACL", "SETUSER", "default", "reset", "on", "nopass", "~*", "&*", "+@all")
            )
            admin.script_flush()
            if self.flavour != REDIS_6:  # functions came with 7.0
                admin.function_flush()
            admin.flushall()
            admin.config_resetstat()
        except redis.RedisError as error:
            print(f"{self.server!r} cannot be reset ({error!r}): another one")
            return False
        self._mark = position(self.server.directory)
        return True

    # -- what it is

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def admin(self) -> Any:  # redis.Redis, of which much is untyped
        """A client of the rig's own, on one connection that survives `maxclients`."""
        if self._client is None:
            self._client = redis.Redis(
                port=self.port,
                username=ADMIN,
                password=PASSWORD,
                decode_responses=True,
                single_connection_client=True,
                socket_timeout=5.0,
                retry=Retry(ConstantBackoff(0.01), 3),
            )
        return self._client

    def needs(self, version: str, what: str) -> None:
        """Skips the test on Redis 6.2: `what` came with `version`."""
        if self.flavour == REDIS_6:
            pytest.skip(f"{what} came with Redis {version}")

    def connections(self) -> int:
        """How many clients are connected, the rig's own not counted."""
        own = self.admin.client_id()
        return sum(int(client["id"]) != own for client in self.admin.client_list())

    def connections_received(self) -> int:
        """How many connections the server has accepted since the last reset."""
        return int(self.admin.info("stats")["total_connections_received"])

    def calls(self, command: str) -> int:
        """How often the server executed a command since the last reset."""
        stats = self.admin.info("commandstats")
        return int(stats.get(f"cmdstat_{command.lower()}", {}).get("calls", 0))

    def effects(self) -> list[Effect]:
        """What changed the data since the last reset, in order."""
        return read_effects(self.server.directory, self._mark)

    def check(self, ops: Iterable[Op], **options: Any) -> Verdict:
        """The oracle's verdict on `ops`."""
        return check(ops, self.effects(), **options)

    # -- faults of the process

    def kill(self) -> None:
        self._drop_admin()
        self.server.kill()

    def restart(self) -> None:
        """Kill if it still runs; back on the same port with the same data."""
        self._drop_admin()
        self.server.restart()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def snapshot(self) -> Path:
        """A copy of the data as they are now, for `restart_with`."""
        path = Path(tempfile.mkdtemp(prefix="resilient-redis-snapshot-"))
        self._snapshots.append(path)
        source = self.server.aof_files()[0].parent
        shutil.copytree(source, path / source.name)
        return path

    def restart_with(self, data: Path | None) -> None:
        """Restart with an older data set, or with none: the server has lost what it confirmed.

        The history of effects starts anew: with the older data's, or with nothing.
        """
        self.kill()
        folder = self.server.aof_files()[0].parent
        shutil.rmtree(folder)
        if data is not None:
            shutil.copytree(data / folder.name, folder)
        self.server.restart()
        if data is None:
            self._mark = 0

    def busy(self, seconds: float) -> None:
        """Occupy the server with a script; it answers nobody meanwhile."""
        # By os.clock: TIME stands still within a script.
        script = "local stop = os.clock() + ARGV[1] repeat until os.clock() >= stop"
        self._busy = socket.create_connection(("127.0.0.1", self.port))
        parts = ["EVAL", script, "0", str(seconds)]
        self._busy.sendall(
            b"*%d\r\n" % len(parts)
            + b"".join(b"$%d\r\n%s\r\n" % (len(part), part.encode()) for part in parts)
        )
        while ping(self.port, timeout=0.02):
            pass

    def _end_busy(self) -> None:
        if self._busy is not None:
            self._busy.close()
            self._busy = None
            # It answers as soon as the script ends, or takes SCRIPT KILL after 5 s (BUSY).
            with contextlib.suppress(redis.RedisError):  # NOTBUSY: it has ended already
                self.admin.script_kill()

    # -- faults that it answers with

    def client_pause(self, milliseconds: int, *, writes_only: bool = False) -> None:
        """Leave commands unanswered and unexecuted; then they are executed, unless cut off.

        A full pause holds CLIENT UNPAUSE back too (seen on both servers): `reset` then takes
        another process. After `writes_only` it is lifted.
        """
        self.admin.client_pause(milliseconds, all=not writes_only)

    def kill_clients(self, **filters: Any) -> int:
        """CLIENT KILL for all clients but the rig's, or those that the filters name."""
        filters = filters or {"_type": "normal"}
        return int(self.admin.client_kill_filter(skipme=True, **filters))

    def out_of_memory(self) -> None:
        """`OOM` for every command that may grow the data."""
        self.admin.config_set("maxmemory-policy", "noeviction")
        self.admin.config_set("maxmemory", "1")

    def enough_memory(self) -> None:
        self.admin.config_set("maxmemory", self._config["maxmemory"])

    def read_only(self) -> None:
        """`READONLY` for writes: a replica whose primary is not there."""
        self.admin.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))

    def master_down(self) -> None:
        """`MASTERDOWN` for reads too."""
        self.admin.config_set("replica-serve-stale-data", "no")
        self.read_only()

    def writable(self) -> None:
        self.admin.execute_command("REPLICAOF", "NO", "ONE")

    def no_replicas(self, on: bool = True) -> None:
        """`NOREPLICAS` for writes."""
        self.admin.config_set("min-replicas-to-write", "1" if on else "0")

    def max_clients(self, more: int) -> None:
        """Room for `more` clients than there are now."""
        self.admin.config_set("maxclients", str(len(self.admin.client_list()) + more))

    def acl(self, user: str, *rules: str) -> None:
        """ACL SETUSER; `acl("default", "-incr")` takes a right away."""
        self.admin.execute_command("ACL", "SETUSER", user, *rules)

    def _drop_admin(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def __repr__(self) -> str:
        return f"<rig of {self.server!r}>"


@contextlib.contextmanager
def own_rig(flavour: str, *args: str) -> Iterator[Rig]:
    """A rig of one's own, for a test that needs its own options."""
    own = Rig(flavour, *args)
    try:
        yield own.start()
    finally:
        own.stop()


class Rigs:
    """Keeps one rig per flavour alive between tests."""

    def __init__(self) -> None:
        self._rigs: dict[str, Rig] = {}

    def get(self, flavour: str) -> Rig:
        old = self._rigs.get(flavour)
        if old is not None:
            if old.reset():
                return old
            self._rigs.pop(flavour).stop()
        try:
            find_binary(flavour)
        except ServerError as error:
            pytest.skip(str(error))
        new = self._rigs[flavour] = Rig(flavour)
        return new.start()

    def stop(self) -> None:
        for each in self._rigs.values():
            each.stop()
