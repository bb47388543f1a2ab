"""What the workers of a soak were told."""

from __future__ import annotations

from collections import Counter

from resilient_redis.cli.history import Outcome


class Tally:
    """What the tasks have been told so far."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.acknowledged = 0  # writes
        self.errors: Counter[str] = Counter()  # raised, by class
        self.wrong: list[str] = []  # answers that no server gives to that command
        self.cancelled: set[int] = set()  # ids of operations whose caller went away
        self.units: list[set[bytes]] = []  # what each transaction writes
        self.while_held = 0  # values read while the server took no writes

    def include(self, other: Tally) -> None:
        """The counts of another thread, which goes on meanwhile: each is copied in one go."""
        self.outcomes.update(other.outcomes.copy())
        self.errors.update(other.errors.copy())
        self.acknowledged += other.acknowledged
        self.wrong += other.wrong
        self.units += other.units
        self.while_held += other.while_held
