"""The same of redis-py's synchronous side; see `privates.py`."""

from __future__ import annotations

import inspect
import threading
from queue import LifoQueue
from typing import Any, cast
from unittest.mock import Mock

from redis import BlockingConnectionPool, Connection, ConnectionPool, Redis
from redis import __version__ as redis_version
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import NoBackoff
from redis.connection import CacheProxyConnection
from redis.exceptions import ConnectionError
from redis.retry import Retry

from .privates import Private, a_class, imported, is_coroutine, parameters, takes


def connection() -> Any:
    return cast(Any, Connection)(socket_timeout=7, socket_connect_timeout=3)


def pool() -> Any:
    return ConnectionPool()


def blocking_pool() -> Any:
    return cast(Any, BlockingConnectionPool)(max_connections=1)


def client() -> Any:
    return Redis()


def parser(name: str) -> Any:
    """redis-py's own, on a socket that is never used."""
    host = Mock(socket_timeout=7, encoder=client().get_encoder())
    made = imported(name)(socket_read_size=65536)
    made.on_connect(host)
    return made


def hiredis_parser() -> Any:
    return parser("redis._parsers.hiredis._HiredisParser")


def cache_proxy() -> Any:
    stock = connection()
    stock.handshake_metadata = {b"server": b"redis", b"version": b"7.4.0"}
    return cast(Any, CacheProxyConnection)(stock, Mock(), threading.RLock())


def is_function(function: Any, *names: str) -> bool:
    return not is_coroutine(function) and takes(function, *names)


class _Subscriber:
    def on_connect(self, _: Any) -> None: ...


def keeps_references() -> bool:
    made, subscriber = connection(), _Subscriber()
    made.register_connect_callback(subscriber.on_connect)
    return [kept() for kept in made._connect_callbacks] == [subscriber.on_connect]


def registers_its_cache() -> bool:
    """Whether the proxy's callback leads back to it."""
    made = cache_proxy()
    (kept,) = made._conn._connect_callbacks
    return kept().__self__ is made


def remembers_its_timeout(name: str) -> bool:
    made = parser(name)
    return made._buffer.socket_timeout == 7 and not hasattr(made, "_socket_timeout")


