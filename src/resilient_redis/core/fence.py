"""The fence: before the first replayed write, no write sent earlier may still land.

A write that timed out waits in a kernel's or a frozen server's buffer and is executed afterwards,
over newer ones: 50 of 50 with a plain close, 100 of 100 with a frozen server; with CLIENT KILL
0 (FACTS.md, "Zombie writes").

Ids start again with the server, so an id from before a restart may be someone else's: a
connection is killed only if its address is the one that the server told us and its age fits.

Ids are each server's own. Where Sentinel has named another master, the connections of the old one
are not looked for there: nothing on it can land on the new one, and what lands late on the old one
goes with it when it is made a replica.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from .exchange import Dialogue, Exchange, ReplyError, is_forbidden
from .wire import pack

# `age` in CLIENT LIST is whole seconds of a cached clock.
AGE_SLACK = 5.0
# Ids in one CLIENT LIST.
CHUNK = 500
# Connections that died with an unanswered write: 10,000 are 1 MB, and more than any pool.
MAX_SUSPECTS = 10_000


@dataclass(frozen=True, slots=True)
class Identity:
    """A connection as the server knows it: CLIENT INFO's id and addr, and since when.

    The id is 0 where the ACL forbids to ask. `server`: whose id it is, where one endpoint may be
    several servers, one after the other; else "".
    """

    client_id: int
    addr: str
    since: float
    server: str = ""


def fields_of(line: str) -> dict[str, str]:
    """The `key=value` pairs of a line of CLIENT INFO or CLIENT LIST."""
    return dict(pair.split("=", 1) for pair in line.split() if "=" in pair)


def identity_of(info: bytes | str, now: float, server: str = "") -> Identity | None:
    """What CLIENT INFO tells (https://redis.io/docs/latest/commands/client-info/)."""
    fields = fields_of(info if isinstance(info, str) else info.decode(errors="replace"))
    if not fields.get("id", "").isdigit() or "addr" not in fields:
        return None
    return Identity(int(fields["id"]), fields["addr"], now - float(fields.get("age", 0)), server)


def still_there(line: str, known: dict[int, Identity], now: float) -> Identity | None:
    """The known connection that this line of CLIENT LIST shows, if it really is that one."""
    fields = fields_of(line)
    identity = known.get(int(fields.get("id", 0)))
    if identity is None or fields.get("addr") != identity.addr:
        return None
    if abs(float(fields.get("age", 0)) - (now - identity.since)) > AGE_SLACK:
        return None
    return identity


def fence(suspects: list[Identity], now: float, server: str = "") -> Dialogue[bool]:
    """Kills those of `suspects` that still live at `server`, to which this is said.

    Returns False where the ACL forbids it; then two PING rounds have passed instead, so that what
    a live server had already read is done.
    """
    here = [suspect for suspect in suspects if suspect.server in ("", server)]
    named = [suspect for suspect in here if suspect.client_id]
    for start in range(0, len(named), CHUNK):
        known = {s.client_id: s for s in named[start : start + CHUNK]}
        ids = [b"%d" % client_id for client_id in known]
        (listing,) = yield Exchange(pack((b"CLIENT", b"LIST", b"ID", *ids)), 1)
        if isinstance(listing, ReplyError):
            if is_forbidden(listing):
                return (yield from _grace())
            raise listing
        text = listing if isinstance(listing, str) else listing.decode(errors="replace")
        alive = [found for line in text.splitlines() if (found := still_there(line, known, now))]
        if not alive:
            continue
        kills = [pack((b"CLIENT", b"KILL", b"ID", b"%d" % i.client_id)) for i in alive]
        replies = yield Exchange(b"".join(kills), len(kills))
        # 0 killed means that it is gone by now, which is what we want.
        if any(is_forbidden(reply) for reply in replies):
            return (yield from _grace())
    return True if len(named) == len(here) else (yield from _grace())


def _grace() -> Dialogue[bool]:
    for _ in range(2):
        yield Exchange(pack((b"PING",)), 1)
    return False


class Suspects:
    """Connections that ended with an unanswered write, until a fence has dealt with them."""

    def __init__(self) -> None:
        self._found: deque[Identity] = deque(maxlen=MAX_SUSPECTS)

    def __bool__(self) -> bool:
        return bool(self._found)

    def all(self) -> list[Identity]:
        return list(self._found)

    def add(self, identity: Identity) -> None:
        self._found.append(identity)

    def discard(self, dealt_with: Collection[Identity]) -> None:
        left = [identity for identity in self._found if identity not in dealt_with]
        self._found.clear()
        self._found.extend(left)
