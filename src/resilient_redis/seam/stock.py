"""redis-py's own ways on a connection, which pass the guard by.

In both flavours: what they return is a wait's result (`flow/steps.py`), on asyncio to be awaited.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class Stock:
    """Stands behind the guard's classes and before redis-py's: `super()` is redis-py here."""

    def _connect_stock(self) -> Any:
        """Waits. Connects, with redis-py's own handshake and connect callbacks."""
        stock: Any = super()
        # retry_socket_connect: no retry of redis-py inside ours (110 connects for one command).
        return stock.connect_check_health(check_health=False, retry_socket_connect=False)

    def _greet_stock(self, check_health: bool) -> Any:
        """Waits. redis-py's handshake on a new socket."""
        stock: Any = super()
        return stock.on_connect_check_health(check_health=check_health)

    def _ping_stock(self) -> Any:
        """Waits. redis-py's health check, once."""
        stock: Any = super()
        return stock._send_ping()

    _re_auth_token: Any  # a new one of its provider; None where it has logged in with the last

    def _forget_new_token(self) -> None:
        self._re_auth_token = None

    def _re_auth_stock(self) -> Any:
        """Waits. redis-py's login with a new token."""
        stock: Any = super()
        return stock.re_auth()

    def _send_stock(self, call: Sequence[Any]) -> Any:
        """Waits. One command, without a health check before it."""
        stock: Any = super()
        return stock.send_packed_command(stock.pack_command(*call), check_health=False)

    def _send_raw(self, data: bytes) -> Any:
        """Waits. Bytes as they are."""
        stock: Any = super()
        return stock.send_packed_command([data], check_health=False)

    def _pack(self, calls: Iterable[Sequence[Any]]) -> list[bytes]:
        """As redis-py packs them."""
        stock: Any = super()
        calls = list(calls)
        packed = stock.pack_command(*calls[0]) if len(calls) == 1 else stock.pack_commands(calls)
        return list(packed)
