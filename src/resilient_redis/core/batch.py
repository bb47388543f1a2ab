"""What a replay is made of: where entries come from, who hears of them, how they travel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .catalog import shape_of
from .entry import Entry, Stretch
from .exchange import UNAVAILABLE, Replies, ReplyError
from .wire import unpack


class Source(Protocol):
    """What the replay needs of a journal."""

    max_age: float

    def read(self, after: int) -> Iterator[Entry]: ...
    def pieces(self, after: int, most: int) -> Iterator[Entry | Stretch]: ...
    def confirm(self, seq: int) -> None: ...


class Listener(Protocol):
    """Who hears what became of the entries."""

    def applied(self, entry: Entry, reply: Any) -> None:
        """`reply` is None where it was lost and the watermark shows that the entry is in."""

    def applied_in_a_row(self, first: int, replies: Sequence[Any]) -> None:
        """The entries from number `first` on, none of them a transaction; none has failed."""

    def dead_letter(self, entry: Entry, reason: str, error: ReplyError | None) -> None: ...

    def lost_data(self, confirmed: int, found: int) -> None: ...


class Unavailable(Exception):
    """The server answers that it cannot serve anybody now (LOADING …): stop, probe again."""


@dataclass(slots=True)
class Batch:
    db: int
    bare: bool
    last: int  # the sequence number up to which this batch settles the journal
    pieces: list[Entry | Stretch] = field(default_factory=list)
    aside: list[Entry] = field(default_factory=list)  # not to be sent
    count: int = 0  # how many commands it is, and the server replies to

    def payload(self, now: float, server_ms: int) -> list[bytes]:
        """What is sent; see `Entry.at_deadline`."""
        return [piece.at_deadline(now, server_ms) for piece in self.pieces]

    def replied(self, replies: Replies) -> Iterator[tuple[Entry | Stretch, Any]]:
        """Each piece with its reply; that of a stretch, or of a transaction, is a list."""
        at = 0
        for piece in self.pieces:
            end = at + piece.size
            whole = isinstance(piece, Stretch) or piece.parts
            yield piece, replies[at:end] if whole else replies[at]
            at = end

    def errors(self, replies: Replies) -> dict[int, ReplyError]:
        """By the numbers of the entries, whose errors they are."""
        found: dict[int, ReplyError] = {}
        for piece, reply in self.replied(replies):
            own = reply if isinstance(piece, Stretch) else [reply]
            for seq, one in enumerate(own, piece.seq):
                if (error := error_in(one)) is not None:
                    found[seq] = error
        return found


def between(source: Source, after: int, upto: int) -> list[Entry]:
    """The entries behind `after`, `upto` included."""
    found = []
    for entry in source.read(after):
        if entry.seq > upto:
            break
        found.append(entry)
    return found


def in_doubt(entries: list[Entry]) -> list[Entry]:
    """Which of `entries`, that may be applied or not, cannot be sent again.

    Those that are not safe to send twice, and what stands before one of them on the same key:
    after `DEL k · RPUSH k a` a second DEL alone would take away what RPUSH has put there.
    """
    found: list[Entry] = []
    keys: set[bytes] = set()
    for entry in reversed(entries):
        touched = {
            key
            for part in entry.parts or (entry,)
            for key in shape_of(unpack(part.at_deadline(part.at, 0))).keys
        }
        if not entry.safe_twice or not keys.isdisjoint(touched):
            found.append(entry)
            keys.update(touched)
    return found


def available(reply: Any) -> None:
    """Raises `Unavailable` if the reply says so."""
    if isinstance(reply, ReplyError) and reply.code in UNAVAILABLE:
        raise Unavailable(reply.message)


def error_in(reply: Any) -> ReplyError | None:
    """The error that `reply` is, or the first in the list of a transaction's."""
    for one in reply if isinstance(reply, list) else (reply,):
        if isinstance(one, ReplyError):
            return one
    return None


def sound(reply: Any) -> Any:
    """The reply, if it is no error."""
    available(reply)
    if isinstance(reply, ReplyError):
        raise reply
    return reply
