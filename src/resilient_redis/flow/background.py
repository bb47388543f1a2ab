"""What a breaker does beside the calls, how they wait for it, and how it ends."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.breaker import Cause
from ..receipt import Queued
from ..seam.failures import is_alive
from .flavour import Flavour
from .link import Template
from .steps import Steps, Wait

if TYPE_CHECKING:
    from .objects import ObjectGuard
    from .socket import GuardedSocket


class Background(Flavour):
    """See `CircuitBreaker`."""

    template: Template | None
    connections: weakref.WeakSet[GuardedSocket]
    object: ObjectGuard | None
    denials: int
    changes: int

    def _set_up(self) -> None:
        self._recovery: Any = None  # what `beside` has returned
        self._hang_check: Any = None
        self._hurried = False  # the next probe is wanted now
        self._rests_since = 0.0  # the recovery, between two
        self._closed = False  # nothing of it may begin
        self._answers = 0

    # -- waiting ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Something changed: whoever waits looks again."""
        self.changes += 1
        self.wake_waiting()

    def hurry(self) -> None:
        """The next probe is wanted now."""
        self._hurried = True
        self.wake_waiting()

    def resting(self, seconds: float) -> Wait:
        """A wait between two probes; `hurry` ends it."""
        self._hurried, self._rests_since = False, self.clock()
        return partial(self.wait_until, lambda: self._hurried or self._closed, seconds)

    def sleeping(self, seconds: float) -> Wait:
        """A wait for so long."""
        return partial(self.wait_until, lambda: self._closed, seconds)

    def pausing(self, seconds: float) -> Wait:
        """A wait for so long, or until something changes from what it is now."""
        before = self.changes
        return partial(self.wait_until, lambda: self.changes != before, seconds)

    def breath_is_due(self) -> bool:
        """Now and then others have to run: what is answered without I/O never waits by itself, and
        a consumer that polls would stop the very recovery that it waits for.
        """
        self._answers += 1
        return self._answers % 32 == 0

    def wait_drained(self, seconds: float) -> Steps[None]:
        """Until the gate is open, the breaker is not closed, or the time is over."""
        until, before = self.clock() + seconds, self.denials
        while self.closed and not self.gate_open and self._held is None and self.denials == before:
            left = until - self.clock()
            if left <= 0:
                return
            yield self.pausing(left)

    def wait_recovered(self, seconds: float | None) -> Steps[None]:
        """Until commands go to the server again, or the time is over; None is for ever."""
        until, before = None if seconds is None else self.clock() + seconds, self.denials
        while not (self.closed and (self.gate_open or self.denials != before)):
            left = 3600.0 if until is None else until - self.clock()
            if left <= 0:
                return
            yield self.pausing(left)

    def wait_settled(self, receipts: Iterable[Queued], seconds: float) -> Steps[None]:
        """Until all `receipts` are settled, the breaker is not closed, or the time is over."""
        until = self.clock() + seconds
        for receipt in receipts:
            while not receipt.settled and self.closed and self._held is None:
                left = until - self.clock()
                if left <= 0:
                    return
                receipt.on_settled(self.wake)
                yield self.pausing(left)

    # -- hang detection ---------------------------------------------------------------------

    def watch(self, connection: Any) -> None:
        """`connection` is about to wait for the server."""
        self.adopt()
        self.connections.add(connection)
        self.arm()

    def check_hang(self, since: float) -> None:
        """Asks on a second connection whether the server still answers who has waited since
        `since`; one question at a time.
        """
        self.exclusively(partial(self._check_hang, since))

    def _check_hang(self, since: float) -> None:
        if self.closed and is_over(self._hang_check):
            left = max(since + self.deadline - self.clock(), self.deadline / 4)
            self._hang_check = self.beside(self._asking(min(left, self.deadline)), "hang-check")

    def hang_verdict(self) -> Steps[None]:
        """If the question is being asked, the answer is due at any moment."""
        if not is_over(self._hang_check):
            yield partial(self.joined, self._hang_check, 0.05)

    def _asking(self, seconds: float) -> Steps[None]:
        era, asked = self.era, self.clock()
        assert self.template is not None
        try:
            asking = self.template.asking(self.link_class, seconds)
            yield partial(self.limited, asking, seconds)
        except Exception as error:  # noqa: BLE001 - it is classified, and nobody waits for this
            if not is_alive(error):
                if self.era == era:
                    self.trip(Cause.HANG, type(error).__name__)
                return
        for connection in list(self.connections):
            connection.cleared(asked)

    # -- the end ----------------------------------------------------------------------------

    def _ending(self) -> Steps[None]:
        """Ends what runs in the background."""
        self.disarm()
        replaying = None if self.object is None else self.object.replaying
        running = [each for each in (self._recovery, self._hang_check, replaying) if each]
        for each in running:
            self.stop(each)
        self.wake_waiting()
        for each in running:
            yield partial(self.ended, each)


def is_over(running: Any) -> bool:
    """Of what `beside` has returned, or None."""
    done: Callable[[], bool] | None = getattr(running, "done", None)
    return done is None or done()
