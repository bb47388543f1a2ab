"""Two network namespaces with a cable between them that can be cut.

Everything happens inside the two: their addresses are from TEST-NET-1 (RFC 5737) and reach nowhere
else. Needs root and `ip`; what is missing is said in the reason of the skip.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVER_ADDRESS, CLIENT_ADDRESS = "192.0.2.1", "192.0.2.2"
SERVER_MAC = "02:00:00:00:00:01"  # a locally administered one
_NEW_NET = 0x40000000  # CLONE_NEWNET, setns(2)


class Network:
    """`cut` loses all packets, both ways; nobody is told. `heal` lets them pass again."""

    def __init__(self) -> None:
        self.server, self.client = f"rr{os.getpid()}s", f"rr{os.getpid()}c"
        self._cable = f"rr{os.getpid()}v"

    def lay(self) -> None:
        for name in (self.server, self.client):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        ends = ("type", "veth", "peer", "name", self._cable, "netns", self.client)
        _ip("-n", self.server, "link", "add", self._cable, *ends)
        for name, address in ((self.server, SERVER_ADDRESS), (self.client, CLIENT_ADDRESS)):
            _ip("-n", name, "address", "add", f"{address}/30", "dev", self._cable)
            _ip("-n", name, "link", "set", self._cable, "up")
        # Else the client's kernel asks for it anew after a cut (ARP), and keeps what it has sent
        # meanwhile, also of a socket that was reset, until it is answered.
        known = ("lladdr", SERVER_MAC, "nud", "permanent", "dev", self._cable)
        _ip("-n", self.server, "link", "set", self._cable, "address", SERVER_MAC)
        _ip("-n", self.client, "neigh", "replace", SERVER_ADDRESS, *known)

    def remove(self) -> None:
        for name in (self.server, self.client):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def cut(self) -> None:
        # The server's end: the client's own stays up, so that its kernel has a route and tries.
        _ip("-n", self.server, "link", "set", self._cable, "down")

    def heal(self) -> None:
        _ip("-n", self.server, "link", "set", self._cable, "up")

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread's new sockets, and new processes, belong to the namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(there)
            os.close(before)


def why_not() -> str | None:
    """The reason for which there can be no namespaces here."""
    if sys.platform != "linux":
        return f"network namespaces are Linux's, this is {sys.platform}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need `ip` (iproute2)"
    if not Path("/proc/thread-self/ns/net").exists():
        return "this kernel has no network namespaces"
    return None


@contextmanager
def network() -> Iterator[Network]:
    """A fresh pair; skips the test where there can be none."""
    reason = why_not()
    if reason is None:
        made = Network()
        try:
            made.lay()
        except subprocess.CalledProcessError as error:
            made.remove()
            reason = f"no network namespaces: {error.stderr.decode().strip()}"
        else:
            try:
                yield made
            finally:
                made.remove()
            return
    pytest.skip(reason)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NEW_NET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
