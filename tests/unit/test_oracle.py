"""The oracle sees what it is there to see: histories with one planted anomaly of each kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from resilient_redis.cli.aof import Effect
from resilient_redis.cli.history import Kind, Op, Outcome
from resilient_redis.cli.oracle import check
from resilient_redis.cli.verdict import ANOMALIES, Verdict

ACK, REFUSED, UNKNOWN = Outcome.ACKNOWLEDGED, Outcome.REFUSED, Outcome.UNKNOWN
NOW = 1_700_000_000_000.0  # the wall clock at second 0 of a planted history


class Story:
    """A planted history: operations one second long, one after the other, and effects."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.effects: list[Effect] = []

    def op(
        self,
        kind: Kind,
        key: str,
        value: str | None = None,
        outcome: Outcome = ACK,
        *,
        worker: int = 1,
        at: float | None = None,
        lasting: float = 0.5,
        ttl_ms: int | None = None,
        field: str | None = None,
    ) -> None:
        started = float(len(self.ops)) if at is None else at
        self.ops.append(
            Op(
                id=len(self.ops),
                worker=worker,
                key=key.encode(),
                kind=kind,
                value=None if value is None else value.encode(),
                outcome=outcome,
                started=started,
                ended=started + lasting,
                field=None if field is None else field.encode(),
                ttl_ms=ttl_ms,
                wall_ms=NOW + started * 1000,
            )
        )

    def push(self, value: str, outcome: Outcome = ACK, key: str = "l", worker: int = 1) -> None:
        self.op(Kind.APPEND, key, value, outcome, worker=worker)

    def set(self, value: str, outcome: Outcome = ACK, worker: int = 1) -> None:
        self.op(Kind.REGISTER, "k", value, outcome, worker=worker)

    def did(self, *commands: str) -> None:
        for command in commands:
            args = tuple(word.encode() for word in command.split())
            self.effects.append(Effect(len(self.effects), 0, args, 0))

    def verdict(self) -> Verdict:
        return check(self.ops, self.effects, now_ms=NOW + 100_000)


def found(story: Story, **expected: int) -> None:
    verdict = story.verdict()
    assert verdict.anomalies() == dict.fromkeys(ANOMALIES, 0) | expected, str(verdict)
    assert verdict.ok == (not expected)


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_clean_history_is_all_zeros(story: Story) -> None:
    story.push("a1")
    story.push("a2", UNKNOWN)
    story.push("a3", REFUSED)
    story.push("a4")
    story.op(Kind.APPEND, "x", "x1")
    story.op(Kind.APPEND, "s", "s1")
    story.op(Kind.REGISTER, "h", "h1", field="f")
    story.set("v1")
    story.op(Kind.READ, "k", "v1", Outcome.VALUE)
    story.op(Kind.DELETE, "k")
    story.op(Kind.READ, "k", None, Outcome.VALUE)
    story.op(Kind.REGISTER, "k", "v2", ttl_ms=60_000)
    story.op(Kind.EXPIRE, "k", ttl_ms=30_000)
    story.op(Kind.COUNTER, "c")
    story.op(Kind.COUNTER, "c", None, UNKNOWN)
    story.did("RPUSH l a1", "RPUSH l a4", "XADD x 1-1 id x1", "SADD s s1", "HSET h f h1")
    story.did("SET k v1", "DEL k", f"SET k v2 PXAT {NOW + 11_100 + 60_000:.0f}")
    story.did(f"PEXPIREAT k {NOW + 12_200 + 30_000:.0f}", "INCRBY c 1")
    verdict = story.verdict()
    assert verdict.ok
    assert not any(verdict.anomalies().values()), str(verdict)
    assert (verdict.acknowledged, verdict.effects, verdict.foreign) == (10, 8, 0)
    assert verdict.outcomes == {"acknowledged": 10, "unknown": 2, "refused": 1, "value": 2}


def test_lost_append(story: Story) -> None:
    story.push("a1")
    story.push("a2")
    story.did("RPUSH l a2")
    found(story, lost=1)


def test_duplicated_append(story: Story) -> None:
    story.push("a1")
    story.did("RPUSH l a1", "RPUSH l a1", "RPUSH l a1")
    found(story, duplicated=2)


def test_appends_of_one_worker_out_of_order(story: Story) -> None:
    story.push("a1")
    story.push("a2")
    story.did("RPUSH l a2", "RPUSH l a1")
    found(story, out_of_order=1)


def test_appends_of_two_workers_out_of_order(story: Story) -> None:
    story.push("a1", worker=1)
    story.push("b1", worker=2)
    story.did("RPUSH l b1", "RPUSH l a1")
    found(story, out_of_order=1)


def test_appends_that_overlap_have_no_order(story: Story) -> None:
    story.op(Kind.APPEND, "l", "a1", worker=1, at=0, lasting=5)
    story.op(Kind.APPEND, "l", "b1", worker=2, at=1, lasting=1)
    story.did("RPUSH l b1", "RPUSH l a1")
    found(story)


