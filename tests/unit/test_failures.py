"""What an exception of redis-py says about the server."""

import asyncio
import errno
import ssl

import pytest
from redis import exceptions as redis_errors

from resilient_redis import CommandRefused, OutcomeUnknown
from resilient_redis.seam.failures import (
    as_reply_error,
    holding_code,
    is_alive,
    is_denial,
    is_of_arguments,
    is_of_the_command,
    is_outage,
)


def failed_connect(code: int) -> BaseException:
    return raised_by(OSError(code, "x"))


def raised_by(cause: OSError) -> BaseException:
    """As redis-py raises it: its own error, raised while the OSError is handled."""
    try:
        try:
            raise cause
        except OSError:
            raise redis_errors.ConnectionError("Error connecting") from None
    except redis_errors.ConnectionError as error:
        return error


def unverified() -> BaseException:
    """A certificate that cannot be verified, as redis-py raises it."""
    return raised_by(ssl.SSLCertVerificationError(1, "certificate verify failed"))


@pytest.mark.parametrize(
    "error",
    [
        redis_errors.ConnectionError("refused"),
        redis_errors.TimeoutError(),
        redis_errors.BusyLoadingError(),
        redis_errors.MasterDownError("x"),
        ConnectionResetError(),
        asyncio.TimeoutError(),
        failed_connect(errno.ECONNREFUSED),
        raised_by(ssl.SSLError(1, "wrong version number")),
    ],
)
def test_an_outage(error: BaseException) -> None:
    assert is_outage(error)
    assert not is_alive(error)


@pytest.mark.parametrize(
    "error",
    [
        redis_errors.AuthenticationError("x"),
        redis_errors.AuthorizationError("x"),
        redis_errors.MaxConnectionsError("x"),
        redis_errors.ResponseError("WRONGTYPE"),
        redis_errors.NoPermissionError("x"),
        redis_errors.DataError("x"),
        CommandRefused("GET", "x"),
        OutcomeUnknown("INCR"),
        asyncio.CancelledError(),
        failed_connect(errno.EMFILE),
        failed_connect(errno.EADDRNOTAVAIL),
        unverified(),
    ],
)
def test_no_outage(error: BaseException) -> None:
    assert not is_outage(error)


def test_who_cannot_be_verified_lets_nobody_in() -> None:
    assert is_denial(unverified())
    assert is_denial(ssl.SSLCertVerificationError(1, "certificate verify failed"))
    assert not is_denial(raised_by(ssl.SSLError(1, "wrong version number")))


def test_a_full_server_is_alive() -> None:
    assert is_alive(redis_errors.ConnectionError("max number of clients reached"))


@pytest.mark.parametrize(
    "error,code",
    [
        (redis_errors.ReadOnlyError("x"), "READONLY"),
        (redis_errors.OutOfMemoryError("x"), "OOM"),
        (redis_errors.ResponseError("NOREPLICAS Not enough good replicas to write."), "NOREPLICAS"),
        (redis_errors.ResponseError("MISCONF Redis is configured to save"), "MISCONF"),
        (redis_errors.ResponseError("WRONGTYPE x"), None),
        (redis_errors.NoPermissionError("x"), None),
    ],
)
def test_the_codes_that_hold_writes(error: redis_errors.ResponseError, code: str | None) -> None:
    assert holding_code(error) == code


def test_a_known_code_is_put_back_on_the_message() -> None:
    assert as_reply_error(redis_errors.NoPermissionError("no rights")).code == "NOPERM"
    assert as_reply_error(redis_errors.ResponseError("WRONGTYPE x")).code == "WRONGTYPE"


@pytest.mark.parametrize(
    "error,certain",
    [
        (redis_errors.ResponseError("WRONGTYPE x"), True),
        (redis_errors.NoPermissionError("x"), True),
        (redis_errors.DataError("x"), True),
        (TypeError("x"), True),
        (KeyError("x"), False),
        (NotImplementedError(), False),
        (RuntimeError("x"), False),
        (redis_errors.RedisError("x"), False),
    ],
)
def test_what_one_command_may_be_to_blame_for(error: Exception, certain: bool) -> None:
    assert is_of_the_command(error)
    assert is_of_arguments(error) == certain


@pytest.mark.parametrize(
    "error",
    [
        redis_errors.ConnectionError("x"),
        redis_errors.ConnectionError("max number of clients reached"),
        redis_errors.AuthenticationError("x"),
        redis_errors.MaxConnectionsError("x"),
        redis_errors.BusyLoadingError(),
        redis_errors.ResponseError("BUSY Redis is busy running a script."),
        redis_errors.TryAgainError("x"),
        asyncio.TimeoutError(),
        OSError(errno.EMFILE, "x"),
        MemoryError(),
        RuntimeError("Event loop is closed"),
        RuntimeError("<Lock> is bound to a different event loop"),
        CommandRefused("GET", "x"),
    ],
)
def test_what_no_command_is_to_blame_for(error: Exception) -> None:
    assert not is_of_the_command(error)
