"""What a breaker needs of its flavour: to wait, and to run something beside.

What "waits" is a wait of the steps (`steps.py`): on asyncio it returns something to be awaited.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from ..base import BreakerBase
from .steps import Steps

T = TypeVar("T")


class Flavour(BreakerBase):
    """See the two `RedisCircuitBreaker`s for what each makes of it."""

    @abstractmethod
    def _set_up(self) -> None:
        """Its own attributes."""

    @abstractmethod
    def exclusively(self, work: Callable[[], T]) -> T:
        """Does it while nothing else of this breaker is done."""

    @abstractmethod
    def _guard_connections(self, client: Any) -> bool:
        """Guards a client of redis-py at its connections. False where it is none."""

    @abstractmethod
    def adopt(self) -> Any:
        """What belongs to an event loop that has ended is not waited for in this one."""

    @abstractmethod
    def watch(self, connection: Any) -> None:
        """`connection` is about to wait for the server."""

    @abstractmethod
    def start_recovery(self) -> None:
        """Recovery runs while there is something to recover, and only then."""

    @abstractmethod
    def recovery_ended(self) -> None:
        """It does not run any more."""

    @abstractmethod
    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Calls it then, whoever waits or not."""

    @abstractmethod
    def _wake_waiting(self) -> None:
        """Whoever pauses looks again."""

    @abstractmethod
    def _pause(self, seconds: float, changes: int) -> Any:
        """Waits, until there were more than so many `changes`, or the time is over."""

    @abstractmethod
    def sleep(self, seconds: float) -> Any:
        """Waits for so long."""

    @abstractmethod
    def rest(self, seconds: float) -> Any:
        """Waits between two probes; `hurry` ends it."""

    @abstractmethod
    def hurry(self) -> None:
        """The next probe is wanted now."""

    @abstractmethod
    def breathe(self) -> Any:
        """Waits for nothing, so that others run."""

    @abstractmethod
    def check_hang(self, since: float) -> None:
        """Asks on a second connection whether the server still answers; one question at a time."""

    @abstractmethod
    def check_hang_soon(self, since: float) -> None:
        """The same for who is being interrupted."""

    @abstractmethod
    def hang_verdict(self) -> Any:
        """If the question is being asked, waits for the answer that is due at any moment."""

    @abstractmethod
    def open_link(self) -> Any:
        """Waits. A `Link` to a server that answers."""

    @abstractmethod
    def limited(self, steps: Steps[Any], seconds: float) -> Any:
        """Waits for all of `steps`, for so long at most where that can be had."""

    @abstractmethod
    def spawn(self, steps: Steps[None], name: str) -> Any:
        """Runs `steps` beside; has `done()`."""

    @abstractmethod
    def joined(self, running: Any, seconds: float) -> Any:
        """Waits for what `spawn` has returned, for so long at most."""

    @abstractmethod
    def _end_all(self) -> Any:
        """Waits. Ends what runs in the background."""

    @abstractmethod
    def _recovery_over(self, seconds: float) -> Any:
        """Waits until recovery does not run any more, for so long at most."""
