"""What a new connection asks before it carries a command: who it is, and what it may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import ConnectionError, ResponseError

from ..core.exchange import UNAVAILABLE, Dialogue, Exchange, Replies, ReplyError
from ..core.fence import fence, identity_of
from ..core.rights import try_rights
from ..core.wire import pack
from ..seam.failures import as_reply_error, holding_code, parse_error

if TYPE_CHECKING:
    from .wire import GuardedSocket

T = TypeVar("T")

CLIENT_INFO = Exchange(pack((b"CLIENT", b"INFO")), 1)


async def introduce(connection: GuardedSocket) -> None:
    """After redis-py's own handshake, in the same task.

    CLIENT INFO tells how the server knows this connection: the fence needs its address as the
    server sees it, which behind a proxy is not ours.
    """
    breaker = connection.breaker
    (info,) = await _exchange(connection, CLIENT_INFO)
    known = isinstance(info, (str, bytes))
    server = _server_of(connection)
    connection.identity = identity_of(info, breaker.clock(), server) if known else None
    await put_up_fence(connection)
    if not breaker.rights_asked:
        await _learn_rights(connection)


async def put_up_fence(connection: GuardedSocket) -> None:
    """An unanswered write of a dead connection may not land after what this one sends.

    Others may be at the same suspects: each waits for its own fence.
    """
    breaker = connection.breaker
    if suspects := breaker.suspects:
        ask = fence(suspects, breaker.clock(), _server_of(connection))
        allowed = await _drive(connection, ask)
        breaker.fenced(suspects, allowed)


def _server_of(connection: GuardedSocket) -> str:
    template = connection.breaker.template
    assert template is not None
    return template.server_of(connection)


async def _learn_rights(connection: GuardedSocket) -> None:
    breaker = connection.breaker
    breaker.rights_asked = True
    try:
        breaker.learn_rights(*await _drive(connection, try_rights(breaker.rights_key)))
    except BaseException as error:
        breaker.rights_asked = False
        # A server that takes no writes now serves reads all the same; the next connection asks.
        if not isinstance(error, ResponseError) or holding_code(error) is None:
            raise


async def _drive(connection: GuardedSocket, dialogue: Dialogue[T]) -> T:
    try:
        ask = next(dialogue)
        while True:
            ask = dialogue.send(await _exchange(connection, ask))
    except StopIteration as stop:
        result: T = stop.value
        return result
    except ReplyError as error:
        if error.code in UNAVAILABLE:
            raise ConnectionError(error.message) from None
        # Not an answer that we can work with; as redis-py's own class it is judged like any other.
        raise parse_error(connection, error.message) from None


async def _exchange(connection: GuardedSocket, ask: Exchange) -> Replies:
    """Through redis-py's own send and read: this is still its handshake."""
    await connection.send_packed_command(ask.send, check_health=False)
    replies: Replies = []
    for _ in range(ask.receive):
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(as_reply_error(error))
    return replies
