"""What an observer hears. Frozen, without keys, values or secrets.

There is none per command: those are counted in `snapshot()`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """`breaker` is the breaker's name; `at` is `time.monotonic()` in seconds."""

    breaker: str
    at: float


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """`old` and `new` are "CLOSED", "OPEN" or "HALF-OPEN"; `era` goes up by one each time."""

    old: str
    new: str
    era: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProbeFailed(Event):
    """The probe of a half-open breaker failed; `error` is the class name."""

    error: str


@dataclass(frozen=True, slots=True)
class WritesHeld(Event):
    """The server answers, but takes no writes: `reason` is its error code (READONLY, OOM …)."""

    reason: str


@dataclass(frozen=True, slots=True)
class FenceDenied(Event):
    """The ACL forbids CLIENT LIST or CLIENT KILL; old connections were only aborted on our side."""

    connections: int


@dataclass(frozen=True, slots=True)
class RightsMissing(Event):
    """The ACL forbids what exactly-once replay needs. `missing` names the commands.

    Writes that are not safe to send twice are refused while Redis is away.
    """

    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubscriptionGap(Event):
    """A subscriber may have missed messages between `start` and `end` (monotonic seconds).

    `channels` are the names of its channels and patterns; the log does not show them.
    """

    channels: tuple[bytes, ...] = field(repr=False)
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class ReplayStarted(Event):
    """`pending` entries wait in the journal."""

    pending: int


@dataclass(frozen=True, slots=True)
class ReplayProgress(Event):
    """Told about once a second of a long drain: `applied` so far, `pending` in the journal."""

    applied: int
    pending: int


@dataclass(frozen=True, slots=True)
class ReplayFinished(Event):
    """The journal is empty. What was applied before the replay was cut off counts; `seconds` is how
    long it took, without what lay between.
    """

    applied: int
    dead_letters: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ServerLostData(Event):
    """The watermark is older than what had been confirmed: Redis lost acknowledged data."""

    confirmed: int
    found: int


@dataclass(frozen=True, slots=True)
class EntryDeadLettered(Event):
    """Entry `seq` was set aside. `reason`: "error", "age", "watermark" or "rights"."""

    seq: int
    command: str
    reason: str


@dataclass(frozen=True, slots=True)
class PremisesFailed(Event):
    """In this drain `count` writes were set aside: their keys, read as neutral by the same task
    while Redis was away, do exist.
    """

    count: int


Observer = Callable[[Event], None]
