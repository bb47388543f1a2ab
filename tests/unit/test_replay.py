"""The replay plan against a model of the server, with everything that a network may do to it.

Each schedule is drawn from a seed: entries, batch size, losses at any command, bytes that arrive
late, a watermark that vanishes, a server that went back in time. What must hold is said once, in
`Run.judge`. To look at one: `Run(seed, ...).play()`.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from resilient_redis.cli.aof import parse
from resilient_redis.core.batch import Unavailable
from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command
from resilient_redis.core.entry import Entry
from resilient_redis.core.exchange import Dialogue, Exchange, ReplyError
from resilient_redis.core.replay import Replay
from resilient_redis.core.rights import Mode
from resilient_redis.journal import MemoryJournal
from tests.unit.model_server import Client, ModelServer

W = b"resilient-redis:w"


class Lost(Exception):
    """The connection died."""


class World:
    """Bytes on their way, and what happens to them."""

    def __init__(self, rng: random.Random, server: ModelServer) -> None:
        self.rng = rng
        self.server = server
        self.limbo: list[tuple[Client, list[tuple[bytes, ...]]]] = []  # held back by the network
        self.copies: list[list[tuple[bytes, ...]]] = []  # batches that may arrive once more
        self.past: list[dict[Any, Any]] = []
        self.vanished = self.went_back = self.losses = self.failovers = 0
        self.settled: set[int] = set()  # so far
        self.confirmed: Callable[[], set[int]] = set  # replied to, and not settled yet
        self.at_failover: set[int] = set()  # settled by then
        # What may happen, as probabilities per command.
        self.loss = self.delay = self.copy = self.vanish = self.rollback = self.hold = 0.0
        self.failover = 0.0

    def happens(self) -> None:
        """Between any two commands of the recovery connection."""
        rng, server = self.rng, self.server
        if self.limbo and rng.random() < 0.1:
            self.deliver()
        if self.copies and rng.random() < self.copy:
            self.arrive(rng.choice(self.copies))
        if rng.random() < self.vanish:
            self.vanished += 1
            for slot in [slot for slot in server.data if slot[1] == W]:
                del server.data[slot]
                server._touch(slot)
        if self.rollback or self.failover:
            if rng.random() < 0.1 or not self.past:
                self.past.append(copy.deepcopy(server.data))
            if rng.random() < self.failover:
                # A replica is promoted, which is behind; no byte for the old master reaches it.
                self.failovers += 1
                self.at_failover |= self.settled | self.confirmed()
                self.past = [rng.choice(self.past)]  # the rest never was on this one
                server.restore(self.past[0])
                raise Lost
            if self.past and rng.random() < self.rollback:
                self.went_back += 1
                server.restore(rng.choice(self.past))
                raise Lost
        if rng.random() < self.hold:
            server.held = rng.choice(["OOM", "READONLY", None])

    def deliver(self) -> None:
        client, commands = self.limbo.pop(self.rng.randrange(len(self.limbo)))
        for args in commands:
            self.server.execute(client, args)

    def arrive(self, batch: list[tuple[bytes, ...]]) -> None:
        client = self.server.connect()
        for args in batch:
            self.server.execute(client, args)
        self.server.clients.remove(client)

    def settle(self) -> None:
        """All that is still on its way arrives."""
        while self.limbo:
            self.deliver()
        for batch in self.copies if self.copy else ():
            self.arrive(batch)


class Connection:
    """Does what a recovery connection does, until it dies."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = world.server.connect()
        self.unread: list[Any] = []
        self.waiting: list[tuple[bytes, ...]] = []
        self.batches: list[list[tuple[bytes, ...]]] = []
        self.sent: list[tuple[bytes, ...]] = []
        self.fresh = True

    def exchange(self, ask: Exchange) -> list[Any]:
        commands = [args for _, _, args in parse(ask.send)]
        self.waiting += commands
        if [args[:2] for args in commands] == [(b"MULTI",), (b"SET", W), (b"EXEC",)]:  # the priming
            self.sent = []  # it was answered before anything behind it was sent: not late any more
        self.sent += commands
        names = [args[0] for args in self.sent]
        if b"EXEC" in names and b"EVAL" in names:
            # All that went on from the first guard on may arrive once more.
            copy = self.sent[names.index(b"EVAL") - 1 :]
            # W cannot protect against two in flight at once if it may vanish between them.
            (self.batches if self.world.vanish else self.world.copies).append(copy)
        while self.waiting and (ask.receive or self.world.rng.random() < 0.5):
            self._step()
        assert len(self.unread) >= ask.receive, "replies are awaited that nobody will send"
        replies, self.unread = self.unread[: ask.receive], self.unread[ask.receive :]
        return replies

    def _step(self) -> None:
        world = self.world
        world.happens()
        if world.rng.random() < world.loss:
            world.losses += 1
            self.die()
        self.unread.append(world.server.execute(self.client, self.waiting.pop(0)))

    def die(self) -> None:
        """The rest is lost, or held back and delivered in the middle of something else."""
        world = self.world
        world.copies += self.batches
        if world.rng.random() < world.delay:
            world.limbo.append((self.client, self.waiting))
        else:
            if world.rng.random() < 0.5:  # it arrives; only the replies are lost
                for args in self.waiting:
                    world.server.execute(self.client, args)
            world.server.clients.remove(self.client)
        raise Lost

    def replay(self, replay: Replay) -> str | None:
        server = str(self.world.failovers)
        held: str | None = self.drive(replay.run(fresh=self.fresh, server=server))
        self.fresh = False
        return held

    def drive(self, dialogue: Dialogue[Any]) -> Any:
        try:
            ask = next(dialogue)
            while True:
                ask = dialogue.send(self.exchange(ask))
        except StopIteration as stop:
            return stop.value
        finally:
            dialogue.close()


