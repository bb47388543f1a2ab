"""The guard over Sentinel: an endpoint that is a service, and wherever its master is now.

    sentinel.master_for(
        "mymaster", connection_class=ResilientSentinelManagedConnection, breaker=breaker
    )

One breaker is one service, one role (the master, or the replicas) and one user. What redis-py does
is kept: each connection asks its pool for the address as it connects, so a probe, a fence and a
replay go to the master that Sentinel names at that moment. No master named is an outage like any
other (`MasterNotFoundError` is a ConnectionError). The connections to the sentinels themselves are
redis-py's own and are not guarded.

After a failover nothing goes to the old master any more: the first of a breaker's connections that
reaches the new one cuts off those that are not there.

READONLY from a master means that it has been demoted. Sentinel kills a demoted master's clients
(sentinelSendSlaveOf in sentinel.c), so that is seldom seen: where somebody demoted it by hand, or a
sentinel has not heard yet. Such a command did not run. It goes to the master that Sentinel names
now; if that one takes no writes either, writes are held as over a single server, and each further
attempt of the recovery asks Sentinel anew (`_drain` in recovery.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError, TimeoutError

from ..core.guard import Sent, writes
from ..policy import COUNTERS, TAKES, WRITES, Rule
from ..seam.failures import OUTAGE, is_alive, is_outage
from ..seam.packed import commands_of
from ..seam.pools import pool_behind
from .breaker import CircuitBreaker
from .link import LinkBase, Template
from .receiver import GuardedReceiver
from .sentinels import Address, Place, ask
from .steps import Steps, Wait

# A replica takes no writes, ever: none of them may be queued for it.
_TAKES_NO_WRITES = Rule(commands=WRITES | TAKES | COUNTERS, answer="refuse").compiled


@dataclass(eq=False, repr=False)
class Service(Template):
    """How to make connections to what a breaker's service is now."""

    pool: Any  # redis-py's, or what stands for it: it asks the sentinels
    breaker: Any
    place: Place  # shared by all of a breaker
    rotation: Callable[[Any], Any]  # the flavour's `Rotation`

    def ask(self, put: Wait, seconds: float) -> Steps[Address]:
        """See `sentinels.ask`."""
        sentinels = self.pool.sentinel_manager.sentinels
        return ask(self.breaker, sentinels, self.place, put, seconds)

    @property
    def address(self) -> Address | None:
        """Where the master was when it was last reached."""
        return self.place.address

    def locating(self) -> Steps[Any]:
        """Asks Sentinel. Raises where it names nobody."""
        if self.pool.is_master:
            host, port = yield from self.ask(self.pool.get_master_address, self.timeout)
        else:
            found = self.rotation(self.pool)
            try:
                host, port = yield from self.ask(found.following, self.timeout)
            finally:
                found.close()
        return self.make(host=host, port=port)

    def server_of(self, connection: Any) -> str:
        """The address, by which Sentinel tells servers apart."""
        host, port = address_of(connection)
        return f"{host}:{port}"

    def reached(self, address: Address, as_of: float) -> bool:
        """The master is here, as Sentinel was asked at `as_of`: whoever still waits at another
        address waits for nothing. False where a later answer has named another one.
        """
        place = self.place
        if as_of < place.as_of:
            return bool(address == place.address)
        place.as_of = as_of
        if address != place.address:
            place.address = address
            for connection in self._connections():
                if address_of(connection) != address:
                    connection.leave()
        return True

    def asking(self, link: type[LinkBase], seconds: float) -> Steps[None]:
        """Asks where it is waited for, and not Sentinel, which may be away while they are not.

        One replica that does not answer is not the service: only its own connections are cut off,
        and what waited there goes to another one.
        """
        if not self.pool.is_master:
            waiting = {address_of(c) for c in self._connections() if c.waiting_since() is not None}
            breaker = self.breaker
            work = [self._asking_replica(link, address) for address in waiting]
            begun = [breaker.beside(steps, "hang-check") for steps in work]
            asking = [each for each in begun if each is not None]
            try:
                for each in asking:
                    yield partial(breaker.joined, each, seconds)
            finally:
                for each in asking:
                    breaker.stop(each)
            return
        if self.address is None:
            connection = yield from self.locating()
        else:
            host, port = self.address
            connection = self.make(seconds, host=host, port=port)
        yield from link(connection, seconds).asking()

    def _asking_replica(self, link: type[LinkBase], address: Address) -> Steps[None]:
        seconds = self.breaker.deadline / 4  # the question is put when half a deadline is over
        host, port = address
        asking = link(self.make(seconds, host=host, port=port), seconds).asking()
        try:
            yield partial(self.breaker.limited, asking, seconds)
        except (*OUTAGE, ResponseError) as error:
            if not is_alive(error):
                for waiting in self._connections():
                    if address_of(waiting) == address:
                        waiting.leave()

    def _connections(self) -> list[GuardedSentinel]:
        # All of a breaker's connections are to its endpoint.
        return cast("list[GuardedSentinel]", list(self.breaker.connections))


