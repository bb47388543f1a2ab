"""The journal in memory against a plain list."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Iterable

import pytest

from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command
from resilient_redis.core.entry import Entry, Stretch, entry_of, is_plain
from resilient_redis.core.unit import unit_of
from resilient_redis.journal import MemoryJournal
from resilient_redis.journal.base import NoRoom


def write(n: int, size: int = 10) -> Command:
    args: tuple[bytes, ...] = (b"SET", b"k%d" % n, b"v" * size)
    if n % 3 == 1:
        args = (*args, b"PX", b"5000")
    elif n % 3 == 2:
        args = (b"RPUSH", *args[1:])
    made = Command(args, shape_of(args))
    return unit_of([made, write(n + 1), write(n + 2)]) if n % 9 == 8 else made


def fill(journal: MemoryJournal, count: int, size: int = 10) -> list[Entry]:
    entries = []
    for n in range(count):
        command = write(n, size)
        seq = journal.append([command], float(n), n % 16)
        entries.append(entry_of(command, seq, float(n), n % 16))
    return entries


def test_what_goes_in_comes_out() -> None:
    journal = MemoryJournal()
    entries = fill(journal, 3000)  # several segments
    assert list(journal.read(0)) == entries
    assert [entry.seq for entry in entries] == list(range(1, 3001))
    assert list(journal.read(1234)) == entries[1234:]
    assert list(journal.read(3000)) == []
    assert journal.oldest == entries[0]
    assert journal.durable(3000)
    assert not journal.durable(3001)


def judge_pieces(pieces: Iterable[Entry | Stretch], entries: list[Entry], most: int) -> None:
    """They are `entries`, up to `most` commands."""
    commands = at = 0
    for piece in pieces:
        assert commands < most
        commands += piece.size
        if isinstance(piece, Entry):
            assert piece == entries[at]
            at += 1
            continue
        inside = entries[at : at + piece.size]
        at += piece.size
        assert (piece.seq, piece.last) == (inside[0].seq, inside[-1].seq)
        sent = b"".join(entry.at_deadline(7.0, 1_000_000) for entry in inside)
        assert piece.at_deadline(7.0, 1_000_000) == sent
        assert piece.oldest == min(entry.at for entry in inside)
        assert all(entry.db == piece.db and is_plain(entry) for entry in inside)
    assert commands >= most or at == len(entries)


def test_what_can_be_sent_in_one_is_one_piece() -> None:
    journal = MemoryJournal()
    plain, with_deadline, transaction = write(0), write(1), write(8)
    aged = plain._replace(shape=plain.shape._replace(max_age=5.0))
    commands = [*[plain] * 3, with_deadline, plain, transaction, plain, aged, *[plain] * 4]
    journal.append(commands, 0.0, 0)
    journal.append([plain], 0.0, 1)
    assert [piece.size for piece in journal.pieces(0, 1000)] == [5, 3, 1, 1, 4, 1]
    assert [piece.size for piece in journal.pieces(1, 4)] == [4]
    assert [piece.size for piece in journal.pieces(9, 2)] == [2]


@pytest.mark.parametrize("seed", range(60))
def test_like_a_list(seed: int) -> None:
    """Appends, confirmations, and readers that stop anywhere and go on elsewhere."""
    rng = random.Random(seed)
    journal = MemoryJournal(max_entries=300)
    model: list[Entry] = []
    seq = confirmed = 0
    for _ in range(400):
        what = rng.random()
        if what < 0.5:
            commands = [
                write(
                    rng.randrange(9), rng.choice([0, 10, 500, 70_000 if rng.random() < 0.02 else 1])
                )
                for _ in range(rng.randint(1, 8))
            ]
            if len(model) + len(commands) > 300:
                with pytest.raises(NoRoom):
                    journal.append(commands, 1.0, 2)
            else:
                at, db = rng.random(), rng.choice([2, 2, 2, 0, 254, 255, 300])
                assert journal.append(commands, at, db) == seq + 1
                model += [entry_of(c, seq + 1 + i, at, db) for i, c in enumerate(commands)]
                seq += len(commands)
        elif what < 0.7:
            confirmed = max(confirmed, min(seq, confirmed + rng.randint(-3, 40)))
            journal.confirm(confirmed)
            model = [entry for entry in model if entry.seq > confirmed]
        else:
            after = rng.choice([confirmed, rng.randint(confirmed, seq)])
            count = rng.choice([1, 5, 1000])
            behind = [entry for entry in model if entry.seq > after]
            assert list(itertools.islice(journal.read(after), count)) == behind[:count]
            judge_pieces(journal.pieces(after, count), behind, count)
        assert len(journal) == len(model)
        assert journal.oldest == (model[0] if model else None)
        assert (journal.size > 0) >= bool(model)


def test_a_reader_sees_what_is_appended_meanwhile() -> None:
    journal = MemoryJournal()
    fill(journal, 2)
    reader = journal.read(0)
    assert next(reader).seq == 1
    journal.append([write(1)], 0.0, 0)
    journal.confirm(1)
    assert [entry.seq for entry in reader] == [2, 3]


def test_all_or_none() -> None:
    journal = MemoryJournal(max_entries=5)
    fill(journal, 3)
    with pytest.raises(NoRoom):
        journal.append([write(1), write(2), write(3)], 0.0, 0)
    assert len(journal) == 3
    assert journal.append([write(1), write(2)], 0.0, 0) == 4  # no number was used up
    with pytest.raises(NoRoom):
        journal.append([write(1)], 0.0, 0)
    journal.confirm(1)
    assert journal.append([write(1)], 0.0, 0) == 6


def test_bounded_by_bytes() -> None:
    journal = MemoryJournal(max_bytes=10_000)
    with pytest.raises(NoRoom):
        fill(journal, 1000, 100)
    kept = len(journal)
    assert 40 < kept < 100
    assert journal.size <= 10_000
    journal.confirm(kept)
    assert (journal.size, len(journal)) == (0, 0)
    journal.append([write(0, 100)], 0.0, 0)


def test_what_is_confirmed_makes_room() -> None:
    """Also where something is always left: a queue under steady load must not fill up by itself."""
    journal = MemoryJournal(max_bytes=10_000)
    for n in range(1, 1000):
        assert journal.append([write(0, 100)], 0.0, 0) == n
        journal.confirm(n - 1)
    assert len(journal) == 1
    assert journal.size < 300


@pytest.mark.parametrize("option", ["max_entries", "max_bytes", "max_age"])
def test_bounds_are_above_zero(option: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        MemoryJournal(**{option: 0})


def test_memory_of_a_write_of_100_bytes() -> None:
    """FACTS.md: tuples of objects 282-491 B, segments 121-142 B."""
    commands = [write(0, 100)] * 1000
    count = 50_000
    tracemalloc.start()
    try:
        journal = MemoryJournal()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(count // 1000):
            journal.append(commands, 0.0, 0)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each = (after - before) / count
    print(f"{each:.0f} B of memory for a write of 100 B")
    assert len(journal) == count
    assert each < 200


def test_reading_on_does_not_begin_at_the_front() -> None:
    """Batch after batch of a long journal: the time must not grow with what stands before."""
    journal = MemoryJournal()
    fill(journal, 20_000)
    after = steps = 0
    while found := list(itertools.islice(journal.read(after), 10)):
        after = found[-1].seq
        steps += 1
    assert (after, steps) == (20_000, 2000)
