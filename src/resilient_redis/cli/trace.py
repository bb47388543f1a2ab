"""The server's effects, sorted by what they touch, and the order that they should have."""

from __future__ import annotations

import itertools
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from .aof import Effect
from .history import Kind, Op, Target
from .verdict import Verdict

REMOVALS = frozenset({b"DEL", b"UNLINK"})
EXPIRIES = frozenset({b"PEXPIREAT", b"EXPIREAT", b"PEXPIRE", b"EXPIRE"})
COUNTS = frozenset({b"INCR", b"INCRBY", b"DECR", b"DECRBY", b"HINCRBY"})


class Event(NamedTuple):
    """What one effect did to one target."""

    what: str  # "write" (by op), "remove", "expire", "count" or "foreign"
    effect: Effect
    op: Op | None = None


def trace(
    history: Sequence[Op], effects: Sequence[Effect], verdict: Verdict
) -> dict[Target, list[Event]]:
    """Sort the effects by the register, collection or counter that they touch."""
    writers = {
        op.value: op
        for op in history
        if op.value is not None and op.kind in (Kind.APPEND, Kind.REGISTER)
    }
    targets = {op.target for op in history}
    keys = {(op.db, op.key) for op in history}
    events: dict[Target, list[Event]] = defaultdict(list)
    first_seen: set[int] = set()
    order = Order()
    for effect in effects:
        name, args = effect.name, effect.args
        if name in REMOVALS:
            for key in args[1:]:
                events[effect.db, key, None].append(Event("remove", effect))
        elif name == b"HDEL":
            for field in args[2:]:
                events[effect.db, args[1], field].append(Event("remove", effect))
        elif name in EXPIRIES:
            events[effect.db, args[1], None].append(Event("expire", effect))
        elif name in COUNTS:
            where = (effect.db, args[1], args[2] if name == b"HINCRBY" else None)
            events[where].append(Event("count", effect))
        elif len(args) > 1:
            found = [
                op
                for arg in args[2:]
                if (op := writers.get(arg)) and op.db == effect.db and op.key in args
            ]
            for op in found:
                events[op.target].append(Event("write", effect, op))
                if op.acknowledged and op.id not in first_seen:
                    first_seen.add(op.id)
                    verdict.across_keys += order.is_late(op)
                    order.add(op)
            verdict.effects += bool(found)
            if not found and (effect.db, args[1]) in keys:
                verdict.foreign += 1
                if (effect.db, args[1], None) in targets:
                    events[effect.db, args[1], None].append(Event("foreign", effect))
    return events


class Order:
    """Whether an operation comes too late, given those that have been seen."""

    def __init__(self) -> None:
        # The two latest starts, of different workers: a worker's own order goes by ids.
        self._starts: dict[int, float] = {}
        self._ids: dict[int, int] = {}
        self._latest: tuple[float, int] = (float("-inf"), -1)

    def add(self, op: Op) -> None:
        self._ids[op.worker] = max(op.id, self._ids.get(op.worker, -1))
        self._starts[op.worker] = max(op.started, self._starts.get(op.worker, op.started))
        self._latest = max(self._latest, (op.started, op.worker))

    def is_late(self, op: Op) -> bool:
        """Whether `op` precedes anything that was added."""
        if self._ids.get(op.worker, -1) > op.id:
            return True
        started, worker = self._latest
        if started <= op.ended:
            return False
        return worker != op.worker or any(
            other > op.ended for owner, other in self._starts.items() if owner != op.worker
        )


class Neighbours:
    """Between which effects an operation without a token of its own must show."""

    def __init__(self, written: Sequence[tuple[Op, int]]) -> None:
        by_end = sorted(written, key=lambda pair: pair[0].ended)
        self._ends = [op.ended for op, _ in by_end]
        self._last = list(itertools.accumulate((index for _, index in by_end), max))
        by_start = sorted(written, key=lambda pair: pair[0].started, reverse=True)
        self._starts = [-op.started for op, _ in by_start]
        self._first = list(itertools.accumulate((index for _, index in by_start), min))
        self._own: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for op, index in written:  # in the order of ids
            self._own[op.worker].append((op.id, index))

    def around(self, op: Op) -> tuple[int, int]:
        """The last event before it (-1: none) and the first event after it."""
        before, after = -1, sys.maxsize
        if count := bisect_left(self._ends, op.started):
            before = self._last[count - 1]
        if count := bisect_left(self._starts, -op.ended):
            after = self._first[count - 1]
        # Equal times are possible within one worker's pipeline: there the ids decide.
        own = self._own[op.worker]
        if here := bisect_left(own, (op.id, 0)):
            before = max(before, own[here - 1][1])
        if here < len(own):
            after = min(after, own[here][1])
        return before, after


def expiry(effect: Effect) -> float:
    """The absolute expiry in unix ms of a SET … PXAT or PEXPIREAT; 0 if it has none."""
    args = [arg.upper() for arg in effect.args]
    if effect.name in EXPIRIES:
        return int(args[2]) * (1000 if effect.name == b"EXPIREAT" else 1)
    for name, factor in ((b"PXAT", 1), (b"EXAT", 1000)):
        if name in args[3:]:
            return int(args[args.index(name, 3) + 1]) * factor
    return 0


def show(event: Event) -> str:
    words = b" ".join(event.effect.args[:5]).decode(errors="replace")
    return f"effect {event.effect.index} [{words[:80]}]"
