"""`ResilientRedis`: a client with its breaker."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from redis.asyncio import Redis

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
            result = attribute(*args, **kwargs)
            if inspect.iscoroutine(result) and name not in ENDS:
                return self._at_once(Piped(lambda: result, [(name, args, kwargs)]), result)
            return self._collected(name, args, kwargs, result)

        return call

    async def _at_once(self, send: Piped, command: Coroutine[Any, Any, Any]) -> Any:
        """Under WATCH commands are not collected: this one, too, may not pass the queue."""
        try:
            return await self._facade.breaker.execute("pipeline", send)
        finally:
            command.close()

    def __await__(self) -> Any:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> _Pipeline:
        await self._pipeline.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._calls.clear()
        await self._pipeline.__aexit__(*exc)

    async def execute(self, raise_on_error: bool = True) -> Any:
        """As redis-py's. Raises `CommandRefused` while open, or while writes are queued."""
        return await run(self._executing(raise_on_error))


class Facade(FacadeBase):
    __doc__ = FacadeBase.__doc__

    breaker_class = RedisCircuitBreaker
    client_class = Redis
    pipeline_class = _Pipeline
    breaker: RedisCircuitBreaker

    def __init__(self, breaker: RedisCircuitBreaker | None = None, **options: Any) -> None:
        super().__init__(breaker, **options)

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


if TYPE_CHECKING:

    class ResilientRedis(Facade, Redis):  # type: ignore[misc]  # its few own methods do more
        """For type checkers it is a `Redis`."""
else:

    class ResilientRedis(Facade):
        __doc__ = Facade.__doc__
