"""Every private name of redis-py that src uses, and the shape that is expected of it.

A name that src comes to use is added here (`test_privates.py` says which is missing); a name that
redis-py moves or changes makes one test fail, which says where src uses it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import redis
from redis.asyncio import Connection, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import AbstractBackoff, NoBackoff
from redis.exceptions import ConnectionError


class Private(NamedTuple):
    """A name inside redis-py."""

    name: str  # as src writes it: an attribute, or the full name of what is imported
    owner: str
    shape: str  # in words, for the message
    holds: Callable[[], object]  # AttributeError, ImportError and anything false are "no"


# No I/O happens at construction; each of these is as cheap as a dict.
def connection() -> Any:
    return Connection()


def pool() -> Any:
    return ConnectionPool()


def client() -> Any:
    return Redis()


def retry() -> Any:
    return Retry(NoBackoff(), 3, (ConnectionError,))


class _Host:
    """What a parser is told of its connection."""

    _reader = asyncio.StreamReader
    encoder = client().get_encoder()


def parser() -> Any:
    """redis-py's own, as its connections make it."""
    made = connection()._parser
    made.on_connect(_Host())
    return made


def hiredis_parser() -> Any:
    hiredis: Any = import_module("redis._parsers.hiredis")
    made = hiredis._AsyncHiredisParser(socket_read_size=65536)
    made.on_connect(_Host())
    return made


class _Subscriber:
    async def on_connect(self, _: Any) -> None: ...


def keeps_references() -> bool:
    """Whether a callback is found among a connection's, behind a reference."""
    made, subscriber = connection(), _Subscriber()
    made.register_connect_callback(subscriber.on_connect)
    return [kept() for kept in made._connect_callbacks] == [subscriber.on_connect]


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def takes(function: Any, *names: str) -> bool:
    """Whether it can be called with arguments of these names."""
    return all(name in parameters(function) for name in names)


def is_coroutine(function: Any, *names: str) -> bool:
    return inspect.iscoroutinefunction(function) and takes(function, *names)


def imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def a_class(name: str, *methods: str) -> Private:
    def holds() -> bool:
        found = imported(name)
        return inspect.isclass(found) and all(callable(getattr(found, m)) for m in methods)

    return Private(name, name.rpartition(".")[0], f"a class with {', '.join(methods)}", holds)


