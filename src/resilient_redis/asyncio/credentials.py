"""A credential provider may be slow. It is not the server that is silent then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.credentials import CredentialProvider

if TYPE_CHECKING:
    from .wire import GuardedSocket


class _TimeApart(CredentialProvider):
    """Asks `provider`, and says so to `connection` for as long as that takes."""

    def __init__(self, provider: CredentialProvider, connection: GuardedSocket) -> None:
        self._provider = provider
        self._connection = connection

    async def get_credentials_async(self) -> Any:
        connection = self._connection
        connection.asks_elsewhere = True
        try:
            return await self._provider.get_credentials_async()
        finally:
            connection.asks_elsewhere = False
            connection._sent_at = connection.breaker.clock()  # the server's time runs from here


@contextmanager
def time_apart(connection: GuardedSocket) -> Iterator[None]:
    """A handshake in which the time of the connection's provider does not count.

    Only meanwhile: redis-py looks at the provider's class elsewhere.
    """
    provider = connection.credential_provider
    if provider is not None:
        connection.credential_provider = _TimeApart(provider, connection)
    try:
        yield
    finally:
        connection.credential_provider = provider
