"""A connection that a `PubSub` holds: it waits through an outage, and is resubscribed.

redis-py's `PubSub` registers a callback on its connection, which subscribes again to all its
channels after each connect. So nothing of a subscription is lost with a connection but the messages
of the time between, of which observers hear (`SubscriptionGap`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.exceptions import TimeoutError

from ..events import SubscriptionGap
from ..seam.failures import OUTAGE, is_outage
from ..seam.packed import Call
from .sender import GuardedSender
from .steps import Steps

# Between two attempts to connect anew while the breaker is still closed.
_PAUSE = 0.05
_UNSUBSCRIBE = frozenset({"UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"})
_SUBSCRIBE = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"})


class GuardedSubscriber(GuardedSender):
    """The subscribing half of a guarded connection."""

    def __init__(self, **kwargs: Any) -> None:
        self._channels: set[bytes] = set()
        self._heard_at: float | None = None  # when something last came on this socket
        self._silent_since: float | None = None  # since when messages may have been lost
        self._later: list[Call] = []  # to be sent when it is connected again
        self._catching_up = False  # those are on their way
        super().__init__(**kwargs)

    @abstractmethod
    def _socket_id(self) -> Any:
        """Which socket it is; None where there is none."""

    # -- commands: (un)subscribing, and PING; their replies come among the messages ---------

    def _submitting_to_subscription(self, calls: Sequence[Call]) -> Steps[None]:
        for call in calls:
            self._note(call)
        if self._opening is not None or self._catching_up:
            # Not waited for: redis-py holds the lock of its `PubSub` here, and who opens the
            # connection in another thread needs it to subscribe again.
            self._later += [call for call in calls if call[0] in _UNSUBSCRIBE | _SUBSCRIBE]
            return
        connected = self.breaker.closed and (yield from self._ready(self.breaker.deadline))
        if connected:
            self._later += calls
            yield from self._catch_up()
            return
        # The callback subscribes by itself; PING was to find out what is known now.
        self._lost_sight()
        self._later += [call for call in calls if call[0] in _UNSUBSCRIBE]

    def _catch_up(self) -> Steps[None]:
        """Sends what is to be sent, in its order; what comes meanwhile comes behind it."""
        self._catching_up = True
        try:
            while self._later and self._usable():
                calls, self._later = self._later, []
                yield partial(self._write, self._pack(calls))
                self._forget()
                if not self._usable():
                    self._lost_sight()
                    again = [call for call in calls if call[0] in _UNSUBSCRIBE]
                    self._later = again + self._later
        finally:
            self._catching_up = False

    def _open(self, seconds: float) -> Steps[bool]:
        opened = yield from super()._open(seconds)
        if opened and self._later and not self._catching_up:
            yield from self._catch_up()
        return opened and self._usable()

    def _note(self, call: Call) -> None:
        encode: Callable[[Any], Any] = self.encoder.encode
        names = {bytes(encode(name)) for name in call[1:]}
        if call[0] in _SUBSCRIBE:
            self._channels |= names
        elif call[0] in _UNSUBSCRIBE:
            self._channels = self._channels - names if names else set()

    # -- messages ---------------------------------------------------------------------------

    def _reading_message(
        self, timeout: float | None, read: Callable[[float | None], Any]
    ) -> Steps[Any]:
        """The next message. Waits through an outage, for `timeout` seconds at most; None if there
        is none by then, as redis-py's `get_message` has it. `read`: redis-py's, for so long.
        """
        endless = timeout is None or timeout == math.inf
        until = math.inf if endless else self.breaker.clock() + (timeout or 0.0)
        while True:
            # What came before the end of a socket is read first: it raises only then.
            if not self._has_socket() and not (yield from self._back(until)):
                return None
            left = timeout if endless else max(until - self.breaker.clock(), 0.0)
            socket = self._socket_id()
            try:
                message = yield partial(read, left)
                if message:
                    self._heard_at = self.breaker.clock()
                return message
            except TimeoutError:
                raise  # socket_timeout, as in redis-py
            except OUTAGE as error:
                if self._socket_id() is socket:  # else who subscribes has connected anew
                    yield self._shut
                    self._lost_sight()
                if not is_outage(error):
                    raise

    def _lost_sight(self) -> None:
        # Nobody knows how long before its end a socket has carried nothing any more.
        if self._silent_since is None:
            self._silent_since = self._heard_at or self.breaker.clock()

    def _back(self, until: float) -> Steps[bool]:
        """Connects again. False where the time is over first."""
        breaker = self.breaker
        self._lost_sight()
        if breaker.closed and (yield from self._ready(breaker.deadline / 4)):
            return True  # also for who only ever polls, with no time at all
        while (left := until - breaker.clock()) > 0:
            if not breaker.closed:
                breaker.start_recovery()
                yield breaker.pausing(min(left, 3600.0))
            elif (yield from self._ready(min(left, breaker.deadline))):
                return True
            elif breaker.closed:
                yield breaker.pausing(min(left, _PAUSE))
        return self._usable()

    def _connect_and_introduce(self) -> Steps[None]:
        yield from super()._connect_and_introduce()
        if not self._subscribes_again():
            self._channels.clear()
            self._later.clear()
            self._silent_since = self._heard_at = None
            return
        if self._heard_at is not None:
            self._lost_sight()  # also where not a reader, but who subscribes has found it closed
        self._heard_at = self.breaker.clock()
        later, self._later = self._later, []
        for call in later:
            yield partial(self._send_stock, call)
        if self._silent_since is not None:
            gap, self._silent_since = self._silent_since, None
            names = tuple(sorted(self._channels))
            now = self.breaker.clock()
            self.breaker.emit(SubscriptionGap(self.breaker.name, now, names, gap, now))

    def outage(self) -> None:
        """The breaker opens: the server may be gone without a word."""
        if self._opening is None and self._subscribes_again():
            self._lost_sight()
            if self._has_socket():
                self._abort(reset=False)
            return
        super().outage()