PRIVATE = [
    # -- what is imported
    Private(
        "redis._parsers.BaseParser",
        "redis._parsers",
        "a class with EXCEPTION_CLASSES, and parse_error(message) without an instance",
        lambda: (
            isinstance(imported("redis._parsers.BaseParser").EXCEPTION_CLASSES, dict)
            and isinstance(imported("redis._parsers.BaseParser").parse_error("ERR x"), Exception)
        ),
    ),
    a_class("redis._parsers._AsyncRESP2Parser", "on_connect", "on_disconnect", "read_response"),
    a_class("redis._parsers._AsyncRESP3Parser", "on_connect", "on_disconnect", "read_response"),
    a_class(
        "redis._parsers.hiredis._AsyncHiredisParser",
        *("on_connect", "on_disconnect", "read_response", "handle_push_response"),
    ),
    Private(
        "redis._parsers.hiredis.NOT_ENOUGH_DATA",
        "redis._parsers.hiredis",
        "what the reader says for want of bytes",
        lambda: (
            hiredis_parser()._reader.gets() is imported("redis._parsers.hiredis.NOT_ENOUGH_DATA")
        ),
    ),
    # -- a connection
    Private(
        "_parser",
        "Connection",
        "an instance attribute: the parser, with parse_error, on_connect and on_disconnect",
        lambda: (
            isinstance(connection()._parser.parse_error("ERR x"), Exception)
            and takes(connection()._parser.on_connect, "connection")
            and takes(connection()._parser.on_disconnect)
            and takes(type(connection()._parser), "socket_read_size")
            and is_coroutine(connection()._parser.read_response, "disable_decoding")
        ),
    ),
    Private(
        "_reader",
        "Connection and its parser",
        "an instance attribute: None, or a stream with at_eof and read; the parser's has gets",
        lambda: connection()._reader is None and callable(hiredis_parser()._reader.gets),
    ),
    Private(
        "_writer",
        "Connection",
        "an instance attribute: None where it is not connected, or an asyncio.StreamWriter",
        lambda: connection()._writer is None,
    ),
    Private(
        "_connect_callbacks",
        "Connection",
        "an instance attribute: references to what is called after each connect",
        keeps_references,
    ),
    Private(
        "_connect",
        "Connection",
        "a coroutine function without arguments, which opens the socket and no more",
        lambda: is_coroutine(connection()._connect) and not parameters(connection()._connect),
    ),
    Private(
        "_send_ping",
        "Connection",
        "a coroutine function without arguments: PING and its reply",
        lambda: is_coroutine(connection()._send_ping) and not parameters(connection()._send_ping),
    ),
    Private(
        "_close",
        "Connection",
        "a function without arguments that closes without waiting",
        lambda: not is_coroutine(connection()._close) and not parameters(connection()._close),
    ),
    Private(
        "_connected", "the hiredis parser", "a bool", lambda: hiredis_parser()._connected is True
    ),
    # -- a pool and a client
    Private(
        "_available_connections",
        "ConnectionPool",
        "an instance attribute: a list",
        lambda: pool()._available_connections == [],
    ),
    Private(
        "_in_use_connections",
        "ConnectionPool",
        "an instance attribute: a set",
        lambda: pool()._in_use_connections == set(),
    ),
    Private(
        "_created_connections",
        "redis.ConnectionPool",
        "an instance attribute: a number",
        lambda: redis.ConnectionPool()._created_connections == 0,
    ),
    Private(
        "_single_conn_lock",
        "Redis",
        "an instance attribute: an asyncio.Lock",
        lambda: isinstance(client()._single_conn_lock, asyncio.Lock),
    ),
    # -- a retry
    Private(
        "_backoff",
        "Retry",
        "an instance attribute: a backoff with reset and compute(failures)",
        lambda: (
            isinstance(retry()._backoff, AbstractBackoff) and takes(NoBackoff.compute, "failures")
        ),
    ),
    Private("_retries", "Retry", "an instance attribute: a number", lambda: retry()._retries == 3),
    Private(
        "_supported_errors",
        "Retry",
        "an instance attribute: a tuple of exceptions",
        lambda: retry()._supported_errors == (ConnectionError,),
    ),
]


# Not private by name, and all the same inside: src calls them by these arguments.
INSIDE = [
    Private(
        "connect_check_health",
        "Connection",
        "a coroutine function (check_health, retry_socket_connect)",
        lambda: is_coroutine(
            Connection.connect_check_health, "check_health", "retry_socket_connect"
        ),
    ),
    Private(
        "on_connect_check_health",
        "Connection",
        "a coroutine function (check_health), which is called before the connect callbacks",
        lambda: is_coroutine(Connection.on_connect_check_health, "check_health"),
    ),
    Private(
        "can_read",
        "Connection",
        "a coroutine function; before redis-py 8 can_read_destructive",
        lambda: any(
            is_coroutine(getattr(Connection, name, None))
            for name in ("can_read", "can_read_destructive")
        ),
    ),
    Private(
        "next_health_check",
        "Connection",
        "an instance attribute, in the loop's time",
        lambda: connection().next_health_check <= 0,
    ),
    Private(
        "handle_push_response",
        "the hiredis parser",
        "a coroutine function of the push",
        lambda: is_coroutine(hiredis_parser().handle_push_response),
    ),
    Private(
        "make_connection",
        "ConnectionPool",
        "a function without arguments that makes one and does not connect it",
        lambda: pool().make_connection()._writer is None,
    ),
    Private(
        "parse_response",
        "Redis",
        "a coroutine function (connection, command_name, **options)",
        lambda: is_coroutine(Redis.parse_response, "connection", "command_name", "options"),
    ),
    Private(
        "response_callbacks",
        "Redis",
        "an instance attribute: a mapping of commands to functions",
        lambda: "PING" in client().response_callbacks,
    ),
    Private(
        "connection",
        "Redis",
        "an instance attribute: None, or the connection of a single_connection_client",
        lambda: client().connection is None,
    ),
]
