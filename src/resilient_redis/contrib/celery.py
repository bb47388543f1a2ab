"""Celery over Redis, by two settings, the same ones for who calls `delay` and for the worker::

    app = Celery("work", broker="redis://localhost:6379/0")
    app.conf.broker_transport = "resilient_redis.contrib.celery:Transport"
    app.conf.result_backend = "resilient_redis.contrib.celery:Backend+redis://localhost:6379/0"

While Redis is away `delay` takes the task, which is in its queue when Redis is back; a worker's
results are taken, too. A worker gets no tasks meanwhile: it reconnects by itself, as without this.

In each process an endpoint has one breaker for tasks and results, with default settings but for its
rules. `socket_timeout` is 1.5 s unless `broker_transport_options` or
`redis_socket_timeout` say otherwise: a task that is on its way to a server that freezes, which is
not safe to send twice, waits so long for its answer.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from amqp.protocol import queue_declare_ok_t
from billiard.process import current_process
from celery import current_app
from celery.app.defaults import DEFAULTS
from celery.backends import redis as celery_redis
from celery.signals import worker_process_shutdown, worker_shutdown
from kombu.transport import redis as kombu_redis
from redis.connection import Connection
from redis.exceptions import ConnectionError, TimeoutError

from ..errors import CommandRefused, OutcomeUnknown
from ..events import Event, SubscriptionGap
from ..flow.processes import breakers, one_at_a_time
from ..policy import READS, TAKES, WRITES, Policy, Rule
from ..seam.pools import endpoint_of
from ..sync.breaker import RedisCircuitBreaker
from ..sync.connection import GUARDED

# Seconds; longer than `deadline`, so that what kombu does then finds the breaker open.
SOCKET_TIMEOUT = 1.5
#: How many seconds a worker, or a child of it, that ends waits for the replay of all that it has
#: queued, that of its tasks, too. May be set.
DRAIN_TIMEOUT = 5.0

MAX_AGE = 24 * 3600.0  # s; as long as Celery keeps a result

# A queue that was not seen is not an empty one, nor is an exchange without queues. And Celery reads
# a result before it writes it: a neutral answer would make the write depend on it.
POLICY = Policy(
    [
        Rule(commands=READS | TAKES, answer="refuse"),
        Rule(commands=WRITES | {"PUBLISH"}, answer="queue", max_age=MAX_AGE),
    ]
)


class _Guard:
    """The breaker of an endpoint, one for tasks and results: what a task needs is there before it.
    And how often messages may have been missed over it.
    """

    _all: ClassVar[dict[tuple[Any, ...], _Guard]] = {}

    def __init__(self, name: str) -> None:
        self.breaker = RedisCircuitBreaker(policy=POLICY, name=name)
        self.gaps = 0
        self.breaker.add_observer(self._observe)

    def _observe(self, event: Event) -> None:
        self.gaps += isinstance(event, SubscriptionGap)

    @classmethod
    def put_into(cls, pool_kwargs: dict[str, Any]) -> _Guard:
        """Guards the connections that a pool with `pool_kwargs` makes."""
        endpoint = endpoint_of(pool_kwargs)
        with one_at_a_time():
            guard = cls._all.get(endpoint)
            if guard is None:
                guard = cls._all[endpoint] = cls(f"Celery's {endpoint[0]}")
        stock = pool_kwargs.get("connection_class") or Connection
        pool_kwargs.update(connection_class=GUARDED[stock], breaker=guard.breaker)
        return guard


@worker_shutdown.connect  # type: ignore[untyped-decorator]
@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _worker_ends(**_: Any) -> None:
    """Or a child of it (`max_tasks_per_child`): what is left then is lost, and logged."""
    until = time.monotonic() + DRAIN_TIMEOUT
    for breaker in breakers():
        if isinstance(breaker, RedisCircuitBreaker):
            breaker.close(drain_timeout=max(until - time.monotonic(), 0.0))


def _check_scheme(url: str, *known: str) -> None:
    scheme, found, _ = url.partition("://")
    if found and scheme not in known:
        raise ValueError(f"{__name__} is for {', '.join(known)}, not for {scheme}://")


def _waits_for_its_broker() -> bool:
    """Whether this is a worker's own thread, which waits until its broker is there."""
    return (
        "celery.apps.worker" in sys.modules
        and current_process().name == "MainProcess"
        and threading.current_thread() is threading.main_thread()
    )


class QoS(kombu_redis.QoS):
    """Knows of the tasks that a worker has been given and has not acknowledged."""

    def restore_unacked(self, client: Any = None) -> None:
        """Puts them back into their queues, also where Redis is away: kombu then gives up, and they
        wait for its `visibility_timeout`.
        """
        for tag, message in reversed(list(self._delivered.items())):  # the last is given first
            try:
                self.restore_by_tag(tag, client=client)
            except OutcomeUnknown:
                pass  # it is back, or `visibility_timeout` is for it
            except (ConnectionError, TimeoutError):
                delivery = message.delivery_info
                with self.channel.conn_or_acquire() as guarded, guarded.pipeline() as pipe:
                    self._remove_from_indices(tag, pipe)
                    self.channel._do_restore_message(
                        message._raw, delivery["exchange"], delivery["routing_key"], pipe
                    )
                    pipe.execute()
        self._delivered.clear()


