"""resilient-redis: a circuit breaker with write replay that sits inside redis-py.

`resilient_redis.asyncio` mirrors `redis.asyncio`.
"""

from .errors import (
    CommandRefused,
    JournalCorrupt,
    JournalFull,
    OutcomeUnknown,
    ReplyUnknown,
    ResilienceError,
)
from .journal import MemoryJournal
from .policy import COUNTERS, READS, TAKES, WRITES, Policy, Rule
from .receipt import Queued
from .seam.methods import WRITE_COMMANDS
from .track import Tracker, track

__all__ = [
    "COUNTERS",
    "READS",
    "TAKES",
    "WRITES",
    "WRITE_COMMANDS",
    "CommandRefused",
    "JournalCorrupt",
    "JournalFull",
    "MemoryJournal",
    "OutcomeUnknown",
    "Policy",
    "Queued",
    "ReplyUnknown",
    "ResilienceError",
    "Rule",
    "Tracker",
    "track",
]