def test_order_between_keys_is_told_and_not_judged(story: Story) -> None:
    story.push("a1", key="l1")
    story.push("a2", key="l2")
    story.did("RPUSH l2 a2", "RPUSH l1 a1")
    found(story)
    assert story.verdict().across_keys == 1


def test_refused_but_applied(story: Story) -> None:
    story.push("a1", REFUSED)
    story.push("a2", Outcome.ERROR)
    story.set("v1", REFUSED)
    story.did("RPUSH l a1", "RPUSH l a2", "SET k v1")
    found(story, refused_but_applied=3)


def test_unknown_applied_twice(story: Story) -> None:
    story.push("a1", UNKNOWN)
    story.did("RPUSH l a1", "RPUSH l a1")
    found(story, unknown_applied_twice=1)


def test_unknown_append_that_arrives_after_a_newer_one(story: Story) -> None:
    story.push("a1", UNKNOWN)
    story.push("a2")
    story.did("RPUSH l a2", "RPUSH l a1")
    found(story, stale=1)


def test_stale_register(story: Story) -> None:
    story.set("v1")
    story.set("v2")
    story.did("SET k v2", "SET k v1")
    found(story, stale=1)


def test_stale_register_of_another_worker(story: Story) -> None:
    story.set("v1", worker=1)
    story.set("v2", worker=2)
    story.did("SET k v2", "SET k v1")
    found(story, stale=1)


def test_register_repeated_at_once_is_harmless(story: Story) -> None:
    story.set("v1")
    story.set("v2")
    story.did("SET k v1", "SET k v1", "SET k v2")
    found(story)
    assert story.verdict().repeated == 1


def test_register_repeated_after_a_newer_write_is_stale(story: Story) -> None:
    story.set("v1")
    story.set("v2")
    story.did("SET k v1", "SET k v2", "SET k v1")
    found(story, stale=1)


def test_unknown_register_that_arrives_after_a_newer_one(story: Story) -> None:
    story.set("v1", UNKNOWN)
    story.set("v2")
    story.did("SET k v2", "SET k v1")
    found(story, stale=1)


def test_lost_register_in_the_middle(story: Story) -> None:
    story.set("v1")
    story.set("v2")
    story.set("v3")
    story.did("SET k v1", "SET k v3")
    found(story, lost=1)


def test_stale_field_of_a_hash(story: Story) -> None:
    story.op(Kind.REGISTER, "h", "v1", field="f")
    story.op(Kind.REGISTER, "h", "v2", field="f")
    story.op(Kind.REGISTER, "h", "other", field="g")
    story.did("HSET h f v2 g other", "HSET h f v1")
    found(story, stale=1)


def test_lost_delete(story: Story) -> None:
    story.set("v1")
    story.op(Kind.DELETE, "k")
    story.set("v2")
    story.did("SET k v1", "SET k v2")
    found(story, lost=1)


def test_delete_of_nothing_leaves_no_effect(story: Story) -> None:
    story.op(Kind.DELETE, "k")
    story.set("v1")
    story.op(Kind.DELETE, "k")
    story.op(Kind.DELETE, "k")
    story.did("SET k v1", "UNLINK k")
    found(story)


def test_stale_delete(story: Story) -> None:
    story.op(Kind.DELETE, "k")
    story.set("v1")
    story.did("SET k v1", "DEL k")
    found(story, stale=1)


def test_refused_delete_that_was_applied(story: Story) -> None:
    story.set("v1")
    story.op(Kind.DELETE, "k", None, REFUSED)
    story.did("SET k v1", "DEL k")
    found(story, refused_but_applied=1)


def test_deleted_field(story: Story) -> None:
    story.op(Kind.REGISTER, "h", "v1", field="f")
    story.op(Kind.DELETE, "h", field="f")
    story.op(Kind.REGISTER, "h", "v2", field="g")
    story.op(Kind.DELETE, "h", field="g")
    story.did("HSET h f v1", "HDEL h f", "HSET h g v2")
    found(story, lost=1)


@pytest.mark.parametrize("drift_ms", [-400, 900])
def test_ttl_drift(story: Story, drift_ms: int) -> None:
    story.op(Kind.REGISTER, "k", "v1", ttl_ms=5000)
    story.did(f"SET k v1 PXAT {NOW + 5000 + drift_ms:.0f}")
    found(story, ttl_drift=1)


@pytest.mark.parametrize("outcome, drift", [(ACK, {}), (Outcome.QUEUED, {"ttl_drift": 1})])
def test_a_live_ttl_may_count_from_any_moment_of_the_call_a_queued_one_not(
    story: Story, outcome: Outcome, drift: dict[str, int]
) -> None:
    story.op(Kind.REGISTER, "k", "v1", outcome, ttl_ms=5000, lasting=2.0)
    story.did(f"SET k v1 PXAT {NOW + 7000:.0f}")
    found(story, **drift)


