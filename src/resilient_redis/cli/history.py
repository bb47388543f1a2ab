"""What callers asked for and what they were told: the oracle's first witness.

Each write carries a token, a value that no other write has, so that an effect in the server's own
file can be traced back to the call. Nothing in here knows of the library under test.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What an operation does to its key."""

    APPEND = "append"  # RPUSH, XADD, SADD, ZADD: adds the token to a collection
    REGISTER = "register"  # SET, HSET of one field: the last one wins
    DELETE = "delete"  # DEL of the key, HDEL of the field
    EXPIRE = "expire"  # EXPIRE of the key
    COUNTER = "counter"  # INCR: has no token, is counted
    READ = "read"  # GET, HGET of a register


class Outcome(Enum):
    """What the caller saw."""

    ACKNOWLEDGED = "acknowledged"  # accepted; applied or queued, the answer does not say
    APPLIED = "applied"  # acknowledged, and known to be by the server
    QUEUED = "queued"  # acknowledged, and known to be in the journal
    REFUSED = "refused"  # raised: nothing was queued
    UNKNOWN = "unknown"  # raised: it may have been executed, once
    ERROR = "error"  # raised something else: it was not executed
    VALUE = "value"  # a read answered by the server (None: there is nothing)
    NEUTRAL = "neutral"  # a read answered, perhaps, without the server


ACKNOWLEDGED = frozenset({Outcome.ACKNOWLEDGED, Outcome.APPLIED, Outcome.QUEUED})
MUST_NOT_APPLY = frozenset({Outcome.REFUSED, Outcome.ERROR})


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. `started` and `ended` are monotonic seconds around the call."""

    id: int  # rises in the order in which one worker issues its operations
    worker: int  # a worker issues one operation (or one pipeline) after the other
    key: bytes
    kind: Kind
    value: bytes | None  # the token that was written, or what was read
    outcome: Outcome
    started: float
    ended: float
    field: bytes | None = None  # of a hash
    db: int = 0
    ttl_ms: int | None = None  # relative time to live, counted from the call
    wall_ms: float = 0.0  # wall clock at the call, in unix ms; needed with `ttl_ms`

    @property
    def target(self) -> Target:
        return (self.db, self.key, self.field)

    @property
    def acknowledged(self) -> bool:
        return self.outcome in ACKNOWLEDGED

    def precedes(self, other: Op) -> bool:
        """Real-time order: over before the other began, or issued earlier by the same worker."""
        if self.worker == other.worker:
            return self.id < other.id
        return self.ended < other.started


Target = tuple[int, bytes, bytes | None]  # db, key, field


class Call:
    """An operation under way; `end` it once, with what the caller saw."""

    __slots__ = (
        *("_history", "db", "field", "id", "key", "kind", "started"),
        *("ttl_ms", "value", "wall_ms", "worker"),
    )

    def __init__(
        self,
        history: History,
        worker: int,
        key: bytes,
        kind: Kind,
        value: bytes | None,
        field: bytes | None,
        db: int,
        ttl_ms: int | None,
    ) -> None:
        self._history = history
        self.id = next(history.ids)
        self.worker = worker
        self.key = key
        self.kind = kind
        self.value = value
        self.field = field
        self.db = db
        self.ttl_ms = ttl_ms
        self.wall_ms = time.time() * 1000
        self.started = time.monotonic()

    def end(self, outcome: Outcome, read: bytes | None = None) -> Op:
        """Note the outcome; `read` is what a READ returned."""
        op = Op(
            self.id,
            self.worker,
            self.key,
            self.kind,
            read if self.kind is Kind.READ else self.value,
            outcome,
            self.started,
            time.monotonic(),
            self.field,
            self.db,
            self.ttl_ms,
            self.wall_ms,
        )
        self._history.close(self, op)
        return op


class History:
    """All operations of a run, from any number of workers in one process."""

    def __init__(self) -> None:
        self.ids = itertools.count()
        self._done: list[Op] = []
        self._open: dict[int, Call] = {}

    def begin(
        self,
        worker: int,
        key: str | bytes,
        kind: Kind,
        value: str | bytes | None = None,
        *,
        field: str | bytes | None = None,
        db: int = 0,
        ttl_ms: int | None = None,
    ) -> Call:
        """Call this right before the operation is issued."""
        call = Call(self, worker, _bytes(key), kind, _optional(value), _optional(field), db, ttl_ms)
        self._open[call.id] = call
        return call

    def token(self, worker: int) -> str:
        """A value that nothing else in this history has."""
        return f"w{worker}:{next(self.ids)}"

    def close(self, call: Call, op: Op) -> None:
        del self._open[call.id]
        self._done.append(op)

    def ops(self) -> list[Op]:
        """All operations by id; one that never ended is unknown."""
        now = time.monotonic()
        unended = [
            Op(
                *(call.id, call.worker, call.key, call.kind, call.value),
                *(Outcome.UNKNOWN, call.started, now, call.field),
                *(call.db, call.ttl_ms, call.wall_ms),
            )
            for call in self._open.values()
        ]
        return sorted(self._done + unended, key=lambda op: op.id)

    def __len__(self) -> int:
        return len(self._done) + len(self._open)

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops())


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _optional(text: str | bytes | None) -> bytes | None:
    return None if text is None else _bytes(text)
