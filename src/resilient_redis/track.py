"""`track()`: what the commands in a block of code were answered while Redis was away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

MAX_COMMANDS = 100


@dataclass(eq=False)
class Tracker:
    """Counts of commands: answered as by an empty Redis, queued, refused, and those of which
    nobody knows whether they ran. `commands`: the wire names of the first 100 of them, in order.
    Each is equal to itself alone.
    """

    neutral: int = 0
    queued: int = 0
    refused: int = 0
    unknown: int = 0
    commands: list[str] = field(default_factory=list)

    @property
    def degraded(self) -> bool:
        """Whether anything in the block was not answered by Redis itself."""
        return bool(self.neutral or self.queued or self.refused or self.unknown)

    def note(self, answer: str, command: str) -> None:
        """`answer` is the name of one of the counts."""
        setattr(self, answer, getattr(self, answer) + 1)
        if len(self.commands) < MAX_COMMANDS:
            self.commands.append(command)


_trackers: ContextVar[tuple[Tracker, ...]] = ContextVar("resilient_redis_trackers", default=())


@contextmanager
def track() -> Iterator[Tracker]:
    """Yields a `Tracker` that counts what the code in the block is answered while Redis is away.

    Tasks that are started in the block count, too, and so do threads that take its context along
    (`asyncio.to_thread`); blocks may be nested, and each counts all that is in it.

    What is in the outermost block counts as one reader: what it was told is empty is a premise of
    its own writes, and of nobody else's. So put it around one request, not around a whole server.
    Costs nothing while Redis is there::

        with track() as t:
            user = await load(user_id)
        if t.degraded:
            response.headers["Cache-Control"] = "no-store"
    """
    tracker = Tracker()
    token = _trackers.set((*_trackers.get(), tracker))
    try:
        yield tracker
    finally:
        _trackers.reset(token)


def outermost() -> Tracker | None:
    """For the guard: the outermost block around the caller, whose reads and writes are of one."""
    trackers = _trackers.get()
    return trackers[0] if trackers else None


def note(answer: str, command: str) -> None:
    """For the guard: `command` was "neutral", "queued", "refused" or "unknown"."""
    for tracker in _trackers.get():
        tracker.note(answer, command)