class Heard:
    """The listener."""

    def __init__(self, settled: set[int]) -> None:
        self.settled = settled
        self.order: list[int] = []
        self.replies: dict[int, Any] = {}
        self.letters: dict[int, str] = {}
        self.lost: list[tuple[int, int]] = []

    def applied(self, entry: Entry, reply: Any) -> None:
        self.order.append(entry.seq)
        self.settled.add(entry.seq)
        self.replies[entry.seq] = reply

    def applied_in_a_row(self, first: int, replies: Sequence[Any]) -> None:
        self.order += range(first, first + len(replies))
        self.settled |= set(range(first, first + len(replies)))
        self.replies.update(enumerate(replies, first))

    def dead_letter(self, entry: Entry, reason: str, error: ReplyError | None) -> None:
        self.order.append(entry.seq)
        self.settled.add(entry.seq)
        self.letters[entry.seq] = reason

    def lost_data(self, confirmed: int, found: int) -> None:
        assert found < confirmed
        self.lost.append((confirmed, found))


def write(*args: bytes) -> Command:
    return Command(args, shape_of(args))


class Run:
    """One schedule."""

    def __init__(self, seed: int, chances: dict[str, float], mode: Mode = Mode.GUARDED) -> None:
        rng = self.rng = random.Random(seed)
        self.server = ModelServer()
        self.server.data[0, b"string"] = b"x"
        self.server.forbidden = {b"forbidden"}
        self.world = World(rng, self.server)
        for name, chance in chances.items():
            setattr(self.world, name, chance)
        self.journal = MemoryJournal()
        self.heard = Heard(self.world.settled)
        self.sessions = iter(range(1_000_000))
        self.replay = Replay(
            self.journal,
            self.heard,
            watermark=W,
            new_session=lambda: b"s%d" % next(self.sessions),
            clock=lambda: 0.0,
            batch_size=rng.randint(1, 4),
            wall_ms=lambda: 0,
        )
        self.replay.mode = mode
        self.world.confirmed = self.confirmed
        self.written: dict[int, tuple[int, tuple[bytes, ...]]] = {}
        self.special = rng.random() < 0.3
        for _ in range(rng.randint(1, 12)):
            self.write()

    def write(self) -> None:
        rng = self.rng
        n = len(self.written) + 1
        db = 3 if rng.random() < 0.2 else 0
        key = rng.choice([b"l", b"m", b"k", b"k"])
        args: tuple[bytes, ...] = (b"RPUSH", key, b"%d" % n)
        if key == b"k":
            args = (b"SET", key, b"%d" % n)
        elif self.special and rng.random() < 0.2:
            args = (b"RPUSH", rng.choice([b"string", b"forbidden"]), b"%d" % n)
            db = 0
        elif rng.random() < 0.1:
            args = (b"DEL", b"other")
        assert self.journal.append([write(*args)], 0.0, db) == n
        self.written[n] = (db, args)

    def confirmed(self) -> set[int]:
        last = self.replay._last
        pieces = [] if last is None else last[0].pieces
        return {seq for piece in pieces for seq in range(piece.seq, piece.last + 1)}

    def play(self) -> Run:
        connection: Connection | None = None
        for _ in range(2000):
            try:
                connection = connection or Connection(self.world)
                held = connection.replay(self.replay)
            except (Lost, Unavailable, ReplyError):
                connection = None
                if self.rng.random() < 0.3 and len(self.written) < 20:
                    self.write()
                continue
            if held is None:
                break
            if self.rng.random() < 0.5:
                self.server.held = None
            if self.rng.random() < 0.3:
                connection = None
        assert not len(self.journal), "the drain does not end"
        self.world.loss = self.world.rollback = self.world.hold = self.world.vanish = 0.0
        self.world.failover = 0.0
        self.server.held = None
        assert connection is not None
        connection.drive(self.replay.cleanup())
        self.world.settle()
        return self

    def judge(self) -> None:
        heard, world = self.heard, self.world
        assert sorted(heard.order) == list(self.written), "each entry is settled exactly once"
        assert list(heard.replies) == sorted(heard.replies), "and in order"
        for db, key in {(db, args[1]) for db, args in self.written.values()}:
            here = [n for n, (d, args) in self.written.items() if (d, args[1]) == (db, key)]
            found = self.server.data.get((db, key))
            if key in (b"l", b"m"):
                numbers = [int(value) for value in found or []]
                assert numbers == sorted(set(numbers)), f"twice, or out of order: {numbers}"
                gone = set(here) - set(numbers)
                if not world.went_back:
                    # With its master Redis itself loses what it had not replicated.
                    assert gone <= set(heard.letters) | world.at_failover, f"lost: {gone}"
                for n in numbers:
                    reply = heard.replies.get(n)
                    old = world.went_back or world.failovers
                    assert reply is None or old or reply == numbers.index(n) + 1
            elif key == b"k" and here and not world.went_back:
                last = [n for n in here if n not in heard.letters]
                if last and last[-1] not in world.at_failover:
                    assert found == b"%d" % last[-1]
        if not self.world.vanished and not world.went_back:
            assert not [n for n, why in heard.letters.items() if why == "watermark"]
        refused = {n for n, (_, a) in self.written.items() if a[1] in (b"string", b"forbidden")}
        errors = {n for n, why in heard.letters.items() if why == "error"}
        assert errors <= refused
        # WRONGTYPE behind an EXEC whose reply was lost, or a copy's, is taken for applied: W does
        # not tell.
        if not (world.losses or world.went_back or world.copy):
            assert errors == refused
        if not world.delay:  # a priming that arrives after all is the fence's business
            assert not [slot for slot in self.server.data if slot[1] == W], "W was left behind"