class GuardedSentinel(GuardedReceiver):
    """What both flavours mix into a managed connection of redis-py."""

    #: The replicas in turn, then the master: `following` is a question for `Service.ask`, and
    #: raises `SlaveNotFoundError` behind the last; `close` ends it.
    rotation_class: ClassVar[type[Any]]
    # Of redis-py's connection.
    connection_pool: Any
    host: Any
    port: Any
    socket_connect_timeout: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self.connection_pool.is_master:
            _take_no_writes(self.breaker)
            # Of several replicas one that does not answer leaves time for another.
            quarter = self.breaker.deadline / 4
            given = self.socket_connect_timeout
            self.socket_connect_timeout = quarter if given is None else min(given, quarter)

    def _make_template(self, kwargs: dict[str, Any]) -> Template:
        rest = {name: value for name, value in kwargs.items() if name != "connection_pool"}
        pool, breaker, stock = pool_behind(self.connection_pool), self.breaker, self._stock_class()
        known, rotation = breaker.template, type(self).rotation_class
        place = known.place if isinstance(known, Service) else Place()
        return Service(stock, rest, breaker.probe_timeout, pool, breaker, place, rotation)

    @classmethod
    def _stock_class(cls) -> type[Any]:
        """redis-py's own class for one address."""
        stock = ("redis.connection", "redis.asyncio.connection")
        return next(base for base in cls.__mro__ if base.__module__ in stock)

    def _usable(self) -> bool:
        usable: bool = super()._usable()  # type: ignore[safe-super]  # the flavour's is between
        return usable and self._is_where_it_should_be()

    @property
    def _service(self) -> Service:
        template = self.template
        assert isinstance(template, Service)
        return template

    @abstractmethod
    def _read_rest(self) -> Any:
        """Waits. The next reply on the wire; an error is raised as the server sent it."""

    @abstractmethod
    def _connect_within(self, steps: Steps[None], seconds: float) -> Any:
        """Waits for `steps`, which connect, and no longer than that for the first reply."""

    def _ask(self, put: Wait) -> Steps[Address]:
        """See `Service.ask`."""
        return self._service.ask(put, self.breaker.deadline)

    def _is_where_it_should_be(self) -> bool:
        return not self.connection_pool.is_master or address_of(self) == self._service.address

    def _connect_and_introduce(self) -> Steps[None]:
        pool, breaker = self.connection_pool, self.breaker
        if not pool.is_master:
            yield from self._connect_to_a_replica()
            return
        while True:
            as_of = breaker.clock()
            self.host, self.port = yield from self._ask(pool.get_master_address)
            yield from super()._connect_and_introduce()
            if self._service.reached(address_of(self), as_of):
                return
            yield self._shut
            breaker.connections.add(self)

    def _connect_to_a_replica(self) -> Steps[None]:
        """One that is away costs another one's turn, and is no outage."""
        breaker = self.breaker
        until = breaker.clock() + breaker.deadline
        found = self._service.rotation(self._service.pool)
        try:
            while True:
                self.host, self.port = yield from self._ask(found.following)
                breaker.connections.add(self)
                self._sent_at = breaker.clock()
                try:
                    steps = super()._connect_and_introduce()
                    yield partial(self._connect_within, steps, breaker.deadline / 4)
                    return
                except OUTAGE as error:
                    if not is_outage(error):
                        raise
                    breaker.note_error(error)
                yield self._shut
                if breaker.clock() >= until:
                    raise TimeoutError("no replica answers")
        finally:
            found.close()

    def leave(self) -> None:
        """Nothing will come from this connection's server any more."""
        if self._opening is not None:
            return  # on its way, and to be judged by itself
        if self._subscribes_again():
            self.outage()
        else:
            self._retire()
        self._era = -1  # for the breaker this is no failure
        self._outage = -1  # not usable, and who is about to write to it looks here again

    def _was_rejected(self, error: ResponseError) -> Steps[bool]:
        if not isinstance(error, ReadOnlyError):
            return (yield from super()._was_rejected(error))
        calls = self._sent
        if calls is None or not self.connection_pool.is_master:
            return False  # a write to a replica is the caller's mistake: redis-py's error
        if self._losses:
            # Sentinel has just named this server: it is the master, and takes no writes.
            if len(calls) == 1:
                self._loss = Sent.NO
                yield self._shut
            return (yield from super()._was_rejected(error))
        self._loss = yield from self._what_ran()
        self._era = -1  # it has answered: for the breaker this is no failure
        yield self._shut
        yield from self._lost(ConnectionError("the previous master is a replica now"))
        return True

    def _what_ran(self) -> Steps[Sent]:
        """Reads what is left of a batch of which one write was refused as READONLY."""
        assert self._sent is not None
        left = commands_of(self._sent[self._next + 1 :], self.encoder)
        for command in left:
            try:
                yield self._read_rest
            except ResponseError:
                continue  # it did not run either
            except OUTAGE:
                return Sent.MAYBE
            if command.shape.name != "MULTI" and writes([command]):
                return Sent.MAYBE  # a master again, between the two
        return Sent.NO


def address_of(connection: Any) -> Address:
    """Where a managed connection is, or was last."""
    return connection.host, connection.port


def _take_no_writes(breaker: CircuitBreaker) -> None:
    """For a breaker of replicas: there is nothing to queue, and nothing to be replayed."""
    if _TAKES_NO_WRITES not in breaker._rules:
        breaker._rules = (_TAKES_NO_WRITES, *breaker._rules)
        breaker.has_rules = True
        breaker.rights_asked = breaker.rights_known = True


class PlainTCP:
    """redis-py's `SentinelManagedConnection` with the guard inside: the `connection_class` of
    `Sentinel.master_for`, `Sentinel.slave_for` or a `SentinelConnectionPool`.

    `breaker`: the `RedisCircuitBreaker` of this service, its master or its replicas; without one,
    all connections to the same service, role and user share one with default settings. Over
    replicas reads go to another one, or get their neutral answer when there is none; writes raise
    redis-py's `ReadOnlyError`, and `CommandRefused` when there is none.
    """

    def __init__(self, **kwargs: Any) -> None:
        if any(key.startswith("ssl") for key in kwargs):
            raise ValueError(
                "ResilientSentinelManagedConnection speaks plain TCP: write "
                "connection_class=ResilientSentinelManagedSSLConnection"
            )
        super().__init__(**kwargs)
