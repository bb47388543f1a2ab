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
from ..seam.methods import WRITE_COMMANDS
from ..track import Tracker, track
from .breaker import AsyncQueued as Queued
from .breaker import RedisCircuitBreaker
from .client import ResilientRedis
from .connection import (
    ResilientConnection,
    ResilientSSLConnection,
    ResilientUnixDomainSocketConnection,
)
from .sentinel import (
    ResilientSentinelManagedConnection,
    ResilientSentinelManagedSSLConnection,
)

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
    "RedisCircuitBreaker",
    "ReplyUnknown",
    "ResilienceError",
    "ResilientConnection",
    "ResilientRedis",
    "ResilientSSLConnection",
    "ResilientSentinelManagedConnection",
    "ResilientSentinelManagedSSLConnection",
    "ResilientUnixDomainSocketConnection",
    "Rule",
    "Tracker",
    "track",
]
