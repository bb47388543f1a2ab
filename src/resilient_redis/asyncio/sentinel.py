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

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.sentinel import (
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError

from ..core.guard import Sent, writes
from ..policy import COUNTERS, TAKES, WRITES, Rule
from ..seam.failures import OUTAGE, is_alive, is_outage
from ..seam.packed import commands_of
from ..seam.pools import pool_behind
from .breaker import RedisCircuitBreaker
from .connection import GuardedConnection
from .ending import end
from .link import Template, answers

Address = tuple[str, int]

# A replica takes no writes, ever: none of them may be queued for it.
_TAKES_NO_WRITES = Rule(commands=WRITES | TAKES | COUNTERS, answer="refuse").compiled


@dataclass(eq=False, repr=False)
class Service(Template):
    """How to make connections to what a breaker's service is now.

    `address`: where the master was when it was last reached.
    """

    pool: SentinelConnectionPool
    breaker: RedisCircuitBreaker
    address: Address | None = None

    async def locate(self) -> AbstractConnection:
        """Asks Sentinel. Raises where it names nobody."""
        patience = self.breaker.deadline / 4
        if self.pool.is_master:
            host, port = await ask(self.pool, self.pool.get_master_address, patience)
        else:
            found = Rotation(self.pool)
            host, port = await ask(self.pool, found.following, patience)
            await found.aclose()
        return self.make(host=host, port=port)

    def server_of(self, connection: AbstractConnection) -> str:
        """The address, by which Sentinel tells servers apart."""
        host, port = _address_of(connection)
        return f"{host}:{port}"

    def reached(self, address: Address) -> None:
        """The master is here. Whoever still waits at another address waits for nothing."""
        if address == self.address:
            return
        self.address = address
        for connection in self._connections():
            if _address_of(connection) != address:
                connection.leave()

    async def answers(self) -> None:
        """Asks where it is waited for, and not Sentinel, which may be away while they are not.

        One replica that does not answer is not the service: only its own connections are cut off,
        and what waited there goes to another one.
        """
        if not self.pool.is_master:
            waiting = {_address_of(c) for c in self._connections() if c.waiting_since() is not None}
            await asyncio.gather(*(self._ask_replica(host, port) for host, port in waiting))
        elif self.address is None:
            await answers(await self.locate(), self.timeout)
        else:
            host, port = self.address
            await answers(self.make(host=host, port=port), self.timeout)

    async def _ask_replica(self, host: str, port: int) -> None:
        connection = self.make(host=host, port=port)
        try:
            # The question is put when half a deadline is over.
            await asyncio.wait_for(answers(connection, self.timeout), self.breaker.deadline / 4)
        except (*OUTAGE, ResponseError) as error:
            if not is_alive(error):
                for waiting in self._connections():
                    if _address_of(waiting) == (host, port):
                        waiting.leave()

    def _connections(self) -> list[GuardedSentinel]:
        # All of a breaker's connections are to its endpoint.
        return cast("list[GuardedSentinel]", list(self.breaker.connections))


async def ask(
    pool: SentinelConnectionPool, question: Callable[[], Awaitable[Address]], patience: float
) -> Address:
    """The answer of the first sentinel that answers.

    redis-py asks one after the other, and tries one that is away eleven times before the next (4 s
    where its port is closed): longer than any caller waits here, and as it puts the one that has
    answered first only at the end, the next caller would fare no better. So after `patience`
    seconds all are asked whether they are there, and the first that is comes first.
    """
    asking = asyncio.ensure_future(question())
    try:
        await asyncio.wait({asking}, timeout=patience)
        if not asking.done() and await _comes_first(pool.sentinel_manager.sentinels):
            await end(asking)
            asking = asyncio.ensure_future(question())
        return await asking
    finally:
        await end(asking)


async def _comes_first(sentinels: list[Any]) -> bool:
    """Moves the sentinel that answers a PING first to the front. False where none does."""
    asked = {asyncio.ensure_future(each.execute_command("PING")): each for each in sentinels}
    waiting = set(asked)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None or is_alive(error):
                    sentinels.remove(asked[task])
                    sentinels.insert(0, asked[task])
                    return True
        return False
    finally:
        for task in asked:
            await end(task)


class Rotation:
    """The replicas of a pool in turn, then the master; `SlaveNotFoundError` behind the last."""

    def __init__(self, pool: SentinelConnectionPool) -> None:
        self._pool = pool
        self._found: AsyncGenerator[Address, None] | None = None

    async def following(self) -> Address:
        if self._found is None:
            self._found = cast("AsyncGenerator[Address, None]", self._pool.rotate_slaves())
        try:
            return await anext(self._found)
        except asyncio.CancelledError:
            self._found = None  # a cancelled generator has ended
            raise

    async def aclose(self) -> None:
        if self._found is not None:
            await self._found.aclose()


class _StockReplies(AbstractConnection):
    """Above redis-py's managed connections, which make a ConnectionError of a READONLY: whether the
    command ran is no longer to be told from that.
    """

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        return await AbstractConnection.read_response(self, *args, **kwargs)


class GuardedSentinel(GuardedConnection, _StockReplies):
    """Mixed into a managed connection of redis-py; see `ResilientSentinelManagedConnection`."""

    connection_pool: SentinelConnectionPool

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self.connection_pool.is_master:
            _take_no_writes(self.breaker)
            # Of several replicas one that does not answer leaves time for another.
            quarter = self.breaker.deadline / 4
            given = self.socket_connect_timeout
            self.socket_connect_timeout = quarter if given is None else min(given, quarter)

    def _template(self, kwargs: dict[str, Any]) -> Template:
        stock = SSLConnection if isinstance(self, SSLConnection) else Connection
        rest = {name: value for name, value in kwargs.items() if name != "connection_pool"}
        pool, breaker = pool_behind(kwargs["connection_pool"]), self.breaker
        return Service(stock, rest, breaker.probe_timeout, pool, breaker)

    @property
    def _service(self) -> Service:
        template = self.breaker.template
        assert isinstance(template, Service)
        return template

    def _usable(self) -> bool:
        """As any connection, and at the address that is the master's."""
        if not super()._usable():
            return False
        return not self.connection_pool.is_master or _address_of(self) == self._service.address

    async def _connect_and_introduce(self) -> None:
        pool, patience = self.connection_pool, self.breaker.deadline / 4
        if pool.is_master:
            self.host, self.port = await ask(pool, pool.get_master_address, patience)
            await super()._connect_and_introduce()
            self._service.reached(_address_of(self))
            return
        async with aclosing(Rotation(pool)) as found:
            self.host, self.port = await ask(pool, found.following, patience)
            while not await self._connect_to_replica():
                self.host, self.port = await found.following()

    async def _connect_to_replica(self) -> bool:
        """False where this replica is away. It is another one's turn then, and no outage."""
        breaker = self.breaker
        breaker.connections.add(self)
        began = self._sent_at = breaker.clock()
        silence = partial(self._give_up_replica, began)
        timer = asyncio.get_running_loop().call_later(breaker.deadline / 4, silence)
        try:
            await super()._connect_and_introduce()
        except OUTAGE as error:
            if not is_outage(error):
                raise
            breaker.note_error(error)
            await self.disconnect(nowait=True)
            return False
        finally:
            timer.cancel()
        return True

    def _give_up_replica(self, began: float) -> None:
        if self._sent_at == began and self._writer is not None:  # not one reply of the handshake
            self._writer.transport.abort()

    def leave(self) -> None:
        """Nothing will come from this connection's server any more."""
        if self._opening is not None:
            return  # on its way, and to be judged by itself
        if self._connect_callbacks and self._subscribes:
            self.outage()
        else:
            self._retire()

    async def _was_rejected(self, error: ResponseError) -> bool:
        if not isinstance(error, ReadOnlyError):
            return await super()._was_rejected(error)
        calls = self._sent
        if calls is None or not self.connection_pool.is_master:
            return False  # a write to a replica is the caller's mistake: redis-py's error
        if self._losses:
            # Sentinel has just named this server: it is the master, and takes no writes.
            if len(calls) == 1:
                self._loss = Sent.NO
                await self.disconnect(nowait=True)
            return await super()._was_rejected(error)
        self._loss = await self._what_ran()
        self._era = -1  # it has answered: for the breaker this is no failure
        await self.disconnect(nowait=True)
        await self._lost(ConnectionError("the previous master is a replica now"))
        return True

    async def _what_ran(self) -> Sent:
        """Reads what is left of a batch of which one write was refused as READONLY."""
        assert self._sent is not None
        left = commands_of(self._sent[self._next + 1 :], self.encoder)
        for command in left:
            try:
                await _StockReplies.read_response(self, disable_decoding=True)
            except ResponseError:
                continue  # it did not run either
            except OUTAGE:
                return Sent.MAYBE
            if command.shape.name != "MULTI" and writes([command]):
                return Sent.MAYBE  # a master again, between the two
        return Sent.NO


def _address_of(connection: Any) -> Address:
    return connection.host, connection.port


def _take_no_writes(breaker: RedisCircuitBreaker) -> None:
    """For a breaker of replicas: there is nothing to queue, and nothing to be replayed."""
    if _TAKES_NO_WRITES not in breaker._rules:
        breaker._rules = (_TAKES_NO_WRITES, *breaker._rules)
        breaker.has_rules = True
        breaker.rights_asked = breaker.rights_known = True


class ResilientSentinelManagedConnection(GuardedSentinel, SentinelManagedConnection):  # type: ignore[misc]  # redis-py: a float for a bool
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


class ResilientSentinelManagedSSLConnection(GuardedSentinel, SentinelManagedSSLConnection):  # type: ignore[misc]  # as above
    """redis-py's `SentinelManagedSSLConnection` with the guard inside. See
    `ResilientSentinelManagedConnection`.
    """


_GUARDED: dict[type[AbstractConnection], type[GuardedSentinel]] = {
    SentinelManagedConnection: ResilientSentinelManagedConnection,
    SentinelManagedSSLConnection: ResilientSentinelManagedSSLConnection,
}


def guarded_sentinel_class(connection_class: type[AbstractConnection]) -> type[GuardedSentinel]:
    """`connection_class`, a managed one of redis-py or derived from it, with the guard inside."""
    made = _GUARDED.get(connection_class)
    if made is None:
        made = type(connection_class.__name__, (GuardedSentinel, connection_class), {})
        _GUARDED[connection_class] = made
    return made
