"""The oracle: do the server's effects keep what the callers were told?

It compares two witnesses that know nothing of each other: the history of the callers
(`history.History`) and the server's own append-only file (`aof.read_effects`). It never looks at
the counters of the library under test.

Order is real-time order: one operation *precedes* another if it was over before the other began,
or if one worker issued both. Operations that overlap may take effect either way round. The rules:

- An **append** that was acknowledged is in the effects exactly once; refused or failed: never;
  unknown: at most once. Its first occurrence comes before the effect of whatever it precedes.
- A **register** may be written again (it is safe to send twice), as long as no write that it
  precedes has landed before: that is a stale overwrite, whatever the outcome was. So is a DEL or
  an expiry after a write that all its operations precede.
- An acknowledged **delete** or **expire** shows between the writes before and after it, if there
  was something to delete. So does a write with a TTL that came too late: Valkey turns a SET whose
  deadline has passed into UNLINK, Redis executes it and deletes the key (seen on 9.1.2, 8.2.3).
- A **counter** has no tokens: its effects are counted.
- A **read** that returns a value must not be older than a write acknowledged before it began.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from .aof import Effect
from .history import MUST_NOT_APPLY, Kind, Op, Outcome, Target
from .trace import Event, Neighbours, Order, expiry, show, trace
from .verdict import Verdict

TTL_TOLERANCE_MS = 250.0


def check(
    ops: Iterable[Op],
    effects: Sequence[Effect],
    *,
    ttl_tolerance_ms: float = TTL_TOLERANCE_MS,
    now_ms: float | None = None,
) -> Verdict:
    """Compare what callers were told with what the server did."""
    history = sorted(ops, key=lambda op: op.id)
    verdict = Verdict(operations=len(history))
    verdict.outcomes = Counter(op.outcome.value for op in history)
    verdict.acknowledged = sum(op.acknowledged for op in history)
    by_target: dict[Target, list[Op]] = defaultdict(list)
    for op in history:
        by_target[op.target].append(op)
    events = trace(history, effects, verdict)
    now_ms = time.time() * 1000 if now_ms is None else now_ms
    for target, mine in by_target.items():
        Judge(mine, events.get(target, []), verdict, ttl_tolerance_ms, now_ms).judge()
    return verdict


class Judge:
    """All operations and all effects of one target."""

    def __init__(
        self,
        ops: Sequence[Op],
        events: Sequence[Event],
        verdict: Verdict,
        tolerance: float = TTL_TOLERANCE_MS,
        now_ms: float = 0.0,
    ) -> None:
        self.ops = ops
        self.events = events
        self.verdict = verdict
        self.tolerance = tolerance
        self.now_ms = now_ms
        self.seen: dict[int, list[int]] = defaultdict(list)  # op id -> indices into events
        for index, event in enumerate(events):
            if event.op is not None:
                self.seen[event.op.id].append(index)
        self.neighbours = Neighbours(
            [(op, self.seen[op.id][0]) for op in ops if op.acknowledged and op.id in self.seen]
        )
        self.removers = [
            op for op in ops if op.kind is Kind.DELETE or (op.kind is Kind.REGISTER and op.ttl_ms)
        ]
        self.expirers = [op for op in ops if op.kind is Kind.EXPIRE]

    def judge(self) -> None:
        kinds = {op.kind for op in self.ops}
        if Kind.COUNTER in kinds:
            self._counter()
        if Kind.APPEND in kinds:
            self._appends()
        if Kind.REGISTER in kinds:
            self._register_effects()
            self._ttls()
        self._missing()
        if Kind.READ in kinds:
            self.reads()
        for op in self.ops:
            if op.outcome in MUST_NOT_APPLY and self.seen.get(op.id):
                self.verdict.add("refused_but_applied", _tell(op))

    def _appends(self) -> None:
        order = Order()
        for index, event in enumerate(self.events):
            op = event.op
            if op is None or op.kind is not Kind.APPEND or op.outcome in MUST_NOT_APPLY:
                continue
            if index != self.seen[op.id][0]:
                anomaly = "duplicated" if op.acknowledged else "unknown_applied_twice"
                self.verdict.add(anomaly, f"{_tell(op)} again at {show(event)}")
                continue
            if order.is_late(op):
                anomaly = "out_of_order" if op.acknowledged else "stale"
                self.verdict.add(anomaly, f"{_tell(op)} at {show(event)}")
            order.add(op)

    def _register_effects(self) -> None:
        order = Order()
        last: Op | None = None  # whose value is there
        expires = False  # ... and may go by itself
        for index, event in enumerate(self.events):
            if event.what == "write" and event.op is not None:
                op = event.op
                if op.outcome not in MUST_NOT_APPLY:
                    if order.is_late(op):
                        self.verdict.add("stale", f"{_tell(op)} at {show(event)}")
                    elif index != self.seen[op.id][0]:
                        self.verdict.repeated += 1
                    order.add(op)
                last, expires = op, op.ttl_ms is not None
            elif event.what in ("remove", "expire"):
                if last is not None and not (expires and event.what == "remove"):
                    self._explain(event, last)
                expires = event.what == "expire"
                if event.what == "remove":
                    last = None
            elif event.what == "foreign":
                last, expires = None, False

    def _explain(self, event: Event, last: Op) -> None:
        """A removal (or expiry) of `last` must come from an operation that it does not follow."""
        causes = self.removers if event.what == "remove" else self.expirers
        if not causes:
            self.verdict.foreign += 1
            return
        timely = False
        for op in reversed(causes):  # the newest is the likeliest
            if not op.precedes(last):
                if op.outcome not in MUST_NOT_APPLY:
                    return
                timely = True
        anomaly = "refused_but_applied" if timely else "stale"
        self.verdict.add(anomaly, f"{show(event)} after {_tell(last)}")

    def _missing(self) -> None:
        for op in self.ops:
            if not op.acknowledged or op.kind in (Kind.READ, Kind.COUNTER):
                continue
            if self.seen.get(op.id):
                continue
            tokened = op.kind in (Kind.APPEND, Kind.REGISTER)
            too_late = op.ttl_ms is not None and op.wall_ms + op.ttl_ms <= self.now_ms
            if tokened and not too_late:
                self.verdict.add("lost", _tell(op))
                continue
            # It leaves no token: what it did must show between its neighbours.
            between = self._between(op)
            if between is None:
                continue  # nothing was there for it to act on
            what = ("remove", "expire") if op.kind is Kind.EXPIRE else ("remove",)
            shown = [event for event in between if event.what in what]
            if not shown:
                self.verdict.add("lost", _tell(op))
            elif op.kind is Kind.EXPIRE and not any(event.what == "remove" for event in shown):
                drift = min((self._drift(op, expiry(event.effect)) for event in shown), key=abs)
                self._judge_drift(op, drift)

    def _between(self, op: Op) -> Sequence[Event] | None:
        """The events between the last write before `op` and the first one after it."""
        first, end = self.neighbours.around(op)
        return None if first < 0 else self.events[first + 1 : min(end, len(self.events))]

    def _ttls(self) -> None:
        for op in self.ops:
            if op.kind is not Kind.REGISTER or op.ttl_ms is None or not op.acknowledged:
                continue
            where = self.seen.get(op.id)
            if where and not self._taken_back(op, where[-1]):  # of several the last one counts
                self._judge_drift(op, self._drift(op, expiry(self.events[where[-1]].effect)))

    def _taken_back(self, op: Op, index: int) -> bool:
        """Whether a too late expiry was mended by a removal that came after the due time.

        That is how Valkey writes down the second execution of a SET whose deadline has passed. An
        expiry by itself leaves the same trace, but not before its time: the time stamps of the
        file, full seconds, must show that it came earlier.
        """
        if index + 1 >= len(self.events) or self.events[index + 1].what != "remove":
            return False
        second = self.events[index + 1].effect.second
        if second is None:
            return False
        latest = (second + 1) * 1000
        return op.wall_ms + (op.ttl_ms or 0) <= latest <= expiry(self.events[index].effect)

    def _drift(self, op: Op, expiry_ms: float) -> float:
        """How far an expiry is outside of what the call allows (0: inside)."""
        due = op.wall_ms + (op.ttl_ms or 0)
        # A live command starts to count when it reaches the server, some time within the call.
        slack = 0.0 if op.outcome is Outcome.QUEUED else (op.ended - op.started) * 1000
        if expiry_ms < due:
            return expiry_ms - due
        return max(0.0, expiry_ms - due - slack)

    def _judge_drift(self, op: Op, drift: float) -> None:
        if abs(drift) > self.tolerance:
            self.verdict.add("ttl_drift", f"{_tell(op)} by {drift:+.0f} ms")

    def _counter(self) -> None:
        calls = [op for op in self.ops if op.kind is Kind.COUNTER]
        outcomes = Counter(op.outcome for op in calls)
        acknowledged = sum(op.acknowledged for op in calls)
        unknown = outcomes[Outcome.UNKNOWN]
        done = sum(event.what == "count" for event in self.events)
        self.verdict.effects += done
        where = f"counter {calls[0].key!r}: {acknowledged} acknowledged, {unknown} unknown, "
        if done < acknowledged:
            self.verdict.add("lost", f"{where}{done} applied", acknowledged - done)
        excess = done - acknowledged - unknown
        if excess > 0:
            refused = min(excess, sum(outcomes[outcome] for outcome in MUST_NOT_APPLY))
            if refused:
                self.verdict.add("refused_but_applied", f"{where}{done} applied", refused)
            if excess > refused:
                anomaly = "unknown_applied_twice" if unknown else "duplicated"
                self.verdict.add(anomaly, f"{where}{done} applied", excess - refused)

    def reads(self) -> None:
        """Hold what was read against the writes; needs no effects."""
        writes = [op for op in self.ops if op.kind in (Kind.REGISTER, Kind.DELETE)]
        acknowledged = sorted((op for op in writes if op.acknowledged), key=lambda op: op.ended)
        ends = [op.ended for op in acknowledged]
        newest: list[Op] = []  # of acknowledged[: i + 1], the one that began last
        for op in acknowledged:
            newest.append(max(newest[-1], op, key=lambda o: o.started) if newest else op)
        by_token = {op.value: op for op in writes if op.kind is Kind.REGISTER}
        own: dict[int, list[Op]] = defaultdict(list)
        for op in writes:
            if op.acknowledged:
                own[op.worker].append(op)
        for read in self.ops:
            if read.kind is not Kind.READ or read.outcome is not Outcome.VALUE:
                continue
            known: list[Op] = []  # the newest writes that must be visible
            if (count := bisect_left(ends, read.started)) > 0:
                known.append(newest[count - 1])
            mine = own[read.worker]
            if (count := bisect_left(mine, read.id, key=lambda op: op.id)) > 0:
                known.append(mine[count - 1])
            if read.value is None:
                wrong = [op for op in known if not self._may_be_gone(op, read)]
            else:
                written = by_token.get(read.value)
                wrong = [] if written is None else [op for op in known if written.precedes(op)]
            if wrong:
                self.verdict.add("read_went_back", f"{_tell(read)}, behind {_tell(wrong[0])}")

    def _may_be_gone(self, write: Op, read: Op) -> bool:
        """Whether nothing is a right answer after `write`."""
        if write.kind is Kind.DELETE or write.ttl_ms is not None:
            return True
        return any(
            op.outcome not in MUST_NOT_APPLY and not op.precedes(write) and not read.precedes(op)
            for op in (*self.removers, *self.expirers)
        )


def _tell(op: Op) -> str:
    where = op.key.decode(errors="replace")
    if op.field is not None:
        where += "." + op.field.decode(errors="replace")
    value = "" if op.value is None else f" {op.value.decode(errors='replace')}"
    return f"{op.kind.value} {where}{value} ({op.outcome.value})"
