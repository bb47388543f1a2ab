"""redis-py's methods, as far as they are commands: what each sends, and what it answers.

Nothing about a command is written here but how redis-py names a time to live: its method makes the
wire form, the catalog says what that means, and redis-py's parser and callbacks make the answer.
"""

from __future__ import annotations

import inspect
import math
import threading
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

from redis.asyncio import Redis as AsyncRedis
from redis.client import NEVER_DECODE
from redis.client import Redis as SyncRedis
from redis.commands.core import AsyncCoreCommands

from ..core.catalog import names
from ..core.command import Kind
from .replies import MISSING, OwnReplies, finished

# The one command whose method has another name: `del` is a keyword of Python.
_RENAMED = {"DEL": "delete"}


def method_of(command: str) -> str:
    """How redis-py spells a command: "XGROUP CREATE" is `xgroup_create`."""
    return _RENAMED.get(command, command.lower().replace(" ", "_").replace("-", "_"))


def is_command(method_name: str) -> bool:
    """Whether redis-py's client has such a method, and it sends a command."""
    if method_name == "execute_command":
        return True
    if method_name.startswith("_") or method_name.endswith("_iter"):
        return False
    return callable(getattr(AsyncCoreCommands, method_name, None)) and method_name not in _OTHERS


# Methods of redis-py's command classes that make something of the client, and send nothing.
_OTHERS = frozenset({"bitfield", "register_script"})

#: The methods of redis-py that are queued by default while Redis is away, if they are given nothing
#: but what they need: lower case, as redis-py spells them.
WRITE_COMMANDS = frozenset(
    name
    for name in map(method_of, names(Kind.WRITE) - {"RESTORE"})  # without REPLACE it is refused
    if callable(getattr(AsyncRedis, name, None))
)

#: What redis-py's methods call a time to live that counts from the call, and its units a second.
LIFETIMES: dict[str, dict[str, int]] = {
    "set": {"ex": 1, "px": 1000},
    "msetex": {"ex": 1, "px": 1000},
    "hsetex": {"ex": 1, "px": 1000},
    "setex": {"time": 1},
    "psetex": {"time_ms": 1000},
    "expire": {"time": 1},
    "pexpire": {"time": 1000},
    "hexpire": {"seconds": 1},
    "hpexpire": {"milliseconds": 1000},
    "restore": {"ttl": 1000},
}


def aged(
    method_name: str, args: tuple[Any, ...], kwargs: dict[str, Any], seconds: float
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call made `seconds` later, with what is left of its time to live: rounded
    up to its unit, and one at least, because what the key held before has to go.
    """
    found, named = list(args), dict(kwargs)
    for name, units in LIFETIMES.get(method_name, {}).items():
        place = _place(method_name, name)
        if name in named:
            named[name] = _left(named[name], seconds, units)
        elif place is not None and place < len(found):
            found[place] = _left(found[place], seconds, units)
    return tuple(found), named


@cache
def _place(method_name: str, parameter: str) -> int | None:
    method = getattr(AsyncRedis, method_name, None)
    names = [] if method is None else list(inspect.signature(method).parameters)
    return names.index(parameter) - 1 if parameter in names else None


def _left(value: Any, seconds: float, units: int) -> Any:
    if value is None:
        return None
    lifetime = value.total_seconds() if isinstance(value, timedelta) else int(value) / units
    if lifetime <= 0:
        return value
    left = max(math.ceil(round((lifetime - seconds) * units, 3)), 1)
    return timedelta(seconds=left / units) if isinstance(value, timedelta) else left


Take = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class OfflineReplies:
    """RESP of ours as a client's method would return it: the parser, the decoding and the response
    callbacks are redis-py's. Of one thread.
    """

    def __init__(self, client: Any) -> None:
        pool = client.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)
        self._client = client
        self._own = OwnReplies.like(connection)
        self._reply = b""
        self._constants: dict[tuple[bytes, bool], Any] = {}
        self._with_callback = client.response_callbacks
        self.encoder = connection.encoder
        self.protocol = int(connection.protocol)
        self.db = int(connection.db)
        self.parse_error: Callable[[str], Exception] = connection._parser.parse_error
        #: For redis-py's `parse_response`: this stands in for a connection.
        self.read_response: Callable[..., Any] = (
            self._read_awaited if isinstance(client, AsyncRedis) else self._read
        )

    def shape(self, reply: bytes, command: Any, options: dict[str, Any]) -> Any:
        """What `parse_response` makes of it, which does not wait."""
        self._reply = reply
        shaped = self._client.parse_response(self, command, **options)
        return finished(shaped) if inspect.iscoroutine(shaped) else shaped

    def constant(self, reply: bytes, command: Any, options: dict[str, Any]) -> Any:
        """The same at once, where the client has no callback for `command` and the reply has been
        met before; else `MISSING`.
        """
        if command in self._with_callback:
            return MISSING
        return self._constants.get((reply, NEVER_DECODE in options), MISSING)

    def _read(self, disable_decoding: bool = False) -> Any:
        key = (self._reply, disable_decoding)
        if key in self._constants:
            return self._constants[key]
        reply = self._own.parse(self._reply, disable_decoding)
        if reply is None or reply is True or reply == 0 or reply == b"OK" or reply == "OK":
            self._constants[key] = reply  # what nearly all answers are, and cannot be changed
        return reply

    async def _read_awaited(self, disable_decoding: bool = False) -> Any:
        return self._read(disable_decoding)


class StandIn:
    """A client without a server: what its methods send goes to `take`, which answers.

    Nothing in a run ever waits, so that a whole method runs at once and `take` is that of its run.
    """

    response_callbacks: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replies = OfflineReplies(self)
        self._take: Take | None = None

    def _taken(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        assert self._take is not None
        reply = self._take(args, options)
        if not isinstance(reply, bytes):
            return reply
        return self.replies.shape(reply, args[0], options)

    def run(
        self, method_name: str, args: tuple[Any, ...], kwargs: dict[str, Any], take: Take
    ) -> Any:
        """What the method answers where `take` answers each command that it sends: with RESP bytes
        for its callbacks, or with anything else as it is. Raises what `take` and the method raise.
        """
        self._take = take
        try:
            # Named: by itself it looks into `sys.modules`, which is empty as the process ends.
            with _SILENCING, warnings.catch_warnings(module=warnings):
                # That a method is deprecated is for the user's own client to say.
                warnings.simplefilter("ignore")
                result = getattr(self, method_name)(*args, **kwargs)
                return finished(result) if inspect.iscoroutine(result) else result
        finally:
            self._take = None


# `catch_warnings` is of the whole process: two threads in it would leave it silent for ever. Where
# gevent patches `threading` after this, it is one thread's for all greenlets, and shuts none
# of them out; nor need it, as nothing in it waits.
_SILENCING = threading.RLock()


class AsyncStandIn(StandIn, AsyncRedis):  # type: ignore[misc]  # a Redis, but for its sending
    """See `StandIn`."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._taken(args, options)


class SyncStandIn(StandIn, SyncRedis):
    """See `StandIn`."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._taken(args, options)