PRIVATE_SYNC = [
    Private(
        "_is_owned",
        "threading.RLock",
        "a function: whether the caller holds it (as `threading.Condition` asks)",
        lambda: cast(Any, threading.RLock())._is_owned() is False,
    ),
    # -- what is imported
    a_class("redis._parsers._RESP2Parser", "on_connect", "can_read", "read_response"),
    a_class("redis._parsers._RESP3Parser", "on_connect", "can_read", "read_response"),
    a_class(
        "redis._parsers.hiredis._HiredisParser",
        *("on_connect", "can_read", "read_response", "read_from_socket", "handle_push_response"),
    ),
    # -- a connection
    Private(
        "_sock",
        "Connection, and what a parser is told of its connection",
        "an instance attribute: None where it is not connected, or a socket",
        lambda: connection()._sock is None and hiredis_parser()._sock is not None,
    ),
    Private(
        "_parser",
        "Connection",
        "an instance attribute: the parser, with parse_error, on_connect, can_read, read_response",
        lambda: (
            isinstance(connection()._parser.parse_error("ERR x"), Exception)
            and takes(connection()._parser.on_connect, "connection")
            and is_function(connection()._parser.can_read, "timeout")
            and is_function(connection()._parser.read_response, "disable_decoding")
        ),
    ),
    Private(
        "_command_packer",
        "Connection",
        "an instance attribute: pack(command, arguments) makes a list of bytes",
        lambda: b"".join(connection()._command_packer.pack("GET", "k")).startswith(b"*2\r\n"),
    ),
    Private(
        "_connect_callbacks",
        "Connection",
        "an instance attribute: references to what is called after each connect",
        keeps_references,
    ),
    Private(
        "_send_ping",
        "Connection",
        "a function without arguments: PING and its reply",
        lambda: is_function(connection()._send_ping) and not parameters(connection()._send_ping),
    ),
    Private(
        "_re_auth_token",
        "Connection",
        "an instance attribute: None, or the token that re_auth logs in with",
        lambda: connection()._re_auth_token is None and is_function(Connection.re_auth),
    ),
    # -- its parser
    Private(
        "_socket_timeout",
        "the hiredis parser (a connection's is ours: a property of ours reads it)",
        "an instance attribute: what the socket's timeout is put back to",
        lambda: hiredis_parser()._socket_timeout == 7,
    ),
    Private(
        "_socket_connect_timeout",
        "nobody: it is ours, under a property of ours, and redis-py 8 has the same",
        "what socket_connect_timeout is given",
        lambda: connection().socket_connect_timeout == 3 and connection().socket_timeout == 7,
    ),
    Private(
        "_buffer",
        "the two parsers without hiredis",
        "an instance attribute: a buffer with socket_timeout",
        lambda: (
            remembers_its_timeout("redis._parsers._RESP2Parser")
            and remembers_its_timeout("redis._parsers._RESP3Parser")
        ),
    ),
    Private(
        "_reader",
        "the hiredis parser",
        "an instance attribute: hiredis's reader, which is asked with gets",
        lambda: callable(hiredis_parser()._reader.gets),
    ),
    Private(
        "_next_response",
        "the hiredis parser before redis-py 8",
        "an instance attribute: NOT_ENOUGH_DATA, or what can_read has taken out of the reader",
        lambda: (
            getattr(hiredis_parser(), "_next_response", NOT_ENOUGH_DATA) is NOT_ENOUGH_DATA
            and hasattr(hiredis_parser(), "_next_response") is (int(redis_version[0]) < 8)
        ),
    ),
    # -- the proxy before a connection whose replies are cached
    Private(
        "_cache",
        "CacheProxyConnection",
        "an instance attribute: the cache; its connect callback leads to the proxy",
        lambda: cache_proxy()._cache is not None and registers_its_cache(),
    ),
    Private(
        "_conn",
        "CacheProxyConnection",
        "an instance attribute: the connection that it is before",
        lambda: isinstance(cache_proxy()._conn, Connection),
    ),
    Private(
        "_cache_lock",
        "CacheProxyConnection",
        "an instance attribute: a context manager, which is put out of its office",
        lambda: cache_proxy()._cache_lock.__enter__ is not None,
    ),
    Private(
        "_pool_lock",
        "CacheProxyConnection",
        "an instance attribute: the pool's lock, likewise",
        lambda: cache_proxy()._pool_lock.__enter__ is not None,
    ),
    # -- a pool
    Private(
        "_available_connections",
        "ConnectionPool",
        "an instance attribute: a list",
        lambda: pool()._available_connections == [],
    ),
    Private(
        "_in_use_connections",
        "ConnectionPool, and not the one that blocks",
        "an instance attribute: a set",
        lambda: (
            pool()._in_use_connections == set()
            and not hasattr(blocking_pool(), "_in_use_connections")
        ),
    ),
    Private(
        "_connections",
        "BlockingConnectionPool",
        "an instance attribute: a list of all; those that are idle are in `pool`, with None",
        lambda: (
            blocking_pool()._connections == []
            and isinstance(blocking_pool().pool, LifoQueue)
            and list(blocking_pool().pool.queue) == [None]
        ),
    ),
    # -- a retry
    Private(
        "_retries",
        "Retry",
        "an instance attribute: a number",
        lambda: cast(Any, Retry(NoBackoff(), 3, (ConnectionError,)))._retries == 3,
    ),
    Private(
        "_supported_errors",
        "Retry",
        "an instance attribute: a tuple of exceptions",
        lambda: (
            cast(Any, Retry(NoBackoff(), 3, (ConnectionError,)))._supported_errors
            == (ConnectionError,)
        ),
    ),
]


# Not private by name, and all the same inside: src calls them by these arguments.
INSIDE_SYNC = [
    Private(
        "connect_check_health",
        "Connection",
        "a function (check_health, retry_socket_connect)",
        lambda: is_function(
            Connection.connect_check_health, "check_health", "retry_socket_connect"
        ),
    ),
    Private(
        "on_connect_check_health",
        "Connection",
        "a function (check_health), which is called before the connect callbacks",
        lambda: is_function(Connection.on_connect_check_health, "check_health"),
    ),
    Private(
        "read_from_socket",
        "the hiredis parser",
        "a function that needs no arguments and raises what the socket does",
        lambda: all(
            parameter.default is not parameter.empty
            for parameter in inspect.signature(
                hiredis_parser().read_from_socket
            ).parameters.values()
        ),
    ),
    Private(
        "handle_push_response",
        "the hiredis parser",
        "a function of the push",
        lambda: is_function(hiredis_parser().handle_push_response),
    ),
    Private(
        "send_packed_command",
        "Connection",
        "a function (command, check_health)",
        lambda: is_function(Connection.send_packed_command, "command", "check_health"),
    ),
    Private(
        "read_response",
        "Connection",
        "a function (disable_decoding, disconnect_on_error, push_request)",
        lambda: is_function(
            Connection.read_response, "disable_decoding", "disconnect_on_error", "push_request"
        ),
    ),
    Private(
        "single_connection_lock",
        "Redis",
        "an instance attribute: a lock",
        lambda: client().single_connection_lock.acquire(blocking=False),
    ),
    Private(
        "make_connection",
        "ConnectionPool",
        "a function without arguments that makes one and does not connect it",
        lambda: pool().make_connection()._sock is None,
    ),
    Private(
        "parse_response",
        "Redis",
        "a function (connection, command_name, **options)",
        lambda: is_function(Redis.parse_response, "connection", "command_name", "options"),
    ),
]
