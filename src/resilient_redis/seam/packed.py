"""Commands on their way to the wire, which still know what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.catalog import ROWS, shape_of
from ..core.command import Command

Call = tuple[Any, ...]
# Names as redis-py's methods give them, split.
_METHODS = frozenset(row.name for row in ROWS)
_words: dict[Any, tuple[bytes, ...]] = {}


class Packed(list[bytes]):
    """The chunks that `pack_commands` returns, with the calls that they were made of.

    redis-py hands `pack_commands()`'s output straight to `send_packed_command()`.
    """

    __slots__ = ("calls",)

    def __init__(self, chunks: Sequence[bytes], calls: list[Call]) -> None:
        super().__init__(chunks)
        self.calls = calls


def command_of(call: Call, encoder: Any) -> Command:
    """The command as it goes on the wire; redis-py splits "CONFIG GET" at the blank."""
    name, encode = call[0], encoder.encode
    words = _words.get(name)
    if words is None:
        words = tuple(name.encode().split() if isinstance(name, str) else bytes(name).split())
        if isinstance(name, str) and name in _METHODS:
            _words[name] = words
    values = [encode(arg) for arg in call[1:]]
    args = (*words, *[v if type(v) is bytes else bytes(v) for v in values])
    return Command(args, shape_of(args))


def commands_of(calls: Sequence[Call], encoder: Any) -> list[Command]:
    return [command_of(call, encoder) for call in calls]
