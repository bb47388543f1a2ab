"""Commands on their way to the wire, which still know what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.catalog import ROWS, shape_of
from ..core.catalog.row import Refuse, Row
from ..core.command import Command, Kind
from ..core.wire import reply_bytes

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


def _encoded(call: Call, encoder: Any) -> list[bytes]:
    """The arguments behind the name; redis-py leaves a memoryview as it is."""
    return [v if type(v) is bytes else bytes(v) for v in map(encoder.encode, call[1:])]


def command_of(call: Call, encoder: Any) -> Command:
    """The command as it goes on the wire; redis-py splits "CONFIG GET" at the blank."""
    name = call[0]
    words = _words.get(name)
    if words is None:
        words = tuple(name.encode().split() if isinstance(name, str) else bytes(name).split())
        if isinstance(name, str) and name in _METHODS:
            _words[name] = words
    args = (*words, *_encoded(call, encoder))
    return Command(args, shape_of(args))


class PlainRead(NamedTuple):
    """A READ of which everything but its keys is known, whatever its arguments are."""

    words: tuple[bytes, ...]
    row: Row
    replies: dict[int, bytes]  # what is answered neutrally, by protocol


def _plain_read(row: Row) -> PlainRead:
    words = tuple(row.name.encode().split())
    shape = row.shape(words + (b"1",) * (row.least - len(words)))
    assert shape.kind is Kind.READ, row
    return PlainRead(words, row, {protocol: reply_bytes(shape, protocol) for protocol in (2, 3)})


_PLAIN_READS: dict[Any, PlainRead] = {
    row.name: _plain_read(row) for row in ROWS if row.kind is Kind.READ and row.by_args is None
}


def plain_read(call: Call, encoder: Any) -> tuple[PlainRead, tuple[bytes, ...]] | None:
    """What `call` is, with its keys, if it is such a read. Takes half as long as `command_of`."""
    read = _PLAIN_READS.get(call[0])
    if read is None:
        return None
    words, row, _ = read
    args = (*words, *_encoded(call, encoder))
    if not row.least <= len(args) <= row.most:
        return None
    try:
        return read, row.keys(args)
    except Refuse:
        return None


def commands_of(calls: Sequence[Call], encoder: Any) -> list[Command]:
    return [command_of(call, encoder) for call in calls]
