"""What both flavours of `RedisCircuitBreaker` do: options, waiting, and the end."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from tenacity.wait import wait_base

from ..base import BreakerBase
from ..core.breaker import State, Transition
from ..core.fence import Suspects
from ..drain import Drain
from ..journal import Journal
from ..observers import logger
from ..policy import Policy
from ..seam.pools import breaker_of, told_apart
from ..settings import Settings
from ..snapshot import DeadLetter, Snapshot
from .background import Background, is_over
from .link import LinkBase, Template
from .processes import one_at_a_time, register
from .recovery import recover
from .steps import Steps

if TYPE_CHECKING:
    from .objects import ObjectGuard
    from .socket import GuardedSocket


#: Seconds between two probes at most, while commands come that are answered here. However many: the
#: recovery alone probes, and one probe at a time.
IN_DEMAND = 0.5


class CircuitBreaker(Background):
    """A circuit breaker for one Redis endpoint and one user, shared by all its connections.

    `redis_client` (none): a client of redis-py is guarded at its connections from now on; any other
    object with redis-py's methods (fakeredis, a mock, another client) is guarded by `execute`.
    `failure_threshold` (default 5): consecutive failed sockets that open it, at least 1.
    `recovery_timeout` (10.0 s): the longest wait between two probes while open; the first comes
    after about 50 ms, and the wait doubles, while commands come up to 0.5 s. Over any other object
    the probe is the first call after it. `policy` (`Policy.cache()`): which keys and commands
    get which answer. `journal` (a new `MemoryJournal()`): where acknowledged writes wait.
    `deadline` (1.0 s): how long a caller waits at most for a server that does not answer.
    `probe_timeout` (1.0 s): how long a probe may take. `drain_wait` (1.0 s): how long a command
    waits at most for the replay before it is answered as while open. `batch_size` (1,000): entries
    in one EXEC of the replay, 1 to 1,000. `failure_rate` (None): the share of failed calls, above 0
    and at most 1, that opens it, too, counted over the last `failure_window` (10.0 s) once there
    were `minimum_calls` (20) in it. `name` ("redis") stands in events and logs.
    `watermark_prefix` ("resilient-redis:"): how the keys begin that a replay sets for its duration.
    `recovery_wait`: a tenacity wait strategy in place of the doubling one.

    No I/O happens at construction. On asyncio it serves one event loop at a time; threads may share
    it, and the child of a fork begins anew.
    """

    #: Where no breaker is given: one per flavour, endpoint and user, kept while a connection uses
    #: it.
    _shared: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], Any]] = (
        weakref.WeakValueDictionary()
    )
    #: Those of them that hold anything: nobody else may have a reference.
    _holding: ClassVar[set[BreakerBase]] = set()

    def __init__(
        self,
        redis_client: Any = None,
        failure_threshold: int = 5,
        recovery_timeout: float = 10.0,
        *,
        policy: Policy | None = None,
        journal: Journal | None = None,
        deadline: float = 1.0,
        probe_timeout: float = 1.0,
        drain_wait: float = 1.0,
        failure_rate: float | None = None,
        failure_window: float = 10.0,
        minimum_calls: int = 20,
        batch_size: int = 1000,
        name: str | None = None,
        watermark_prefix: str = "resilient-redis:",
        recovery_wait: wait_base | None = None,
    ) -> None:
        super().__init__(
            Settings(
                failure_threshold=failure_threshold,
                recovery_timeout=recovery_timeout,
                policy=policy,
                journal=journal,
                deadline=deadline,
                probe_timeout=probe_timeout,
                drain_wait=drain_wait,
                batch_size=batch_size,
                name=name,
                watermark_prefix=watermark_prefix,
                recovery_wait=recovery_wait,
                failure_rate=failure_rate,
                failure_window=failure_window,
                minimum_calls=minimum_calls,
            )
        )
        #: Among threads, what the steps are done under; see `steps.py`.
        self.lock: Any = None
        self.connections: weakref.WeakSet[GuardedSocket] = weakref.WeakSet()
        self.template: Template | None = None
        self._endpoint: tuple[Any, ...] | None = None
        self.denied = False  # Redis answers, and does not let this user in
        self.denials = 0
        self.changes = 0  # goes up whenever whoever waits should look again
        self.drain = Drain(self)
        self.client: Any = None
        self.object: ObjectGuard | None = None
        self._paced = recovery_wait is not None
        self._set_up()
        register(self)
        if redis_client is not None:
            self.take_client(redis_client)

    @classmethod
    def shared(cls, endpoint: tuple[Any, ...]) -> CircuitBreaker:
        """The breaker of `endpoint` that all connections share which were given none."""
        key = (cls, *endpoint)
        with one_at_a_time():
            breaker: CircuitBreaker | None = cls._shared.get(key)
            if breaker is None:
                breaker = cls._shared[key] = cls(name=str(endpoint[0]))
                breaker.kept = cls._holding
            return breaker

    def take_client(self, client: Any) -> None:
        """Guards `client`; for a breaker that was made without one.

        Raises ValueError where it has one, or the client has another breaker.
        """
        # Late: what guards an object needs the breaker that it guards it for.
        from .objects import ObjectGuard  # noqa: PLC0415

        if self.client is not None:
            raise ValueError("this breaker has a client already")
        if not self._guard_connections(client):
            self.object = ObjectGuard(self, client, self.next_wait if self._paced else None)
        self.client = client

    @property
    def guards_object(self) -> bool:
        """Whether its client is guarded by `execute`, and not at its connections."""
        return self.object is not None

    def _check_client(self, func: Callable[..., Any]) -> None:
        """Of `execute`: over a client of redis-py the guard sits at the connections."""
        if self.client is None and breaker_of(getattr(func, "__self__", None)) is not self:
            raise ValueError("execute needs a client: RedisCircuitBreaker(redis_client)")

    def bind(self, endpoint: tuple[Any, ...]) -> None:
        """One breaker is one endpoint and one user; another is an error."""
        if self._endpoint is None:
            self._endpoint = endpoint
        elif self._endpoint != endpoint:
            mine, other = told_apart(self._endpoint, endpoint)
            raise ValueError(
                f"this breaker guards {mine}, not {other}: one breaker is one endpoint and one user"
            )

    def begin_anew(self) -> None:
        """In the child of a fork: see `processes.py`."""
        self._set_up()
        self.connections = weakref.WeakSet()
        self._suspects = Suspects()
        self.replay = self._make_replay(self.outbox.abandon())
        self.drain = Drain(self)
        if self.object is not None:
            self.object.begin_anew()
        if self.kept is not None:
            self.kept.discard(self)
        self._core.forget_permit()
        self._held = None
        self.gate_open = self.closed
        self.refresh()

    # -- from outside any step ------------------------------------------------------------

    def success(self, era: int) -> None:
        self.exclusively(partial(super().success, era))

    def force_open(self) -> None:
        """Opens, and stays open until `reset`: a drill, or maintenance."""
        self.exclusively(super().force_open)

    def reset(self) -> None:
        """Closes without a probe; what is queued is replayed."""
        self.exclusively(super().reset)
        self.hurry()

    def snapshot(self) -> Snapshot:
        """The breaker now, frozen."""
        return self.exclusively(super().snapshot)

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """The last 1,000 queued writes that were set aside."""
        return self.exclusively(lambda: super(CircuitBreaker, self).dead_letters)

    # -- what changes -----------------------------------------------------------------------

    def _state_changed(self, move: Transition) -> None:
        if move.new is State.OPEN and move.old is State.CLOSED:
            for connection in list(self.connections):
                connection.outage()
        if move.new is State.OPEN and self.object is not None:
            self.object.opened()
        self.wake()
        self.start_recovery()

    def late_connections(self) -> list[GuardedSocket]:
        """Those of before the last outage that still wait for a reply."""
        return [c for c in list(self.connections) if c.late]

    def open_gate(self) -> None:
        super().open_gate()
        self.wake()

    def hold(self, code: str | None) -> None:
        super().hold(code)
        self.wake()
        self.start_recovery()

    # -- recovery ---------------------------------------------------------------------------

    def start_recovery(self) -> None:
        """Recovery runs while there is something to recover, and only then."""
        self.exclusively(self._start_recovery)

    def _start_recovery(self) -> None:
        wanted = self.busy and not self._closed and self.object is None
        if not wanted or not self.adopt():
            return
        if is_over(self._recovery):
            self._recovery = self.beside(recover(self), "recovery")
        elif not self._paced and not self.closed and self.clock() - self._rests_since > IN_DEMAND:
            self.hurry()

    def opening_link(self) -> Steps[LinkBase]:
        """A link to a server that answers."""
        assert self.template is not None
        return self.link_class.opened(self.template, self.clock)

    # -- the end ----------------------------------------------------------------------------

    def _flushing(self) -> Steps[int]:
        """See `flush_re_sync_queue`."""
        if self.object is not None:
            return (yield from self.object.flush())
        before, until = self.replay.applied_count, self.clock() + self.drain_wait
        self.start_recovery()
        self.hurry()
        while self.pending and self._held is None and (left := until - self.clock()) > 0:
            yield self.pausing(left)
        return self.replay.applied_count - before

    def _closing(self, drain_timeout: float) -> Steps[int]:
        """See `aclose` or `close`."""
        until = self.clock() + drain_timeout
        while self.busy and (left := until - self.clock()) > 0:
            if self.object is not None:
                yield from self.object.flush(left)
                break
            self.start_recovery()
            yield self.pausing(left)
        if (left := until - self.clock()) > 0 and not is_over(self._recovery):
            # The gate opens before the watermarks are deleted.
            yield partial(self.joined, self._recovery, left)
        self._closed = True
        try:
            yield from self._ending()
        finally:
            self._closed = False  # used again, as redis-py's clients may be, it recovers again
        self.reported = True
        if self.pending:
            logger.error(
                "%s: closed with %d acknowledged writes unapplied", self.name, self.pending
            )
        return self.pending
