"""The socket side of a guarded connection among threads: opening, closing, cutting off, handing
bytes over, and what silence means.
"""

from __future__ import annotations

import builtins
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..core.guard import Sent
from ..flow.steps import Steps
from ..seam.caching import is_of_cache
from ..seam.failures import OUTAGE
from ..seam.sockets import cut_off, is_tls, set_timeout
from ..track import outermost
from .breaker import RedisCircuitBreaker
from .caching import CachedSocket
from .driving import run
from .retry import GuardedRetry


class _Opening:
    """redis-py's own traffic on a connection, and whose it is."""

    def __init__(self, work: Callable[[], Steps[None]]) -> None:
        self.work = work
        self.thread = threading.get_ident()
        self.over = threading.Event()


class SyncSocket(CachedSocket):
    """What `GuardedConnection` is built on."""

    breaker_class = RedisCircuitBreaker
    retry_class = GuardedRetry
    breaker: RedisCircuitBreaker
    _opening: _Opening | None

    def __init__(self, **kwargs: Any) -> None:
        self._broken_off = False  # not all bytes of what was sent were handed over
        self._user = 0  # the thread that has sent
        self._patience = 0.0  # seconds that redis-py's own traffic may take without a reply
        super().__init__(**kwargs)

    # redis-py gives a socket its timeouts where it opens it, and each reads them from here.

    @property
    def socket_timeout(self) -> float | None:
        """As it was given; while the connection is opened, what is left of the deadline."""
        return self._within_patience(self._socket_timeout)

    @socket_timeout.setter
    def socket_timeout(self, seconds: float | None) -> None:
        self._socket_timeout = seconds

    @property
    def socket_connect_timeout(self) -> float | None:
        """As `socket_timeout`."""
        return self._within_patience(self._socket_connect_timeout)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, seconds: float | None) -> None:
        self._socket_connect_timeout = seconds

    def _within_patience(self, seconds: float | None) -> float | None:
        if self._opening is None:
            return seconds
        return self._patience if seconds is None else min(seconds, self._patience)

    # -- opening and closing ------------------------------------------------------------------

    def connect(self) -> None:
        """For the pool, before the command is known: silent where Redis is away."""
        if (
            self._sock is None  # not `_usable`, without its call: this is done for each command
            or self._sent is not None
            or self._loss is not None
            or self._outage != self.breaker.outages
        ) and not self._in_handshake():
            run(self.breaker.lock, self._connecting())

    def _usable(self) -> bool:
        return (
            self._sock is not None
            and self._sent is None
            and self._loss is None
            and self._outage == self.breaker.outages
        )

    def _has_socket(self) -> bool:
        return self._sock is not None

    def _socket_id(self) -> Any:
        return self._sock

    def _in_handshake(self) -> bool:
        return self._opening is not None and self._opening.thread == threading.get_ident()

    def _begin(self, work: Callable[[], Steps[None]]) -> None:
        self._opening = _Opening(work)

    def _ended(self, seconds: float) -> BaseException | None:
        opening = self._opening
        assert opening is not None
        if self._view is not None:
            self._view.settle()
        # A reply is a sign of life: a handshake is several round trips, and may take longer.
        self._patience = max(seconds, 0.001)
        if self._sock is not None:
            set_timeout(self, self._patience)
        try:
            run(self.breaker.lock, opening.work())
        except Exception as error:  # noqa: BLE001 - it is the caller's to deal with
            return error
        except BaseException:
            # Half a handshake must not be left on the connection.
            self.disconnect()
            raise
        finally:
            try:
                if self._sock is not None:
                    set_timeout(self, self._slice())
            finally:  # behind that: who closes it now does not get in between
                self._opening = None
                opening.over.set()
        return None

    def _opened_by_another(self, seconds: float) -> None:
        if (opening := self._opening) is not None:
            opening.over.wait(seconds)

    def _interrupt_opening(self) -> None:
        self._abort(reset=False)

    def on_connect_check_health(self, check_health: bool = True) -> None:
        run(self.breaker.lock, self._greeting(check_health))

    def re_auth(self) -> None:
        """As in redis-py, where the connection is up."""
        if self._re_auth_token is not None:  # this is asked after each command
            run(self.breaker.lock, self._logging_in_again())

    def _subscribes_again(self) -> bool:
        callbacks = [callback() for callback in self._connect_callbacks]
        return any(callback and not is_of_cache(callback) for callback in callbacks)

    def _check_is_due(self) -> bool:
        return bool(self.health_check_interval) and time.monotonic() > self.next_health_check

    def can_read(self, timeout: float | None = 0) -> bool:
        """False where not connected: what is to be done is decided with the command. A subscriber
        waits for `timeout` seconds, through an outage.
        """
        if self._connect_callbacks:
            if self._subscribes_again():
                stock: Any = super().can_read
                return bool(run(self.breaker.lock, self._reading_message(timeout, stock)))
            if self._view is not None:
                self._hear(self._view)
                return False
        if self._sock is None:
            return False
        try:
            there: bool = self._parser.can_read(timeout)  # what it raises, a pool takes as it is
        except (AttributeError, TypeError):
            if self._sock is not None:
                raise
            return False  # whoever owns the pool has closed it meanwhile
        return there

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """As in redis-py; a socket with unanswered calls is aborted, so that none is sent later."""
        alone = args or kwargs or self._in_handshake()  # redis-py says why it closes one by itself
        # As the process ends, a thread that is no more may have the lock for ever.
        if alone or sys.is_finalizing() or not self.breaker.exclusively(self._dismiss):
            self._close(*args, **kwargs)

    def _dismiss(self) -> bool:
        """Whoever owns the pool closes it. Whether there is nothing left to be done for that."""
        self._dismissed = True
        if self._opening is not None:
            self._interrupt_opening()
        elif self._sent is not None and self._is_of_another():
            self._retire()  # who waits there is woken, and closes it
        elif self._view is None:
            self._close()  # under the lock: its user opens it again only behind that
        else:
            return False  # the locks of a cache are not waited for here
        return True

    def _is_of_another(self) -> bool:
        return os.getpid() == self.pid and self._user != threading.get_ident()

    def __del__(self) -> None:
        # As in redis-py. Nobody else has it: where garbage is collected no lock may be waited for.
        with suppress(Exception):  # what cannot be closed is left to the interpreter
            self._close()

    def _close(self, *args: Any, **kwargs: Any) -> None:
        if self._sent is not None:
            self.breaker.exclusively(self._retire)
        super().disconnect(*args, **kwargs)

    def _shut(self) -> None:
        self._close()

    def _abort(self, *, reset: bool) -> None:
        # Not the one that the child of a fork shares with its parent.
        if (sock := self._sock) is not None and os.getpid() == self.pid:
            cut_off(sock, reset=reset)

    def _unsent(self) -> bool:
        # Only who sends knows: a TLS record may be split anywhere, and another thread who cuts this
        # connection off cannot tell how far its sender has come.
        return self._broken_off

    # -- handing over -------------------------------------------------------------------------

    def _write(self, chunks: Sequence[bytes]) -> None:
        """redis-py's write, which knows how far it has come: `sendall` does not tell."""
        if self._view is not None:
            self._view.settle()
        sock = self._sock
        if sock is None:
            self._loss = self._loss or Sent.NO  # nothing was handed over
            return
        try:
            for chunk in chunks:
                handed = sock.send(chunk)
                if handed != len(chunk):
                    self._write_rest(sock, memoryview(chunk)[handed:])
        except OUTAGE as error:
            # `read_response` finds the socket closed and decides.
            self.breaker.note_error(error)
            self._broken_off = not is_tls(sock)
            self._close()
            self._broken_off = False
        except BaseException:  # of a signal's handler, say: half of it may be on the wire
            self.disconnect()
            self._forget()
            raise

    def _write_rest(self, sock: socket.socket, rest: memoryview) -> None:
        """The kernel takes no more at the moment."""
        while rest:
            try:
                rest = rest[sock.send(rest) :]
            except builtins.TimeoutError:
                if not self._goes_on_waiting():
                    raise

    def _owner(self) -> Any:
        return outermost() or threading.current_thread()

    # -- silence ------------------------------------------------------------------------------

    def _slice(self) -> float:
        """Seconds after which who waits at the socket looks about: half a deadline, or a whole
        fraction of redis-py's timeout.
        """
        half, limit = self.breaker.deadline / 2, self._socket_timeout
        return half if limit is None else limit / math.ceil(limit / half)

    def _goes_on_waiting(self) -> bool:
        """A slice is over, and nothing has come. False where redis-py's own timeout is over, or the
        breaker has cut this connection off.
        """
        if self._loss is not None or self._sock is None:
            return False
        now, limit = self.breaker.clock(), self._socket_timeout
        if limit is not None and now - self._sent_at >= 0.99 * limit:
            return False
        since = self.waiting_since()
        if since is not None and now - since >= 0.49 * self.breaker.deadline:
            self.breaker.check_hang(since)
        return True
