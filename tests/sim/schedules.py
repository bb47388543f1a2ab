"""Schedules for the pure core: the replay and the breaker, on connections that die at any point.

No loop, no redis-py: a schedule is a list of entries, a server, and bytes that are lost, delivered
late on a connection that has long been given up, or delivered twice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import hiredis

from resilient_redis.core.batch import Unavailable
from resilient_redis.core.breaker import Breaker, Cause, State
from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command
from resilient_redis.core.entry import Entry
from resilient_redis.core.exchange import ReplyError
from resilient_redis.core.replay import Replay
from resilient_redis.core.rights import Mode
from resilient_redis.journal import MemoryJournal

from .resp import encode
from .server import SimServer

ATTEMPTS = 60  # connections after which a replay is stuck


ARMED = [b"WATCH", b"EVAL", b"MULTI"]


class Lost(Exception):
    """The connection is gone."""


class World:
    """Chance and time."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0

    def time(self) -> float:
        self.now += 0.001
        return self.now


class Wire:
    """One connection: what was sent and has not arrived yet, and the session at its end."""

    addr = "10.0.0.1:1"

    def __init__(self, server: SimServer) -> None:
        self.server = server
        self.session = server.accept(self)
        self.waiting: list[tuple[bytes, ...]] = []  # commands that have not arrived
        self.sent: list[tuple[bytes, ...]] = []
        self.replies: list[Any] = []
        self._parser = hiredis.Reader()
        self._answers = hiredis.Reader(replyError=ReplyError)

    def send(self, data: bytes) -> None:
        self._parser.feed(data)
        while (call := self._parser.gets()) is not False:
            self.waiting.append(tuple(call))
            self.sent.append(tuple(call))

    def batches(self) -> list[list[tuple[bytes, ...]]]:
        """What was sent from a WATCH to the EXEC that it protects."""
        found: list[list[tuple[bytes, ...]]] = []
        since: list[tuple[bytes, ...]] = []
        for args in self.sent:
            if args[0] == b"WATCH":
                since = []
            since.append(args)
            if args[0] == b"EXEC" and [call[0] for call in since[:3]] == ARMED:
                found.append(since)
        return found

    def deliver(self, count: int) -> None:
        """The first `count` commands arrive and are executed."""
        for args in self.waiting[:count]:
            self._answers.feed(encode(self.server.handle(self.session, args), False))
            self.replies.append(self._answers.gets())
        del self.waiting[:count]

    def reply(self, data: bytes) -> None:
        raise AssertionError(data)

    def server_closes(self, how: str) -> None:
        self.waiting.clear()


class Heard:
    """The replay's listener."""

    def __init__(self) -> None:
        self.applied_seqs: Counter[int] = Counter()
        self.letters: dict[int, str] = {}

    def applied(self, entry: Entry, reply: Any) -> None:
        self.applied_seqs[entry.seq] += 1

    def applied_in_a_row(self, first: int, replies: Sequence[Any]) -> None:
        self.applied_seqs.update(range(first, first + len(replies)))

    def dead_letter(self, entry: Entry, reason: str, error: ReplyError | None) -> None:
        self.letters[entry.seq] = reason

    def lost_data(self, confirmed: int, found: int) -> None:
        raise AssertionError("the server has lost nothing")


