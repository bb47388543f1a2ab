"""A simulated server for platforms without a wheel: fakeredis behind a real TCP port.

Good enough to watch an outage, not to prove promises: it has no append-only file, cannot be
frozen, and keeps its data in this process.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

from .servers import ServerError, free_port


class FakeServer:
    """Looks like `ServerProcess`, as far as the rehearsal uses it."""

    flavour = "fake"
    frozen = False

    def __init__(self) -> None:
        self.port = free_port()
        self._server: Any = None
        self._data: Any = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        return self._server is not None

    def start(self, *, wait: bool = True) -> FakeServer:  # noqa: ARG002 - as ServerProcess has it
        """Listen; it answers at once."""
        try:
            # Without Lua it answers the replay's EVAL by ending the connection (2.40).
            import_module("lupa")
            from fakeredis import TcpFakeServer  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            raise ServerError(
                f"no simulated server here ({error}); "
                "install one with: pip install 'fakeredis[lua]'"
            ) from error
        self._server = TcpFakeServer(("127.0.0.1", self.port))
        if self._data is None:
            self._data = self._server.fake_server
        else:
            self._server.fake_server = self._data
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        return self

    def ready(self) -> bool:
        return self.running

    def kill(self) -> None:
        """Cut all connections and stop listening; the data stay."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        if self._thread is not None:
            self._thread.join(5.0)

    def restart(self, *, wait: bool = True) -> FakeServer:
        self.kill()
        return self.start(wait=wait)

    def freeze(self) -> None:
        raise ServerError("a simulated server cannot be frozen")

    def thaw(self) -> None:
        raise ServerError("a simulated server cannot be frozen")

    def stop(self) -> None:
        self.kill()
