"""What the oracle found, as numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# The anomalies, in the order of the table, each with what it means.
ANOMALIES = {
    "lost": "acknowledged, and never applied",
    "duplicated": "acknowledged once, applied more often",
    "out_of_order": "applied after a write that was issued later",
    "stale": "landed on a newer write of the same key",
    "refused_but_applied": "raised, and applied all the same",
    "unknown_applied_twice": "outcome unknown, applied more than once",
    "ttl_drift": "expires at another time than the call asked for",
    "read_went_back": "a read older than a write acknowledged before it",
}
MAX_EXAMPLES = 20


@dataclass
class Verdict:
    """Counts; `ok` if no anomaly was seen. `blind` says what could not be seen at all."""

    operations: int = 0
    acknowledged: int = 0
    effects: int = 0  # commands of the server's file that belong to an operation
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    stale: int = 0
    refused_but_applied: int = 0
    unknown_applied_twice: int = 0
    ttl_drift: int = 0
    read_went_back: int = 0
    # Not anomalies, but a reader of the verdict may want to know:
    repeated: int = 0  # a register written again with nothing newer in between: harmless
    foreign: int = 0  # writes on known keys that no operation of the history made
    across_keys: int = 0  # order of acknowledgement not kept between different keys
    outcomes: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    blind: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not any(self.anomalies().values())

    def anomalies(self) -> dict[str, int]:
        return {name: int(getattr(self, name)) for name in ANOMALIES}

    def add(self, anomaly: str, example: str, count: int = 1) -> None:
        setattr(self, anomaly, getattr(self, anomaly) + count)
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"{anomaly}: {example}")

    def include(self, other: Verdict) -> None:
        """Add another verdict's findings."""
        for name in (*ANOMALIES, "effects", "repeated", "foreign", "across_keys"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples = (self.examples + other.examples)[:MAX_EXAMPLES]

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        found = ", ".join(f"{name} {count}" for name, count in self.anomalies().items())
        lines = [
            f"{self.operations} operations ({outcomes}), {self.effects} effects",
            f"acknowledged {self.acknowledged}: {found}",
            *(f"  {example}" for example in self.examples),
            *(f"  cannot see: {what}" for what in self.blind),
        ]
        return "\n".join(lines)
