"""As much of a Redis as the replay uses, on bytes, with the order of events in a test's hand."""

from __future__ import annotations

import copy
from typing import Any

from resilient_redis.cli.aof import parse
from resilient_redis.core.exchange import ReplyError
from resilient_redis.core.watermark import GUARD

Slot = tuple[int, bytes]  # db, key
GROWS = {b"SET", b"RPUSH"}
WRITES = {*GROWS, b"DEL"}


class Client:
    """One connection as the server sees it."""

    def __init__(self) -> None:
        self.db = 0
        self.watched: set[Slot] = set()
        self.dirty = False
        self.queue: list[tuple[bytes, ...]] | None = None
        self.aborted = False


class ModelServer:
    """Executes one command at a time."""

    def __init__(self) -> None:
        self.data: dict[Slot, Any] = {}
        self.clients: list[Client] = []
        self.forbidden: set[bytes] = set()  # names of commands, or keys
        self.held: str | None = None  # OOM or READONLY
        self.unix_ms = 1_000_000
        self.policy = b"noeviction"

    def connect(self) -> Client:
        client = Client()
        self.clients.append(client)
        return client

    def restore(self, data: dict[Slot, Any]) -> None:
        """Restarted with an older data set: no connection survives that."""
        self.data = copy.deepcopy(data)
        self.clients = []

    def feed(self, client: Client, data: bytes) -> list[Any]:
        """Executes whole commands; what is torn at the end is dropped with the connection."""
        return [self.execute(client, args) for _, _, args in parse(data)]

    def execute(self, client: Client, args: tuple[bytes, ...]) -> Any:
        name = args[0].upper()
        if client not in self.clients:
            return ReplyError("the connection is gone")
        error = self._refusal(args)
        if error is not None:
            if client.queue is not None and name != b"EXEC":
                client.aborted = True
            return error
        if name == b"EXEC":
            return self._exec(client)
        if client.queue is not None:
            client.queue.append(args)
            return b"QUEUED"
        return self._run(client, name, args)

    def _refusal(self, args: tuple[bytes, ...]) -> ReplyError | None:
        if self.forbidden.intersection(args):
            return ReplyError("NOPERM this user has no permissions")
        name = args[0].upper()
        if (self.held == "OOM" and name in GROWS) or (self.held == "READONLY" and name in WRITES):
            return ReplyError(f"{self.held} not now")
        return None

    def _exec(self, client: Client) -> Any:
        if client.queue is None:
            return ReplyError("ERR EXEC without MULTI")
        queue, aborted, dirty = client.queue, client.aborted, client.dirty
        client.queue, client.aborted, client.dirty = None, False, False
        client.watched.clear()
        if aborted:
            return ReplyError("EXECABORT Transaction discarded because of previous errors.")
        if dirty:
            return None
        return [self._run(client, args[0].upper(), args) for args in queue]

    def _run(self, client: Client, name: bytes, args: tuple[bytes, ...]) -> Any:
        slot = (client.db, args[1]) if len(args) > 1 else (client.db, b"")
        if name == b"TIME":
            return [b"%d" % (self.unix_ms // 1000), b"%d" % (self.unix_ms % 1000 * 1000)]
        if name == b"INFO":
            return b"# Memory\r\nmaxmemory:9\r\nmaxmemory_policy:%b\r\n" % self.policy
        if name == b"SELECT":
            client.db = int(args[1])
            return b"OK"
        if name == b"GET":
            return self.data.get(slot)
        if name == b"SET":
            if b"NX" in args[3:] and slot in self.data:
                return None
            self.data[slot] = args[2]
            self._touch(slot)
            return b"OK"
        if name == b"DEL":
            found = self.data.pop(slot, None) is not None
            if found:
                self._touch(slot)
            return int(found)
        if name == b"RPUSH":
            values = self.data.setdefault(slot, [])
            if not isinstance(values, list):
                return ReplyError("WRONGTYPE Operation against a key holding the wrong kind")
            values.extend(args[2:])
            self._touch(slot)
            return len(values)
        if name == b"WATCH":
            client.watched.add(slot)
            return b"OK"
        if name == b"UNWATCH":
            client.watched.clear()
            client.dirty = False
            return b"OK"
        if name == b"MULTI":
            client.queue = []
            return b"OK"
        assert name == b"EVAL", args
        return self._guard(client, args)

    def _guard(self, client: Client, args: tuple[bytes, ...]) -> Any:
        assert args[1:3] == (GUARD, b"1")
        slot = (client.db, args[3])
        if self.data.get(slot) == args[4]:
            return 1
        if slot not in self.data and self.held is not None:
            return ReplyError(f"{self.held} in a script")
        self._touch(slot)
        return 0

    def _touch(self, slot: Slot) -> None:
        for client in self.clients:
            if slot in client.watched:
                client.dirty = True
