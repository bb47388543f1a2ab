"""What a new connection asks before it carries a command: who it is, and what it may do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import ConnectionError, ResponseError

from ..core.exchange import UNAVAILABLE, Dialogue, Exchange, Replies, ReplyError
from ..core.fence import fence, identity_of
from ..core.rights import try_rights
from ..core.wire import pack
from ..seam.failures import as_reply_error, parse_error
from .steps import Steps

if TYPE_CHECKING:
    from .socket import GuardedSocket

T = TypeVar("T")

CLIENT_INFO = Exchange(pack((b"CLIENT", b"INFO")), 1)


def introduce(connection: GuardedSocket) -> Steps[None]:
    """After redis-py's own handshake, as a part of it.

    CLIENT INFO tells how the server knows this connection: the fence needs its address as the
    server sees it, which behind a proxy is not ours.
    """
    breaker = connection.breaker
    (info,) = yield from _exchange(connection, CLIENT_INFO)
    known = isinstance(info, (str, bytes))
    server = connection.template.server_of(connection)
    connection.identity = identity_of(info, breaker.clock(), server) if known else None
    yield from put_up_fence(connection)
    if not breaker.rights_asked:
        yield from _learn_rights(connection)


def put_up_fence(connection: GuardedSocket) -> Steps[None]:
    """An unanswered write of a dead connection may not land after what this one sends.

    Others may be at the same suspects: each waits for its own fence.
    """
    breaker = connection.breaker
    if suspects := breaker.suspects:
        ask = fence(suspects, breaker.clock(), connection.template.server_of(connection))
        allowed = yield from _drive(connection, ask)
        breaker.fenced(suspects, allowed)


def _learn_rights(connection: GuardedSocket) -> Steps[None]:
    breaker = connection.breaker
    breaker.rights_asked = True
    try:
        rights = yield from _drive(connection, try_rights(breaker.rights_key))
        if rights is not None:
            breaker.learn_rights(*rights)
    finally:
        breaker.rights_asked = breaker.rights_known  # if not, the next connection tries again


def _drive(connection: GuardedSocket, dialogue: Dialogue[T]) -> Steps[T]:
    try:
        ask = next(dialogue)
        while True:
            ask = dialogue.send((yield from _exchange(connection, ask)))
    except StopIteration as stop:
        result: T = stop.value
        return result
    except ReplyError as error:
        if error.code in UNAVAILABLE:
            raise ConnectionError(error.message) from None
        # Not an answer that we can work with; as redis-py's own class it is judged like any other.
        raise parse_error(connection, error.message) from None


def _exchange(connection: GuardedSocket, ask: Exchange) -> Steps[Replies]:
    """Through redis-py's own send and read: this is still its handshake."""
    yield partial(connection._send_raw, ask.send)
    replies: Replies = []
    for _ in range(ask.receive):
        try:
            replies.append((yield connection._read_raw))
        except ResponseError as error:
            replies.append(as_reply_error(error))
    return replies
