"""`ResilientRedis`: a client with its breaker."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool

from ..errors import CommandRefused
from ..seam.methods import is_command
from ..seam.pools import pool_of
from .breaker import RedisCircuitBreaker

_BREAKER_OPTIONS = frozenset(inspect.signature(RedisCircuitBreaker).parameters) - {"redis_client"}
# What a class derived from redis-py's makes of its own commands: bound to the façade, those are
# guarded.
_COMPOSED = frozenset(
    {
        "bf",
        "bitfield",
        "cf",
        "cms",
        "ft",
        "hscan_iter",
        "json",
        "lock",
        "register_script",
        "scan_iter",
        "sscan_iter",
        "tdigest",
        "topk",
        "transaction",
        "ts",
        "vset",
        "zscan_iter",
    }
)


_Self = TypeVar("_Self", bound="Facade")


class Facade:
    """A `redis.asyncio.Redis` that survives an outage of Redis.

    Over a client of redis-py, whose connections its breaker guards, all attributes pass straight
    through: commands, pipelines, pub/sub, locks. Over any other object its commands go through
    `RedisCircuitBreaker.execute`.

    `breaker`: one that was made with a client. Without it, one is made of the options of
    `RedisCircuitBreaker` among `options`, and the client of the others, which are
    `redis.asyncio.Redis`'s. `client` and `breaker` are the parts; `aclose` closes both.
    """

    def __init__(self, breaker: RedisCircuitBreaker | None = None, **options: Any) -> None:
        if breaker is not None and not isinstance(breaker, RedisCircuitBreaker):
            raise TypeError("write ResilientRedis(RedisCircuitBreaker(client))")
        if breaker is not None and breaker.client is not None:
            if options:
                raise TypeError("a breaker that has a client takes no more options")
            self.breaker = breaker
        else:
            self.breaker, rest = _breaker_from(breaker, options)
            self.breaker.take_client(Redis(**rest))
        self.client = self.breaker.client

    @classmethod
    def from_url(cls: type[_Self], url: str, **options: Any) -> _Self:
        """As `Redis.from_url`, for every scheme; takes the options of `RedisCircuitBreaker`, too,
        or `breaker=` itself.
        """
        breaker, rest = _breaker_from(options.pop("breaker", None), options)
        if "connection_class" in rest:
            raise TypeError("ResilientRedis chooses the connection class by the URL's scheme")
        breaker.take_client(Redis.from_url(url, **rest))
        return cls(breaker)

    @classmethod
    def from_pool(cls: type[_Self], connection_pool: ConnectionPool, **options: Any) -> _Self:
        """As `Redis.from_pool`; also takes the options of `RedisCircuitBreaker`, or `breaker=`."""
        breaker, rest = _breaker_from(options.pop("breaker", None), options)
        breaker.take_client(Redis.from_pool(connection_pool, **rest))
        return cls(breaker)

    if not TYPE_CHECKING:  # there its attributes are those of a `Redis`

        def __getattr__(self, name: str) -> Any:
            if name in ("breaker", "client"):  # not there yet: __init__ has raised
                raise AttributeError(name)
            client = self.client
            if not self.breaker.guards_object:
                attribute = getattr(client, name)
                if is_command(name):
                    self.__dict__[name] = attribute  # the next time it is found without this
                return attribute
            if name == "pipeline":
                return partial(_GuardedPipeline, self)
            if pool_of(client) is not None and name in _COMPOSED:
                return getattr(type(client), name).__get__(self)
            attribute = getattr(client, name)
            if not callable(attribute) or not is_command(name):
                return attribute
            return partial(self.breaker.execute, name, attribute)

    @property  # type: ignore[misc]  # for `isinstance`, as mocks do
    def __class__(self) -> Any:
        return type(self.client)

    def __repr__(self) -> str:
        # Not the client's own: redis-py 6 shows the password there.
        return f"<ResilientRedis over {type(self.client).__name__} {self.breaker!r}>"

    def __await__(self) -> Any:
        return self.initialize().__await__()

    async def initialize(self: _Self) -> _Self:
        """As redis-py's."""
        initialize = getattr(self.client, "initialize", None)
        if initialize is not None:
            await initialize()
        return self

    async def __aenter__(self: _Self) -> _Self:
        return await self.initialize()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def close(self) -> int:
        """`aclose`, under redis-py's older name."""
        return await self.aclose()

    async def aclose(self, drain_timeout: float = 0.0) -> int:
        """Closes the breaker, waiting up to `drain_timeout` seconds for its replay, and then the
        client. Returns how many acknowledged writes are left unapplied.
        """
        left = await self.breaker.aclose(drain_timeout)
        close = getattr(self.client, "aclose", None) or getattr(self.client, "close", None)
        if close is not None:
            closing = close()
            if inspect.isawaitable(closing):
                await closing
        return left


# Of a pipeline that is given up: always let through.
_ENDS = frozenset({"aclose", "close", "discard", "reset", "unwatch"})


class _GuardedPipeline:
    """A pipeline over any object: it is sent as a whole, or refused."""

    def __init__(self, facade: Facade, *args: Any, **kwargs: Any) -> None:
        self._facade = facade
        self._pipeline = facade.client.pipeline(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._pipeline, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            result = attribute(*args, **kwargs)
            if inspect.iscoroutine(result) and name not in _ENDS:
                return self._at_once(result)
            return self if result is self._pipeline else result

        return call

    async def _at_once(self, command: Coroutine[Any, Any, Any]) -> Any:
        """Under WATCH commands are not collected: this one, too, may not pass the queue."""
        try:
            return await self._facade.breaker.execute("pipeline", lambda: command)
        finally:
            command.close()

    def __await__(self) -> Any:
        return self.__aenter__().__await__()

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._pipeline)

    async def __aenter__(self) -> _GuardedPipeline:
        await self._pipeline.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._pipeline.__aexit__(*exc)

    async def execute(self, raise_on_error: bool = True) -> Any:
        """As redis-py's. Raises `CommandRefused` while open, or while writes are queued."""
        breaker: RedisCircuitBreaker = self._facade.breaker
        execute = partial(self._pipeline.execute, raise_on_error)
        try:
            return await breaker.execute("pipeline", execute)
        except CommandRefused:
            # As after any other error of redis-py's, nothing of it is left.
            if (reset := getattr(self._pipeline, "reset", None)) is not None:
                await reset()
            raise


def _breaker_from(
    breaker: RedisCircuitBreaker | None, options: dict[str, Any]
) -> tuple[RedisCircuitBreaker, dict[str, Any]]:
    """The breaker, made of its own options where none is given, and the options that are left."""
    own = {name: options[name] for name in options if name in _BREAKER_OPTIONS}
    rest = {name: options[name] for name in options if name not in _BREAKER_OPTIONS}
    if breaker is None:
        return RedisCircuitBreaker(**own), rest
    if own:
        raise TypeError(f"{', '.join(sorted(own))}: the breaker is given already")
    if breaker.client is not None:
        raise TypeError("this breaker has a client: ResilientRedis(breaker)")
    return breaker, rest


if TYPE_CHECKING:

    class ResilientRedis(Facade, Redis):  # type: ignore[misc]  # its few own methods do more
        """For type checkers it is a `Redis`."""
else:

    class ResilientRedis(Facade):
        __doc__ = Facade.__doc__