CHANCES: dict[str, dict[str, float]] = {
    "calm": {},
    "lost": {"loss": 0.06},
    "delayed": {"loss": 0.06, "delay": 0.7},
    "copied": {"loss": 0.04, "delay": 0.3, "copy": 0.06},
    "vanishes": {"loss": 0.05, "delay": 0.3, "copy": 0.03, "vanish": 0.03},
    "went back": {"loss": 0.03, "rollback": 0.02},
    "failover": {"loss": 0.03, "delay": 0.3, "failover": 0.02},
    "failover and held": {"loss": 0.03, "failover": 0.02, "hold": 0.05},
    "held": {"loss": 0.03, "delay": 0.3, "hold": 0.05},
    "everything": {"loss": 0.04, "delay": 0.5, "copy": 0.03, "vanish": 0.02, "hold": 0.02},
}


@pytest.mark.parametrize("name", CHANCES)
def test_exactly_once_and_in_order(name: str) -> None:
    for seed in range(400):
        run = Run(seed, CHANCES[name])
        try:
            run.play().judge()
        except AssertionError as error:
            raise AssertionError(f"{name}, seed {seed}: {error}") from error


@pytest.mark.parametrize("name", ["calm", "lost", "delayed", "vanishes", "held"])
def test_without_the_guard_script(name: str) -> None:
    """One batch in flight, checked by a round trip; a copy of it cannot come of a network."""
    chances = {**CHANCES[name], "copy": 0.0}
    for seed in range(200):
        try:
            Run(seed, chances, Mode.CHECKED).play().judge()
        except AssertionError as error:
            raise AssertionError(f"{name}, seed {seed}: {error}") from error


def test_the_schedules_meet_what_they_are_for() -> None:
    """A schedule that no longer does anything would pass."""
    met: Counter[str] = Counter()
    for seed in range(200):
        run = Run(seed, CHANCES["everything"]).play()
        met["losses"] += run.world.losses > 0
        met["vanished"] += run.world.vanished > 0
        met["watermark"] += "watermark" in run.heard.letters.values()
        met["reply lost"] += None in run.heard.replies.values()
        back = Run(seed, CHANCES["went back"]).play()
        met["went back"] += back.world.went_back > 0
        met["lost data"] += bool(back.heard.lost)
    assert all(met[what] >= 5 for what in met), met
    assert len(met) == 6, met
