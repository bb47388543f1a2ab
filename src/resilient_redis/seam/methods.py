"""redis-py's methods, as far as they are commands: what each sends, and what it answers.

Nothing about a command is written here: its method makes the wire form, the catalog says what that
means, and redis-py's own parser and callbacks make the answer.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.client import NEVER_DECODE
from redis.commands.core import AsyncCoreCommands

from ..core.catalog import names
from ..core.command import Kind
from .replies import MISSING, OwnReplies

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
    if callable(getattr(Redis, name, None))
)

Take = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class OfflineReplies:
    """RESP of ours as a client's method would return it: the parser, the decoding and the response
    callbacks are redis-py's.
    """

    def __init__(self, client: Redis) -> None:
        connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
        self._client = client
        self._own = OwnReplies(connection._parser, connection.encoder, int(connection.protocol))
        self._reply = b""
        self._constants: dict[tuple[bytes, bool], Any] = {}
        self._with_callback = client.response_callbacks
        self.encoder = connection.encoder
        self.protocol = int(connection.protocol)
        self.db = int(connection.db)
        self.parse_error: Callable[[str], Exception] = connection._parser.parse_error

    async def shape(self, reply: bytes, command: Any, options: dict[str, Any]) -> Any:
        """What `parse_response` makes of it. Never waits."""
        self._reply = reply
        return await self._client.parse_response(self, command, **options)  # type: ignore[arg-type]  # it reads the reply from here

    def constant(self, reply: bytes, command: Any, options: dict[str, Any]) -> Any:
        """The same without a coroutine, where the client has no callback for `command` and the
        reply has been met before; else `MISSING`.
        """
        if command in self._with_callback:
            return MISSING
        return self._constants.get((reply, NEVER_DECODE in options), MISSING)

    async def read_response(self, disable_decoding: bool = False) -> Any:
        """For redis-py: this stands in for a connection."""
        key = (self._reply, disable_decoding)
        if key in self._constants:
            return self._constants[key]
        reply = await self._own.parse(self._reply, disable_decoding)
        if reply is None or reply is True or reply == 0 or reply == b"OK" or reply == "OK":
            self._constants[key] = reply  # what nearly all answers are, and cannot be changed
        return reply


class StandIn(Redis):
    """A client without a server: what its methods send goes to `take`, which answers.

    Nothing in a run ever waits, so that a whole method runs at once and `take` is that of its run.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replies = OfflineReplies(self)
        self._take: Take | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        assert self._take is not None
        reply = self._take(args, options)
        if not isinstance(reply, bytes):
            return reply
        return await self.replies.shape(reply, args[0], options)

    def run(
        self, method_name: str, args: tuple[Any, ...], kwargs: dict[str, Any], take: Take
    ) -> Any:
        """What the method answers where `take` answers each command that it sends: with RESP bytes
        for its callbacks, or with anything else as it is. Raises what `take` and the method raise.
        """
        self._take = take
        try:
            with warnings.catch_warnings():
                # That a method is deprecated is for the user's own client to say.
                warnings.simplefilter("ignore")
                result = getattr(self, method_name)(*args, **kwargs)
                return _finished(result) if inspect.iscoroutine(result) else result
        finally:
            self._take = None


def _finished(coroutine: Any) -> Any:
    """The result of a coroutine that does not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("a method of redis-py waited for something other than its reply")
