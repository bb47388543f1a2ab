"""The replay: the journal's entries, once each and in order, over connections that may die.

A generator, driven by both shells (`exchange.py`). One `Replay` lives as long as its breaker;
`run()` is called anew on each recovery connection.

The protocol of a batch (one database, at most `batch_size` commands, or one transaction):

    WATCH W · EVAL guard 1 W expected      W is what we expect: the batch may be sent
    MULTI · the entries · SET W last · EXEC

The first line travels with the batch before, so a batch costs one round trip. Its reply is waited
for, because a guard that could not run (BUSY, NOPERM) guards nothing: sent blind, a batch behind an
aborted one was applied, and the aborted one lost. And yet the guard is in the band as well: where a
late copy of the bytes arrives, it makes the copy's EXEC fail.

EXEC answers an array: applied. It answers nil: W was not what we expected, and nothing of the
batch was applied. The connection dies: the next one reads W and goes on from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .batch import (
    Batch,
    Listener,
    Source,
    Unavailable,
    available,
    between,
    in_doubt,
    sound,
)
from .entry import Entry, Stretch
from .exchange import HOLDING, Dialogue, Exchange, Replies, ReplyError, is_forbidden
from .marking import Marking
from .premise import Premises
from .rights import Mode
from .servertime import ServerTime
from .watermark import Mark, may_evict, read_mark
from .wire import pack


class Replay(Marking):
    """Plans batches, reads their replies, and knows how far the server has come.

    `new_session` gives a token unlike any before; `clock` is monotonic seconds, `wall_ms` our unix
    time, for servers that do not tell theirs; `batch_size` entries at most in one EXEC (0.49 ms at
    1,000, 7.9 ms at 10,000).
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
        confirmed: int = 0,
    ) -> None:
        super().__init__(watermark, new_session, confirmed)
        self.held: str | None = None  # the code under which the server took no writes last time
        self.applied_count = 0
        self.premises = Premises()
        self._source = source
        self._listener = listener
        self._clock = clock
        self._batch_size = batch_size
        self._tried = confirmed  # all up to here was sent once, on some connection
        self._before = confirmed  # all up to here was sent on an earlier connection
        self._server = ""  # to which it was sent
        self._evicts = False  # and which may drop W by itself
        self._aside: dict[int, tuple[str, ReplyError | None]] = {}
        self._in_flight: Batch | None = None
        self._last: tuple[Batch, Replies] | None = None  # is in, and not settled yet
        self._blocked = False  # the server has refused a write in this run
        self._time = ServerTime(clock, wall_ms)

    def run(self, *, fresh: bool = True, server: str = "") -> Dialogue[str | None]:
        """Replays on one connection; a `fresh` one stands on database 0. `server`: which one it is
        connected to, where that may change.

        Returns None when the journal is empty, or the code under which the server holds writes.
        Raises `Unavailable`; what the driver raises means that the connection is gone.
        """
        if fresh:
            self._selected = 0
            self._barred.clear()
            self._before = self._tried
        self._armed, self._blocked = None, False
        if server != self._server and not (yield from self._moved(server)):
            return self.held
        yield from self._time.read()
        if self._in_flight is not None:
            yield from self._read_watermark(self._in_flight.db)
            self._in_flight = None
        self.premises.ask_again(self._confirmed)
        prepared: Batch | None = None
        while True:
            if prepared is None or self.premises:
                self._settle_last()
            if self.premises:
                yield from self._check_premises()
                prepared = None
            batch = prepared or self._build(self._confirmed)
            prepared = None
            if batch is None:
                self.held = None
                self.premises.forget()
                return None
            if batch.pieces:
                prepared = yield from self._send(batch)
            elif batch.aside:
                self._settle(batch, [])
            else:
                return self.held  # what stands at the front has to wait

    def _moved(self, server: str) -> Dialogue[bool]:
        """Another server is the master now. False where it is none.

        A replica that was promoted has the beginning of what its master did, in order: where it has
        no W, it has nothing of what followed W either, and nothing is in doubt; unless one of the
        two has evicted it. Of one that is not promoted (a sentinel may be behind) nothing can be
        concluded, for it may still be behind.
        """
        if self._marks:
            (reply,) = yield Exchange(pack((b"DEL", self._watermark + b":moved")), 1)
            available(reply)
            if isinstance(reply, ReplyError) and reply.code in HOLDING:
                self.held = reply.code
                return False
        (info,) = yield Exchange(pack((b"INFO", b"memory")), 1)
        available(info)
        self._server, evicted = server, self._evicts
        self._evicts = may_evict(info)
        if not (evicted or self._evicts):
            self._tried = self._before = self._confirmed
        return True

    # -- where the server stands ----------------------------------------------------------

    def _read_watermark(self, db: int) -> Dialogue[None]:
        """Reads W, and concludes what became of what may have been applied."""
        self._armed = None
        mark = self._marks.get(db)
        if mark is None:
            return
        found = None
        if (yield from self._use(db)):
            (reply,) = yield Exchange(pack((b"GET", self._watermark)), 1)
            found = read_mark(sound(reply), mark.session)
        if found is None:
            # W is gone. What an earlier connection sent may be in or not: nobody can say.
            for entry in in_doubt(between(self._source, self._confirmed, self._before)):
                self._aside.setdefault(entry.seq, ("watermark", None))
            self._marks.clear()
        elif found.seq < mark.seq:
            # The server went back behind what it had confirmed; what came later is gone as well.
            self._listener.lost_data(mark.seq, found.seq)
            self._marks.clear()
        else:
            for entry in between(self._source, self._confirmed, found.seq):
                if entry.seq in self._aside:
                    self._set_aside(entry)
                else:
                    self._apply(entry, None)
            self._confirm(found.seq)
            self._marks[db] = found

    # -- sending --------------------------------------------------------------------------

    def _build(self, after: int, each: bool = False) -> Batch | None:
        """The batch behind entry `after`. None: nothing is left. An empty one: what is left has to
        wait. `each`: every entry is looked at by itself.
        """
        now = self._clock()
        denied = self._blocked and self.held == "OOM"
        # A server that held writes is tried with one entry first.
        limit = self._batch_size if self.held is None or denied else 1
        batch: Batch | None = None
        count = 0
        max_age = self._source.max_age
        watched = bool(self._aside or self._barred or self.premises) or self.mode is Mode.BARE
        each = each or watched or denied
        for piece in self._source.read(after) if each else self._source.pieces(after, limit):
            if batch is None:
                bare = denied or self.mode is Mode.BARE
                batch = Batch(piece.db, bare, after)
                if self._blocked and not denied:
                    break
            if piece.db != batch.db or (count and count + piece.size > limit):
                break
            if isinstance(piece, Stretch):
                if now - piece.oldest > max_age:
                    return self._build(after, each=True)
            elif watched and piece.seq in self.premises:
                break
            elif (watched or now - piece.at > piece.limit(max_age)) and self._is_aside(piece, now):
                batch.aside.append(piece)
                batch.last = piece.seq
                continue
            elif denied and (piece.grows or not piece.safe_twice or piece.parts):
                break  # deletes and expiries drain without W, because SET W is denied as well
            batch.pieces.append(piece)
            count += piece.size
            batch.last = piece.last
        if batch is not None:
            batch.count = count
        return batch

    def _check_premises(self) -> Dialogue[None]:
        for seq in (yield from self.premises.check(self._use)):
            self._aside.setdefault(seq, ("premise", None))

    def _is_aside(self, entry: Entry, now: float) -> bool:
        if entry.db in self._barred:
            # In another database its writes would be somebody else's data.
            self._aside.setdefault(entry.seq, ("error", self._barred[entry.db]))
        if entry.seq > self._tried and entry.age(now) > entry.limit(self._source.max_age):
            self._aside.setdefault(entry.seq, ("age", None))
        elif self.mode is Mode.BARE and (entry.parts or not entry.safe_twice):
            self._aside.setdefault(entry.seq, ("rights", None))
        return entry.seq in self._aside

    def _send(self, batch: Batch) -> Dialogue[Batch | None]:
        """Sends `batch` if W allows it, and settles what the replies settle. Returns the batch
        behind it, if all went well: it is made while the server is at work.
        """
        if batch.bare or self._armed != batch.db:
            self._settle_last()
        if not (yield from self._use(batch.db)):
            return None
        now = self._clock()
        payload = batch.payload(now, self._time.at(now))
        if batch.bare:
            self._on_its_way(batch)
            self._judge_bare(batch, (yield Exchange(b"".join(payload), batch.count)))
            return None
        if self._armed != batch.db and not (yield from self._arm(batch.db)):
            return None
        if self.premises.met and not (yield from self._still_absent(batch)):
            return None
        self._armed = None
        self._on_its_way(batch)
        done = Mark(self._marks[batch.db].session, batch.last)
        setting = pack((b"SET", self._watermark, done.value()))
        # What arms the next batch travels along.
        ask = [pack((b"MULTI",)), *payload, setting, pack((b"EXEC",)), self._arming(done)]
        try:
            yield Exchange(b"".join(ask), 0)
        finally:
            # The batch before, while the server is at work on this one.
            self._settle_last()
        following = self._build(batch.last)
        _, *replies, watched, guarded = yield Exchange(b"", batch.count + 5)
        self._in_flight, outcome = None, replies[-1]
        if isinstance(outcome, list):
            self._marks[batch.db] = done
            self.held = None
            self._last = (batch, outcome[:-1])
            if self._is_armed(watched, guarded, done):
                self._armed = batch.db
            return following if following and following.pieces else None
        if isinstance(outcome, ReplyError):
            self._judge_abort(batch, replies)
        else:
            yield from self._read_watermark(batch.db)
            self.premises.ask_again(self._confirmed)  # or a key of theirs has come into being
        return None

    def _still_absent(self, batch: Batch) -> Dialogue[bool]:
        """Whether the keys are absent that have to be. From here on EXEC fails if one comes into
        being.
        """
        self._settle_last()
        keys = self.premises.at_stake(batch.db, self._confirmed, batch.last)
        if not keys:
            return True
        ask = pack((b"WATCH", *keys)) + pack((b"EXISTS", *keys))
        watched, found = yield Exchange(ask, 2)
        available(watched)
        if not isinstance(found, int) or found == 0:
            return True  # a server that does not say it now has said it of each a moment ago
        self.premises.ask_again(self._confirmed)
        return False

    def _on_its_way(self, batch: Batch) -> None:
        self._in_flight = batch
        self._tried = max(self._tried, batch.last)

    # -- replies --------------------------------------------------------------------------

    def _judge_abort(self, batch: Batch, replies: Replies) -> None:
        """EXECABORT: the server refused commands as it queued them, and said which."""
        errors = [reply for reply in replies if isinstance(reply, ReplyError)]
        for error in errors:
            available(error)
        holding = next((e.code for e in errors if e.code in HOLDING), None)
        if holding is not None:
            self._hold(holding)
            return
        refused = {seq: ("error", error) for seq, error in batch.errors(replies).items()}
        self._aside.update(refused)
        if not refused:
            if not any(is_forbidden(error) for error in errors):
                raise Unavailable(f"EXEC failed: {replies[-1].message}")
            self.mode = Mode.BARE  # W may not be written, or EXEC not be called
            self._marks.clear()

    def _judge_bare(self, batch: Batch, replies: Replies) -> None:
        self._in_flight = None
        for i, reply in enumerate(replies):
            available(reply)
            if isinstance(reply, ReplyError) and reply.code in HOLDING:
                self._hold(reply.code)
                first = batch.pieces[i].seq
                batch.pieces, replies = batch.pieces[:i], replies[:i]
                batch.aside = [entry for entry in batch.aside if entry.seq < first]
                batch.last = first - 1
                break
        else:
            if not self._blocked:
                self.held = None
        self._settle(batch, replies)

    def _hold(self, code: str) -> None:
        self.held = code
        self._blocked = True
        # The batch was refused as a whole: it is as if it had not been sent.
        self._tried = max(self._before, self._confirmed)

    # -- settling -------------------------------------------------------------------------

    def _settle_last(self) -> None:
        if self._last is not None:
            (batch, replies), self._last = self._last, None
            self._settle(batch, replies)

    def _settle(self, batch: Batch, replies: Replies) -> None:
        """The batch is in. An entry that the server refused by itself is set aside."""
        sound = ReplyError not in set(map(type, replies))
        for piece, reply in batch.replied(replies):
            if not isinstance(piece, Stretch):
                self._settle_one(piece, reply)
            elif sound:
                self.applied_count += piece.size
                self._listener.applied_in_a_row(piece.seq, reply)
            else:
                entries = between(self._source, piece.seq - 1, piece.last)
                for entry, own in zip(entries, reply, strict=True):
                    self._settle_one(entry, own)
        for entry in batch.aside:
            self._set_aside(entry)
        self._confirm(batch.last)

    def _settle_one(self, entry: Entry, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            self._listener.dead_letter(entry, "error", reply)
        else:
            self._apply(entry, reply)

    def _apply(self, entry: Entry, reply: Any) -> None:
        self.applied_count += 1
        self._listener.applied(entry, reply)

    def _set_aside(self, entry: Entry) -> None:
        reason, error = self._aside.pop(entry.seq)
        self._listener.dead_letter(entry, reason, error)

    def _confirm(self, upto: int) -> None:
        self._confirmed = max(self._confirmed, upto)
        self._source.confirm(self._confirmed)
