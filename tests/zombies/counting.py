"""Zombies, counted in the server's own file."""

from __future__ import annotations

from collections.abc import Iterable

from resilient_redis.cli.aof import Effect

OLD, NEW = b"old", b"new"


def late(effects: Iterable[Effect]) -> set[bytes]:
    """The keys on which an old value landed after a new one."""
    renewed: set[bytes] = set()
    found: set[bytes] = set()
    for effect in effects:
        if len(effect.args) < 3:
            continue
        key, value = effect.args[1], effect.args[2]
        if value.startswith(NEW):
            renewed.add(key)
        elif value.startswith(OLD) and key in renewed:
            found.add(key)
    return found
