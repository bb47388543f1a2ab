"""MULTI … EXEC as one command: answered, queued, replayed or refused as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .command import Command, Kind, Shape

MIXED = "a transaction that mixes reads with writes would clear what nobody has received"
UNDER_WATCH = "what was read under WATCH does not hold any more"
NAME = "MULTI"

_NEUTRAL = frozenset({Kind.READ, Kind.TAKE, Kind.PUBLISH})


def unit_of(parts: Sequence[Command]) -> Command:
    """The transaction of `parts`."""
    shapes = [part.shape for part in parts]
    kinds = {shape.kind for shape in shapes}
    kind, reason = Kind.REFUSED, MIXED
    if kinds <= {Kind.READ}:
        kind, reason = Kind.READ, ""
    elif kinds <= _NEUTRAL:
        kind, reason = Kind.TAKE, ""
    elif kinds == {Kind.WRITE}:
        kind, reason = Kind.WRITE, ""
    else:
        for shape in shapes:
            if shape.kind in (Kind.REFUSED, Kind.COUNTER):
                reason = f"{shape.name} in a transaction: {shape.reason}".rstrip(": ")
                break
    ages = [shape.max_age for shape in shapes if shape.max_age is not None]
    shape = Shape(
        NAME,
        kind,
        keys=tuple(dict.fromkeys(key for shape in shapes for key in shape.keys)),
        safe_twice=all(shape.safe_twice for shape in shapes),
        grows=any(shape.grows for shape in shapes),
        max_age=min(ages, default=None),
        reason=reason,
    )
    return Command((b"MULTI",), shape, tuple(parts))


def untold(command: Command) -> Command:
    """`command` under WATCH: it goes to the server or nowhere."""
    return command._replace(shape=command.shape._replace(kind=Kind.REFUSED, reason=UNDER_WATCH))


def grouped(batch: Sequence[Command]) -> list[Command]:
    """`batch`, each MULTI … EXEC in it as one command."""
    found: list[Command] = []
    at = 0
    for start, end in units(batch):
        found += batch[at:start]
        found.append(unit_of(batch[start + 1 : end]))
        at = end + 1
    return found + list(batch[at:])


def units(batch: Sequence[Command]) -> Iterator[tuple[int, int]]:
    """Where the transactions begin and end: the places of MULTI and EXEC."""
    start = None
    for place, command in enumerate(batch):
        if command.shape.name == "MULTI":
            start = place
        elif command.shape.name == "EXEC" and start is not None:
            if place > start + 1:
                yield start, place
            start = None


def span(command: Command) -> int:
    """How many replies the server gives to it."""
    return len(command.parts) + 2 if command.parts else 1
