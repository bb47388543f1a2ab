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
from .receipt import Queued

__all__ = [
    "CommandRefused",
    "JournalCorrupt",
    "JournalFull",
    "MemoryJournal",
    "OutcomeUnknown",
    "Queued",
    "ReplyUnknown",
    "ResilienceError",
]
