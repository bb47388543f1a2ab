"""A connection of our own, for probes, the fence and the replay. The guard does not see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from redis.exceptions import ConnectionError

from ..core.exchange import UNAVAILABLE, Dialogue, Exchange, Replies, ReplyError
from ..core.fence import Identity, identity_of
from ..core.wire import pack
from ..seam.failures import parse_error
from ..seam.replies import MISSING, PUSH, make_reader
from .credentials import Asked
from .steps import Steps

T = TypeVar("T")
L = TypeVar("L", bound="LinkBase")

# redis-py 8 asks managed servers for push messages about maintenance; nobody here would read them.
_MAINTENANCE = ("maint", "orig_", "oss_")


@dataclass(eq=False, repr=False)
class Template:
    """How to make a connection like the guarded ones: redis-py's own class, and its arguments."""

    connection_class: type[Any]
    kwargs: dict[str, Any]
    timeout: float

    def make(self, timeout: float | None = None, **where: Any) -> Any:
        timeout = self.timeout if timeout is None else timeout
        kept = {k: v for k, v in self.kwargs.items() if not k.startswith(_MAINTENANCE)}
        if (provider := kept.get("credential_provider")) is not None:
            kept["credential_provider"] = Asked(provider)
        return self.connection_class(
            **{
                **kept,
                "db": 0,
                "socket_timeout": timeout,
                "socket_connect_timeout": timeout,
                "health_check_interval": 0,
                "retry": None,
                "retry_on_error": [],
                "retry_on_timeout": False,
                "decode_responses": False,
                **where,
            }
        )

    def locating(self) -> Steps[Any]:
        """A connection, not open yet, to the server that is the endpoint now."""
        yield from ()  # known without waiting
        return self.make()

    def server_of(self, connection: Any) -> str:  # noqa: ARG002 - of one that may be several
        """Whose ids the fence knows `connection` by; "" where the endpoint is always one server."""
        return ""

    def asking(self, link: type[LinkBase], seconds: float) -> Steps[None]:
        """Ends if the server answers what waits for it, and raises if it does not in `seconds`."""
        return link(self.make(seconds), seconds).asking()


class LinkBase(ABC):
    """One raw connection after redis-py's own handshake. Of one holder: it needs no lock."""

    def __init__(self, connection: Any, timeout: float, server: str = "") -> None:
        self._connection = connection
        self._timeout = timeout
        self._replies = make_reader()
        self.server = server  # see `Template.server_of`
        self.identity: Identity | None = None
        self.fresh = True  # no replay has run on it

    @abstractmethod
    def _connect(self) -> Any:
        """Waits. redis-py's connect and handshake."""

    @abstractmethod
    def _connect_bare(self) -> Any:
        """Waits. Without a handshake."""

    @abstractmethod
    def exchange(self, ask: Exchange) -> Any:
        """Waits. Sends and receives; returns `Replies`. Raises redis-py's errors where the
        connection fails.
        """

    @abstractmethod
    def abort(self) -> None:
        """Closes at once: nothing that was not sent may be sent after this."""

    def _collect(self, replies: Replies, wanted: int) -> bool:
        """Adds what has been read to `replies`. Whether those are all that are wanted."""
        while (missing := wanted - len(replies)) > 0:
            # In one go: they come by the thousand.
            found = list(islice(iter(self._replies.gets, MISSING), missing))
            if not found:
                return False
            replies += [reply for reply in found if type(reply) is not PUSH]  # answers no command
        return True

    @classmethod
    def opened(cls: type[L], template: Template, clock: Callable[[], float]) -> Steps[L]:
        """A link to the server that is the endpoint now."""
        connection = yield from template.locating()
        link = cls(connection, template.timeout, template.server_of(connection))
        yield from link.opening(clock)
        return link

    def opening(self, clock: Callable[[], float]) -> Steps[None]:
        """Connects, authenticates, has PING answered, and learns how the server knows this link.

        Each step may take the template's timeout: on a long way a handshake of five round trips
        takes longer than that, and proves all the while that the server lives.
        """
        try:
            yield self._connect
            asks = pack((b"PING",)) + pack((b"CLIENT", b"INFO"))
            replies: Replies = yield partial(self.exchange, Exchange(asks, 2))
            pong, info = replies
            # Any other error (NOPERM, MISCONF: PING is refused like a write) is an answer.
            # NOAUTH: where redis-py asks nothing as it connects, nobody has been told before.
            if isinstance(pong, ReplyError) and pong.code in (*UNAVAILABLE, "NOAUTH"):
                raise parse_error(self._connection, pong.message)
        except BaseException:
            self.abort()
            raise
        if isinstance(info, (bytes, str)):
            self.identity = identity_of(info, clock(), self.server)

    def asking(self) -> Steps[None]:
        """Ends as soon as the server says anything but that it is unavailable.

        Without a handshake: PING before AUTH is answered, with an error, by a server that lives.
        """
        try:
            yield self._connect_bare
            replies: Replies = yield partial(self.exchange, Exchange(pack((b"PING",)), 1))
            if isinstance(replies[0], ReplyError) and replies[0].code in UNAVAILABLE:
                raise ConnectionError(replies[0].message)
        finally:
            self.abort()

    def driving(self, dialogue: Dialogue[T]) -> Steps[T]:
        """Does the I/O that `dialogue` asks for, and returns what it concludes."""
        try:
            ask = next(dialogue)
            while True:
                ask = dialogue.send((yield partial(self.exchange, ask)))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            dialogue.close()
