"""Sentinel among threads; see `flow/sentinel.py`.

redis-py's question to the sentinels cannot be interrupted, so it is put in a daemon thread of its
own, and who has asked goes on without it when his time is over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redis.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import ConnectionError
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from ..flow.sentinel import Address, Place, ServiceBase, no_ssl
from ..flow.sentinel import GuardedSentinel as SharedGuardedSentinel
from ..flow.steps import Steps
from ..seam.failures import is_alive
from ..seam.replies import read_reply
from .connection import GUARDED, GuardedConnection
from .driving import Running, run


@dataclass
class _Place(Place):
    """And which questions may still be without an answer. A fork's child has no such threads."""

    question: Future[Any] | None = None
    pings: dict[Any, Future[Any]] = field(default_factory=dict)
    pid: int = field(default_factory=os.getpid)


class Service(ServiceBase):
    """See `ServiceBase`."""

    place_class = _Place

    def ask(self, question: Callable[[], Address], seconds: float) -> Address:
        place, clock = self.place, self.breaker.clock
        if place.pid != os.getpid():
            place.question, place.pings, place.pid = None, {}, os.getpid()
        until, patience = clock() + seconds, min(self.breaker.deadline / 4, seconds)
        # While one is without an answer nobody asks anew before a sentinel says that it is there:
        # a thread that waits for a host that is gone may wait for minutes, and each ask adds one.
        earlier, asked = place.question, None
        if earlier is not None:
            wait({earlier}, patience)
        if earlier is None or earlier.done():
            asked = place.question = self._put(question)
            wait({asked}, patience)
        if asked is None or not asked.done():
            if self._comes_first(asked, until):
                asked = place.question = self._put(question)
                wait({asked}, max(until - clock(), 0.0))
            if asked is None or not asked.done():
                raise ConnectionError("no sentinel answers")
        return asked.result()

    def _put(self, question: Callable[[], Address]) -> Future[Address]:
        sentinels = self.pool.sentinel_manager.sentinels
        known = list(sentinels)

        def put() -> Address:
            try:
                return question()
            finally:
                # redis-py swaps the one that has answered to the front by its number in the list,
                # which may have been put in another order since: none is lost or doubled by that.
                sentinels[:] = dict.fromkeys([*sentinels, *known])

        return _beside(put)

    def _comes_first(self, asked: Future[Address] | None, until: float) -> bool:
        """Moves the sentinel that answers a PING first to the front. False where none does until
        then, or before `asked` is done.
        """
        sentinels, pings = self.pool.sentinel_manager.sentinels, self.place.pings
        for each in list(sentinels):
            if each not in pings or pings[each].done():
                pings[each] = _beside(partial(each.execute_command, "PING"))
        pinged = {ping: each for each, ping in list(pings.items())}
        waiting: set[Future[Any]] = {*pinged, *([asked] if asked is not None else [])}
        while waiting - {asked} and (asked is None or not asked.done()):
            left = max(until - self.breaker.clock(), 0.0)
            done, waiting = wait(waiting, left, FIRST_COMPLETED)
            if not done:
                break
            for ping in done - {asked}:
                error = ping.exception()
                if error is None or is_alive(error):
                    first = pinged[ping]
                    sentinels[:] = [first, *(each for each in sentinels if each is not first)]
                    return True
        return False

    def rotation(self) -> _Rotation:
        return _Rotation(self.pool)

    def together(self, work: list[Steps[None]]) -> None:
        name = f"{self.breaker.name}-hang-check"
        running = [Running(self.breaker.lock, steps, name) for steps in work]
        for each in running:
            each.join()


def _beside(work: Callable[[], Any]) -> Future[Any]:
    """Does it in a thread that nobody has to wait for."""
    future: Future[Any] = Future()

    def do() -> None:
        try:
            found = work()
        except BaseException as error:  # noqa: BLE001 - it is raised to whoever looks
            future.set_exception(error)
        else:
            future.set_result(found)

    threading.Thread(target=do, name="resilient-redis-sentinels", daemon=True).start()
    return future


class _Rotation:
    """See `ServiceBase.rotation`."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._found: Iterator[Address] | None = None

    def following(self) -> Address:
        # Who asks once more while another thread is still at it begins anew.
        found, self._found = self._found or iter(self._pool.rotate_slaves()), None
        address = next(found)
        self._found = found
        return address

    def close(self) -> None:
        self._found = None


class _StockReplies(AbstractConnection):
    """Above redis-py's managed connections, which make a ConnectionError of a READONLY: whether the
    command ran is no longer to be told from that. They also leave a connection open by default
    whose read has failed; here it is closed, as any other.
    """

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        return AbstractConnection.read_response(self, *args, **kwargs)


class GuardedSentinel(SharedGuardedSentinel, GuardedConnection, _StockReplies):
    """Mixed into a managed connection of redis-py; see `ResilientSentinelManagedConnection`."""

    service_class = Service

    @classmethod
    def _stock_class(cls) -> type[Any]:
        return SSLConnection if issubclass(cls, SSLConnection) else Connection

    def _usable(self) -> bool:
        return super()._usable() and self._is_where_it_should_be()

    def _ask(self, question: Callable[[], Address]) -> Address:
        began, patience = self.breaker.clock(), self._patience
        try:
            found: Address = self._service.ask(question, min(patience, self.breaker.deadline))
            return found
        finally:
            # What is left is for the server.
            self._patience = max(patience - (self.breaker.clock() - began), 0.001)

    def _read_rest(self) -> Any:
        reply = read_reply(self, disable_decoding=True, push_request=False)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _connect_within(self, steps: Steps[None], seconds: float) -> None:
        patience = self._patience
        self._patience = min(seconds, patience)
        try:
            run(self.breaker.lock, steps)
        finally:
            self._patience = patience


class ResilientSentinelManagedConnection(GuardedSentinel, SentinelManagedConnection):
    """redis-py's `SentinelManagedConnection` with the guard inside: the `connection_class` of
    `Sentinel.master_for`, `Sentinel.slave_for` or a `SentinelConnectionPool`.

    `breaker`: the `RedisCircuitBreaker` of this service, its master or its replicas; without one,
    all connections to the same service, role and user share one with default settings. Over
    replicas reads go to another one, or get their neutral answer when there is none; writes raise
    redis-py's `ReadOnlyError`, and `CommandRefused` when there is none.
    """

    def __init__(self, **kwargs: Any) -> None:
        no_ssl(kwargs)
        super().__init__(**kwargs)


class ResilientSentinelManagedSSLConnection(GuardedSentinel, SentinelManagedSSLConnection):
    """redis-py's `SentinelManagedSSLConnection` with the guard inside. See
    `ResilientSentinelManagedConnection`.
    """


ALL_GUARDED = {
    **GUARDED,
    SentinelManagedConnection: ResilientSentinelManagedConnection,
    SentinelManagedSSLConnection: ResilientSentinelManagedSSLConnection,
}
