"""The circuit breaker: a table of moves, and the counting that asks for them.

The rules:

- CLOSED lets everything through and counts *consecutive* failures; a success sets the count
  back to 0. At `failure_threshold` it opens. Where a `rate` is given, it also opens when the share
  of failures in the latest calls is too much: a server that answers every second call is down.
- OPEN lets nothing through. Once the wait is over, one permit may be taken: HALF-OPEN.
- HALF-OPEN lets the holder of the permit through and nobody else (three known libraries let
  100 of 100 callers through: FACTS.md). The permit is a lease: not given back by its deadline,
  it is void, and the next one may be taken.
- Every move raises the era. An outcome is reported with the era in which its command was sent;
  from an older era it says nothing about now and is ignored.

Time is an argument: seconds on any monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .rate import FailureRate


class State(str, Enum):
    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF-OPEN"


class Cause(Enum):
    """Why a move is asked for."""

    THRESHOLD = "failure threshold reached"
    RATE = "failure rate reached"
    HANG = "no answer within the deadline"
    FORCED = "forced open"
    REPLAY_FAILED = "connection lost during replay"
    PROBE = "probe"
    PROBE_FAILED = "probe failed"
    PROBE_SUCCEEDED = "probe succeeded"
    RESET = "reset"


#: (state, cause) -> state. What is not in the table is an illegal move and raises.
MOVES: dict[tuple[State, Cause], State] = {
    (State.CLOSED, Cause.THRESHOLD): State.OPEN,
    (State.CLOSED, Cause.RATE): State.OPEN,
    (State.CLOSED, Cause.HANG): State.OPEN,
    (State.CLOSED, Cause.FORCED): State.OPEN,
    (State.CLOSED, Cause.REPLAY_FAILED): State.OPEN,
    (State.OPEN, Cause.PROBE): State.HALF_OPEN,
    (State.HALF_OPEN, Cause.PROBE_SUCCEEDED): State.CLOSED,
    (State.HALF_OPEN, Cause.PROBE_FAILED): State.OPEN,
    (State.HALF_OPEN, Cause.FORCED): State.OPEN,
    (State.OPEN, Cause.RESET): State.CLOSED,
    (State.HALF_OPEN, Cause.RESET): State.CLOSED,
}


class IllegalMove(RuntimeError):
    """A transition that the table does not know: a bug of this library."""


@dataclass(frozen=True, slots=True)
class Transition:
    old: State
    new: State
    era: int
    cause: Cause


@dataclass(slots=True)
class Permit:
    """The right to look at the server while half-open, until `deadline`. Give it back."""

    era: int
    deadline: float


class Breaker:
    """State, consecutive failures and eras. Not safe for threads: the shell guards it.

    `failure_threshold`: consecutive failures that open it, at least 1. `rate`: the share of
    failures that opens it, too.
    """

    def __init__(self, failure_threshold: int, rate: FailureRate | None = None) -> None:
        if failure_threshold < 1:
            raise ValueError(f"failure_threshold must be at least 1, not {failure_threshold}")
        self.failure_threshold = failure_threshold
        self.rate = rate
        self.state = State.CLOSED
        self.failures = 0
        self.era = 0
        self._permit: Permit | None = None
        self._forced = False

    def _move(self, cause: Cause) -> Transition:
        old = self.state
        try:
            self.state = MOVES[old, cause]
        except KeyError:
            raise IllegalMove(f"{cause.name} while {old.value}") from None
        self.era += 1
        if self.rate is not None:
            self.rate.clear()
        return Transition(old, self.state, self.era, cause)

    def failure(self, era: int, now: float = 0.0) -> Transition | None:
        """One failed socket of `era`; opens the breaker when it meets the threshold."""
        if era != self.era or self.state is not State.CLOSED:
            return None
        self.failures += 1
        too_many = self.rate is not None and self.rate.count(now, failed=True)
        if self.failures >= self.failure_threshold:
            return self._move(Cause.THRESHOLD)
        if too_many:
            return self.trip(Cause.RATE)
        return None

    def success(self, era: int, now: float = 0.0) -> None:
        """A reply to a command that was sent in `era`."""
        if era == self.era and self.state is State.CLOSED:
            self.failures = 0
            if self.rate is not None:
                self.rate.count(now, failed=False)

    def trip(self, cause: Cause) -> Transition | None:
        """Open at once: a hang, a failed replay. None where it already is not closed."""
        if self.state is not State.CLOSED:
            return None
        self.failures = max(self.failures, self.failure_threshold)
        return self._move(cause)

    def force_open(self) -> Transition | None:
        """Open, and stay open until `reset`."""
        self._forced = True
        self._permit = None
        return None if self.state is State.OPEN else self._move(Cause.FORCED)

    def reset(self) -> Transition | None:
        """Close without a probe."""
        self._forced = False
        self._permit = None
        self.failures = 0
        return None if self.state is State.CLOSED else self._move(Cause.RESET)

    def take_permit(self, now: float, lease: float) -> tuple[Permit, Transition | None] | None:
        """The one permit, if nobody holds a valid one. None while closed, forced open or taken."""
        if self._forced or self.state is State.CLOSED:
            return None
        if self.state is State.HALF_OPEN and self._permit and now < self._permit.deadline:
            return None
        move = self._move(Cause.PROBE) if self.state is State.OPEN else None
        self._permit = Permit(self.era, now + lease)
        return self._permit, move

    def forget_permit(self) -> None:
        """Its holder is gone, in a process that has been forked."""
        self._permit = None

    def give_back(self, permit: Permit, succeeded: bool) -> Transition | None:
        """What the probe found. A permit other than the current one is void, changes nothing."""
        if permit is not self._permit or self.state is not State.HALF_OPEN:
            return None
        self._permit = None
        if succeeded:
            self.failures = 0
            return self._move(Cause.PROBE_SUCCEEDED)
        return self._move(Cause.PROBE_FAILED)
