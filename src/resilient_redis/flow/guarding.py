"""The guard put into a client of redis-py, and its short way while Redis is away."""

from __future__ import annotations

from typing import Any

from ..answering import answer_or_refuse, refusal
from ..core.guard import Answer, Refuse, Step
from ..core.wire import reply_bytes
from ..seam.methods import OfflineReplies
from ..seam.packed import command_of, plain_read
from ..seam.pools import (
    breaker_of,
    endpoint_of,
    hold_single_connection,
    pool_of,
    release_single_connection,
    replace_connections,
    stock_class,
)
from ..seam.replies import MISSING
from .breaker import CircuitBreaker
from .socket import GuardedSocket


def guard_pool(client: Any, breaker: CircuitBreaker, ready: dict[type[Any], type[Any]]) -> bool:
    """Guards `client` at its connections. False, and nothing is changed, where it is no client of
    redis-py that talks to a server: fakeredis and mocks pass `isinstance` tests.

    `ready` is the flavour's guarded classes by those of redis-py. Raises
    ValueError where another breaker guards it already, TypeError where it is of the other flavour.
    """
    pool = pool_of(client)
    if pool is None:
        return False
    if issubclass(pool.connection_class, GuardedSocket):
        connection_class = pool.connection_class
    else:
        stock = stock_class(pool.connection_class)
        if stock is None:
            return False
        if stock not in ready:
            raise TypeError(
                f"{type(client).__module__}.{type(client).__name__} is not of this flavour: take "
                "the breaker of resilient_redis.asyncio for it, or that of resilient_redis"
            )
        connection_class = guarded_class(pool.connection_class, stock, ready)
    if (breaker_of(client) or breaker) is not breaker:
        raise ValueError("another breaker guards this client's connections already")
    breaker.bind(endpoint_of(pool.connection_kwargs))
    single = release_single_connection(client)
    replace_connections(pool, connection_class, breaker)
    if single:
        hold_single_connection(client)
    return True


def guarded_class(
    connection_class: type[Any], stock: type[Any], ready: dict[type[Any], type[Any]]
) -> type[Any]:
    """`connection_class`, redis-py's `stock` or one derived from it, with the guard inside."""
    made = ready.get(connection_class)
    if made is None:
        mixin = next(base for base in ready[stock].__bases__ if issubclass(base, GuardedSocket))
        made = type(connection_class.__name__, (mixin, connection_class), {})
        ready[connection_class] = made
    return made


_fast: dict[type[Any], type[Any]] = {}


def with_fast_path(client_class: type[Any], fast_path: type[Any]) -> type[Any]:
    """`client_class` with `fast_path` in front of it, under its own name."""
    if issubclass(client_class, fast_path):
        return client_class
    made = _fast.get(client_class)
    if made is None:
        name = client_class.__name__
        body = {"__module__": client_class.__module__, "__qualname__": client_class.__qualname__}
        made = _fast[client_class] = type(name, (fast_path, client_class), body)
    return made


#: A blocking command is to be waited for.
TO_BE_WAITED_FOR = object()


def answer(
    breaker: CircuitBreaker, replies: OfflineReplies, owner: Any, args: tuple[Any, ...]
) -> Any:
    """What a single command is answered without a connection, now that the breaker is not closed:
    RESP bytes, a receipt, or `TO_BE_WAITED_FOR`. Raises its refusal.
    """
    if not breaker.has_rules and (known := plain_read(args, replies.encoder)) is not None:
        read, keys = known
        breaker.start_recovery()
        breaker.provenance.absent(owner, keys, replies.db)
        breaker.count("neutral", read.row.name)
        return read.replies[replies.protocol]
    command = command_of(args, replies.encoder)
    if breaker.has_rules:
        (command,) = breaker.ruled([command])
    if command.shape.blocking:
        return TO_BE_WAITED_FOR
    step = breaker.away_step(command)
    if isinstance(step, Refuse):
        raise refusal(breaker, step)
    breaker.start_recovery()
    if step is Step.NEUTRAL:
        breaker.provenance.neutral(owner, command, replies.db)
        breaker.count("neutral", command.shape.name)
        return reply_bytes(command.shape, replies.protocol)
    answers = answer_or_refuse(
        breaker, command, Answer((step,)), db=replies.db, at=breaker.clock(), owner=owner
    )
    (slot,) = answers.slots(replies.protocol, replies.parse_error)
    return slot[1] if isinstance(slot, tuple) else slot


def shaped(
    replies: OfflineReplies, found: Any, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """What `answer` has found, as the client returns it."""
    if not isinstance(found, bytes):
        return found
    constant = replies.constant(found, args[0], options)
    return replies.shape(found, args[0], options) if constant is MISSING else constant
