"""One guarded connection: what is on the wire, which replies are awaited, and what it means that
its socket closes. What waits stands in steps; what touches the socket is the flavour's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, ClassVar

from redis.exceptions import ConnectionError

from ..core.command import Command
from ..core.fence import Identity
from ..core.guard import Sent, may_be_cut, writes
from ..core.unit import grouped, units
from ..receipt import Queued
from ..seam.failures import is_outage
from ..seam.packed import Call, Packed, commands_of
from ..seam.pools import endpoint_of
from .breaker import CircuitBreaker
from .credentials import CredentialsFailed, time_apart
from .handshake import introduce
from .link import Template
from .port import SocketPort
from .steps import Steps

# From here on what follows is tied to this very connection, until one of those below.
BINDS = frozenset({"WATCH", b"WATCH"})
FREES = frozenset({"EXEC", "DISCARD", "UNWATCH", "RESET", b"EXEC", b"DISCARD", b"UNWATCH"})
# Their replies are pushes, and come when they like: not awaited one by one.
PUBSUB = frozenset(
    prefix + name for name in ("SUBSCRIBE", "UNSUBSCRIBE") for prefix in ("", "P", "S")
)
SESSION = BINDS | FREES | PUBSUB


class Tie(IntEnum):
    """Whether a connection is under WATCH. ENDS: what is on the wire ends it, if it runs."""

    NOT = 0
    WATCHES = 1
    ENDS = 2


class GuardedSocket(SocketPort):
    """What a guarded connection of either flavour is built on, before a class of redis-py."""

    bound_breaker: ClassVar[CircuitBreaker | None] = None
    breaker_class: ClassVar[type[CircuitBreaker]]  # the flavour's
    retry_class: ClassVar[type[Any]]  # the flavour's
    # Of redis-py's connection.
    db: Any
    encoder: Any
    protocol: Any
    credential_provider: Any

    def __init__(self, *, breaker: Any = None, **kwargs: Any) -> None:
        if breaker is not None and not isinstance(breaker, self.breaker_class):
            wanted = self.breaker_class
            raise TypeError(
                f"breaker must be a {wanted.__module__.rpartition('.')[0]}.{wanted.__name__}, not "
                f"{type(breaker).__name__}; it cannot be given in a URL"
            )
        endpoint = endpoint_of(kwargs)
        self.breaker: Any = breaker or self.bound_breaker or self.breaker_class.shared(endpoint)
        self.breaker.bind(endpoint)
        self.identity: Identity | None = None
        self.in_client = False  # inside redis-py's retry, which puts the receipts in
        self.receipts: dict[int, Queued] = {}  # by place in the batch
        self._pipelined = False
        self._sent: Sequence[Call] | None = None  # on the wire, replies awaited
        self._next = 0  # how many of those have come
        self._replies: list[Any] = []  # those of a pipeline that have come
        self._sent_at = self._cleared_at = 0.0
        self._began: float | None = None  # when connecting for the next command began
        self._era = self._outage = 0
        self._reused = False  # a reply has come on this socket
        self._tied = Tie.NOT  # under WATCH
        self._loss: Sent | None = None  # what is known of the calls on a socket that was closed
        self._introduced = False  # on this socket, by `on_connect_check_health`
        self.asks_elsewhere = False  # a credential provider, in a handshake
        self._dismissed = False  # this socket, by whoever owns the pool
        self._opening: Any = None  # redis-py's own traffic, which passes the guard by
        super().__init__(**kwargs)
        self.template = self.breaker.exclusively(partial(self._known_template, kwargs))

    def _known_template(self, kwargs: dict[str, Any]) -> Template:
        made = self._make_template(kwargs)
        self.breaker.template = self.breaker.template or made
        return made

    def _make_template(self, kwargs: dict[str, Any]) -> Template:
        """How the breaker makes connections of its own like this one."""
        return Template(self._stock_class(), kwargs, self.breaker.probe_timeout)

    @property
    def retry(self) -> Any:
        """redis-py's retry, which never repeats what the guard has decided."""
        return self._retry

    @retry.setter
    def retry(self, inner: Any) -> None:
        self._retry = self.retry_class(inner, self)

    @classmethod
    def bound_to(cls, breaker: Any) -> Any:
        """A subclass whose connections use `breaker`, for where only a class can be given."""
        return type(cls.__name__, (cls,), {"bound_breaker": breaker, "__module__": cls.__module__})

    @classmethod
    def _stock_class(cls) -> type[Any]:
        """redis-py's own class underneath."""
        return next(
            base
            for base in cls.__mro__
            if not issubclass(base, GuardedSocket) and hasattr(base, "connect_check_health")
        )

    # -- opening ----------------------------------------------------------------------------

    def _connecting(self) -> Steps[None]:
        """For the pool, before the command is known: silent where Redis is away."""
        if self._opening is None:
            if self._has_socket():
                yield self._shut
            self._forget()
            self._tied = Tie.NOT
        self._began = self.breaker.clock()  # the command's time is running
        if self.breaker.closed:
            yield from self._open(self.breaker.deadline)

    def _open(self, seconds: float) -> Steps[bool]:
        """Connects within `seconds`. False where Redis is away; what is no outage is raised."""
        breaker = self.breaker
        if self._opening is not None:
            # A pub/sub reader and a subscriber share a connection: one of them opens it.
            yield partial(self._opened_by_another, max(seconds, 0.001))
            return self._opening is None and self._usable()
        era, self._outage, self._dismissed = breaker.era, breaker.outages, False
        error = yield from self._past_the_guard(self._connect_and_introduce, seconds)
        self._reused, self._tied, self._loss = False, Tie.NOT, None
        if error is None and self._dismissed:
            yield self._shut
            return False
        if error is None:
            breaker.template = self.template  # with the password that is right now
            breaker.hurry()
            return True
        yield from self._failed(era, error)
        return False

    def _past_the_guard(
        self, work: Callable[[], Steps[None]], seconds: float
    ) -> Steps[BaseException | None]:
        """See `_begin` and `_ended`."""
        breaker = self.breaker
        breaker.watch(self)
        self._sent_at = self._cleared_at = breaker.clock()
        self._begin(work)
        error: BaseException | None = yield partial(self._ended, seconds)
        return error

    def _failed(self, era: int, error: BaseException) -> Steps[None]:
        """What went past the guard has failed: counted if it is an outage, else raised."""
        yield self._shut
        if isinstance(error, CredentialsFailed):
            raise error.error
        if self._dismissed:
            return  # it says nothing about the server
        if not is_outage(error):
            raise error
        self.breaker.failure(era, error, max(self._sent_at, self._cleared_at))

    def _connect_and_introduce(self) -> Steps[None]:
        self._introduced = False
        yield self._connect_stock
        if not self._introduced and not self._subscribes_again():
            yield from introduce(self)

    def _greeting(self, check_health: bool) -> Steps[None]:
        """redis-py's handshake and ours, before a `PubSub` subscribes: in RESP2 nothing else can be
        asked after that.
        """
        with time_apart(self):
            yield partial(self._greet_stock, check_health)
        yield from introduce(self)
        self._introduced = True

    def _ready(self, seconds: float) -> Steps[bool]:
        """Makes sure of a connection of now. False where Redis is away."""
        if self._usable():
            return True
        if self._tied is Tie.WATCHES:
            # A new connection has no WATCH. redis-py makes a WatchError of this.
            self._tied = Tie.NOT
            raise ConnectionError("the connection was lost under WATCH")
        if self._has_socket() and self._opening is None:
            yield self._shut
        return (yield from self._open(seconds))

    # -- closing ----------------------------------------------------------------------------

    def _retire(self) -> None:
        """The socket is about to be closed, or cut off."""
        self.breaker.connections.discard(self)
        sent = self._sent
        if sent is None or self._loss is not None or not self._has_socket():
            return
        # Of a command, or a transaction, whose last byte has not left, nothing has run.
        alone = len(sent) == 1 or len(grouped(commands_of(sent, self.encoder))) == 1
        self._loss = Sent.NO if alone and self._unsent() else Sent.MAYBE
        may_land_late = writes(self._rest())
        if self._loss is Sent.MAYBE and may_land_late:
            self.breaker.suspect(self.identity)
        self._abort(reset=may_land_late)

    def _rest(self) -> list[Command]:
        """What has not taken effect, as far as the replies say."""
        sent = self._sent
        calls = sent[self._first_unsettled() :] if sent is not None else ()
        return grouped(commands_of(calls, self.encoder))

    def _first_unsettled(self) -> int:
        """The place of the call whose reply comes next; in a transaction, that of its MULTI:
        before EXEC's reply nothing of it is settled.
        """
        sent, following = self._sent, self._next
        if sent is None or not following or sent[-1][0] != "EXEC":
            return following
        for start, last in units(commands_of(sent, self.encoder)):
            if start < following <= last:
                return start
        return following

    def _forget(self) -> None:
        """Nothing is awaited any more."""
        self._sent = self._loss = None
        self._next = 0
        self._replies = []

    def with_receipts(self, result: Any) -> Any:
        """`result` of a client's command or pipeline, receipts in place of their placeholders."""
        receipts, self.receipts = self.receipts, {}
        if not self._pipelined:
            return receipts[0]
        for index, receipt in receipts.items():
            result[index] = receipt
        return result

    # -- what the breaker asks of a connection ----------------------------------------------

    def waiting_since(self) -> float | None:
        """Since when a reply, or the connect, is waited for; None where nothing is, or a command
        that blocks by design.
        """
        if self._opening is None:
            if self._sent is None:
                return None
            if any(command.shape.blocking for command in self._rest()):
                return None
        return max(self._sent_at, self._cleared_at)

    def cleared(self, at: float) -> None:
        """The server answered a PING at `at`: what waits is slow, not lost."""
        self._cleared_at = at

    @property
    def late(self) -> bool:
        """Sent before the last outage, and still without its reply."""
        return self._sent is not None and self._outage != self.breaker.outages

    def outage(self) -> None:
        """The breaker opens. What is safe to send twice need not wait any longer."""
        if self._opening is not None:
            self._interrupt_opening()
        elif self._sent is not None and may_be_cut(self._rest()):
            self._retire()

    def cut(self) -> None:
        """The fence is about to be put up: no more waiting."""
        self._retire()

    # -- on the wire ------------------------------------------------------------------------

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> Packed:
        """As in redis-py; the result still knows its commands."""
        calls = [tuple(call) for call in commands]
        return Packed(self._pack(calls), calls)

    def _track(self, calls: Sequence[Call]) -> None:
        """`calls` are about to go on the wire."""
        breaker = self.breaker
        self._sent, self._next, self._loss = calls, 0, None
        self._era = breaker.era
        self._sent_at = breaker.clock()
        if self._replies:
            self._replies = []

    def _tie(self, calls: Sequence[Call]) -> None:
        if self._tied is Tie.ENDS:
            self._tied = Tie.NOT
        for call in calls:
            if call[0] in BINDS:
                self._tied = Tie.WATCHES
            elif call[0] in FREES:
                self._tied = Tie.ENDS if self._tied is Tie.WATCHES else Tie.NOT

    def _attempt(self, calls: Sequence[Call], check_health: bool, seconds: float) -> Steps[bool]:
        """Puts `calls` on the wire. False where that failed and nothing of them was sent."""
        breaker = self.breaker
        before = (breaker.era, breaker.gate_open)
        if not (yield from self._ready(seconds)):
            return False
        if check_health and self._check_is_due() and not (yield from self._healthy(seconds)):
            return False
        if (breaker.era, breaker.gate_open) != before:
            return False  # it has tripped, or the journal has filled, while we connected
        packed = self._pack(calls)
        self._tie(calls)
        self._track(calls)
        breaker.arm()
        yield partial(self._write, packed)
        return True

    def _healthy(self, seconds: float) -> Steps[bool]:
        """redis-py's health check, once: what is to be done about a failure is decided here."""
        era = self.breaker.era
        error = yield from self._past_the_guard(self._pinging, seconds)
        if error is None:
            return True
        yield from self._failed(era, error)
        return False

    def _pinging(self) -> Steps[None]:
        yield self._ping_stock

    def _logging_in_again(self) -> Steps[None]:
        """redis-py's `re_auth`, as a connection goes back to its pool after a provider has a new
        token. One that is not up logs in with that anyway, when it is.
        """
        try:
            if self._usable():
                era = self.breaker.era
                error = yield from self._past_the_guard(self._logging_in, self.breaker.deadline)
                if error is not None:
                    yield from self._failed(era, error)
        finally:
            self._forget_new_token()

    def _logging_in(self) -> Steps[None]:
        yield self._re_auth_stock


class PlainTCP:
    """redis-py's TCP connection with the guard inside; give it to a pool as `connection_class`.

    `breaker`: the `RedisCircuitBreaker` that its connections share; without one, all connections
    to the same host, port and user share one with default settings. Everything else is redis-py's
    `Connection`'s.
    """

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("path") or any(key.startswith("ssl") for key in kwargs):
            raise ValueError(
                "ResilientConnection speaks plain TCP: write ResilientSSLConnection or "
                "ResilientUnixDomainSocketConnection, or ResilientRedis.from_url(url)"
            )
        super().__init__(**kwargs)
