"""What both flavours of `ResilientRedis` do: a client with its breaker."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..errors import CommandRefused
from ..seam.methods import is_command
from ..seam.pools import given_breaker, pool_of
from .breaker import CircuitBreaker
from .calls import Piped
from .steps import Steps

_BREAKER_OPTIONS = frozenset(inspect.signature(CircuitBreaker).parameters) - {"redis_client"}
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

_Self = TypeVar("_Self", bound="FacadeBase")


class FacadeBase:
    """A client of redis-py that survives an outage of Redis.

    Over a client of redis-py, whose connections its breaker guards, all attributes pass straight
    through: commands, pipelines, pub/sub, locks. Over any other object its commands go through
    `RedisCircuitBreaker.execute`.

    `breaker`: one that was made with a client. Without it, one is made of the options of
    `RedisCircuitBreaker` among `options`, and the client of the others, which are those of
    redis-py's `Redis`. `client` and `breaker` are the parts; `aclose` or `close` closes both.
    """

    breaker_class: ClassVar[type[CircuitBreaker]]
    client_class: ClassVar[type[Any]]
    pipeline_class: ClassVar[type[GuardedPipeline]]
    breaker: Any

    def __init__(self, breaker: Any = None, **options: Any) -> None:
        if breaker is not None and not isinstance(breaker, self.breaker_class):
            raise TypeError("write ResilientRedis(RedisCircuitBreaker(client))")
        if breaker is not None and breaker.client is not None:
            if options:
                raise TypeError("a breaker that has a client takes no more options")
            self.breaker = breaker
        else:
            self.breaker, rest = self._breaker_from(breaker, options)
            self.breaker.take_client(self.client_class(**rest))
        self.client = self.breaker.client

    @classmethod
    def from_url(cls: type[_Self], url: str, **options: Any) -> _Self:
        """As `Redis.from_url`, for every scheme; takes the options of `RedisCircuitBreaker`, too,
        or `breaker=` itself.
        """
        breaker, rest = cls._breaker_from(options.pop("breaker", None), options)
        if "connection_class" in rest:
            raise TypeError("ResilientRedis chooses the connection class by the URL's scheme")
        breaker.take_client(cls.client_class.from_url(url, **rest))
        return cls(breaker)

    @classmethod
    def from_pool(cls: type[_Self], connection_pool: Any, **options: Any) -> _Self:
        """As `Redis.from_pool`; also takes the options of `RedisCircuitBreaker`, or `breaker=`, or
        the one that the pool was given (`master_for(…, redis_class=ResilientRedis, breaker=…)`).
        """
        given = options.pop("breaker", None) or given_breaker(connection_pool)
        breaker, rest = cls._breaker_from(given, options)
        breaker.take_client(cls.client_class.from_pool(connection_pool, **rest))
        return cls(breaker)

    @classmethod
    def _breaker_from(cls, breaker: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The breaker, made of its own options where none is given, and the options that are
        left.
        """
        own = {name: options[name] for name in options if name in _BREAKER_OPTIONS}
        rest = {name: options[name] for name in options if name not in _BREAKER_OPTIONS}
        if breaker is None:
            return cls.breaker_class(**own), rest
        if own:
            raise TypeError(f"{', '.join(sorted(own))}: the breaker is given already")
        if breaker.client is not None:
            raise TypeError("this breaker has a client: ResilientRedis(breaker)")
        return breaker, rest

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
                return partial(self.pipeline_class, self)
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


# Of a pipeline that is given up: always let through.
ENDS = frozenset({"aclose", "close", "discard", "reset", "unwatch"})


class GuardedPipeline:
    """A pipeline over any object: it is sent as a whole, or refused."""

    def __init__(self, facade: FacadeBase, *args: Any, **kwargs: Any) -> None:
        self._facade = facade
        self._pipeline = facade.client.pipeline(*args, **kwargs)
        self._calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._pipeline)

    def _collected(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        """The answer to a call that had `result`."""
        if name in ENDS and name != "unwatch":
            self._calls.clear()
        if result is not self._pipeline:
            return result
        self._calls.append((name, args, kwargs))
        return self

    def _executing(self, raise_on_error: bool) -> Steps[Any]:
        """See `execute`."""
        calls, self._calls = self._calls, []
        execute = Piped(partial(self._pipeline.execute, raise_on_error), calls)
        try:
            return (yield partial(self._facade.breaker.execute, "pipeline", execute))
        except CommandRefused:
            # As after any other error of redis-py's, nothing of it is left.
            if (reset := getattr(self._pipeline, "reset", None)) is not None:
                yield reset
            raise
