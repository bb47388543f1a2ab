"""What the server lets this user do, tried once, on the first healthy connection."""

from __future__ import annotations

from enum import Enum

from .exchange import HOLDING, UNAVAILABLE, Dialogue, Exchange, ReplyError, is_forbidden
from .watermark import GUARD
from .wire import pack


class Mode(Enum):
    """How a drain is kept exactly once, by what the ACL allows."""

    GUARDED = "in-band guard script"  # several batches in flight
    CHECKED = "WATCH and GET before each batch"  # one batch in flight
    BARE = "only writes that are safe to send twice"


def try_rights(watermark: bytes) -> Dialogue[tuple[Mode, tuple[str, ...]] | None]:
    """The best mode, and the commands whose absence forbids a better one. None where the server
    takes no writes now, which says nothing about rights: another connection has to try again.

    Both branches of the guard script are run, and it must make EXEC fail. Leaves nothing behind.
    """
    guard = (b"EVAL", GUARD, b"1", watermark, b"another value")
    commands = [
        guard,  # W is gone: SET and DEL
        (b"SET", watermark, b"rights"),
        (b"WATCH", watermark),
        guard,  # W is another: PEXPIRE and PERSIST
        (b"MULTI",),
        (b"GET", watermark),
        (b"SET", watermark, b"rights"),
        (b"EXEC",),
        # In the same breath: who asks may be cancelled before he hears the answers.
        (b"UNWATCH",),
        (b"DEL", watermark),
    ]
    replies = yield Exchange(b"".join(map(pack, commands)), len(commands))
    if isinstance(replies[7], ReplyError):
        # Where EXEC is forbidden, the connection would stay in MULTI.
        after = [(b"DISCARD",), (b"UNWATCH",), (b"DEL", watermark)]
        commands += after
        replies += yield Exchange(b"".join(map(pack, after)), len(after))
    missing: set[str] = set()
    for command, reply in zip(commands, replies, strict=True):
        name = command[0].decode()
        if not isinstance(reply, ReplyError) or name in ("DISCARD", "UNWATCH"):
            continue  # they are refused where there is nothing to be ended
        if reply.code in UNAVAILABLE:
            raise reply
        if reply.code in HOLDING:
            return None
        # Inside a script a forbidden command is an error of the script.
        if name == "EVAL" or is_forbidden(reply):
            missing.add(name)
    if not missing and replies[7] is not None:
        missing.add("EVAL")  # it was allowed, and guards nothing
    if not missing:
        return Mode.GUARDED, ()
    return (Mode.CHECKED if missing == {"EVAL"} else Mode.BARE), tuple(sorted(missing))
