"""What a thread reads and writes, seen by itself: each attribute of each object of the library.

A place is an attribute of an object, or what is in the container that is kept there. A *point*,
where others may run, is before each access to a place that another thread may change at that very
moment: because one of the two does not hold the lock. Which those are is found by running: places
start without, and as soon as a run has shown that one needs points, all is run again with them.
What stands between two points is seen by nobody else while it runs.

Under the lock the first of them needs none: what was done before it under the lock might as well
have been done later, and what comes after it earlier (Lipton, "Reduction", CACM 1975).

A store of the value that is there already changes nothing, and counts as a read. Containers in
containers are looked at as part of the outer one. Not looked at: globals, and what is named in
`NOT_LOOKED_AT`: sums that nothing is decided by, and the name of the last error, for messages.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from array import array
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from threading import get_ident
from types import BuiltinMethodType, FunctionType
from typing import Any

from .exploring import Footprint

CONTAINERS = frozenset({list, dict, set, deque, bytearray, array, OrderedDict, defaultdict})
NOT_LOOKED_AT = frozenset({"counters", "_answers", "_last_error"})
_CODE = (FunctionType, BuiltinMethodType, property, classmethod, staticmethod)
_PLAIN = (bool, int, float, str, bytes, type(None))
_READERS = frozenset({"copy", "count", "get", "index", "items", "keys", "values"})
Place = tuple[str, str]


class Places:
    """What is known of places, from one run to the next. `everywhere`: each access is a point."""

    def __init__(self, *, everywhere: bool = False) -> None:
        self.everywhere = everywhere
        self._bits: dict[Place, int] = {}
        self._used: dict[int, dict[int, set[tuple[bool, bool]]]] = {}  # by bit and thread
        #: Bit, whether the lock is held, whether it is a write.
        self.points: set[tuple[int, bool, bool]] = set()
        #: Those bits.
        self.torn: set[int] = set()
        #: Attributes that anybody writes; of no other is a read of interest.
        self.written: set[str] = set()
        self.grown = False

    def bit(self, place: Place) -> int:
        found = self._bits.get(place)
        if found is None:
            found = self._bits[place] = 1 << len(self._bits)
        return found

    def use(self, bit: int, thread: int, locked: bool, write: bool) -> None:
        """`thread` has read or written it."""
        how = (locked, write)
        used = self._used.setdefault(bit, {})
        mine = used.setdefault(thread, set())
        if how in mine:
            return
        mine.add(how)
        for other, theirs in used.items():
            if other != thread:
                for its in theirs:
                    self._meet(bit, how, its)

    def _meet(self, bit: int, one: tuple[bool, bool], other: tuple[bool, bool]) -> None:
        if (one[0] and other[0]) or not (one[1] or other[1]):
            return  # both hold the lock, or both read
        for locked, write in (one, other):
            if (bit, locked, write) not in self.points:
                self.points.add((bit, locked, write))
                self.torn.add(bit)
                self.grown = True

    def names(self, mask: int) -> list[str]:
        """For a message."""
        return [".".join(place) for place, bit in self._bits.items() if bit & mask]


class Thread:
    """One of a schedule: what it has touched since its last point."""

    def __init__(
        self, number: int, name: str, places: Places, point: Callable[[str], None]
    ) -> None:
        self.number = number
        self.name = name
        self.depth = 0  # of locks that are held
        self.struck = False  # under the lock, and has come to a place that needs points
        self.changed = 0  # since it has taken the lock
        self.quiet = 0  # no points in here
        self.adding = False
        self.seen: set[tuple[int, str]] = set()  # what it has read; none that needs points
        self._places = places
        self._point = point
        self._made: dict[str, int] = {}
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._reads = self._writes = self._adds = 0

    def label(self, kind: str) -> str:
        count = self._made[kind] = self._made.get(kind, 0) + 1
        return f"{self.name}'s {kind} {count}"

    def pause(self, bit: int, write: bool, what: str) -> bool:
        """A point, where this access needs one. Whether it did."""
        places = self._places
        if self.quiet:
            return False
        if not places.everywhere:
            if (bit, self.depth > 0, write) not in places.points:
                return False
            if self.depth and not self.struck:
                self.struck = True
                return False
        self._point(what)
        return True

    def touched(self, bit: int, write: bool) -> None:
        self.marked(bit, write)
        self._places.use(bit, self.number, self.depth > 0, write)

    def marked(self, bit: int, write: bool) -> None:
        if not write:
            self._reads |= bit
        elif self.adding:
            self._adds |= bit
        else:
            self._writes |= bit
            self.changed |= bit

    def took_out(self, bit: int, container: Any) -> None:
        """Of a container that is not changed by two at once: looked at again in `settle`."""
        if bit not in self._containers:
            self._containers[bit] = (container, _inside(container))

    def settle(self) -> None:
        """Whether the lock is held is about to change, or the piece to end."""
        for bit, (container, before) in self._containers.items():
            self.touched(bit, _inside(container) != before)
        self._containers = {}
        self.seen = set()

    def end_of_piece(self) -> Footprint:
        self.settle()
        found = Footprint(self._reads, self._writes, self._adds)
        self._reads = self._writes = self._adds = 0
        return found


def _inside(container: Any) -> Any:
    kind = type(container)
    if kind in (bytearray, array):
        return bytes(container)
    if kind in (dict, OrderedDict, defaultdict):
        return [(_inside(key), _inside(value)) for key, value in list(container.items())]
    if kind is set:
        return {_inside(item) for item in container}
    if kind in (list, deque, tuple):
        return tuple(map(_inside, container))
    return container if kind in _PLAIN else id(container)


class Shared:
    """A container that several threads use without the lock: each use of it is an access."""

    def __init__(self, value: Any, use: Callable[[bool, str], None]) -> None:
        self.value = value
        self._use = use

    def _read(self, what: str) -> Any:
        self._use(False, what)
        return self.value

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            self._use(name not in _READERS, name)
            return getattr(self.value, name)(*args)

        return call

    def __bool__(self) -> bool:
        return bool(self._read("bool"))

    def __len__(self) -> int:
        return len(self._read("len"))

    def __contains__(self, item: Any) -> bool:
        return item in self._read("in")

    def __iter__(self) -> Iterator[Any]:
        at = 0
        while at < len(self._read("next")):
            yield self.value[at]
            at += 1


class Sharing:
    """Of one run: names objects, and tells the threads what they touch."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.threads: dict[int, Thread] = {}
        self._before = Thread(-1, "setup", places, lambda _: None)
        self._labels: dict[int, str] = {}
        self._kept: list[Any] = []

    def label(self, thing: Any) -> str:
        """Its name, the same in each run: by who has made it, and when."""
        key = id(thing)
        found = self._labels.get(key)
        if found is None:
            thread = self.threads.get(get_ident(), self._before)
            found = self._labels[key] = thread.label(type(thing).__name__)
            try:
                self._kept.append(weakref.ref(thing, lambda _: self._labels.pop(key, None)))
            except TypeError:
                self._kept.append(thing)  # so that no other takes its id
        return found

    def bit(self, thing: Any, name: str) -> int:
        return self.places.bit((self.label(thing), name))

    def note(self, *place: str, write: bool = False, seen: bool = True) -> None:
        """Of what is no attribute. `seen` False: it can be seen by nobody before the lock is free,
        whether he takes it or not.
        """
        bit, thread = self.places.bit((place[0], place[1])), self.threads.get(get_ident())
        if seen:
            self._use(bit, write, "/".join(place))
        elif thread is not None:
            thread.marked(bit, write)

    def _use(self, bit: int, write: bool, what: str) -> None:
        thread = self.threads.get(get_ident())
        if thread is not None:
            thread.pause(bit, write, what)
            thread.touched(bit, write)

    def read(self, thing: Any, name: str, plain: Callable[[Any, str], Any]) -> Any:
        thread = self.threads.get(get_ident())
        if thread is None:
            self.label(thing)
            return plain(thing, name)
        if (id(thing), name) in thread.seen or thread.adding:
            return plain(thing, name)
        if name not in self.places.written:
            value = plain(thing, name)
            if type(value) not in CONTAINERS:
                return value
        label = self.label(thing)
        bit = self.places.bit((label, name))
        thread.pause(bit, False, name)
        value = plain(thing, name)
        thread.touched(bit, False)
        if type(value) in CONTAINERS:
            inside = self.places.bit((label, f"{name}[]"))
            if self.places.everywhere or inside in self.places.torn:
                return Shared(value, lambda write, what: self._use(inside, write, f"{name}.{what}"))
            thread.took_out(inside, value)
        elif not self.places.everywhere and bit not in self.places.torn:
            thread.seen.add((id(thing), name))
        return value

    def write(self, thing: Any, name: str, value: Any, plain: Callable[..., None]) -> None:
        thread = self.threads.get(get_ident())
        label = self.label(thing)
        if isinstance(value, Shared):
            value = value.value
        if thread is not None:
            if name not in self.places.written:
                self.places.written.add(name)
                self.places.grown = True
            bit = self.places.bit((label, name))
            changes = thread.adding or not _same(thing, name, value)
            if thread.pause(bit, changes, f"{name} ="):
                changes = thread.adding or not _same(thing, name, value)
            thread.touched(bit, changes)
        plain(thing, name, value)


