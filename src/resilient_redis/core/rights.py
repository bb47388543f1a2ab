"""What the server lets this user do, tried once, on the first healthy connection."""

from __future__ import annotations

from enum import Enum

from .exchange import UNAVAILABLE, Dialogue, Exchange, ReplyError, is_forbidden
from .watermark import GUARD
from .wire import pack


class Mode(Enum):
    """How a drain is kept exactly once, by what the ACL allows."""

    GUARDED = "in-band guard script"  # several batches in flight
    CHECKED = "WATCH and GET before each batch"  # one batch in flight
    BARE = "only writes that are safe to send twice"


def try_rights(watermark: bytes) -> Dialogue[tuple[Mode, tuple[str, ...]]]:
    """The best mode, and the commands whose absence forbids a better one.

    Leaves nothing behind: what it sets it deletes, in one transaction.
    """
    commands = [
        (b"WATCH", watermark),
        # The guard expects a value that is not there, so this EXEC fails and nothing is set.
        (b"EVAL", GUARD, b"1", watermark, b"rights"),
        (b"MULTI",),
        (b"GET", watermark),
        (b"SET", watermark, b"rights"),
        (b"DEL", watermark),
        (b"EXEC",),
    ]
    replies = yield Exchange(b"".join(map(pack, commands)), len(commands))
    for reply in replies:
        if isinstance(reply, ReplyError) and reply.code in UNAVAILABLE:
            raise reply
    names = [command[0].decode() for command in commands]
    missing = tuple(n for n, r in zip(names, replies, strict=True) if is_forbidden(r))
    if not missing:
        return Mode.GUARDED, ()
    return (Mode.CHECKED if missing == ("EVAL",) else Mode.BARE), missing
