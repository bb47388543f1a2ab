"""What an exception of redis-py says about the server.

redis-py strips the error code from messages (`-OOM x` becomes `OutOfMemoryError("x")`), so known
codes are told by class; NOREPLICAS and MISCONF have none and keep their code in the message.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from ssl import SSLCertVerificationError
from typing import Any

from redis._parsers import BaseParser
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from ..core.exchange import HOLDING, UNAVAILABLE, ReplyError
from ..errors import ResilienceError

#: What may mean that Redis is away. Anything else passes as it is.
OUTAGE = (ConnectionError, TimeoutError, OSError, asyncio.TimeoutError)
#: Subclasses of ConnectionError that come from a healthy server, or never left this process.
_NOT_OUTAGE = (AuthenticationError, AuthorizationError, MaxConnectionsError, ResilienceError)
#: Error replies to a command that the server did not run and would run later.
REJECTED = (BusyLoadingError, MasterDownError, ClusterDownError)
# This process or machine is out of something: it says nothing about the server.
_LOCAL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EADDRNOTAVAIL})


def is_outage(error: BaseException) -> bool:
    """Whether `error` may mean that Redis is away."""
    if isinstance(error, REJECTED):
        return True
    if not isinstance(error, OUTAGE) or isinstance(error, _NOT_OUTAGE):
        return False
    if "max number of clients reached" in str(error):
        return False
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _LOCAL:
            return False
    return unverified(error) is None


def _causes(error: BaseException) -> tuple[BaseException | None, ...]:
    """redis-py wraps the OSError of a failed connect in its own ConnectionError."""
    return error, error.__cause__, error.__context__


def unverified(error: BaseException) -> SSLCertVerificationError | None:
    """Behind `error`: a certificate that is not to be trusted. Somebody answers there, and time
    alone does not mend it; in redis-py and here it is raised, like a wrong password.
    """
    for cause in _causes(error):
        if isinstance(cause, SSLCertVerificationError):
            return cause
    return None


def is_denial(error: BaseException) -> bool:
    """Whether the server that `error` comes from is there, and does not let this user in, or this
    user not that server.
    """
    denials = (AuthenticationError, AuthorizationError, NoPermissionError)
    return isinstance(error, denials) or unverified(error) is not None


def is_alive(error: BaseException) -> bool:
    """Whether `error` shows a server that answers, though not with what was asked."""
    if is_denial(error):
        return True
    if isinstance(error, ResponseError):
        return not isinstance(error, REJECTED)
    return not is_outage(error)


def holding_code(error: ResponseError) -> str | None:
    """The code under which the server takes no writes now, if `error` is one of those."""
    if isinstance(error, ReadOnlyError):
        return "READONLY"
    if isinstance(error, OutOfMemoryError):
        return "OOM"
    code = str(error).partition(" ")[0]
    return code if code in ("NOREPLICAS", "MISCONF") else None


def out_of_memory() -> OutOfMemoryError:
    """The error that the server answers a growing write with, as redis-py raises it."""
    return OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")


def parse_error(connection: Any, message: str) -> Exception:
    """An error reply as redis-py's own exception, codes and all."""
    error: Exception = connection._parser.parse_error(message)
    return error


def as_redis_error(error: ReplyError) -> Exception:
    """The error reply as redis-py would raise it."""
    found: Exception = BaseParser.parse_error(error.message)  # type: ignore[no-untyped-call]  # redis-py
    return found


def as_reply_error(error: ResponseError) -> ReplyError:
    """The error reply as the server sent it: redis-py takes the known codes off the message."""
    for code, found in BaseParser.EXCEPTION_CLASSES.items():
        if found is type(error):
            return ReplyError(f"{code} {error}")
    return ReplyError(str(error))


def _names(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


# Other clients have classes of their own under redis-py's names (valkey-py, coredis).
_FOREIGN = frozenset({"ConnectionError", "TimeoutError"})
_FOREIGN_ALIVE = frozenset({"AuthenticationError", "AuthorizationError", "MaxConnectionsError"})


def is_foreign_outage(error: BaseException) -> bool:
    """Whether an error of any client may mean that its server is away."""
    if isinstance(error, (ResilienceError, RedisError, OSError, asyncio.TimeoutError)):
        return is_outage(error)
    names = _names(error)
    return bool(names & _FOREIGN) and not names & _FOREIGN_ALIVE


def never_sent(error: BaseException) -> bool:
    """Whether `error` proves that the command did not run: nobody listened, or it was rejected."""
    causes = (error, error.__cause__, error.__context__)
    refused = any(isinstance(cause, (ConnectionRefusedError, socket.gaierror)) for cause in causes)
    return refused or bool(_names(error) & _REJECTED_NAMES)


_REJECTED_NAMES = frozenset(cls.__name__ for cls in REJECTED)
# What an argument that nobody takes is answered with, by a server or by the object itself.
_OF_ARGUMENTS = frozenset(
    {"ResponseError", "DataError", "TypeError", "ValueError", "AttributeError"}
)


def server_answered(error: BaseException) -> bool:
    """Whether `error` is a server's reply to a command, of any client."""
    return "ResponseError" in _names(error) and not _names(error) & _REJECTED_NAMES


# What is no fault of one command: the way to the server, the password, the pool, the server itself.
_OF_ALL = _FOREIGN | _FOREIGN_ALIVE | _REJECTED_NAMES | {"TryAgainError"}


def is_of_the_command(error: BaseException) -> bool:
    """Whether `error` may be the fault of one command: any is that no other would meet as well."""
    if isinstance(error, (ResilienceError, OSError, asyncio.TimeoutError, MemoryError)):
        return False
    if isinstance(error, RuntimeError) and "loop" in str(error):
        return False  # asyncio's: the object belongs to a loop that is closed, or to another
    if _names(error) & _OF_ALL or "max number of clients" in str(error):
        return False
    return str(error).partition(" ")[0] not in UNAVAILABLE


def is_of_arguments(error: BaseException) -> bool:
    """Of one that may be a command's fault: whether it is for certain."""
    return bool(_names(error) & _OF_ARGUMENTS)


def object_holding_code(error: BaseException) -> str | None:
    """`holding_code` of an error of any client."""
    for name, code in (("ReadOnlyError", "READONLY"), ("OutOfMemoryError", "OOM")):
        if name in _names(error):
            return code
    code = str(error).partition(" ")[0]
    return code if server_answered(error) and code in HOLDING else None
