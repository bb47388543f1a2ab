"""Sockets, connections and the recovery's link over a model of the server, for `World`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import ConnectionError

from resilient_redis import ResilientConnection
from resilient_redis.core.exchange import Exchange, Replies
from resilient_redis.flow.link import LinkBase
from tests.sync.interleaving import Scheduler
from tests.unit.model_server import WRITES, ModelServer

if TYPE_CHECKING:
    from tests.sync.world import World


class Server(ModelServer):
    """Which keys are read and written is told."""

    scheduler: Scheduler

    def execute(self, client: Any, args: tuple[bytes, ...]) -> Any:
        return b"PONG" if args[0] == b"PING" else super().execute(client, args)

    def _run(self, client: Any, name: bytes, args: tuple[bytes, ...]) -> Any:
        if len(args) > 1:
            key = args[3] if name == b"EVAL" else args[1]
            self.scheduler.sharing.note("key", repr(key), write=name in WRITES)
        return super()._run(client, name, args)


class Wire:
    """A socket to the model: what is sent is done at once, unless it was cut off before."""

    family = None

    def __init__(self, world: World) -> None:
        self._world = world
        self._client = world.server.connect()
        self._outage = world.outages
        self._replies: deque[Any] = deque()
        self.cut = False

    def send(self, data: bytes) -> int:
        world = self._world
        with world.io("sends"):
            if self.cut:
                raise BrokenPipeError("it was cut off")
            world.scheduler.sharing.note("the fence", "")
            assert self._outage >= world.fenced, "a socket of before the fence is used"
            self._replies += world.server.feed(self._client, data)
        return len(data)

    def read(self) -> Any:
        with self._world.io("reads"):
            if self.cut:
                raise ConnectionError("it was cut off")
            return self._replies.popleft()

    def settimeout(self, _: float | None) -> None:
        pass

    def shutdown(self, _: int) -> None:
        self.cut = True

    def close(self) -> None:
        self.cut = True


class Connection(ResilientConnection):
    """Over a `Wire`; of a command's way only the parser is left out."""

    world: World

    def __init__(self, **kwargs: Any) -> None:
        self.name = str(len(self.world.made))
        super().__init__(**kwargs)
        self.template = self.breaker.template or self.template
        self.world.made.append(self)

    def can_read(self, timeout: float | None = 0) -> bool:
        return False

    def _connect_stock(self) -> None:
        with self.world.io("connects"):
            pass
        self._sock = Wire(self.world)
        self._introduced = True

    def __del__(self) -> None:
        pass  # redis-py's would be run at any moment, in another schedule

    def rpush(self, value: bytes) -> Any:
        """As a client's: the reply, or a receipt. To a list of its own for each first letter."""
        self.connect()
        self.send_command("RPUSH", value[:1], value)
        return self.read_response()


class Client(Redis):
    def __del__(self) -> None:
        pass  # as a connection's


def read_reply(connection: Any, *_: Any) -> Any:
    """In place of the parser."""
    wire = connection._sock
    if wire is None:
        raise ConnectionError("it was closed")
    return wire.read()


class FakeLink(LinkBase):
    """The recovery's, over the model."""

    def __init__(self, world: World) -> None:
        super().__init__(None, 1.0)
        self._world = world
        self._client = world.server.connect()
        self._found: Replies = []

    def _connect(self) -> None:
        raise NotImplementedError

    _connect_bare = _connect

    def exchange(self, ask: Exchange) -> Replies:
        world = self._world
        with world.io("exchanges"):
            if b"EXEC" in ask.send:
                world.scheduler.sharing.note("the fence", "", write=True)
                world.fenced = world.outages
            self._found += world.server.feed(self._client, ask.send)
        world.exchanged()
        replies, self._found = self._found[: ask.receive], self._found[ask.receive :]
        return replies

    def abort(self) -> None:
        pass


class Connections:
    """In place of the breaker's set, which has no order."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all: dict[Any, bool] = {}

    def _put(self, connection: Any, there: bool) -> None:
        changes = self._all.get(connection) is not there
        self._world.scheduler.sharing.note("is there", connection.name, write=changes)
        self._all[connection] = there

    def add(self, connection: Any) -> None:
        self._put(connection, True)

    def discard(self, connection: Any) -> None:
        self._put(connection, False)

    def __iter__(self) -> Iterator[Any]:
        for connection in self._world.made:
            self._world.scheduler.sharing.note("is there", connection.name)
            if self._all.get(connection):
                yield connection


class FakeThread:
    """Of the recovery, which `World.recovers` runs."""

    over = False

    def __init__(self, world: World) -> None:
        self._world = world
        self._name = world.scheduler.sharing.label(self)

    def is_alive(self) -> bool:
        self._world.scheduler.sharing.note(self._name, "")
        return not self.over

    def join(self, seconds: float | None = None) -> None:
        self._world.wait("joins", lambda: self.over)
        with self._world.scheduler.at_once():
            self._world.scheduler.sharing.note(self._name, "")

    def ends(self) -> None:
        self._world.scheduler.sharing.note(self._name, "", write=True)
        self.over = True
