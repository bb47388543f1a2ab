"""Rules over the catalog: what a user has said of certain keys or commands.

The first rule that matches decides; where none does, the catalog does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate

from .command import Command, Kind

#: Which kinds of command have a form for an answer.
FORMS = {
    "neutral": frozenset({Kind.READ, Kind.TAKE, Kind.PUBLISH}),
    "queue": frozenset({Kind.WRITE, Kind.COUNTER, Kind.PUBLISH}),
    "refuse": frozenset(Kind),
}
BY_RULE = "a rule of this breaker's policy refuses it"


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule, ready to be asked: `keys` None is any key, `commands` None any command.

    `kinds`: a rule for all commands of a kind goes by what these arguments make of a command:
    `ZADD k INCR 1 m` is a counter, `SORT k STORE d` is no read.
    """

    keys: tuple[re.Pattern[bytes], ...] | None
    commands: frozenset[str] | None
    kinds: frozenset[Kind]
    answer: str
    max_age: float | None

    def matches(self, command: Command) -> bool:
        """`refuse` matches if any key does, the others only if all do: in doubt, refuse."""
        shape = command.shape
        named = self.commands is None or shape.name in self.commands
        if not named and shape.kind not in self.kinds:
            return False
        if shape.kind not in FORMS[self.answer]:
            return False
        if self.keys is None:
            return True
        hits = [any(glob.match(key) for glob in self.keys) for key in shape.keys]
        return any(hits) if self.answer == "refuse" else bool(hits) and all(hits)

    def apply(self, command: Command) -> Command:
        shape = command.shape
        if self.answer == "refuse":
            return command._replace(shape=shape._replace(kind=Kind.REFUSED, reason=BY_RULE))
        if self.answer == "queue":
            # How many it reaches is not known before it is sent.
            receipt = shape.receipt or shape.kind is Kind.PUBLISH
            ruled = shape._replace(kind=Kind.WRITE, max_age=self.max_age, receipt=receipt)
            return command._replace(shape=ruled)
        return command


def compile_globs(globs: Sequence[str]) -> tuple[re.Pattern[bytes], ...]:
    """Shell globs on keys (`*`, `?`, `[abc]`), as patterns on bytes."""
    return tuple(re.compile(translate(glob).encode()) for glob in globs)


def apply_rules(rules: Sequence[CompiledRule], batch: list[Command]) -> list[Command]:
    """`batch`, each command with the answer that the first matching rule gives it."""
    ruled = []
    for command in batch:
        rule = next((rule for rule in rules if rule.matches(command)), None)
        ruled.append(command if rule is None else rule.apply(command))
    return ruled
