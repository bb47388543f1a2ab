"""What a guarded connection needs of its flavour: to open, close, send and read.

What "waits" is a wait of the steps (`steps.py`): on asyncio it returns something to be awaited.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from ..seam.stock import Stock
from .steps import Steps


class SocketPort(Stock):
    """See the two connection modules for what each flavour makes of it."""

    @abstractmethod
    def _has_socket(self) -> bool:
        """Whether there is a socket, sound or not."""

    @abstractmethod
    def _usable(self) -> bool:
        """Connected since the last outage, and nothing on it that belongs to somebody else."""

    @abstractmethod
    def _shut(self) -> Any:
        """Waits. Closes the socket now; one with unanswered calls is aborted."""

    @abstractmethod
    def _abort(self, *, reset: bool) -> None:
        """Nothing that was not sent may be sent after this, and whoever waits is woken. `reset`:
        also what the kernel holds.
        """

    @abstractmethod
    def _unsent(self) -> bool:
        """Whether it is certain that the last byte was not handed over. Ask before `_abort`."""

    @abstractmethod
    def _begin(self, work: Callable[[], Steps[None]]) -> None:
        """redis-py's own traffic (a handshake, a PING) begins: `work` passes the guard by."""

    @abstractmethod
    def _ended(self, seconds: float) -> Any:
        """Waits for what `_begin` has begun, for `seconds` at most without a reply. Returns what
        that raised. The opening of the breaker ends it at once.
        """

    @abstractmethod
    def _opened_by_another(self, seconds: float) -> Any:
        """Waits for it, if another holder of this connection opens it."""

    @abstractmethod
    def _interrupt_opening(self) -> None:
        """The breaker opens: no use in going on with that."""

    @abstractmethod
    def _in_handshake(self) -> bool:
        """Whether the caller is at redis-py's own traffic now."""

    @abstractmethod
    def _check_is_due(self) -> bool:
        """Whether redis-py would check the connection's health before the next command."""

    @abstractmethod
    def _write(self, chunks: Sequence[bytes]) -> Any:
        """Waits. Hands over; what fails is told by `_loss`, and found by who reads."""

    @abstractmethod
    def _read_raw(self) -> Any:
        """Waits. In a handshake: redis-py's own read."""

    @abstractmethod
    def _subscribes_again(self) -> bool:
        """Whether a `PubSub` holds this connection: redis-py calls it back at each connect."""
