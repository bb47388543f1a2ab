"""`ResilientConnection`: a redis-py connection whose commands pass the guard.

The healthy path is redis-py's own behind one attribute test (`breaker.live`). Everything else is in
`resilient_redis.flow` and `socket.py`; here stands what runs for every command.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from ..answering import LIVE
from ..flow.socket import PUBSUB, SESSION, PlainTCP
from ..seam.failures import OUTAGE
from ..seam.packed import Call, Packed
from ..seam.replies import read_reply
from .driving import run
from .socket import SyncSocket


class GuardedConnection(SyncSocket):
    """Mixed into a connection class of redis-py; see `ResilientConnection`."""

    # -- sending ------------------------------------------------------------------------------

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        """Sends a command, or decides what it is answered."""
        if self._opening is not None and self._in_handshake():
            super().send_packed_command(
                self._command_packer.pack(*args), check_health=kwargs.get("check_health", True)
            )
            return
        self._pipelined = False
        self._submit((args,), kwargs.get("check_health", True), None)

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Sends what `pack_commands` made, or decides what it is answered."""
        if isinstance(command, Packed) and not self._in_handshake():
            self._pipelined = True
            if self._view is not None:
                self._view.forget()  # before 8.1 redis-py takes it for the command before
            self._submit(command.calls, check_health, command)
        else:
            super().send_packed_command(command, check_health)

    def _submit(
        self, calls: Sequence[Call], check_health: bool, packed: list[bytes] | None
    ) -> None:
        breaker = self.breaker
        if self._connect_callbacks and self._subscribes_again():
            run(breaker.lock, self._submitting_to_subscription(calls))
            return
        self._delivered = 0
        self._user = threading.get_ident()
        if self._losses:  # and only then the others
            self._losses = self._lost_replies = 0
            self._touched = ""
        if self.receipts:
            self.receipts = {}
        due = self.health_check_interval and check_health and self._check_is_due()
        if (
            breaker.live
            and not due
            and self._sock is not None  # as `_usable`, without its call
            and self._sent is None
            and self._loss is None
            and self._outage == breaker.outages
        ):
            name = calls[0][0]
            # Packed first: a value that has no bytes is the caller's mistake, and leaves no trace.
            chunks: Any = packed or self._command_packer.pack(*calls[0])
            special = name in SESSION
            if special or self._tied:
                self._tie(calls)
            self._slots = None
            self._track(calls)
            # Looked at again behind that: a breaker that opens looks at what is on the wire, and
            # one of the two sees the other.
            if breaker.live and self._outage == breaker.outages:  # type: ignore[redundant-expr]  # of another thread mypy knows nothing
                self._write(chunks)
                if special and name in PUBSUB:
                    self._forget()
                return
            self._sent = None
        run(breaker.lock, self._submitting(calls, check_health))

    # -- replies ------------------------------------------------------------------------------

    def _read_raw(self) -> Any:
        return self.read_response()

    def read_response(self, disable_decoding: bool = False, **options: Any) -> Any:
        """The next reply: from the socket, or the one that was decided."""
        if self._opening is not None and self._in_handshake():
            reply = super().read_response(disable_decoding, **options)
            self._sent_at = self.breaker.clock()
            return reply
        if self._sent is None and self._slots is None:
            return self._read_unasked(disable_decoding, options)
        push_request = options.get("push_request", False) if options else False
        while True:
            if self._slots is not None and self._slots[0] is not LIVE:
                reply = self._deliver(disable_decoding)
                if self._already_told():
                    continue
                return reply
            try:
                if (view := self._view) is None:
                    reply = read_reply(self, disable_decoding, push_request)
                else:
                    reply = self._read_apart(view, disable_decoding, push_request)
                if self.health_check_interval:
                    self.next_health_check = time.monotonic() + self.health_check_interval  # type: ignore[assignment]  # redis-py's first is 0
                if isinstance(reply, Exception):
                    raise reply
            except ResponseError as error:
                if not run(self.breaker.lock, self._error_reply(error)):
                    raise
            except OUTAGE as error:
                timed_out = isinstance(error, TimeoutError)
                if not timed_out or not self._goes_on_waiting():
                    lost = ConnectionError("it was cut off") if self._loss and timed_out else error
                    run(self.breaker.lock, self._lost(lost))
            except BaseException:  # of a signal's handler, say: nobody reads the reply
                self.disconnect()
                self._abandoned()
                raise
            else:
                self._arrived(reply)
                if not self._told:
                    return reply
                self._already_told()

    def _read_unasked(self, disable_decoding: bool, options: dict[str, Any]) -> Any:
        """What comes by itself: a message, a line of MONITOR."""
        if not (self._connect_callbacks and self._subscribes_again()):
            return self._read_patiently(disable_decoding, options)

        def read(left: float | None) -> Any:
            timeout = {"timeout": left} if "timeout" in options else {}
            return self._read_patiently(disable_decoding, {**options, **timeout})

        return run(self.breaker.lock, self._reading_message(options.get("timeout"), read))

    def _read_patiently(self, disable_decoding: bool, options: dict[str, Any]) -> Any:
        """redis-py's read, which gives up when its own time is over, and not a slice of it."""
        since, limit = self.breaker.clock(), self._socket_timeout
        while True:
            try:
                return super().read_response(
                    disable_decoding, **{**options, "disconnect_on_error": False}
                )
            except TimeoutError:
                over = limit is not None and self.breaker.clock() - since >= 0.99 * limit
                if "timeout" not in options and not over:
                    continue
                if options.get("disconnect_on_error", True):
                    self.disconnect()
                raise
            except ResponseError:
                raise
            except BaseException:
                if options.get("disconnect_on_error", True):
                    self.disconnect()
                raise


class ResilientConnection(PlainTCP, GuardedConnection, Connection):
    __doc__ = PlainTCP.__doc__


class ResilientSSLConnection(GuardedConnection, SSLConnection):
    """redis-py's TLS connection with the guard inside. See `ResilientConnection`."""


class ResilientUnixDomainSocketConnection(GuardedConnection, UnixDomainSocketConnection):
    """redis-py's Unix socket connection with the guard inside. See `ResilientConnection`."""


GUARDED: dict[type[Any], type[Any]] = {
    Connection: ResilientConnection,
    SSLConnection: ResilientSSLConnection,
    UnixDomainSocketConnection: ResilientUnixDomainSocketConnection,
}
