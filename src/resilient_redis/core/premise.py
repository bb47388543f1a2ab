"""The premise: what a task was told while Redis was away must not destroy what Redis holds.

`value = await get(k) or default; await set(k, value)` reads neutrally through an outage and would
write the default over real data. So a write to a key that the same task has read as neutral is
applied only if the key really is absent; else it is set aside.

What takes keys away carries nothing of what was read (cache-aside deletes what it could not read),
and is always applied; what the same task then writes to them goes over nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .command import Command, Kind
from .exchange import Dialogue, Exchange
from .wire import pack

#: Keys remembered of one task, 1 MB at 100 B each. Beyond it every write of that task is
#: conditional: a write too many may be set aside, no data are destroyed.
MAX_KEYS = 10_000

_REMOVALS = frozenset({"DEL", "UNLINK"})
# They belong to a write that the same task has made before, if there is one.
_EXPIRIES = frozenset({"EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT", "PERSIST"})


class NeutralReads:
    """The keys that one task has read as neutral."""

    __slots__ = ("_conditional", "_keys", "_latest", "_overflown", "_written")

    def __init__(self) -> None:
        self._keys: set[tuple[int, bytes]] = set()
        self._written: set[tuple[int, bytes]] = set()
        self._conditional: set[tuple[int, bytes]] = set()  # a write depends on their absence
        self._overflown = False
        # What the batch that is being answered has added, to `_keys` and to `_written`.
        self._latest: tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]] = ([], [])

    def begin(self) -> None:
        """A batch begins; `undo` takes back what it adds."""
        self._latest[0].clear()
        self._latest[1].clear()

    def undo(self) -> None:
        """The batch was refused: nobody was told anything, nothing was written."""
        self._keys.difference_update(self._latest[0])
        self._written.difference_update(self._latest[1])

    def add(self, db: int, keys: Iterable[bytes]) -> None:
        """The task was told that `keys` are empty. Of its own writes it knows better."""
        for key in keys:
            if len(self._keys) >= MAX_KEYS:
                self._overflown = True
                return
            place = (db, key)
            if place not in self._keys and place not in self._written:
                self._keys.add(place)
                self._latest[0].append(place)

    def wrote(self, db: int, keys: Iterable[bytes]) -> None:
        """The task has queued a write to `keys` without having read them before."""
        for key in keys:
            if len(self._written) >= MAX_KEYS:
                return
            place = (db, key)
            if place not in self._written:
                self._written.add(place)
                self._latest[1].append(place)

    def discard(self, db: int, keys: Iterable[bytes]) -> None:
        """The task has been told the truth about these keys."""
        places = [(db, key) for key in keys]
        self._keys.difference_update(places)
        self._conditional.difference_update(places)

    def depends(self, db: int, keys: Iterable[bytes]) -> None:
        """A write that is applied only if `keys` are absent was queued."""
        self._conditional.update((db, key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._keys) or self._overflown

    def recovered(self) -> None:
        """The journal is empty: what the task has written is there to be read."""
        self._written.clear()

    def premise_of(self, command: Command, db: int) -> tuple[bytes, ...]:
        """The keys that have to be absent for `command` to be applied."""
        if command.parts:
            cleared: set[bytes] = set()
            premise: list[bytes] = []
            for part in command.parts:
                premise += [key for key in self.premise_of(part, db) if key not in cleared]
                cleared.update(removed(part))
            return tuple(premise)
        shape = command.shape
        if shape.kind not in (Kind.WRITE, Kind.COUNTER) or shape.name in _REMOVALS:
            return ()
        if shape.name in _EXPIRIES:
            return tuple(key for key in shape.keys if (db, key) in self._conditional)
        if self._overflown:
            return shape.keys
        return tuple(key for key in shape.keys if (db, key) in self._keys)


def removed(command: Command) -> tuple[bytes, ...]:
    """The keys that are absent after `command`, whatever they held: what its task writes to them
    then goes over nothing.
    """
    if command.parts:
        return tuple(key for part in command.parts for key in removed(part))
    return command.shape.keys if command.shape.name in _REMOVALS else ()


def shows_absence(command: Command) -> bool:
    """Whether a neutral answer to `command` says that its keys are empty. GETDEL reads a whole
    value; who finds nothing to pop, and pushes, has not.
    """
    return command.shape.kind is Kind.READ or command.shape.name == "GETDEL"


class Premises:
    """Journal entries that are applied only if certain keys are absent, until that is known."""

    def __init__(self) -> None:
        self._unchecked: dict[int, tuple[int, tuple[bytes, ...]]] = {}
        self._met: dict[int, tuple[int, tuple[bytes, ...]]] = {}
        self._absent: set[tuple[int, bytes]] = set()  # when asked for; what is there now is ours
        self._ours: set[tuple[int, bytes]] = set()  # were absent, until an entry has written them
        self._confirmed = 0  # up to here entries have written theirs

    def add(self, seq: int, db: int, keys: tuple[bytes, ...]) -> None:
        self._unchecked[seq] = (db, keys)

    def __contains__(self, seq: int) -> bool:
        return seq in self._unchecked

    def __bool__(self) -> bool:
        return bool(self._unchecked)

    @property
    def met(self) -> bool:
        """Whether entries wait whose keys were absent when they were asked for."""
        return bool(self._met)

    def check(self, use: Callable[[int], Dialogue[bool]]) -> Dialogue[list[int]]:
        """Asks for all keys in one round trip a database; returns the entries to be set aside.

        `use` selects a database. A key that cannot be asked for counts as present.
        """
        failed: list[int] = []
        for db in self.databases():
            asked = self.questions(db)
            absent: list[bytes] = []
            if asked and (yield from use(db)):
                ask = [pack((b"EXISTS", key)) for key in asked]
                replies = yield Exchange(b"".join(ask), len(ask))
                absent = [key for key, reply in zip(asked, replies, strict=True) if reply == 0]
            failed += self.answered(db, absent)
        return failed

    def databases(self) -> list[int]:
        """Those of the entries that are not checked yet."""
        return sorted({db for db, _ in self._unchecked.values()})

    def questions(self, db: int) -> list[bytes]:
        """The keys of which it is to be found out whether they are absent."""
        keys = {key for at, keys in self._unchecked.values() if at == db for key in keys}
        return sorted(keys - self._known(db))

    def answered(self, db: int, absent: Iterable[bytes]) -> list[int]:
        """`absent`: of the keys in question, those that are. Returns the entries to be set aside;
        the others have no premise any more.
        """
        self._absent.update((db, key) for key in absent)
        known = self._known(db)
        entries = {seq: keys for seq, (at, keys) in self._unchecked.items() if at == db}
        failed = []
        for seq, keys in entries.items():
            del self._unchecked[seq]
            if known.issuperset(keys):
                self._met[seq] = (db, keys)
            else:
                failed.append(seq)
        return failed

    def ask_again(self, confirmed: int) -> None:
        """A drain begins, or goes on behind entry `confirmed` where it was cut off: somebody else
        may have written meanwhile what was absent then.
        """
        for seq, (db, keys) in self._met.items():
            if seq <= confirmed:
                self._ours.update((db, key) for key in keys)
            else:
                self._unchecked[seq] = (db, keys)
        self._met.clear()
        self._absent.clear()
        self._confirmed = confirmed

    def at_stake(self, db: int, confirmed: int, last: int) -> list[bytes]:
        """The keys that were absent, and have to be so still when the entries behind `confirmed`
        up to `last` are written.
        """
        if not self._met:
            return []
        for seq in range(self._confirmed + 1, confirmed + 1):
            at, keys = self._met.pop(seq, (db, ()))
            self._ours.update((at, key) for key in keys)
        self._confirmed = confirmed
        behind = range(confirmed + 1, last + 1)
        wanted = {key for seq in behind if seq in self._met for key in self._met[seq][1]}
        return sorted(key for key in wanted if (db, key) not in self._ours)

    def _known(self, db: int) -> set[bytes]:
        return {key for at, key in self._absent | self._ours if at == db}

    def forget(self) -> None:
        """The drain is over."""
        self._met.clear()
        self._absent.clear()
        self._ours.clear()
