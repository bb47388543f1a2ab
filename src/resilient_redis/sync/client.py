"""`ResilientRedis`: a client with its breaker."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from redis.client import Redis

from ..flow.calls import Piped
from ..flow.client import ENDS, FacadeBase, GuardedPipeline
from .breaker import RedisCircuitBreaker
from .driving import run

_Self = TypeVar("_Self", bound="Facade")


class _Pipeline(GuardedPipeline):
    """See `GuardedPipeline`."""

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._pipeline, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            # Under WATCH commands are not collected: those, too, may not pass the queue.
            at_once = getattr(self._pipeline, "watching", False) or name == "watch"
            if at_once and name not in ENDS and name != "multi":
                send = Piped(partial(attribute, *args, **kwargs), [(name, args, kwargs)])
                return self._facade.breaker.execute("pipeline", send)
            return self._collected(name, args, kwargs, attribute(*args, **kwargs))

        return call

    def __enter__(self) -> _Pipeline:
        self._pipeline.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._calls.clear()
        self._pipeline.__exit__(*exc)

    def execute(self, raise_on_error: bool = True) -> Any:
        """As redis-py's. Raises `CommandRefused` while open, or while writes are queued."""
        return run(self._facade.breaker.lock, self._executing(raise_on_error))


class Facade(FacadeBase):
    __doc__ = FacadeBase.__doc__

    breaker_class = RedisCircuitBreaker
    client_class = Redis
    pipeline_class = _Pipeline
    breaker: RedisCircuitBreaker

    def __init__(self, breaker: RedisCircuitBreaker | None = None, **options: Any) -> None:
        super().__init__(breaker, **options)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, drain_timeout: float = 0.0) -> int:
        """Closes the breaker, waiting up to `drain_timeout` seconds for its replay, and then the
        client. Returns how many acknowledged writes are left unapplied.
        """
        left = self.breaker.close(drain_timeout)
        close = getattr(self.client, "close", None)
        if close is not None:
            close()
        return left


if TYPE_CHECKING:

    class ResilientRedis(Facade, Redis):  # type: ignore[misc]  # its few own methods do more
        """For type checkers it is a `Redis`."""
else:

    class ResilientRedis(Facade):
        __doc__ = Facade.__doc__
