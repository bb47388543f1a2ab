"""A credential provider may be slow, or fail. It is not the server that is silent or gone then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.credentials import CredentialProvider

if TYPE_CHECKING:
    from .socket import GuardedSocket


class CredentialsFailed(Exception):
    """A provider has failed; `error` is what it raised. It may look like an outage of Redis."""

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Asked(CredentialProvider):
    """Another provider, whose errors are told from redis-py's."""

    def __init__(self, provider: CredentialProvider) -> None:
        self._provider = provider

    def get_credentials(self) -> Any:
        try:
            return self._provider.get_credentials()
        except Exception as error:
            raise CredentialsFailed(error) from error

    async def get_credentials_async(self) -> Any:
        try:
            return await self._provider.get_credentials_async()
        except Exception as error:
            raise CredentialsFailed(error) from error


class _TimeApart(Asked):
    """Says so to `connection` for as long as asking takes."""

    def __init__(self, provider: CredentialProvider, connection: GuardedSocket) -> None:
        super().__init__(provider)
        self._connection = connection

    def get_credentials(self) -> Any:
        with self._asking():
            return super().get_credentials()

    async def get_credentials_async(self) -> Any:
        with self._asking():
            return await super().get_credentials_async()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        connection = self._connection
        connection.asks_elsewhere = True
        try:
            yield
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