class Channel(kombu_redis.Channel):
    """kombu's channel, guarded but for the connections that it polls, as a worker does."""

    QoS = QoS

    # What was last read of which queues an exchange has. A task must not go nowhere.
    _tables: ClassVar[dict[tuple[Any, ...], Any]] = {}

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        if not asynchronous:
            _Guard.put_into(params)
            if params["socket_timeout"] is None:
                params["socket_timeout"] = SOCKET_TIMEOUT
        return params

    @property
    def _breaker(self) -> RedisCircuitBreaker:
        breaker: RedisCircuitBreaker = self.pool.connection_kwargs["breaker"]
        return breaker

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous=asynchronous)
        if asynchronous:
            client.ping = partial(self._ask, client.ping)
        return client

    def _ask(self, ping: Callable[[], Any]) -> None:
        """In place of the PING with which a channel begins: what is wrong is raised, but where
        Redis is away the channel is good for tasks, except those of a worker that asks for them.
        """
        guarded = self._create_client()
        if not _waits_for_its_broker():
            try:
                guarded.ping()
            except CommandRefused:
                pass  # what is published is queued
            return
        ping()
        breaker = self._breaker
        until = time.monotonic() + breaker.deadline
        while breaker.state != "CLOSED" and time.monotonic() < until:
            breaker.flush_re_sync_queue()  # it has not heard yet
            time.sleep(0.01)
        guarded.ping()

    def queue_declare(self, queue: str | None = None, passive: bool = False, **kwargs: Any) -> Any:
        try:
            return super().queue_declare(queue, passive, **kwargs)
        except CommandRefused:
            if passive or not queue:
                raise
            return queue_declare_ok_t(queue, 0, 0)  # it is declared, and not to be counted

    def get_table(self, exchange: str) -> Any:
        info = self.connection.client
        key = (info.hostname, info.port, info.virtual_host, self.global_keyprefix, exchange)
        try:
            table = self._tables[key] = super().get_table(exchange)
        except CommandRefused:
            if key not in self._tables:
                raise
            table = self._tables[key]
        return table

    def _delete(self, *args: Any, client: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Not by `client`, the one that polls: where it fails the channel is not closed to its end,
        and Celery's worker dies of the next attempt.
        """
        super()._delete(*args, **kwargs)

    def _put_fanout(self, *args: Any, **kwargs: Any) -> None:
        """A command to all workers (`revoke`), or an event: nobody hears it later."""
        if self._breaker.state != "CLOSED":
            self._create_client().ping()  # is refused
        super()._put_fanout(*args, **kwargs)


class Transport(kombu_redis.Transport):
    """For `broker_transport`, with a `redis://` or `rediss://` broker."""

    Channel = Channel

    def __init__(self, client: Any, **kwargs: Any) -> None:
        # kombu takes it from the scheme only where the scheme names the transport, and forgets it.
        conf = current_app.conf
        if conf.broker_transport == f"{__name__}:{type(self).__name__}":
            for url in (conf.broker_read_url, conf.broker_write_url):
                for one in url.split(";") if isinstance(url, str) else url or ():
                    _check_scheme(one, "redis", "rediss")
                    if one.startswith("rediss:") and not client.ssl:
                        raise ValueError(
                            "say how TLS is checked: rediss://…?ssl_cert_reqs=required"
                        )
        super().__init__(client, **kwargs)


class ResultConsumer(celery_redis.ResultConsumer):  # type: ignore[misc]  # Celery ships no types
    """Hears of results as they are stored, and looks for those of which it has not heard."""

    _seen = 0

    def drain_events(self, timeout: float | None = None) -> None:
        guard: _Guard = self.backend.guard
        gaps = guard.gaps
        if gaps != self._seen and self.subscribed_to:
            try:
                metas = self.backend.client.mget(list(self.subscribed_to))
            except CommandRefused:
                pass  # the next time
            else:
                for meta in filter(None, metas):
                    self.on_state_change(self.backend.decode_result(meta), None)
                self._seen = gaps
        super().drain_events(timeout)
        if guard.breaker.state != "CLOSED":
            time.sleep(min(timeout or 1.0, 0.05))  # Celery takes no socket for one to be read


class Backend(celery_redis.RedisBackend):  # type: ignore[misc]  # Celery ships no types
    """For `result_backend`, followed by `+` and a `redis://`, `rediss://` or `socket://` URL.

    While Redis is away a result is `PENDING`, as one of which nothing is known.
    """

    ResultConsumer = ResultConsumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check_scheme(self.url or "", "redis", "rediss", "socket")
        self.guard = _Guard.put_into(self.connparams)
        if self.connparams["socket_timeout"] == DEFAULTS["redis_socket_timeout"]:  # not set
            self.connparams["socket_timeout"] = SOCKET_TIMEOUT

    def on_chord_part_return(self, *args: Any, **kwargs: Any) -> Any:
        """Waits for Redis as Celery does before it stores a result, which is queued here. Its
        script counts each part once.
        """
        return self.ensure(partial(super().on_chord_part_return, *args, **kwargs), ())

    def get(self, key: Any) -> Any:
        try:
            return super().get(key)
        except CommandRefused:
            return None

    def mget(self, keys: Any) -> Any:
        try:
            return super().mget(keys)
        except CommandRefused:
            return [None] * len(keys)
