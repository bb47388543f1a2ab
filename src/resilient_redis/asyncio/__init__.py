"""resilient_redis for `redis.asyncio`."""

from ..errors import (
    CommandRefused,
    JournalCorrupt,
    JournalFull,
    OutcomeUnknown,
    ReplyUnknown,
    ResilienceError,
)
from ..journal import MemoryJournal
from ..policy import COUNTERS, READS, TAKES, WRITES, Policy, Rule
from ..receipt import Queued
from .breaker import RedisCircuitBreaker
from .connection import ResilientConnection

__all__ = [
    "COUNTERS",
    "READS",
    "TAKES",
    "WRITES",
    "CommandRefused",
    "JournalCorrupt",
    "JournalFull",
    "MemoryJournal",
    "OutcomeUnknown",
    "Policy",
    "Queued",
    "RedisCircuitBreaker",
    "ReplyUnknown",
    "ResilienceError",
    "ResilientConnection",
    "Rule",
]
