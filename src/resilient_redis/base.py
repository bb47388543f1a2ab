"""What both flavours of `RedisCircuitBreaker` share: everything but waiting and I/O.

The shell serialises: on asyncio the event loop, in sync code a lock. Nothing here blocks, and no
observer is called while a decision is half made.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from .core.breaker import Breaker, Cause, Permit, State, Transition
from .core.command import Command
from .core.fence import Identity, Suspects
from .core.guard import Decision, Refuse, Step, View, away_step, decide
from .core.rate import FailureRate
from .core.replay import Replay
from .core.rights import Mode
from .core.rules import apply_rules
from .events import (
    Event,
    FenceDenied,
    Observer,
    RightsMissing,
    StateChanged,
    WritesHeld,
)
from .journal import MemoryJournal
from .observers import Observers
from .outbox import Outbox
from .pacing import Pacing
from .policy import Policy
from .provenance import Provenance
from .receipt import Queued
from .settings import Settings
from .snapshot import DeadLetter, Snapshot
from .track import note

# Entries that a drain replays in one or two round trips.
TAIL = 1000


class BreakerBase:
    """See `resilient_redis.asyncio.RedisCircuitBreaker`."""

    receipt_class: ClassVar[type[Queued]] = Queued  # the flavour's can be waited for

    def __init__(self, settings: Settings) -> None:
        self.deadline = settings.deadline
        self.probe_timeout = settings.probe_timeout
        self.drain_wait = settings.drain_wait
        self.recovery_timeout = settings.recovery_timeout
        self.clock = time.monotonic
        self.name = settings.name or "redis"
        rate = settings.failure_rate
        self._rate = None
        if rate is not None:
            self._rate = FailureRate(rate, settings.failure_window, settings.minimum_calls)
        self._core = Breaker(settings.failure_threshold, self._rate)
        policy = settings.policy or Policy.cache()
        self._rules = tuple(rule.compiled for rule in policy.rules)
        self.has_rules = bool(self._rules)
        self.kept: set[BreakerBase] | None = None  # where it is while it holds anything
        self.provenance = Provenance()
        self._gate_opened = 0.0
        self._observers = Observers(self.name)
        self._suspects = Suspects()
        self._held: str | None = None
        self._last_error: str | None = None
        self._silent_since = self._failed_at = 0.0
        self._pacing = Pacing(self.recovery_timeout, settings.recovery_wait, self._now)
        self.counters: Counter[str] = Counter()
        self.outbox = Outbox(
            MemoryJournal() if settings.journal is None else settings.journal,
            self.counters,
            self.emit,
            self._stamp,
            self.receipt_class,
        )
        self.rights_asked = self.rights_known = False  # by the first connection that comes up
        self.fence_denied = False
        self._settings = settings
        self.replay = self._make_replay(0)
        self.rights_key = settings.watermark_prefix.encode() + b"rights:" + _token()
        self.reported = False  # how much is left, at the end
        self.outages = 0  # how often it has opened; a socket older than the last is not used
        self.gate_open = True
        # The one attribute of the healthy path: closed, nothing queued, writes not held.
        self.live = True
        # Successes count: a failure is to be taken back, or the share of failures is watched.
        self.suspicious = self._rate is not None

    def _make_replay(self, confirmed: int) -> Replay:
        return Replay(
            self.outbox.journal,
            self.outbox,
            watermark=self._settings.watermark_prefix.encode() + _token(),
            new_session=_token,
            clock=self._now,
            wall_ms=lambda: int(time.time() * 1000),
            batch_size=self._settings.batch_size,
            confirmed=confirmed,
        )

    def emit(self, event: Event) -> None:
        """Tells the observers."""
        self._observers.tell(event)

    def _now(self) -> float:
        # Looked up at each call: a test or a simulation may put its own clock in place.
        return self.clock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.state} pending={self.pending}>"

    def __copy__(self) -> BreakerBase:
        return self

    def __deepcopy__(self, _: Any) -> BreakerBase:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a RedisCircuitBreaker cannot be pickled: it belongs to its process")

    # -- what a user reads --------------------------------------------------------------

    @property
    def state(self) -> str:
        """ "CLOSED", "OPEN" or "HALF-OPEN"."""
        return self._core.state.value

    @property
    def failures(self) -> int:
        """Consecutive failures."""
        return self._core.failures

    @property
    def pending(self) -> int:
        """Writes in the journal."""
        return len(self.outbox.journal)

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """The last 1,000 queued writes that were set aside."""
        return tuple(self.outbox.dead_letters)

    def snapshot(self) -> Snapshot:
        """The breaker now, frozen."""
        now = self.clock()
        oldest = self.outbox.journal.oldest
        away = self._core.state is not State.CLOSED
        return Snapshot(
            state=self.state,
            era=self._core.era,
            failures=self._core.failures,
            retry_after=self.retry_after() if away else None,
            draining=not away and not self.gate_open and self._held is None,
            writes_held=self._held,
            pending=len(self.outbox.journal),
            pending_bytes=self.outbox.journal.size,
            oldest_age=None if oldest is None else oldest.age(now),
            dead_letters=len(self.outbox.dead_letters),
            last_error=self._last_error,
            replay_mode=self.replay.mode.value,
            fence_denied=self.fence_denied,
            counters=MappingProxyType(dict(self.counters)),
        )

    def retry_after(self) -> float | None:
        """Seconds until the next look at the server, where one is planned."""
        return self._pacing.left()

    def add_observer(self, observer: Observer) -> None:
        """Calls `observer` with each event. One that raises is logged once and detached."""
        self._observers.add(observer)

    def count(self, answer: str, command: str) -> None:
        """One command was "neutral", "queued", "refused" or "unknown"."""
        self.counters[answer] += 1
        note(answer, command)

    # -- for the shells: the state ------------------------------------------------------

    @property
    def era(self) -> int:
        return self._core.era

    @property
    def closed(self) -> bool:
        return self._core.state is State.CLOSED

    @property
    def busy(self) -> bool:
        """Whether there is something to recover from."""
        return not (self.closed and self.gate_open and self.replay.tidy)

    def refresh(self) -> None:
        if self.provenance and self.gate_open:
            self.provenance.expire(self.clock() - self._gate_opened)
        clean = not self.provenance and not self._suspects
        self.live = self.closed and self.gate_open and clean
        self.suspicious = self.closed and (self._core.failures > 0 or self._rate is not None)

    def failure(self, era: int, error: BaseException, since: float) -> None:
        """A socket of `era` failed, which was waited for since `since`. May open the breaker."""
        now = self.clock()
        if self._core.failures == 0 or now - self._failed_at > self.deadline:
            self._silent_since = since
        self._failed_at = now
        self._last_error = type(error).__name__
        self._moved(self._core.failure(era, now))

    def success(self, era: int) -> None:
        """A reply came to a command of `era`."""
        self._core.success(era, self.clock())
        self.refresh()

    def patience(self) -> float:
        """Seconds that are left of a silence before it is an outage; a deadline at most."""
        if not self._core.failures:
            return self.deadline
        return min(self.deadline, self._silent_since + self.deadline - self.clock())

    def silent(self) -> bool:
        """Opens, if for most of a deadline nothing at all was answered, threshold or not."""
        if not self._core.failures or self.clock() - self._silent_since < 0.75 * self.deadline:
            return False
        self.trip(Cause.HANG, self._last_error or "")
        return not self.closed

    def note_error(self, error: BaseException) -> None:
        self._last_error = type(error).__name__

    def take_permit(self) -> Permit | None:
        """The right to probe, if it is to be had; it lapses after ten times `probe_timeout`, which
        a handshake step by step may take.
        """
        taken = self._core.take_permit(self.clock(), 10 * self.probe_timeout)
        if taken is None:
            return None
        permit, move = taken
        self._moved(move)
        return permit

    def give_back(self, permit: Permit, succeeded: bool) -> None:
        self._moved(self._core.give_back(permit, succeeded))

    def trip(self, cause: Cause, error: str) -> None:
        """Open at once."""
        self._last_error = error
        self._moved(self._core.trip(cause))

    def force_open(self) -> None:
        """Opens, and stays open until `reset`: a drill, or maintenance."""
        self._moved(self._core.force_open())

    def reset(self) -> None:
        """Closes without a probe; what is queued is replayed."""
        self._moved(self._core.reset())

    def _moved(self, move: Transition | None) -> None:
        if move is None:
            self.refresh()
            return
        if move.new is State.OPEN and move.old is State.CLOSED:
            self.outages += 1
            self.counters["trips"] += 1
            self.gate_open = False
            self._held = None
        self.refresh()
        old, new, cause = move.old.value, move.new.value, move.cause.value
        self.emit(StateChanged(*self._stamp(), old, new, move.era, cause))
        self._state_changed(move)

    def _state_changed(self, move: Transition) -> None:
        """For the shell: wake who waits, start what recovers."""

    def next_wait(self) -> float:
        """Seconds until the next probe; the wait grows until the breaker closes."""
        return self._pacing.next_wait()

    def plan_probe(self, seconds: float) -> None:
        """The next look at the server is due in so many seconds."""
        self._pacing.plan(seconds)

    def hold(self, code: str | None) -> None:
        """The server takes no writes (`code`), or takes them again (None)."""
        news = code is not None and code != self._held
        self._held = code
        if code is not None:
            self.gate_open = False
        self.refresh()
        if news and code is not None:
            self.emit(WritesHeld(*self._stamp(), code))

    def open_gate(self) -> None:
        """The journal is empty: commands go straight to the server again."""
        self._held = None
        self._pacing.recovered()
        self.gate_open = True
        if self.kept is not None:
            self.kept.discard(self)
        self._gate_opened = self.clock()
        self.provenance.recovered()
        self.refresh()

    def learn_rights(self, mode: Mode, missing: tuple[str, ...]) -> None:
        """What the ACL allows; known from the first healthy connection on."""
        self.rights_asked = self.rights_known = True
        self.replay.mode = mode
        if missing:
            self.emit(RightsMissing(*self._stamp(), missing))

    def suspect(self, identity: Identity | None) -> None:
        """A connection ended with an unanswered write on it."""
        self._suspects.add(identity or Identity(0, "", self.clock()))
        self.refresh()

    @property
    def suspects(self) -> list[Identity]:
        """Those that no fence has dealt with yet."""
        return self._suspects.all()

    def fenced(self, suspects: list[Identity], allowed: bool) -> None:
        """None of `suspects` can land any more; with `allowed` False, as far as the ACL lets us."""
        self._suspects.discard(set(suspects))
        self.refresh()
        if not allowed:
            self.fence_denied = True
            self.emit(FenceDenied(*self._stamp(), len(suspects)))

    # -- for the shells: decisions and the journal --------------------------------------

    def decide(
        self, batch: Sequence[Command], waited: bool, away: bool = False, blocked: float = 0.0
    ) -> Decision:
        """`away`: for this caller Redis is away, whatever the breaker says. `blocked`: for so many
        seconds a blocking command has waited.
        """
        block_ms = batch[0].shape.block_ms
        view = View(
            state=State.OPEN if away else self._core.state,
            draining=not self.gate_open,
            held=self._held,
            waited=waited,
            once=self.replay.mode is not Mode.BARE,
            tail=len(self.outbox.journal) <= TAIL,
            blocked_out=0 < block_ms <= blocked * 1000,
        )
        return decide(batch, view)

    def away_step(self, command: Command) -> Step | Refuse:
        """What a single command is answered now that the breaker is not closed."""
        return away_step(command.shape, self.replay.mode is not Mode.BARE)

    def ruled(self, batch: list[Command]) -> list[Command]:
        """`batch` with the answers of this breaker's policy."""
        return apply_rules(self._rules, batch) if self._rules else batch

    def queue(
        self,
        commands: list[Command],
        db: int,
        at: float,
        premises: Sequence[tuple[bytes, ...]] = (),
    ) -> int:
        """Journals `commands`, all or none; returns the first sequence number.

        `premises`: the keys that have to be absent for each of them. Raises `JournalFull`.
        """
        first = self.outbox.queue(commands, db, at, self.retry_after())
        for place, keys in enumerate(premises):
            if keys:
                self.replay.premises.add(first + place, db, keys)
        if self.kept is not None:
            self.kept.add(self)
        self.reported = False
        # While the journal holds anything, nothing overtakes it.
        self.gate_open = False
        self.refresh()
        return first

    def _stamp(self) -> tuple[str, float]:
        return self.name, self.clock()


def _token() -> bytes:
    """Unlike any before, on any machine."""
    return uuid.uuid4().hex.encode()
