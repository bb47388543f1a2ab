"""TLS in front of a server whose wheel was built without it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from pathlib import Path
from types import TracebackType

import pytest


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl here to make a certificate with")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [
            *(program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


class TlsProxy:
    """Takes TLS off what comes in, and passes it on to a server on 127.0.0.1."""

    def __init__(self, upstream_port: int, certificate: Path, key: Path) -> None:
        self._upstream = upstream_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.presents(certificate, key)
        self._tasks: set[asyncio.Task[None]] = set()
        self.handshakes = 0
        self.port = 0

    def presents(self, certificate: Path, key: Path) -> None:
        """To who connects from now on."""
        self._context.load_cert_chain(certificate, key)

    async def __aenter__(self) -> TlsProxy:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handshakes += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._upstream)
            ends.append(to_server)
            pumps = {
                asyncio.ensure_future(_pump(reader, to_server)),
                asyncio.ensure_future(_pump(from_server, writer)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # nobody listens behind us: the client is told by the end of its connection
        finally:
            for end in ends:
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # one side is gone, which ends both
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
