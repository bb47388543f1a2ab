"""The one table of Redis commands: what each means, where its keys are, how it is answered.

Hand-written: flags and reply schemas of COMMAND are wrong on one command in ten. The tests hold
it against real servers. The rules behind each kind stand in DESIGN, section 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..command import Kind, Shape
from . import bits, geo, hashes, keys, lists, sets, streams, strings, zsets
from .refused import ROWS as _REFUSED
from .row import Row

ROWS: tuple[Row, ...] = (
    *strings.ROWS,
    *keys.ROWS,
    *hashes.ROWS,
    *lists.ROWS,
    *sets.ROWS,
    *zsets.ROWS,
    *geo.ROWS,
    *bits.ROWS,
    *streams.ROWS,
    *_REFUSED,
)

# Two dictionaries, so that "OBJECT ENCODING" sent as one argument is not taken for a command.
_COMMANDS: dict[bytes, Row] = {}
_SUBCOMMANDS: dict[bytes, dict[bytes, Row]] = {}
for _row in ROWS:
    _name, _, _subcommand = _row.name.encode().partition(b" ")
    if _subcommand:
        _SUBCOMMANDS.setdefault(_name, {})[_subcommand] = _row
    else:
        _COMMANDS[_name] = _row

UNKNOWN = "not a command that this library knows (module commands are not promised)"


def shape_of(args: Sequence[bytes]) -> Shape:
    """The shape of a whole command, its name first; what is not understood is REFUSED."""
    if not args:
        return Shape("", Kind.REFUSED, reason="an empty command")
    name = args[0].upper()
    row = _COMMANDS.get(name)
    if len(args) > 1 and name in _SUBCOMMANDS:
        row = _SUBCOMMANDS[name].get(args[1].upper())
        name += b" " + args[1].upper()
    if row is None:
        return Shape(name.decode("ascii", "replace"), Kind.REFUSED, reason=UNKNOWN)
    return row.shape(args)


def names(kind: Kind) -> frozenset[str]:
    """The commands that are of this kind when they are given nothing but what they need."""
    return _NAMES[kind]


_NAMES = {kind: frozenset(row.name for row in ROWS if row.kind is kind) for kind in Kind}
