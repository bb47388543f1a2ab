"""An application as a process of its own, started as its users start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path

import pytest

from resilient_redis.cli.servers import free_port

ROOT = Path(__file__).parents[2]
HERE = "tests.apps"
START = 20.0  # s; a machine under load imports Django or Celery in several
HOST = "127.0.0.1"


def needs(*packages: str) -> None:
    """Skips the test where one of `packages` is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed (pip install 'resilient-redis[apps]')")


def until(what: Callable[[], object], seconds: float = 10.0, of: str = "it") -> None:
    """Waits for what nobody announces in this process."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"{of} did not happen within {seconds} s"
        time.sleep(0.01)


class Process:
    """`python -m arguments`, with what it prints in a file. Ends with the `with` block, in order:
    by SIGTERM, which every one of these servers and workers answers with a graceful end.
    """

    def __init__(self, arguments: Sequence[str], redis_url: str, **env: str) -> None:
        self._log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 - as long as this
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, "REDIS_URL": redis_url, "PYTHONPATH": f"{ROOT}:{ROOT}/src", **env},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def log(self) -> str:
        """What it has printed until now."""
        return Path(self._log.name).read_text(errors="replace")

    def started(self, ready: Callable[[], bool]) -> None:
        """Waits until `ready`."""
        deadline = time.monotonic() + START
        while not ready():
            assert self._process.poll() is None, f"it ended at once:\n{self.log}"
            assert time.monotonic() < deadline, f"not ready after {START} s:\n{self.log}"
            time.sleep(0.02)

    def ended(self) -> None:
        """Waits until it ends by itself."""
        assert self._process.wait(START) == 0, self.log

    def end(self) -> None:
        """Asks it to end, and waits."""
        self._process.send_signal(signal.SIGTERM)
        self.ended()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.send_signal(signal.SIGTERM)  # nothing, where it has ended
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            if exc[0] is None:
                pytest.fail(f"it did not end within 10 s:\n{self.log[-3000:]}")
        finally:
            if exc[0] is not None:
                print(self.log[-6000:])
            self._log.close()


class Service(Process):
    """One that answers at `port`."""

    def __init__(self, arguments: Sequence[str], redis_url: str, port: int, **env: str) -> None:
        super().__init__(arguments, redis_url, **env)
        self.port = port

    def __enter__(self) -> Service:
        try:
            self.started(self._answers)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def ask(self, path: str, cookie: str = "") -> tuple[int, str, str]:
        """Status, body and cookie of one GET on a connection of its own."""
        connection = HTTPConnection(HOST, self.port, timeout=8)
        try:
            connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
            response = connection.getresponse()
            given = response.getheader("Set-Cookie") or ""
            return response.status, response.read().decode(), given.partition(";")[0]
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            return self.ask("/alive")[0] == 200
        except (OSError, HTTPException):
            return False


def gunicorn(app: str, redis_url: str, *options: str, **env: str) -> Service:
    port = free_port()
    bind = ("--bind", f"{HOST}:{port}", "--graceful-timeout", "5")
    return Service(("gunicorn", f"{HERE}.{app}", *bind, *options), redis_url, port, **env)


def uvicorn(app: str, redis_url: str, *options: str, **env: str) -> Service:
    port = free_port()
    bind = ("--host", HOST, "--port", str(port), "--log-level", "warning")
    return Service(("uvicorn", f"{HERE}.{app}", *bind, *options), redis_url, port, **env)
