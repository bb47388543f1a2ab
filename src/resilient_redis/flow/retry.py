"""redis-py's retry on a guarded connection, as far as both flavours share it."""

from __future__ import annotations

import weakref
from typing import Any


class GuardedRetryBase:
    """The user's retry, except that what the guard has decided is final.

    The guard itself repeats what was not sent or is safe to send twice; redis-py alone would
    repeat anything, an INCR whose replies are lost 11 times (FACTS.md).

    redis-py wraps each command and each pipeline of a client in `call_with_retry`, response
    callbacks included. That makes it the place where a `Queued` receipt can take the place of a
    reply without any callback seeing it.
    """

    _backoff: Any
    _retries: int

    def __init__(self, inner: Any, connection: Any) -> None:
        super().__init__(inner._backoff, inner._retries, inner._supported_errors)  # type: ignore[call-arg]  # redis-py's `Retry`
        # Weak: the connection holds its retry, and redis-py warns of a connection in its __del__.
        self._connection = weakref.ref(connection)
