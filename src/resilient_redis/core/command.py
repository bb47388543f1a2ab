"""What one send puts on the wire: a command, or several that travel together."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a command means for the contract; each kind has one answer while Redis is away."""

    READ = "read"  # answered neutrally
    TAKE = "take"  # takes something out; answered neutrally (it finds nothing)
    PUBLISH = "publish"  # answered neutrally (0 receivers)
    WRITE = "write"  # unconditional: queued
    COUNTER = "counter"  # refused by default; a rule may queue it
    REFUSED = "refused"  # cannot be promised


class Wire(Enum):
    """The shape of a reply, spelled per protocol by `wire`."""

    OK = "OK"
    INT = "int"  # the number stands in `Shape.number`
    NIL = "nil"  # null bulk string
    NIL_ARRAY = "nil array"
    EMPTY_STRING = "empty string"
    EMPTY_ARRAY = "empty array"
    EMPTY_MAP = "empty map"
    EMPTY_SET = "empty set"
    NONE_STATUS = "none"  # TYPE of a missing key: the status "none"
    NILS = "nils"  # an array of `Shape.number` nulls
    NIL_ARRAYS = "nil arrays"  # an array of `Shape.number` null arrays (GEOPOS)
    INTS = "ints"  # an array of integers: `Shape.numbers`
    SCAN = "scan"  # cursor 0 and an empty array
    LCS_MATCHES = "lcs matches"  # LCS IDX: a map with no matches and length 0
    ZERO_STRING = "zero string"  # the bulk string "0": INCRBYFLOAT
    SCORE = "score"  # score 0: a bulk string in RESP2, a double in RESP3
    STREAM_ID = "stream id"  # the bulk string "0-0", in place of the id that XADD makes


class RelativeTTL(NamedTuple):
    """How a command's relative expiry becomes an absolute one, so that it counts from the call.

    The command is rewritten to `head + (deadline in unix ms,) + tail`;
    `milliseconds` is the time to live that the caller gave.
    """

    milliseconds: int
    head: tuple[bytes, ...]
    tail: tuple[bytes, ...]


class Shape(NamedTuple):
    """All that the guard needs to know of one command with these arguments. (A tuple, because one
    is made for each command that is answered: a frozen dataclass of 14 fields takes 2 µs.)

    For READ, TAKE and PUBLISH `reply` is the neutral answer; for WRITE and COUNTER it is what
    goes through redis-py's own response callback, and `receipt` says whether the caller is then
    given a `Queued` receipt in its place.
    """

    name: str  # upper case, subcommand included: "SET", "XGROUP CREATE"
    kind: Kind
    reply: Wire = Wire.NIL
    number: int = 0
    numbers: tuple[int, ...] = ()
    receipt: bool = False
    keys: tuple[bytes, ...] = ()
    safe_twice: bool = False  # sent again, and then again what followed it: the same final state
    grows: bool = False  # the server denies it when out of memory (flag denyoom)
    blocking: bool = False  # may wait at the server by design
    block_ms: int = 0  # how long a blocking command asks to wait; 0 is for ever
    ttl: RelativeTTL | None = None
    max_age: float | None = None  # seconds until it is set aside, where a rule says so
    block_at: int = 0  # where that stands among the arguments, and how many ms its unit has
    block_unit: int = 0
    reason: str = ""  # why a REFUSED command is refused, in words for the caller


class Command(NamedTuple):
    """One command, every argument encoded as it goes on the wire; or a transaction of `parts`."""

    args: tuple[bytes, ...]
    shape: Shape
    parts: tuple[Command, ...] = ()

    def waiting(self, ms: int) -> tuple[int, bytes]:
        """Of a blocking command: which argument says how long it waits, and that for `ms`."""
        shape = self.shape
        ms = max(ms, 1)  # 0 is for ever
        value = b"%d" % ms if shape.block_unit == 1 else b"%.3f" % (ms / shape.block_unit)
        return shape.block_at, value
