"""What one connection sees of redis-py's client-side cache, in the order in which redis-py asks."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import pytest
from redis.cache import CacheConfig as _CacheConfig
from redis.cache import CacheEntry, CacheEntryStatus, CacheKey, DefaultCache

from resilient_redis.seam.caching import Filler, View

CacheConfig: Any = _CacheConfig  # untyped
KEY = CacheKey("GET", ("x",))
VALID, IN_PROGRESS = CacheEntryStatus.VALID, CacheEntryStatus.IN_PROGRESS


class Lock:
    held = False

    def __enter__(self) -> None:
        assert not self.held
        self.held = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.held = False


class Connection(Filler):
    """One with a proxy before it."""

    idle = True
    sound = True

    def __init__(self, shared: Any, lock: Lock) -> None:
        self.view = View(shared, lock)
        self._entry: Any = None

    def drained(self) -> bool:
        return self.sound

    def begins(self) -> Any:
        """What redis-py finds; if it finds nothing, it sends the command."""
        assert self.view.is_cachable(KEY)
        found = self.view.get(KEY)
        if found is None:
            self.view.set(CacheEntry(KEY, b"foo", IN_PROGRESS, self))
            self.idle = False
        return found

    def half_ends(self) -> None:
        """The reply has come, and redis-py's next step is to write it down."""
        self.idle = True
        self._entry = self.view.get(KEY)
        if self._entry is not None:
            self._entry.status = VALID

    def ends(self, reply: bytes) -> None:
        self.half_ends()
        if self._entry is not None:
            self._entry.cache_value = reply
            self.view.set(self._entry)


class Guarded:
    """A cache that is touched under its lock."""

    def __init__(self, lock: Lock) -> None:
        self._inner: Any = DefaultCache(CacheConfig())
        self._lock = lock

    def __getattr__(self, name: str) -> Any:
        assert self._lock.held or name in ("is_cachable", "size"), name
        return getattr(self._inner, name)


@pytest.fixture
def shared() -> Guarded:
    return Guarded(Lock())


@pytest.fixture
def one(shared: Guarded) -> Connection:
    return Connection(shared, shared._lock)


@pytest.fixture
def two(shared: Guarded) -> Connection:
    return Connection(shared, shared._lock)


def test_what_one_has_read_another_finds(one: Connection, two: Connection) -> None:
    assert one.begins() is None
    one.ends(b"1")
    found = two.begins()
    assert (found.cache_value, found.status) == (b"1", VALID)
    assert not found.connection_ref.can_read(0)  # redis-py looks: that is done
    one.sound = False
    assert two.begins() is None


def test_what_was_found_stays_until_the_next_command(one: Connection, two: Connection) -> None:
    one.begins()
    one.ends(b"1")
    found = two.begins()
    one.view.flush()
    assert two.view.get(KEY) is found
    assert two.begins() is None


def test_what_is_awaited_is_not_shown(one: Connection, two: Connection) -> None:
    """Nor what redis-py has half written down."""
    one.begins()
    assert two.begins() is None
    one.half_ends()
    assert two.begins() is None


def test_the_first_one_fills_the_place(one: Connection, two: Connection) -> None:
    one.begins()
    two.begins()
    two.ends(b"2")
    one.ends(b"1")
    assert two.begins().cache_value == b"1"


def test_who_does_not_come_back_keeps_no_place(one: Connection, two: Connection) -> None:
    one.begins()
    one.idle = True
    two.begins()
    one.ends(b"1")
    two.ends(b"2")
    assert one.begins().cache_value == b"2"


def test_who_is_busy_keeps_its_place(one: Connection, two: Connection) -> None:
    """It can be asked again in a moment: else all who cannot would be asking Redis in turn."""
    one.begins()
    one.ends(b"1")
    one.idle = one.sound = False
    assert two.begins() is None
    two.ends(b"1")
    one.idle = one.sound = True
    assert two.begins().cache_value == b"1"
    assert two.begins().connection_ref is not two


@pytest.mark.parametrize("how", ["invalidated", "flushed", "forgotten"])
def test_a_reply_whose_place_is_gone_is_not_kept(
    one: Connection, two: Connection, how: str
) -> None:
    one.begins()
    if how == "forgotten":
        one.view.forget()
    else:
        two.view.delete_by_redis_keys([b"x"]) if how == "invalidated" else two.view.flush()
    two.begins()
    one.ends(b"old")
    two.ends(b"new")
    assert one.begins().cache_value == b"new"


def test_between_two_steps_of_redis_py(one: Connection, two: Connection) -> None:
    """It has looked whether its place is there, and then what changes is told."""
    one.begins()
    one.half_ends()
    two.view.delete_by_redis_keys([b"x"])
    one._entry.cache_value = b"old"
    one.view.set(one._entry)
    assert two.begins() is None


def test_none_is_not_kept(one: Connection, two: Connection) -> None:
    one.begins()
    one.view.delete_by_cache_keys([KEY])
    assert two.view.size == 0
