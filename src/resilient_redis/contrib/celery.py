"""Celery over Redis, by two settings, the same ones for who calls `delay` and for the worker::

    app = Celery("work", broker="redis://localhost:6379/0")
    app.conf.broker_transport = "resilient_redis.contrib.celery:Transport"
    app.conf.result_backend = "resilient_redis.contrib.celery:Backend+redis://localhost:6379/0"

While Redis is away `delay` takes the task, which is in its queue when Redis is back; a worker's
results are taken, too. A worker gets no tasks meanwhile: it reconnects by itself, as without this.

In each process, the broker's endpoint has a breaker with default settings but for its rules, and so
have the results. Here `socket_timeout` is 1.5 s unless `broker_transport_options` or
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
from celery.app.defaults import DEFAULTS
from celery.backends import redis as celery_redis
from celery.signals import worker_process_shutdown
from kombu.transport import redis as kombu_redis
from redis.connection import Connection

from ..errors import CommandRefused
from ..events import Event, SubscriptionGap
from ..flow.processes import breakers
from ..policy import READS, TAKES, Policy, Rule
from ..seam.pools import endpoint_of
from ..sync.breaker import RedisCircuitBreaker
from ..sync.connection import GUARDED

# Seconds; longer than `deadline`, so that what kombu does then finds the breaker open.
SOCKET_TIMEOUT = 1.5
#: How many seconds a worker's child that ends waits for the replay of all that it has queued, that
#: of its tasks, too. May be set.
DRAIN_TIMEOUT = 5.0

# A queue that was not seen is not an empty one, nor is an exchange without queues; and a command to
# the workers (`revoke`) that reached none of them has to fail.
BROKER = Policy([Rule(commands=READS | TAKES | {"PUBLISH", "SPUBLISH"}, answer="refuse")])
# Celery reads a result before it writes it, and a neutral answer would make the write depend on it.
# Whoever waits for a result is told of it when it is there.
RESULTS = Policy(
    [
        Rule(commands=["GET", "MGET"], answer="refuse"),
        Rule(commands=["PUBLISH"], answer="queue"),
    ]
)


class _Guard:
    """The breaker of an endpoint, and how often messages may have been missed over it."""

    _all: ClassVar[dict[tuple[Any, ...], _Guard]] = {}

    def __init__(self, name: str, policy: Policy) -> None:
        self.breaker = RedisCircuitBreaker(policy=policy, name=name)
        self.gaps = 0
        self.breaker.add_observer(self._observe)

    def _observe(self, event: Event) -> None:
        self.gaps += isinstance(event, SubscriptionGap)

    @classmethod
    def put_into(cls, pool_kwargs: dict[str, Any], what: str, policy: Policy) -> _Guard:
        """Guards the connections that a pool with `pool_kwargs` makes."""
        stock = pool_kwargs.get("connection_class") or Connection
        key = (what, *endpoint_of(pool_kwargs))
        guard = cls._all.get(key) or cls._all.setdefault(key, cls(f"{what} at {key[1]}", policy))
        pool_kwargs.update(connection_class=GUARDED[stock], breaker=guard.breaker)
        return guard


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _child_ends(**_: Any) -> None:
    """`max_tasks_per_child`, or the worker is shut down: what is left then is lost, and logged."""
    until = time.monotonic() + DRAIN_TIMEOUT
    for breaker in breakers():
        if isinstance(breaker, RedisCircuitBreaker):
            breaker.close(drain_timeout=max(until - time.monotonic(), 0.0))


def _waits_for_its_broker() -> bool:
    """Whether this is a worker's own thread, which waits until its broker is there."""
    return (
        "celery.apps.worker" in sys.modules
        and current_process().name == "MainProcess"
        and threading.current_thread() is threading.main_thread()
    )


class Channel(kombu_redis.Channel):
    """kombu's channel, guarded but for the connections that it polls, as a worker does."""

    # What was last read of which queues an exchange has. A task must not go nowhere.
    _tables: ClassVar[dict[tuple[Any, ...], Any]] = {}

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        if not asynchronous:
            _Guard.put_into(params, "Celery's broker", BROKER)
            if params["socket_timeout"] is None:
                params["socket_timeout"] = SOCKET_TIMEOUT
        return params

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
        breaker: RedisCircuitBreaker = self.pool.connection_kwargs["breaker"]
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


class Transport(kombu_redis.Transport):
    """For `broker_transport`, with a `redis://` or `rediss://` broker."""

    Channel = Channel

    def __init__(self, client: Any, **kwargs: Any) -> None:
        url = str(client._initial_params["hostname"])
        scheme, found, _ = url.partition("://")
        if found and scheme not in ("redis", "rediss"):
            raise ValueError(f"{__name__} is for redis:// and rediss://, not {scheme}://")
        if scheme == "rediss" and not client.ssl:
            # kombu takes it from the scheme only where the scheme names the transport.
            raise ValueError("say how TLS is checked: rediss://…?ssl_cert_reqs=required")
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
        self.guard = _Guard.put_into(self.connparams, "Celery's results", RESULTS)
        if self.connparams["socket_timeout"] == DEFAULTS["redis_socket_timeout"]:  # not set
            self.connparams["socket_timeout"] = SOCKET_TIMEOUT

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
