"""The receipt that stands in for a reply which Redis has not given yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from .errors import ReplyUnknown


class Queued:
    """A write that is in the journal and will be applied exactly once.

    It is not a number, a string or a truth value, because the real reply is not known;
    using it as one raises `ReplyUnknown`. `receipt == "OK"` is true, `seq` is the entry's
    number in the journal, and `command` its wire name.
    """

    __slots__ = ("__weakref__", "_listeners", "_result", "command", "seq")

    def __init__(self, seq: int, command: str) -> None:
        self.seq = seq
        self.command = command
        self._result: tuple[bool, Any] | None = None
        self._listeners: list[Callable[[], None]] = []

    def settle(self, applied: bool, value: Any) -> None:
        """Called once by the replay: the real reply, or the error that set the entry aside."""
        self._result = (applied, value)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    @property
    def settled(self) -> bool:
        """True once the entry was applied or set aside."""
        return self._result is not None

    def result(self) -> Any:
        """The raw reply. Raises the dead letter's error, or `ReplyUnknown` while it waits."""
        if self._result is None:
            raise ReplyUnknown(f"{self.command} is queued as entry {self.seq}: no reply yet")
        applied, value = self._result
        if applied:
            return value
        raise value

    def on_settled(self, listener: Callable[[], None]) -> None:
        """For the guard: calls `listener` when the entry is settled, at once if it already is. It
        may not wait: the breaker's lock is held.
        """
        # In this order, because another thread may settle it meanwhile. Told twice does no harm.
        self._listeners.append(listener)
        if self._result is not None:
            listener()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (str, bytes)):
            return other == ("OK" if isinstance(other, str) else b"OK")
        return other is self

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        state = "queued" if self._result is None else "applied" if self._result[0] else "set aside"
        return f"<Queued {self.command} seq={self.seq} {state}>"

    __str__ = __repr__

    def _unknown(self, *_: object) -> NoReturn:
        raise ReplyUnknown(
            f"{self.command} is queued as entry {self.seq}: its reply is not known yet; "
            "the write needs no retry"
        )

    __bool__ = __int__ = __float__ = __index__ = __len__ = __iter__ = _unknown
    __lt__ = __le__ = __gt__ = __ge__ = _unknown
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _unknown
    __truediv__ = __rtruediv__ = __floordiv__ = __mod__ = __neg__ = __contains__ = _unknown
