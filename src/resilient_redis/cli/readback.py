"""The second-best witness: what is in the server now, where there is no append-only file.

Collections and counters are laid out as if they were effects and go to the same checker; of a
register the last value is judged. What that cannot show is said in the verdict.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from .aof import Effect
from .history import MUST_NOT_APPLY, Kind, Op, Target
from .oracle import Judge, check
from .verdict import Verdict

BLIND = (
    "the server's order of effects (there is no append-only file here): order only within a list "
    "or stream",
    "overwritten values: of a register only the last one, so that a stale write that was itself "
    "overwritten, or a second execution, leaves no trace",
    "a second execution of SADD, ZADD and DEL; times to live",
)


async def read_back(client: Any, ops: Iterable[Op]) -> Verdict:
    """Check `ops` against what an asyncio client of a healthy server (db 0) reads now."""
    history = sorted(ops, key=lambda op: op.id)
    by_target: dict[Target, list[Op]] = defaultdict(list)
    for op in history:
        by_target[op.target].append(op)
    effects: list[Effect] = []
    collections: list[Op] = []
    registers = Verdict()
    for (db, key, field), mine in by_target.items():
        found = await _commands(client, key, field, mine)
        if any(op.kind in (Kind.REGISTER, Kind.DELETE) for op in mine):
            _final_register(mine, found[0][-1] if found else None, registers)
            Judge(mine, [], registers).reads()
        else:
            effects += [Effect(len(effects) + n, db, args, 0) for n, args in enumerate(found)]
            collections += mine
    verdict = check(collections, effects)
    verdict.across_keys = 0  # the order in which the keys were read is no order of effects
    verdict.include(registers)
    verdict.operations = len(history)
    verdict.acknowledged = sum(op.acknowledged for op in history)
    verdict.outcomes = Counter(op.outcome.value for op in history)
    verdict.blind += BLIND
    return verdict


async def _commands(
    client: Any, key: bytes, field: bytes | None, ops: list[Op]
) -> list[tuple[bytes, ...]]:
    """The content of one target as the commands that would make it."""
    kind = _text(await client.type(key))
    if kind == "none":
        return []
    if kind == "list":
        return [(b"RPUSH", key, _raw(item)) for item in await client.lrange(key, 0, -1)]
    if kind == "stream":
        entries = await client.xrange(key)
        return [
            (b"XADD", key, _raw(entry), *(_raw(part) for pair in fields.items() for part in pair))
            for entry, fields in entries
        ]
    if kind == "set":
        members = {_raw(member) for member in await client.smembers(key)}
        # A set has no order: it is given the order of the calls, so that none is made up.
        return [(b"SADD", key, op.value) for op in ops if op.value and op.value in members]
    if kind == "zset":
        members = {_raw(member) for member in await client.zrange(key, 0, -1)}
        return [(b"ZADD", key, b"0", op.value) for op in ops if op.value and op.value in members]
    if kind == "hash":
        value = None if field is None else await client.hget(key, field)
        return [] if value is None or field is None else [(b"HSET", key, field, _raw(value))]
    value = _raw(await client.get(key))
    if any(op.kind is Kind.COUNTER for op in ops):
        return [(b"INCRBY", key, b"1")] * int(value)
    return [(b"SET", key, value)]


def _final_register(ops: list[Op], value: bytes | None, verdict: Verdict) -> None:
    """Hold the final value of a register against the writes that no other write follows."""
    writes = [op for op in ops if op.kind in (Kind.REGISTER, Kind.DELETE, Kind.EXPIRE)]
    acknowledged = [op for op in writes if op.acknowledged]
    last = [op for op in acknowledged if not any(map(op.precedes, acknowledged))]
    where = _text(ops[0].key)
    if value is None:
        gone = any(
            op.kind is not Kind.REGISTER or op.ttl_ms is not None
            for op in writes
            if op.outcome not in MUST_NOT_APPLY and not any(map(op.precedes, last))
        )
        if last and not gone:
            verdict.add("lost", f"{where} is gone, {_text(last[-1].value)} was acknowledged")
        return
    written = next((op for op in writes if op.value == value), None)
    if written is None:
        verdict.foreign += 1
        return
    verdict.effects += 1
    if written.outcome in MUST_NOT_APPLY:
        verdict.add("refused_but_applied", f"{where} ends as {_text(value)}")
    elif any(map(written.precedes, last)):
        newer = ", ".join(f"{op.kind.value} {_text(op.value)}" for op in last)
        verdict.add("stale", f"{where} ends as {_text(value)}, behind {newer}")


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
