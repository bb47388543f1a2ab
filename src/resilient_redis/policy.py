"""What the user of a breaker decides: which keys and commands get which answer.

The catalog's answers are right for caches. They are wrong for sessions, revocation lists, quotas
and locks: there "nothing found" lets somebody in. Give those keys `Rule(answer="refuse")`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from .core.catalog import ROWS, names
from .core.command import Kind
from .core.rules import FORMS, CompiledRule, compile_globs

Answer = Literal["neutral", "queue", "refuse"]

#: Ready sets for `Rule(commands=…)`: wire names in upper case.
READS = names(Kind.READ)
TAKES = names(Kind.TAKE)
WRITES = names(Kind.WRITE)
COUNTERS = names(Kind.COUNTER)

_KIND = {row.name: row.kind for row in ROWS}


@dataclass(frozen=True, slots=True)
class Rule:
    """What certain commands are answered while Redis is away.

    `keys`: a glob or several (`*`, `?`, `[abc]`), None for any key. `commands`: wire names in any
    case, None for all that `answer` has a form for. `answer`: "neutral", "queue" or "refuse".
    `max_age`: seconds after which a write that this rule queues is set aside instead of being
    applied, in place of the journal's. "refuse" matches if any key of a command matches, the
    others only if all do.

    Raises ValueError for an answer that has no form for one of `commands`, such as a neutral
    answer to a write.
    """

    keys: str | Iterable[str] | None = None
    commands: Iterable[str] | None = None
    answer: Answer = "neutral"
    max_age: float | None = None
    compiled: CompiledRule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.answer not in FORMS:
            raise ValueError(f"answer must be one of {', '.join(FORMS)}, not {self.answer!r}")
        if self.max_age is not None and (self.answer != "queue" or self.max_age <= 0):
            raise ValueError("max_age is a positive number of seconds, and only for answer='queue'")
        wanted = None if self.commands is None else frozenset(map(str.upper, self.commands))
        for name in sorted(wanted or ()):
            kind = _KIND.get(name)
            if kind is None:
                raise ValueError(f"{name} is not a command that this library knows")
            if kind not in FORMS[self.answer]:
                raise ValueError(f"{name} has no answer of the form {self.answer!r}")
        globs = (self.keys,) if isinstance(self.keys, str) else self.keys
        keys = None if globs is None else compile_globs(tuple(globs))
        kinds = frozenset(kind for kind in Kind if wanted and wanted >= names(kind))
        ready = frozenset[str]().union(*map(names, kinds))
        named = None if wanted is None else wanted - ready
        compiled = CompiledRule(keys, named, kinds, self.answer, self.max_age)
        object.__setattr__(self, "compiled", compiled)


class Policy:
    """An ordered list of rules; the first that matches decides, else the catalog."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise TypeError(f"a policy is made of Rule, not {type(rule).__name__}")

    @classmethod
    def cache(cls) -> Policy:
        """The catalog's answers: right where everything in Redis can be had again elsewhere."""
        return cls()

    @classmethod
    def store(cls) -> Policy:
        """Reads and pops are refused: for data of which Redis is the only keeper."""
        return cls([Rule(commands=READS | TAKES, answer="refuse")])

    def __repr__(self) -> str:
        return f"Policy({list(self.rules)!r})"