def _same(thing: Any, name: str, value: Any) -> bool:
    try:
        now = object.__getattribute__(thing, name)
    except AttributeError:
        return False
    return now is value or (type(now) is type(value) and type(now) in _PLAIN and now == value)


_sharing: list[Sharing | None] = [None]
_untracked: dict[tuple[type[Any], str], bool] = {}


def _is_untracked(kind: type[Any], name: str) -> bool:
    """Methods and properties; those use attributes, which are looked at themselves."""
    found = _untracked.get((kind, name))
    if found is None:
        there = inspect.getattr_static(kind, name, None)
        found = name.startswith("__") or name in NOT_LOOKED_AT or isinstance(there, _CODE)
        _untracked[kind, name] = found
    return found


def _classes(more: Iterable[type[Any]]) -> list[type[Any]]:
    """Those of the library whose objects can be changed."""
    found = {
        kind
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "resilient_redis" and ".cli" not in name
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == name
        if not issubclass(kind, (Enum, BaseException, tuple))
        if not getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    } | set(more)
    return [kind for kind in found if not found.intersection(kind.__mro__[1:])]


def _look_at(kind: type[Any], patch: Callable[[type[Any], str, Any], None]) -> None:
    plain_read: Any = kind.__getattribute__
    plain_write: Any = kind.__setattr__

    def read(self: Any, name: str) -> Any:
        sharing = _sharing[0]
        if sharing is None or _is_untracked(type(self), name):
            return plain_read(self, name)
        return sharing.read(self, name, plain_read)

    def write(self: Any, name: str, value: Any) -> None:
        sharing = _sharing[0]
        if sharing is None or _is_untracked(type(self), name):
            plain_write(self, name, value)
        else:
            sharing.write(self, name, value, plain_write)

    patch(kind, "__getattribute__", read)
    patch(kind, "__setattr__", write)


@contextmanager
def looked_at(*more: type[Any]) -> Iterator[None]:
    """In here the objects of the library, and those of `more`, tell `Sharing` of each access."""
    before: list[tuple[type[Any], str, Any]] = []

    def patch(kind: type[Any], name: str, value: Any) -> None:
        before.append((kind, name, vars(kind).get(name)))
        setattr(kind, name, value)

    for kind in _classes(more):
        _look_at(kind, patch)
    try:
        yield
    finally:
        for kind, name, value in reversed(before):
            if value is None:
                delattr(kind, name)
            else:
                setattr(kind, name, value)


@contextmanager
def telling(sharing: Sharing) -> Iterator[None]:
    """In here they tell this one."""
    _sharing[0] = sharing
    try:
        yield
    finally:
        _sharing[0] = None
