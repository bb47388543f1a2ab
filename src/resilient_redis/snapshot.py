"""What a breaker shows of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A queued write that was not applied, and why: "error", "age", "premise", "watermark"
    or "rights".

    `payload` is the command as RESP bytes, `at` the monotonic time of the call; `error` is the
    server's message where there is one.
    """

    seq: int
    command: str
    reason: str
    error: str | None
    at: float
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The breaker at one moment. Times in seconds; no keys, no values, no secrets."""

    state: str
    era: int
    failures: int
    retry_after: float | None
    draining: bool
    writes_held: str | None
    pending: int
    pending_bytes: int
    oldest_age: float | None
    dead_letters: int
    last_error: str | None
    replay_mode: str
    fence_denied: bool
    counters: Mapping[str, int]
