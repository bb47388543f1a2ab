"""Subscriptions at the simulated server."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .resp import Push, Several, encode

if TYPE_CHECKING:
    from .server import Session, SimServer


def subscribe(_: SimServer, session: Session, args: tuple[bytes, ...]) -> Any:
    return _change(session, args, args[1:])


def unsubscribe(_: SimServer, session: Session, args: tuple[bytes, ...]) -> Any:
    mine = session.patterns if args[0].startswith(b"P") else session.channels
    return _change(session, args, args[1:] or tuple(mine) or (None,))


def _change(session: Session, args: tuple[bytes, ...], names: tuple[bytes | None, ...]) -> Any:
    mine = session.patterns if args[0].startswith(b"P") else session.channels
    replies = Several()
    for name in names:
        if b"UNSUB" in args[0]:
            mine.pop(name or b"", None)
        elif name is not None:
            mine[name] = None
        count = len(session.channels) + len(session.patterns)
        replies.append(Push([args[0].lower(), name, count]))
    return replies


def ping(_: SimServer, session: Session, args: tuple[bytes, ...]) -> Any:
    if not session.resp3 and (session.channels or session.patterns):
        return [b"pong", args[1] if len(args) > 1 else b""]
    return args[1] if len(args) > 1 else "PONG"


def publish(server: SimServer, channel: bytes, message: bytes) -> int:
    """To all that have subscribed; returns to how many."""
    heard = 0
    for session in list(server.sessions.values()):
        told = [Push([b"message", channel, message])] if channel in session.channels else []
        told += [
            Push([b"pmessage", pattern, channel, message])
            for pattern in session.patterns
            if fnmatchcase(channel.decode(), pattern.decode())
        ]
        if told:
            session.conn.reply(b"".join(encode(push, session.resp3) for push in told))
        heard += len(told)
    return heard


def publish_command(server: SimServer, _: Session, args: tuple[bytes, ...]) -> Any:
    return publish(server, args[1], args[2])
