"""The watermark W of a replay: set, watched and guarded on one connection.

See `replay.py` for what it is good for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .batch import available
from .exchange import HOLDING, Dialogue, Exchange, ReplyError, is_forbidden
from .rights import Mode
from .watermark import GUARD, Mark
from .wire import pack


class Marking:
    """The half of a `Replay` that knows where W stands, and makes sure of it before each batch."""

    def __init__(self, watermark: bytes, new_session: Callable[[], bytes], confirmed: int) -> None:
        self.mode = Mode.GUARDED
        self._watermark = watermark
        self._new_session = new_session
        self._confirmed = confirmed  # all up to here is settled
        self._marks: dict[int, Mark] = {}  # what W holds in each database in which we set it
        self._dirty: set[int] = set()  # databases in which W may stand
        self._selected = 0
        self._armed: int | None = None  # the database whose W is watched, and is what we expect
        self._barred: dict[int, ReplyError] = {}  # databases that cannot be selected

    def _hold(self, code: str) -> None:
        """The server takes no writes now."""
        raise NotImplementedError

    def _read_watermark(self, db: int) -> Dialogue[None]:
        """Reads W, and concludes what became of what may have been applied."""
        raise NotImplementedError

    @property
    def tidy(self) -> bool:
        """No watermark of ours stands on the server."""
        return not self._dirty

    def cleanup(self) -> Dialogue[None]:
        """Deletes W where it was set; the journal is empty."""
        for db in sorted(self._dirty):
            if (yield from self._use(db)):
                (reply,) = yield Exchange(pack((b"DEL", self._watermark)), 1)
                if isinstance(reply, ReplyError) and not is_forbidden(reply):
                    continue  # READONLY, LOADING …: later
            self._dirty.discard(db)
        self._marks.clear()
        self._armed = None

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

    def _arming(self, expected: Mark) -> bytes:
        """WATCH, and the question whether W is what we expect."""
        watch = pack((b"WATCH", self._watermark))
        if self.mode is Mode.CHECKED:
            return watch + pack((b"GET", self._watermark))
        return watch + pack((b"EVAL", GUARD, b"1", self._watermark, expected.value()))

    def _is_armed(self, watched: Any, guarded: Any, expected: Mark) -> bool:
        fine = guarded == 1 or guarded == expected.value()
        return fine and not isinstance(watched, ReplyError)

    def _arm(self, db: int) -> Dialogue[bool]:
        """Makes sure of W in `db`. False where it has to be looked at anew, or writes are held."""
        if db not in self._marks and not (yield from self._prime(db)):
            return False
        expected = self._marks[db]
        ask = pack((b"UNWATCH",)) + self._arming(expected)
        _, watched, guarded = yield Exchange(ask, 3)
        for reply in (watched, guarded):
            available(reply)
            if isinstance(reply, ReplyError):
                self._judge_watermark(reply)
                return False
        if not self._is_armed(watched, guarded, expected):
            yield from self._read_watermark(db)
            return False
        return True

    def _prime(self, db: int) -> Dialogue[bool]:
        """Sets W to where we are, under a new session. False where that has to be tried again, or
        the server takes no writes.

        In two steps: bytes of the second that arrive late find a W that has changed under them.
        NX: a late copy of both finds a W.
        """
        mark = Mark(self._new_session(), self._confirmed)
        watch = pack((b"WATCH", self._watermark)) + pack((b"GET", self._watermark))
        _, watched, found = yield Exchange(pack((b"UNWATCH",)) + watch, 3)
        available(watched)
        if isinstance(watched, ReplyError):
            self._judge_watermark(watched)
            return False
        self._dirty.add(db)
        setting = (b"SET", self._watermark, mark.value(), *((b"NX",) if found is None else ()))
        ask = pack((b"MULTI",)) + pack(setting) + pack((b"EXEC",))
        _, queued, outcome = yield Exchange(ask, 3)
        if isinstance(outcome, ReplyError):
            error = queued if isinstance(queued, ReplyError) else outcome
            available(error)
            self._judge_watermark(error)
            return False
        if outcome is None or outcome == [None]:
            return False
        self._marks[db] = mark
        return True

    def _judge_watermark(self, error: ReplyError) -> None:
        """W cannot be set, watched or guarded: do without the script, or without W."""
        if error.code in HOLDING:
            self._hold(error.code)
        elif self.mode is Mode.GUARDED:
            self.mode = Mode.CHECKED
        elif is_forbidden(error):
            self.mode = Mode.BARE
        else:
            raise error
