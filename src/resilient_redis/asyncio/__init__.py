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
from ..receipt import Queued
from .breaker import RedisCircuitBreaker
from .connection import ResilientConnection

__all__ = [
    "CommandRefused",
    "JournalCorrupt",
    "JournalFull",
    "MemoryJournal",
    "OutcomeUnknown",
    "Queued",
    "RedisCircuitBreaker",
    "ReplyUnknown",
    "ResilienceError",
    "ResilientConnection",
]
