"""The guard's decision for a batch, and what the loss of a batch means.

The contract in one place: what is sent, what is answered, what is queued and what is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from .breaker import State
from .command import Command, Kind, Shape

AWAY = "Redis is away"
COUNTER = "the value of a counter decides what comes next"


@dataclass(frozen=True, slots=True)
class View:
    """What the decision depends on.

    `draining`: the journal holds something, so nothing may pass it. `held`: the error code under
    which the server takes no writes, if it does not. `waited`: this batch has already waited for
    the drain as long as it may. `once`: the server grants what exactly-once replay needs. `tail`:
    so little is left to be replayed that it is done sooner than what is appended to it: with a
    round trip of 100 ms and 1,000 writes a second the journal was never empty at any one moment.
    `blocked_out`: a blocking command has waited as long as it asked to.
    """

    state: State
    draining: bool
    held: str | None
    waited: bool
    once: bool
    tail: bool = False
    blocked_out: bool = False


class Step(Enum):
    """What happens to one command of an answered batch."""

    SEND = "send"
    NEUTRAL = "neutral"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Send:
    """Closed, nothing queued: to the server."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One step per command. With `wait`, a queued write first waits for its own reply."""

    steps: tuple[Step, ...]
    wait: bool = False


@dataclass(frozen=True, slots=True)
class AwaitDrain:
    """Wait for the drain, then decide again."""


@dataclass(frozen=True, slots=True)
class AwaitRecovery:
    """A blocking command: wait until Redis is back or its own time is over, then decide again."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """An error now; nothing of the batch is queued. `command` is the one to blame.

    With `oom` the error is the server's own out-of-memory error.
    """

    command: str
    reason: str
    oom: bool = False


Decision = Send | Answer | AwaitDrain | AwaitRecovery | Refuse


def decide(batch: Sequence[Command], view: View) -> Decision:
    """What to do with `batch` now."""
    if view.state is not State.CLOSED:
        return _while_away(batch, view)
    if view.held is not None:
        return _while_held(batch, view)
    if not view.draining:
        return Send()
    if view.waited:
        return _while_away(batch, view)
    if view.tail or not all(c.shape.kind is Kind.WRITE for c in batch):
        return AwaitDrain()
    return Answer((Step.QUEUE,) * len(batch), wait=True) if _all_once(batch, view) else AwaitDrain()


def _all_once(batch: Sequence[Command], view: View) -> bool:
    return all(_replayable(c.shape, view.once) for c in batch)


def _replayable(shape: Shape, once: bool) -> bool:
    """Without W, only what is safe to send twice; a transaction without MULTI would be none."""
    return once or (shape.safe_twice and shape.name != "MULTI")


def _while_away(batch: Sequence[Command], view: View) -> Decision:
    if _blocks(batch):
        return Answer((Step.NEUTRAL,)) if view.blocked_out else AwaitRecovery()
    steps = []
    for command in batch:
        step = away_step(command.shape, view.once)
        if isinstance(step, Refuse):
            return step
        steps.append(step)
    return Answer(tuple(steps))


def _blocks(batch: Sequence[Command]) -> bool:
    """Whether it is one blocking command, which finds nothing as long as Redis is away."""
    shape = batch[0].shape
    return len(batch) == 1 and shape.blocking and shape.kind in (Kind.READ, Kind.TAKE)


def away_step(shape: Shape, once: bool) -> Step | Refuse:
    """What one command is answered while Redis is away; for `once` see `View`."""
    kind = shape.kind
    if shape.blocking and shape.kind is not Kind.REFUSED:
        return Refuse(shape.name, f"{AWAY}: a blocking command in a pipeline cannot wait")
    if kind is Kind.READ or kind is Kind.TAKE or kind is Kind.PUBLISH:
        return Step.NEUTRAL
    if kind is Kind.WRITE:
        if _replayable(shape, once):
            return Step.QUEUE
        return Refuse(shape.name, f"{AWAY}: the ACL does not allow exactly-once replay")
    return Refuse(shape.name, f"{AWAY}: {shape.reason or COUNTER}")


def _while_held(batch: Sequence[Command], view: View) -> Decision:
    """The server answers reads and takes no writes."""
    if _blocks(batch) and batch[0].shape.kind is Kind.TAKE:
        return Answer((Step.NEUTRAL,)) if view.blocked_out else AwaitRecovery()
    steps = []
    for command in batch:
        shape = command.shape
        if shape.kind in (Kind.READ, Kind.PUBLISH):
            steps.append(Step.SEND)
        elif shape.kind is Kind.TAKE:
            steps.append(Step.NEUTRAL)
        elif shape.kind is Kind.WRITE and _replayable(shape, view.once):
            if view.held == "OOM" and shape.grows:
                return Refuse(shape.name, "the server is out of memory", oom=True)
            steps.append(Step.QUEUE)
        elif shape.kind is Kind.REFUSED and shape.safe_twice:
            steps.append(Step.SEND)  # PING, INFO …: nothing is written, the truth is wanted
        else:
            return Refuse(shape.name, f"the server takes no writes now ({view.held})")
    return Answer(tuple(steps))


class Sent(Enum):
    """What is known of a batch whose reply did not come."""

    NO = "not sent, or rejected by the server: it cannot have run"
    MAYBE = "it may have run"


@dataclass(frozen=True, slots=True)
class Repeat:
    """Handle what is left of the batch as if it had not been sent."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Tell the caller that nobody knows. `command` is one that is not safe to send twice."""

    command: str


def lost(rest: Sequence[Command], sent: Sent) -> Repeat | Unknown:
    """What the loss of the replies to `rest` means.

    `GET k · DEL k` is not safe to send twice, though both are: the second GET would find what the
    first DEL has left, and what was there is gone without anybody having received it.
    """
    if sent is Sent.NO:
        return Repeat()
    read: set[bytes] = set()
    for command in rest:
        shape = command.shape
        if not shape.safe_twice or (
            shape.kind is not Kind.READ and not read.isdisjoint(shape.keys)
        ):
            return Unknown(shape.name)
        if shape.kind is Kind.READ:
            read.update(shape.keys)
    return Repeat()


def may_be_cut(rest: Sequence[Command]) -> bool:
    """Whether a batch in flight may be cut off and answered when the breaker opens.

    What is not safe to send twice goes on waiting for its own reply.
    """
    return isinstance(lost(rest, Sent.MAYBE), Repeat)


def writes(rest: Sequence[Command]) -> bool:
    """Whether anything of `rest` could change data if it landed late."""
    return any(
        command.shape.kind is not Kind.READ
        and not (command.shape.kind is Kind.REFUSED and command.shape.safe_twice)
        for command in rest
    )
