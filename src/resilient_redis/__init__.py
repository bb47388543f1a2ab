"""resilient-redis: a circuit breaker with write replay that sits inside redis-py.

`resilient_redis` mirrors `redis`, `resilient_redis.asyncio` mirrors `redis.asyncio`.
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
from .seam.methods import WRITE_COMMANDS
from .sync.breaker import RedisCircuitBreaker
from .sync.breaker import SyncQueued as Queued
from .sync.client import ResilientRedis
from .sync.connection import (
    ResilientConnection,
    ResilientSSLConnection,
    ResilientUnixDomainSocketConnection,
)
from .sync.sentinel import (
    ResilientSentinelManagedConnection,
    ResilientSentinelManagedSSLConnection,
)
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
