"""What a breaker needs of its flavour: to wait, and to run something beside.

What "waits" is a wait of the steps (`steps.py`): on asyncio it returns something to be awaited.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..base import BreakerBase
from ..seam.methods import StandIn
from .steps import Steps

if TYPE_CHECKING:
    from .link import LinkBase

T = TypeVar("T")


class Flavour(BreakerBase):
    """See the two `RedisCircuitBreaker`s for what each makes of it."""

    #: What shapes the answers over an object that is no client of redis-py.
    stand_in: ClassVar[type[StandIn]]
    #: The connections of its own.
    link_class: ClassVar[type[LinkBase]]

    # -- for the user -----------------------------------------------------------------------

    @abstractmethod
    def execute(self, method_name: str, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls `func(*args, **kwargs)`, the method `method_name` of this breaker's client, or
        decides what it is answered: `execute("set", client.set, "k", "v")`.

        Over a client of redis-py the guard sits at the connections, and this just calls. Over any
        other object: while open, a write is queued and answered "OK", a read gets its neutral
        answer, the rest raises `CommandRefused`; a call that fails by an outage is raised again,
        and its `queued` says whether the write is queued.
        """

    @abstractmethod
    def flush_re_sync_queue(self) -> Any:
        """Looks at the server now and waits for the replay, up to `drain_wait`; returns how many
        writes were applied meanwhile.
        """

    # -- for the steps ----------------------------------------------------------------------

    @abstractmethod
    def _guard_connections(self, client: Any) -> bool:
        """Guards a client of redis-py at its connections. False where it is none."""

    @abstractmethod
    def exclusively(self, work: Callable[[], T]) -> T:
        """Does it while nothing else of this breaker is done."""

    @abstractmethod
    def adopt(self) -> bool:
        """What belongs to an event loop that has ended is not waited for in this one. False where
        none runs, and one has to.
        """

    @abstractmethod
    def wait_until(self, ready: Callable[[], bool], seconds: float) -> Any:
        """Waits, looking each time that `wake_waiting` is called, for so long at most."""

    @abstractmethod
    def wake_waiting(self) -> None:
        """Whoever waits looks again."""

    @abstractmethod
    def breathe(self) -> Any:
        """Waits for nothing, so that others run."""

    @abstractmethod
    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Calls it then, whoever waits or not."""

    @abstractmethod
    def arm(self) -> None:
        """Replies are waited for from now on: `check_hang` is to be called in time."""

    @abstractmethod
    def disarm(self) -> None:
        """Nobody waits for replies any more."""

    @abstractmethod
    def check_hang_soon(self, since: float) -> None:
        """`check_hang`, for who is being interrupted."""

    @abstractmethod
    def limited(self, steps: Steps[Any], seconds: float) -> Any:
        """Waits for all of `steps`, for so long at most where that can be had."""

    @abstractmethod
    def beside(self, steps: Steps[None], name: str) -> Any:
        """Runs `steps` beside; what it returns has `done()`. None where nothing can begin, because
        the interpreter ends.
        """

    @abstractmethod
    def joined(self, running: Any, seconds: float) -> Any:
        """Waits for what `beside` has returned, for so long at most."""

    @abstractmethod
    def stop(self, running: Any) -> None:
        """It is to end instead of waiting once more."""

    @abstractmethod
    def ended(self, running: Any) -> Any:
        """Waits until it has."""
