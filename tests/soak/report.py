"""A soak's findings in words: counts, and for each anomaly what one needs to understand it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from pathlib import Path

from resilient_redis.cli.aof import Effect
from resilient_redis.cli.history import Op, Target
from resilient_redis.cli.oracle import check

from .soak import Report

SHOWN = 2  # keys of each anomaly
AROUND = 12  # effects on each side


def summary(report: Report) -> str:
    outcomes = ", ".join(f"{n} {o.value}" for o, n in report.tally.outcomes.most_common())
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(report.faults.items()) if n)
    errors = ", ".join(f"{kind} {n}" for kind, n in report.tally.errors.most_common())
    counters = ", ".join(f"{name} {n}" for name, n in sorted(report.counters.items()))
    lines = [
        f"soak of {report.server}, {report.seconds:g} s, seed {report.seed}: "
        + ("OK" if report.ok else "VIOLATIONS"),
        f"  {report.acknowledged} acknowledged writes; {outcomes}; "
        f"{len(report.tally.cancelled)} cancelled, {report.tally.while_held} read while held",
        f"  {report.faults.total()} faults of {sum(n > 0 for n in report.faults.values())} kinds: "
        + kinds,
        "  " + ", ".join(f"{name} {n}" for name, n in report.shapes.items()),
        f"  raised: {errors or 'nothing'}",
        f"  breakers: {counters}",
        f"  {report.verdict}".replace("\n", "\n  "),
        *(f"  PROBLEM {problem}" for problem in report.problems[:20]),
    ]
    return "\n".join(lines)


def diagnosis(report: Report) -> str:
    """For the first few keys with an anomaly: the operations and effects around it."""
    lines = []
    for target, ops, effects in _guilty(report):
        db, key, where = target
        verdict = check(ops, effects)
        lines.append(f"--- db {db} {key.decode()} {'' if where is None else where.decode()}")
        lines += [f"  {example}" for example in verdict.examples[:5]]
        tokens = {op.value: op for op in ops if op.value}
        marks = _marks(verdict.examples, tokens)
        lines += _story(effects, tokens, marks)
        lines += [f"  op {_op(op, report)}" for op in ops if op.id in marks]
    return "\n".join(lines)


def dump(report: Report, path: Path) -> None:
    """Everything about the guilty keys, and the whole course of events, into a file."""
    with path.open("w") as out:
        out.write(summary(report) + "\n" + diagnosis(report) + "\n")
        for target, ops, effects in _guilty(report):
            out.write(f"\n=== {target}\n")
            out.writelines(f"op {_op(op, report)}\n" for op in ops)
            out.writelines(f"effect {_effect(e)}\n" for e in effects)
        out.write("\n=== course\n")
        start = report.log[0][0] if report.log else 0.0
        out.writelines(f"{at - start:9.3f} {what}\n" for at, what in report.log)


def _guilty(report: Report) -> list[tuple[Target, list[Op], list[Effect]]]:
    by_target: dict[Target, list[Op]] = defaultdict(list)
    for op in report.ops:
        by_target[op.target].append(op)
    by_key: dict[tuple[int, bytes], list[Effect]] = defaultdict(list)
    for effect in report.effects:
        for key in set(effect.args[1:3]):
            by_key[effect.db, key].append(effect)
    found = []
    kinds: Counter[str] = Counter()
    for target, ops in by_target.items():
        effects = by_key[target[0], target[1]]
        seen = [kind for kind, n in check(ops, effects).anomalies().items() if n]
        if any(kinds[kind] < SHOWN for kind in seen):
            found.append((target, ops, effects))
        kinds.update(seen)
    return found


def _marks(examples: list[str], tokens: dict[bytes, Op]) -> set[int]:
    """The operations that the examples speak of."""
    return {
        op.id
        for value, op in tokens.items()
        if value and any(value.decode() in e for e in examples)
    }


def _story(effects: list[Effect], tokens: dict[bytes, Op], marks: set[int]) -> list[str]:
    shown: set[int] = set()
    for index, effect in enumerate(effects):
        if any((op := tokens.get(arg)) and op.id in marks for arg in effect.args):
            shown.update(range(max(0, index - AROUND), min(len(effects), index + AROUND)))
    return [f"  effect {_effect(effects[index])}" for index in sorted(shown)]


def _effect(effect: Effect) -> str:
    second = "" if effect.second is None else time.strftime(" %H:%M:%S", time.gmtime(effect.second))
    return f"{effect.index}{second} {b' '.join(effect.args).decode(errors='replace')[:160]}"


def _op(op: Op, report: Report) -> str:
    start = report.log[0][0] if report.log else 0.0
    value = "" if op.value is None else op.value.decode(errors="replace")
    return (
        f"{op.id} worker {op.worker} {op.kind.value} {value} {op.outcome.value} "
        f"{op.started - start:.4f}..{op.ended - start:.4f}"
    )