def test_ttl_that_was_dropped(story: Story) -> None:
    story.op(Kind.REGISTER, "k", "v1", ttl_ms=5000)
    story.did("SET k v1")
    found(story, ttl_drift=1)


def test_only_the_last_execution_decides_the_ttl(story: Story) -> None:
    story.op(Kind.REGISTER, "k", "v1", ttl_ms=5000)
    story.did(f"SET k v1 PXAT {NOW + 9000:.0f}", f"SET k v1 PXAT {NOW + 5000:.0f}")
    found(story)


def test_a_late_execution_whose_repetition_removes_the_key(story: Story) -> None:
    """On Valkey a SET whose deadline has passed leaves an UNLINK; a mere expiry comes later."""
    story.op(Kind.REGISTER, "k", "v1", ttl_ms=1500)
    story.did(f"SET k v1 PXAT {NOW + 5000:.0f}", "UNLINK k")
    found(story, ttl_drift=1)
    for second, drift in ((3, {}), (4, {}), (5, {"ttl_drift": 1}), (0, {"ttl_drift": 1})):
        story.effects[1] = replace(story.effects[1], second=int(NOW / 1000) + second)
        found(story, **drift)


def test_expire_late_or_lost(story: Story) -> None:
    story.set("v1")
    story.op(Kind.EXPIRE, "k", ttl_ms=5000)
    story.did("SET k v1")
    found(story, lost=1)
    story.did(f"PEXPIREAT k {NOW + 1000 + 5000 + 2000:.0f}")
    found(story, ttl_drift=1)


def test_expire_after_a_newer_write_is_stale(story: Story) -> None:
    story.set("v1")
    story.op(Kind.EXPIRE, "k", ttl_ms=5000)
    story.set("v2")
    story.did("SET k v1", f"PEXPIREAT k {NOW + 6000:.0f}", "SET k v2")
    found(story)
    story.did(f"PEXPIREAT k {NOW + 6000:.0f}")
    found(story, stale=1)


def test_a_write_whose_deadline_has_passed_removes_the_old_value(story: Story) -> None:
    story.set("v1")
    story.op(Kind.REGISTER, "k", "v2", ttl_ms=100)
    story.did("SET k v1")
    found(story, lost=1)  # the old value is still there
    story.did("UNLINK k")
    found(story)


def test_expiry_is_no_stale_delete(story: Story) -> None:
    story.op(Kind.DELETE, "k")
    story.op(Kind.REGISTER, "k", "v1", ttl_ms=100)
    story.did(f"SET k v1 PXAT {NOW + 1100:.0f}", "DEL k")
    found(story)


def test_read_that_went_back(story: Story) -> None:
    story.set("v1")
    story.set("v2")
    story.op(Kind.READ, "k", "v1", Outcome.VALUE)
    story.did("SET k v1", "SET k v2")
    found(story, read_went_back=1)


def test_read_of_another_worker_that_went_back(story: Story) -> None:
    story.set("v1")
    story.set("v2")
    story.op(Kind.READ, "k", "v1", Outcome.VALUE, worker=7)
    story.did("SET k v1", "SET k v2")
    found(story, read_went_back=1)


def test_read_behind_a_delete(story: Story) -> None:
    story.set("v1")
    story.op(Kind.DELETE, "k")
    story.op(Kind.READ, "k", "v1", Outcome.VALUE)
    story.did("SET k v1", "DEL k")
    found(story, read_went_back=1)


def test_real_nil_after_a_write_went_back_and_a_neutral_one_did_not(story: Story) -> None:
    story.set("v1")
    story.op(Kind.READ, "k", None, Outcome.NEUTRAL)
    story.did("SET k v1")
    found(story)
    story.op(Kind.READ, "k", None, Outcome.VALUE)
    found(story, read_went_back=1)


def test_read_during_the_write_may_be_old(story: Story) -> None:
    story.set("v1")
    story.op(Kind.REGISTER, "k", "v2", at=1, lasting=5)
    story.op(Kind.READ, "k", "v1", Outcome.VALUE, worker=2, at=3)
    story.did("SET k v1", "SET k v2")
    found(story)


@pytest.mark.parametrize(
    "outcomes, applied, expected",
    [
        ([ACK, ACK], 1, {"lost": 1}),
        ([ACK], 3, {"duplicated": 2}),
        ([ACK, UNKNOWN], 2, {}),
        ([UNKNOWN], 11, {"unknown_applied_twice": 10}),
        ([ACK, REFUSED], 2, {"refused_but_applied": 1}),
    ],
)
def test_counters(
    story: Story, outcomes: list[Outcome], applied: int, expected: dict[str, int]
) -> None:
    for outcome in outcomes:
        story.op(Kind.COUNTER, "c", None, outcome)
    story.did(*["INCRBY c 1"] * applied)
    found(story, **expected)


def test_writes_of_others_are_told(story: Story) -> None:
    story.set("v1")
    story.did("SET k v1", "SET k whose", "SET elsewhere whose")
    found(story)
    assert story.verdict().foreign == 1
