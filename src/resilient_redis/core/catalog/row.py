"""What a row of the table is, and the words in which the other files write their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..command import Kind, Shape, Wire

Args = Sequence[bytes]
Keys = Callable[[Args], tuple[bytes, ...]]
ByArgs = Callable[[Args, Shape], Shape]

WRONG_NUMBER = "wrong number of arguments"


class Refuse(Exception):
    """Raised while arguments are read; its text becomes the reason of a REFUSED shape."""


# ---- where the keys of a command stand. All work on slices, so that a short command has none.


def no_keys(_: Args) -> tuple[bytes, ...]:
    return ()


def first(args: Args) -> tuple[bytes, ...]:
    return tuple(args[1:2])


def second(args: Args) -> tuple[bytes, ...]:
    """The key of `OBJECT ENCODING key`: the subcommand is the first argument."""
    return tuple(args[2:3])


def first_two(args: Args) -> tuple[bytes, ...]:
    return tuple(args[1:3])


def every(args: Args) -> tuple[bytes, ...]:
    return tuple(args[1:])


def all_but_last(args: Args) -> tuple[bytes, ...]:
    return tuple(args[1:-1])


def from_second(args: Args) -> tuple[bytes, ...]:
    """`BITOP operation destination source …`."""
    return tuple(args[2:])


def every_other(args: Args) -> tuple[bytes, ...]:
    return tuple(args[1::2])


@dataclass(frozen=True, slots=True)
class Row:
    """One command of the table; `Shape` explains the fields that have the same name there."""

    name: str
    arity: int  # as COMMAND gives it, name included: n is exactly n, -n is at least n
    kind: Kind
    reply: Wire = Wire.NIL
    number: int = 0
    receipt: bool = False
    keys: Keys = first
    safe_twice: bool = False
    grows: bool = False
    blocking: bool = False
    may_write: bool = False  # a READ that with other arguments is a write (or a refused one)
    by_args: ByArgs | None = None  # checks the arguments, and changes the shape if they say so
    reason: str = ""
    least: int = field(init=False, repr=False)  # arguments, name included
    most: float = field(init=False, repr=False)
    around_keys: tuple[tuple[Any, ...], tuple[Any, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = Shape(
            self.name,
            self.kind,
            self.reply,
            self.number,
            receipt=self.receipt,
            safe_twice=self.safe_twice,
            grows=self.grows,
            blocking=self.blocking,
            reason=self.reason,
        )
        object.__setattr__(self, "least", abs(self.arity))
        object.__setattr__(self, "most", self.arity if self.arity > 0 else float("inf"))
        at = Shape._fields.index("keys")
        object.__setattr__(self, "around_keys", (shape[:at], shape[at + 1 :]))

    def shape(self, args: Args) -> Shape:
        if not self.least <= len(args) <= self.most:
            return self._refused(args, WRONG_NUMBER)
        try:
            before, after = self.around_keys
            # As `Shape(…)` does, without a Python frame: one is made for each command.
            shape = tuple.__new__(Shape, (*before, self.keys(args), *after))
            return shape if self.by_args is None else self.by_args(args, shape)
        except Refuse as why:
            return self._refused(args, str(why))

    def _refused(self, args: Args, reason: str) -> Shape:
        try:
            keys = self.keys(args)
        except Refuse:
            keys = ()
        return Shape(
            self.name,
            Kind.REFUSED,
            keys=keys,
            # a write is refused because it depends on what is there: a second run may differ
            safe_twice=self.kind is Kind.READ and not self.may_write,
            grows=self.grows,
            blocking=self.blocking,
            reason=reason,
        )


def read(
    name: str,
    arity: int,
    reply: Wire,
    number: int = 0,
    *,
    keys: Keys = first,
    grows: bool = False,
    may_write: bool = False,
    by_args: ByArgs | None = None,
) -> Row:
    """Answered as by an empty Redis."""
    return Row(
        name,
        arity,
        Kind.READ,
        reply,
        number,
        keys=keys,
        safe_twice=True,
        grows=grows,
        may_write=may_write,
        by_args=by_args,
    )


def take(
    name: str,
    arity: int,
    reply: Wire,
    *,
    keys: Keys = first,
    by_args: ByArgs | None = None,
    blocking: bool = False,
) -> Row:
    """Takes something out: finds nothing."""
    return Row(name, arity, Kind.TAKE, reply, keys=keys, by_args=by_args, blocking=blocking)


def write(
    name: str,
    arity: int,
    reply: Wire,
    number: int = 0,
    *,
    receipt: bool = False,
    keys: Keys = first,
    safe_twice: bool = False,
    grows: bool = False,
    by_args: ByArgs | None = None,
) -> Row:
    """Queued."""
    return Row(
        name, arity, Kind.WRITE, reply, number, receipt, keys, safe_twice, grows, by_args=by_args
    )


def counter(name: str, arity: int, reply: Wire, *, by_args: ByArgs | None = None) -> Row:
    """Refused unless a rule queues it. Every one of them may make the value grow."""
    return Row(name, arity, Kind.COUNTER, reply, receipt=True, grows=True, by_args=by_args)


def refuse(
    reason: str,
    names: str,
    *,
    keys: Keys = no_keys,
    safe_twice: bool = False,
    blocking: bool = False,
    by_args: ByArgs | None = None,
) -> tuple[Row, ...]:
    """Several commands, one line each in `names`, that are refused for the same reason."""
    return tuple(
        Row(
            " ".join(name.split()),
            -1,
            Kind.REFUSED,
            keys=keys,
            safe_twice=safe_twice,
            blocking=blocking,
            by_args=by_args,
            reason=reason,
        )
        for name in names.replace("\n", ",").split(",")
        if name.strip()
    )


# ---- what several rows do with their arguments


def counted_from(start: int) -> ByArgs:
    """`number` is how many arguments there are from `start` on."""

    def by_args(args: Args, shape: Shape) -> Shape:
        return shape._replace(number=len(args) - start)

    return by_args
