"""How pure code asks for I/O: a generator yields an `Exchange` and is sent the replies.

Both shells drive the same generators (the habit is psycopg's: `generators.py`, `waiting.py`).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Exchange(NamedTuple):
    """Send these bytes, then receive so many replies; what is not received now is received later,
    so that work can be done while the server is at its own.
    """

    send: bytes
    receive: int


class ReplyError(Exception):
    """An error reply, as a value: `code` is its first word ("READONLY"), `message` the whole."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = message.partition(" ")[0]


Replies = list[Any]
Dialogue = Generator[Exchange, Replies, T]

#: The server answers, but takes no writes now: they are held, reads stay live.
#: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
HOLDING = frozenset({"READONLY", "OOM", "NOREPLICAS", "MISCONF"})
#: The server answers that it cannot serve anybody: as good as no answer.
UNAVAILABLE = frozenset({"LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "TRYAGAIN"})
#: The ACL or the server's build forbids the command.
FORBIDDEN = frozenset({"NOPERM", "NOAUTH"})


def is_forbidden(reply: Any) -> bool:
    """Whether an error reply means that this user (or this server) has no such command."""
    return isinstance(reply, ReplyError) and (
        reply.code in FORBIDDEN
        or "unknown command" in reply.message.lower()
        # How EXEC itself is forbidden.
        or (reply.code == "EXECABORT" and "because of: NOPERM" in reply.message)
    )
