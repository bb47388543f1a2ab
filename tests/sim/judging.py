"""The verdict on a run: what the workers were told against what the server has done."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from resilient_redis.cli.aof import Effect
from resilient_redis.cli.history import Kind, Op, Outcome
from resilient_redis.cli.oracle import check
from resilient_redis.snapshot import DeadLetter

if TYPE_CHECKING:
    from .swarm import Run


def effects_of(run: Run, ops: list[Op]) -> list[Effect]:
    """What the server did, of each register write the last time only.

    A write that is safe to send twice may be repeated with all that followed it in its
    pipeline: `SET k 1, SET k 2, SET k 1, SET k 2` ends as it should.
    """
    registers = {op.value for op in ops if op.kind is Kind.REGISTER}
    log = run.server.store.log
    last = {arg: i for i, (_, args) in enumerate(log) for arg in args[2:] if arg in registers}
    return [
        Effect(i, db, args, 0)
        for i, (db, args) in enumerate(log)
        if all(last.get(arg, i) == i for arg in args[2:])
    ]


def judge_units(run: Run) -> None:
    """All of a transaction is there, and together, or nothing of it."""
    store = run.server.store
    first: dict[bytes, int] = {}
    for number, (start, end) in enumerate(pairwise(store.wholes)):
        for _, args in store.log[start:end]:
            for arg in args[2:]:
                first.setdefault(arg, number)
    for unit in run.units:
        if len({first.get(token) for token in unit}) > 1:
            run.fail(f"half a transaction: { {token: first.get(token) for token in unit} }")


def judge(run: Run) -> None:
    if not run.lossy:
        judge_units(run)
    for listener in run.listeners:
        listener.judge()
    if run.taker is not None:
        run.taker.judge()
    breaker, report = run.breaker, run.report
    report.shapes.update(
        transactions=len(run.units),
        cancelled=len(run.cancelled),
        taken=len(run.taker.got) if run.taker else 0,
        heard=sum(len(listener.heard) for listener in run.listeners),
        gaps=sum(len(listener.gaps) for listener in run.listeners),
    )
    lost = {arg for _, args in run.server.lost for arg in args}
    neutral: dict[tuple[int, bytes], float] = {}  # when a worker first read so
    for op in run.ops:
        if op.kind is Kind.READ and op.outcome is Outcome.NEUTRAL:
            neutral.setdefault((op.worker, op.key), op.started)

    calls: dict[tuple[int, float], list[Op]] = {}
    for op in run.ops:
        calls.setdefault((op.worker, op.started), []).append(op)

    def has_premise(op: Op) -> bool:
        return neutral.get((op.worker, op.key), op.ended) <= op.started

    end = run.loop.time()
    ops = []
    letters = list(breaker.dead_letters)
    for op in run.ops:
        together = calls[op.worker, op.started]
        premise = has_premise(op)
        letter = next((x for x in letters if op.value and _in(op.value, x.payload)), None)
        if letter is None and op.acknowledged and op.kind in (Kind.DELETE, Kind.EXPIRE):
            letter = next((x for x in letters if _holds(x, op, together, premise)), None)
        if letter is not None and letter.command == "MULTI":
            # The premise of one command is that of its whole transaction.
            premise = any(map(has_premise, together))
        if letter is not None:
            gone = letter.reason == "watermark" and run.lossy
            if not gone and not (letter.reason == "premise" and premise):
                run.fail(f"dead letter: {letter} of {op}")
        if op.acknowledged and (letter is not None or op.value in lost):
            op = replace(op, outcome=Outcome.UNKNOWN)
        if op.id in run.cancelled:
            # The caller's own cancellation is as in redis-py: it may land until all is over.
            op = replace(op, worker=-op.id, ended=end)
        ops.append(op)
    effects = effects_of(run, ops)
    if run.lossy:  # the counter has no token to excuse it by
        ops = [op for op in ops if op.kind is not Kind.COUNTER]
        effects = [e for e in effects if e.name != b"INCRBY"]
    now = float(run.server.unix_ms())
    # The replay knows the server's clock to within one answer on its connection.
    tolerance = 1000 * run.config.probe_timeout
    verdict = check(ops, effects, now_ms=now, ttl_tolerance_ms=tolerance)
    report.outcomes = verdict.outcomes
    report.acknowledged = verdict.acknowledged
    report.operations = len(run.ops)
    report.wrong += verdict.examples if not verdict.ok else []
    report.wrong += run.loop.reports
    report.faults = run.chaos.count
    report.kinds = Counter(run.chaos.kinds)


def _holds(letter: DeadLetter, op: Op, together: list[Op], premise: bool) -> bool:
    """Whether `letter` is that of a write without a value of its own, among its `together`."""
    if not _in(op.key, letter.payload):
        return False
    if letter.command == "MULTI":
        tokens = [o.value for o in together if o.value]
        if tokens:
            return any(_in(token, letter.payload) for token in tokens)
        return op.started <= letter.at < op.ended
    # In a pipeline, behind a neutral read of its key, a DEL has a premise as well.
    return letter.command == "DEL" and op.kind is Kind.DELETE and premise


def _in(token: bytes, payload: bytes) -> bool:
    return b"\r\n%b\r\n" % token in payload
