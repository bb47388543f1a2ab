"""The replay: the journal's entries, once each and in order, over connections that may die.

A generator, driven by both shells (`exchange.py`). One `Replay` lives as long as the journal
holds anything; `run()` is called anew on each recovery connection.

The protocol of a batch (one database, at most `batch_size` entries), all of it sent blind:

    WATCH W · EVAL guard 1 W expected · MULTI · the entries · SET W last · EXEC

and then the replies. EXEC answers an array: applied. It answers nil: W was not what we expected,
nothing of this batch was applied, and the batches behind it abort in a chain. The connection
dies: the next one reads W and goes on from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .batch import (
    Batch,
    Listener,
    Progress,
    Source,
    Unavailable,
    available,
    in_doubt,
    sound,
)
from .entry import Entry
from .exchange import HOLDING, Dialogue, Exchange, Replies, ReplyError, is_forbidden
from .premise import Premises
from .rights import Mode
from .watermark import GUARD, Mark, read_mark
from .wire import pack


class Replay:
    """Plans batches, reads their replies, and knows how far the server has come.

    `new_session` gives a token unlike any before; `clock` is monotonic seconds, `wall_ms` our own
    unix time in ms, for servers that do not tell theirs; `batch_size`
    entries at most in one EXEC (0.49 ms at 1,000, 7.9 ms at 10,000: FACTS.md); `depth` batches in
    flight at most.
    """

    def __init__(
        self,
        source: Source,
        listener: Listener,
        *,
        watermark: bytes,
        new_session: Callable[[], bytes],
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        batch_size: int = 1000,
        depth: int = 3,
        confirmed: int = 0,
    ) -> None:
        self.mode = Mode.GUARDED
        self.held: str | None = None  # the code under which the server took no writes last time
        self.applied_count = 0
        self._source = source
        self._listener = listener
        self._watermark = watermark
        self._new_session = new_session
        self._clock = clock
        self._wall_ms = wall_ms
        self._batch_size = batch_size
        self._depth = depth
        self._confirmed = confirmed  # all up to here is settled
        self._sent = confirmed  # all up to here is on its way on this connection
        self._tried = confirmed  # all up to here was sent once, on some connection
        self._before = confirmed  # all up to here was sent on an earlier connection
        self._aside: dict[int, tuple[str, ReplyError | None]] = {}
        self._mark: Mark | None = None  # what W holds, if we set it
        self._db = 0  # the database of `_mark`
        self._dirty: set[int] = set()  # databases in which W was set
        self._pipe: deque[Batch] = deque()
        self.premises = Premises()
        self._blocked = False  # the server has refused a write on this connection
        self._selected = 0
        self._barred: dict[int, ReplyError] = {}  # databases that cannot be selected
        self._time = (0.0, 0)  # our clock in seconds, the server's in unix ms

    def run(self, *, fresh: bool = True) -> Dialogue[str | None]:
        """Replays on one connection; a `fresh` one stands on database 0.

        Returns None when the journal is empty, or the code under which the server holds writes.
        Raises `Unavailable`; what the driver raises means that the connection is gone.
        """
        self._pipe.clear()
        self._sent = self._confirmed
        self._before = self._tried
        self._blocked = False
        if fresh:
            self._selected = 0
            self._barred.clear()
        yield from self._read_time()
        yield from self._read_watermark()
        while True:
            drained = yield from self._fill()
            if self._pipe:
                yield from self._finish(self._pipe.popleft())
            elif drained:
                self.held = None
                self.premises.forget()
                return None
            elif self._blocked:
                return self.held

    def cleanup(self) -> Dialogue[None]:
        """Deletes W where it was set; the journal is empty."""
        for db in sorted(self._dirty):
            if (yield from self._use(db)):
                yield Exchange(pack((b"DEL", self._watermark)), 1)
        self._dirty.clear()
        self._mark = None

    # -- where the server stands ----------------------------------------------------------

    def _read_time(self) -> Dialogue[None]:
        (reply,) = yield Exchange(pack((b"TIME",)), 1)
        if is_forbidden(reply):
            self._time = (self._clock(), self._wall_ms())
            return
        seconds, micros = sound(reply)
        self._time = (self._clock(), int(seconds) * 1000 + int(micros) // 1000)

    def _read_watermark(self) -> Dialogue[None]:
        """Reads W, and concludes what became of what was on its way."""
        if self._mark is None:
            return
        found = None
        if (yield from self._use(self._db)):
            (reply,) = yield Exchange(pack((b"GET", self._watermark)), 1)
            found = read_mark(sound(reply), self._mark.session)
        if found is None:
            # W is gone. What an earlier connection sent may be in or not: nobody can say.
            for entry in in_doubt(self._entries(self._confirmed, self._before)):
                self._aside.setdefault(entry.seq, ("watermark", None))
        elif found.seq < self._mark.seq:
            # The server went back behind what it had confirmed; what came later is gone as well.
            self._listener.lost_data(self._mark.seq, found.seq)
            found = None
        elif found.seq > self._mark.seq:
            for entry in self._entries(self._confirmed, found.seq):
                if entry.seq in self._aside:
                    self._set_aside(entry)
                else:
                    self._apply(entry, None)
            self._confirm(found.seq)
        self._mark = found
        self._sent = self._confirmed

    def _entries(self, after: int, upto: int) -> list[Entry]:
        found = []
        for entry in self._source.read(after):
            if entry.seq > upto:
                break
            found.append(entry)
        return found

    # -- sending --------------------------------------------------------------------------

    def _fill(self) -> Dialogue[bool]:
        """Sends batches until the pipe is full. True where nothing is left to be sent."""
        depth = self._depth if self.mode is not Mode.CHECKED else 1
        while len(self._pipe) < depth:
            if self.premises and not self._pipe:
                yield from self._check_premises()
            batch = self._build()
            if batch is None:
                return True
            if batch.last == self._sent:
                return False  # what stands at the front has to wait
            # Only batches that share W's database abort in a chain, so another database waits
            # until the pipe is empty.
            if self._pipe and (batch.db, batch.bare) != (self._pipe[-1].db, self._pipe[-1].bare):
                return False
            sent = (yield from self._send(batch)) if batch.entries else Progress.YES
            if sent is Progress.HELD:
                return False
            if sent is Progress.YES:
                self._sent = batch.last
                self._tried = max(self._tried, batch.last)
                self._pipe.append(batch)
        return False

    def _build(self) -> Batch | None:
        """The next batch. None: nothing is left. An empty one: what is left has to wait."""
        now = self._clock()
        denied = self._blocked and self.held == "OOM"
        # A server that held writes is tried with one entry first.
        limit = self._batch_size if self.held is None or denied else 1
        batch: Batch | None = None
        for entry in self._source.read(self._sent):
            if batch is None:
                bare = denied or self.mode is Mode.BARE
                batch = Batch(entry.db, bare, self._sent)
                if self._blocked and not denied:
                    break
            if entry.db != batch.db or len(batch.entries) >= limit or entry.seq in self.premises:
                break
            if self._is_aside(entry, now):
                batch.aside.append(entry)
            elif denied and (entry.grows or not entry.safe_twice):
                break  # deletes and expiries drain without W, because SET W is denied as well
            else:
                batch.entries.append(entry)
            batch.last = entry.seq
        return batch

    def _check_premises(self) -> Dialogue[None]:
        for seq in (yield from self.premises.check(self._use)):
            self._aside.setdefault(seq, ("premise", None))

    def _is_aside(self, entry: Entry, now: float) -> bool:
        if entry.db in self._barred:
            # In another database its writes would be somebody else's data.
            self._aside.setdefault(entry.seq, ("error", self._barred[entry.db]))
        limit = self._source.max_age if entry.max_age is None else entry.max_age
        if entry.seq > self._tried and entry.age(now) > limit:
            self._aside.setdefault(entry.seq, ("age", None))
        elif self.mode is Mode.BARE and not entry.safe_twice:
            self._aside.setdefault(entry.seq, ("rights", None))
        return entry.seq in self._aside

    def _send(self, batch: Batch) -> Dialogue[Progress]:
        if not (yield from self._use(batch.db)):
            return Progress.STALE
        if batch.bare:
            yield Exchange(self._payload(batch), 0)
            return Progress.YES
        if self._mark is None or self._db != batch.db:
            primed = yield from self._prime(batch.db)
            if not primed:
                return Progress.HELD
        assert self._mark is not None
        behind = next((b.last for b in reversed(self._pipe) if b.entries), self._mark.seq)
        expected = Mark(self._mark.session, behind).value()
        body = (
            pack((b"MULTI",))
            + self._payload(batch)
            + pack((b"SET", self._watermark, Mark(self._mark.session, batch.last).value()))
            + pack((b"EXEC",))
        )
        watch = pack((b"WATCH", self._watermark))
        if self.mode is Mode.GUARDED:
            batch.before, batch.after = 3, 2  # WATCH EVAL MULTI · … · SET EXEC
            guard = pack((b"EVAL", GUARD, b"1", self._watermark, expected))
            yield Exchange(watch + guard + body, 0)
            return Progress.YES
        _, value = yield Exchange(watch + pack((b"GET", self._watermark)), 2)
        if sound(value) != expected:
            yield Exchange(pack((b"UNWATCH",)), 1)
            yield from self._read_watermark()
            return Progress.STALE
        batch.before, batch.after = 1, 2  # MULTI · … · SET EXEC
        yield Exchange(body, 0)
        return Progress.YES

    def _prime(self, db: int) -> Dialogue[bool]:
        """Sets W to where we are, under a new session. False where the server takes no writes."""
        mark = Mark(self._new_session(), self._confirmed)
        self._dirty.add(db)
        setting = pack((b"SET", self._watermark, mark.value()))
        (reply,) = yield Exchange(setting, 1)
        if isinstance(reply, ReplyError) and reply.code in HOLDING:
            self._hold(reply.code)
            return False
        sound(reply)
        self._db, self._mark = db, mark
        return True

    def _payload(self, batch: Batch) -> bytes:
        ours, servers = self._time
        now = self._clock()
        server_ms = servers + int((now - ours) * 1000)
        return b"".join([entry.at_deadline(now, server_ms) for entry in batch.entries])

    def _use(self, db: int) -> Dialogue[bool]:
        """Selects `db`. False where the server does not let us."""
        if self._selected == db:
            return True
        (reply,) = yield Exchange(pack((b"SELECT", b"%d" % db)), 1)
        available(reply)
        if isinstance(reply, ReplyError):
            self._barred[db] = reply
            return False
        self._selected = db
        return True

    # -- replies --------------------------------------------------------------------------

    def _finish(self, batch: Batch) -> Dialogue[None]:
        """Reads the replies of the oldest batch in flight and settles what they settle."""
        if not batch.entries:
            self._settle(batch, [])
            return
        count = len(batch.entries)
        if batch.bare:
            replies = yield Exchange(b"", count)
            yield from self._judge_bare(batch, replies)
            return
        before = batch.before
        replies = yield Exchange(b"", before + count + batch.after)
        outcome = replies[-1]
        for reply in replies[:before]:
            available(reply)
        if isinstance(outcome, list):
            assert self._mark is not None
            self._mark = Mark(self._mark.session, batch.last)
            self.held = None
            self._settle(batch, outcome[:count])
            return
        yield from self._drop_pipe()
        if isinstance(outcome, ReplyError):
            self._judge_abort(batch, replies[before:])
        else:
            yield from self._read_watermark()

    def _drop_pipe(self) -> Dialogue[None]:
        """Reads and forgets the replies of the batches behind an abort: they aborted as well."""
        for batch in self._pipe:
            if batch.entries:
                yield Exchange(b"", batch.before + len(batch.entries) + batch.after)
        self._pipe.clear()
        self._sent = self._confirmed

    def _judge_abort(self, batch: Batch, replies: Replies) -> None:
        """EXECABORT: the server refused commands as it queued them, and said which."""
        errors = [reply for reply in replies if isinstance(reply, ReplyError)]
        for error in errors:
            available(error)
        holding = next((e.code for e in errors if e.code in HOLDING), None)
        if holding is not None:
            self._hold(holding)
            return
        refused = [
            (entry, reply)
            for entry, reply in zip(batch.entries, replies, strict=False)
            if isinstance(reply, ReplyError)
        ]
        for entry, reply in refused:
            self._aside[entry.seq] = ("error", reply)
        if not refused:
            if not is_forbidden(replies[-2]):
                raise Unavailable(f"EXEC failed: {replies[-1].message}")
            # W itself may not be written.
            self.mode, self._mark = Mode.BARE, None

    def _judge_bare(self, batch: Batch, replies: Replies) -> Dialogue[None]:
        stop = len(replies)
        for i, reply in enumerate(replies):
            available(reply)
            if isinstance(reply, ReplyError) and reply.code in HOLDING:
                stop = i
                self._hold(reply.code)
                break
        if stop < len(replies):
            yield from self._drop_pipe()
            first_held = batch.entries[stop].seq
            batch.entries = batch.entries[:stop]
            batch.aside = [entry for entry in batch.aside if entry.seq < first_held]
            batch.last = first_held - 1
        elif not self._blocked:
            self.held = None
        self._settle(batch, replies[:stop])
        self._sent = max(self._sent, self._confirmed)

    def _hold(self, code: str) -> None:
        self.held = code
        self._blocked = True

    # -- settling -------------------------------------------------------------------------

    def _settle(self, batch: Batch, replies: Replies) -> None:
        """The batch is in. An entry that the server refused by itself is set aside."""
        for entry, reply in zip(batch.entries, replies, strict=True):
            if isinstance(reply, ReplyError):
                self._listener.dead_letter(entry, "error", reply)
            else:
                self._apply(entry, reply)
        for entry in batch.aside:
            self._set_aside(entry)
        self._confirm(batch.last)

    def _apply(self, entry: Entry, reply: Any) -> None:
        self.applied_count += 1
        self._listener.applied(entry, reply)

    def _set_aside(self, entry: Entry) -> None:
        reason, error = self._aside.pop(entry.seq)
        self._listener.dead_letter(entry, reason, error)

    def _confirm(self, upto: int) -> None:
        self._confirmed = max(self._confirmed, upto)
        self._source.confirm(self._confirmed)
