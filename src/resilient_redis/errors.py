"""What resilient-redis raises, and what a caller may conclude from it.

Every class says whether the command can still take effect: after `CommandRefused` it cannot,
after `OutcomeUnknown` nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.exceptions


class ResilienceError(Exception):
    """Base of everything that this library raises. redis-py never retries it.

    `queued` is False, as on what `execute` raises again.
    """

    queued = False


class CommandRefused(ResilienceError, redis.exceptions.ConnectionError):
    """Redis is away and this command cannot be promised. Nothing was queued, nothing will happen.

    It is a `redis.ConnectionError`, so a handler written for outages of redis-py catches it.

    `command` is the wire name ("INCR"), `reason` a sentence, `retry_after` the number of seconds
    until the next look at the server, or None where that is not known.
    """

    def __init__(self, command: str, reason: str, retry_after: float | None = None) -> None:
        wait = "" if retry_after is None else f" (next look at the server in {retry_after:.2f} s)"
        super().__init__(f"{command} refused: {reason}; nothing was queued{wait}")
        self.command = command
        self.reason = reason
        self.retry_after = retry_after

    def __reduce__(self) -> Any:
        return type(self), (self.command, self.reason, self.retry_after)


class JournalFull(CommandRefused):
    """The journal has no room for this write. What it already holds is kept."""


class OutcomeUnknown(ResilienceError, redis.exceptions.TimeoutError):
    """The command was sent, its reply was lost, and sending it again could apply it twice.

    It may have been applied once or not at all; it is neither queued nor sent again.
    `replies` holds the raw replies of the first commands of a pipeline that did arrive.
    """

    def __init__(self, command: str, replies: Sequence[Any] = ()) -> None:
        super().__init__(
            f"{command} was sent and its reply was lost: applied once or not at all; "
            "it will not be sent again"
        )
        self.command = command
        self.replies = tuple(replies)

    def __reduce__(self) -> Any:
        return type(self), (self.command, self.replies)


class ReplyUnknown(ResilienceError, TypeError):
    """A `Queued` receipt was used as the reply that Redis has not given yet.

    Not a connection error on purpose: the write *is* queued, and a handler that retries on
    connection errors would apply it twice.
    """


class JournalCorrupt(ResilienceError):
    """The journal's bytes do not read as what was written; `path` names the file, if any."""

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path