class Schedule:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        rng = self.rng = self.world.rng
        self.server = SimServer(self.world)
        self.journal = MemoryJournal()
        self.heard = Heard()
        self.sessions = 0
        self.replay = Replay(
            self.journal,
            self.heard,
            watermark=b"W",
            new_session=self.new_session,
            clock=self.world.time,
            wall_ms=lambda: int(self.world.time() * 1000),
            batch_size=rng.choice((1, 2, 3, 5)),
        )
        self.checked = rng.random() < 0.3
        self.replay.mode = Mode.CHECKED if self.checked else Mode.GUARDED
        self.breaker = Breaker(1)
        self.dbs = rng.choice((1, 1, 2))
        self.evicting = rng.random() < 0.1  # W may go by itself
        self.deadly = rng.choice((0.05, 0.2, 0.4))
        self.wires: list[Wire] = []  # given up, but something is still on its way
        self.queued: list[tuple[int, int, bytes, bytes]] = []  # seq, db, key, value
        self.faults = 0
        self.gate_closed = True

    def new_session(self) -> bytes:
        self.sessions += 1
        return b"s%d" % self.sessions

    def append(self) -> None:
        rng = self.rng
        value = b"v%d" % (len(self.queued) + 1)
        key, name = rng.choice(((b"l", b"RPUSH"), (b"l", b"RPUSH"), (b"r", b"SET")))
        args = (name, key, value)
        db = rng.randrange(self.dbs)
        seq = self.journal.append([Command(args, shape_of(args))], self.world.now, db)
        self.queued.append((seq, db, key, value))

    def stir(self) -> None:
        """Something happens elsewhere: bytes of dead connections arrive, a caller appends."""
        rng = self.rng
        for wire in self.wires:
            if wire.waiting and rng.random() < 0.3:
                wire.deliver(rng.randint(1, len(wire.waiting)))
        if self.gate_closed and len(self.queued) < 14 and rng.random() < 0.15:
            self.append()
        if self.evicting and rng.random() < 0.03:
            self.server.handle(self.server.accept(Wire(self.server)), (b"DEL", b"W"))

    def connect(self, dialogue: Any) -> Any:
        """Drives one dialogue over one connection. Raises `Lost` if that dies."""
        rng = self.rng
        wire = Wire(self.server)
        try:
            ask = next(dialogue)
            while True:
                self.stir()
                wire.send(ask.send)
                if rng.random() < self.deadly and self.faults < 12:
                    raise Lost
                if len(wire.replies) < ask.receive or rng.random() < 0.5:
                    wire.deliver(len(wire.waiting))
                replies, wire.replies = wire.replies[: ask.receive], wire.replies[ask.receive :]
                ask = dialogue.send(replies)
        except StopIteration as stop:
            return stop.value
        except Lost:
            self.faults += 1
            dialogue.close()
            # Of what had not arrived some arrives now (and is not answered), some late or never.
            wire.deliver(rng.randint(0, len(wire.waiting)))
            if ask.send and b"EXEC" not in ask.send:
                # What sets W up is waited for, and the fence ends it: it comes now or never.
                own = ask.send.count(b"*")
                del wire.waiting[max(0, len(wire.waiting) - own) :]
            self.wires.append(wire)
            # A relay has copies of batches. Of what sets W up there is none: the fence ends it.
            batches = wire.batches()
            if batches and not self.checked and rng.random() < 0.3:
                copy = Wire(self.server)
                for batch in rng.sample(batches, rng.randint(1, len(batches))):
                    copy.waiting += batch
                copy.session.db = wire.session.db
                self.wires.append(copy)
            raise

    def drain(self) -> Any:
        """On one connection: the replay, and then the watermarks go."""
        held = yield from self.replay.run()
        assert held is None
        assert not len(self.journal), "the replay ended too early"
        self.gate_closed = False
        yield from self.replay.cleanup()

    def recover(self) -> None:
        """As the shells do it: permit, replay, open again where that fails."""
        breaker = self.breaker
        breaker.failure(breaker.era)
        for _ in range(ATTEMPTS):
            taken = breaker.take_permit(self.world.time(), 1.0)
            assert taken is not None
            permit, _move = taken
            assert breaker.take_permit(self.world.time(), 1.0) is None
            if self.rng.random() < 0.1:
                breaker.give_back(permit, False)
                continue
            breaker.give_back(permit, True)
            assert breaker.state is State.CLOSED
            try:
                self.connect(self.drain())
            except (Lost, Unavailable):
                breaker.trip(Cause.REPLAY_FAILED)
                continue
            return
        raise AssertionError(f"still {len(self.journal)} entries after {ATTEMPTS} connections")

    def run(self) -> int:
        for _ in range(self.rng.randint(1, 10)):
            self.append()
        self.recover()
        for wire in self.wires:
            wire.deliver(len(wire.waiting))
        self.judge()
        return self.faults

    def judge(self) -> None:
        store, heard = self.server.store, self.heard
        letters = heard.letters
        assert len(self.journal) == 0
        assert self.evicting or not letters, letters
        assert set(letters.values()) <= {"watermark"}
        for seq, *_ in self.queued:
            told = heard.applied_seqs[seq] + (seq in letters)
            assert told == 1, f"entry {seq} was settled {told} times"
        for db in range(self.dbs):
            mine = [(seq, key, value) for seq, at, key, value in self.queued if at == db]
            pushed = [value for _, key, value in mine if key == b"l"]
            certain = [value for seq, key, value in mine if key == b"l" and seq not in letters]
            found = store.data.get((db, b"l"), [])
            # A dead letter may be in, once and in its place: nobody knows.
            assert len(set(found)) == len(found), f"twice: {found}"
            assert found == [value for value in pushed if value in found], f"order: {found}"
            assert set(certain) <= set(found), f"lost: {set(certain) - set(found)}"
            registers = [value for _, key, value in mine if key == b"r"]
            if registers:
                assert store.data[db, b"r"] == registers[-1]
            assert (db, b"W") not in store.data


def run_many(seeds: range) -> tuple[int, list[str]]:
    faults, wrong = 0, []
    for seed in seeds:
        try:
            faults += Schedule(seed).run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the seed's finding
            wrong.append(f"seed {seed}: {type(error).__name__}: {error}")
    return faults, wrong
