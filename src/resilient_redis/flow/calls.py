"""Queued calls of an object's methods, and their replay: one by one, first in, first out."""

from __future__ import annotations

from collections import deque
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.breaker import Cause, Permit
from ..core.entry import Entry
from ..core.exchange import ReplyError
from ..core.wire import unpack
from ..observers import logger
from ..seam.failures import (
    is_foreign_outage,
    is_of_the_command,
    never_sent,
    object_holding_code,
    server_answered,
)
from ..seam.pools import pool_of
from .steps import Steps

if TYPE_CHECKING:
    from .breaker import CircuitBreaker


class Call(NamedTuple):
    """`getattr(client, method)(*args, **kwargs)`, asked for at monotonic time `at`."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    at: float
    owner: Any = None  # the task or thread that asked


def frozen(value: Any) -> Any:
    """A copy that the caller cannot change any more: what is queued is what was given, and what
    can be gone through only once is gone through here.
    """
    if isinstance(value, (str, bytes, int, float)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {frozen(key): frozen(item) for key, item in value.items()}
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, tuple):
        return tuple(map(frozen, value))
    if isinstance(value, (set, frozenset)):
        return set(map(frozen, value))
    if isinstance(value, (list, deque, Iterator, KeysView, ValuesView, ItemsView)):
        return list(map(frozen, value))
    return value


class _Held(NamedTuple):
    call: Call
    keys: tuple[bytes, ...]


def _words(held: _Held) -> Iterator[tuple[bytes, str]]:
    for word in held.call.args:
        if isinstance(word, str):
            yield word.encode(), word


class Replayer:
    """Keeps the calls behind the journal's entries, and makes them again.

    An entry that fails by an outage stays at the front and the breaker opens; one that fails
    otherwise is a dead letter. One of which nobody knows whether it ran, and that is not safe to
    send twice, is a dead letter with the reason "unknown": no watermark can tell here.
    """

    def __init__(self, breaker: CircuitBreaker, client: Any) -> None:
        self._breaker = breaker
        self._client = client
        self._held: dict[int, _Held] = {}
        self._premise_failed: set[int] = set()
        self._rests_until = 0.0
        self._counts = False
        self._proved = False  # the object has answered in this run
        self.failure: Exception | None = None  # what ended the last run at its first contact
        self._server_ms: tuple[float, int] | None = None  # when asked, and what it said

    def hold(self, seq: int, call: Call, keys: tuple[bytes, ...]) -> None:
        """`call` stands behind entry `seq`."""
        self._held[seq] = _Held(call, keys)

    def touches(self, keys: tuple[bytes, ...]) -> bool:
        """Whether a queued call writes to one of `keys`."""
        wanted = set(keys)
        return any(not wanted.isdisjoint(held.keys) for held in self._held.values())

    @property
    def rests(self) -> bool:
        """The object answers, but takes no writes now: not yet again."""
        return self._breaker.clock() < self._rests_until

    def run(self, permit: Permit | None) -> Steps[None]:
        """Until the journal is empty. `permit`: the first contact is the probe."""
        breaker = self._breaker
        breaker.drain.begin()
        self._server_ms = self.failure = None
        if (first := breaker.outbox.journal.oldest) is not None:
            breaker.replay.premises.ask_again(first.seq - 1)
        # Failures are being counted: the first contact is one call more, and not a trip.
        self._counts = permit is None and breaker.failures > 0
        self._proved = permit is None and not self._counts
        try:
            while (entry := breaker.outbox.journal.oldest) is not None:
                if permit is None and not breaker.closed:
                    return
                contact = yield from self._settle(entry)
                if contact is None:
                    return
                if contact:
                    self._counts = False
                    if permit is not None:
                        breaker.give_back(permit, True)
                        permit = None
                    elif breaker.suspicious:
                        breaker.success(breaker.era)
                self._done(entry)
                breaker.drain.progress()
        except Exception:  # noqa: BLE001 - logged whole, and nobody waits for this
            logger.exception("%s: the replay has failed", breaker.name)
            return
        finally:
            if permit is not None:
                breaker.give_back(permit, False)
                if not breaker.pending:  # all were too old: the object has not been asked
                    breaker.plan_probe(0.0)
        if breaker.closed:
            breaker.replay.premises.forget()
            breaker.drain.finish()

    def _settle(self, entry: Entry) -> Steps[bool | None]:
        """Deals with the entry at the front. True or False: settled, with or without a call of the
        object; None: it stays there.
        """
        breaker = self._breaker
        if entry.age(breaker.clock()) > entry.limit(breaker.outbox.journal.max_age):
            breaker.outbox.dead_letter(entry, "age", None)
            return False
        try:
            yield from self._check_premises()
            applies = entry.seq not in self._premise_failed
            if applies and not entry.safe_twice and not self._proved:
                # It cannot be the probe: if its reply is lost, nobody can say whether it ran.
                yield partial(breaker.limited, self._ask(), 10 * breaker.probe_timeout)
        except Exception as error:  # noqa: BLE001 - judged there, whatever this object raises
            self._away(error)
            return None
        if not applies:
            breaker.outbox.dead_letter(entry, "premise", None)
            return True
        self._proved = True
        try:
            # A call that never returns would keep the gate shut for ever.
            reply = yield partial(breaker.limited, self._make(entry), 10 * breaker.probe_timeout)
        except Exception as error:  # noqa: BLE001 - judged there, whatever this object raises
            return self._failed(entry, error)
        except BaseException:
            self._unknown(entry, "cancelled")
            raise
        breaker.outbox.applied(entry, reply)
        return True

    def _ask(self) -> Steps[None]:
        """Is it there? What a server answers to that does not matter."""
        ping = getattr(self._client, "ping", None)
        if ping is None:
            return
        try:
            yield ping
        except Exception as error:
            if not server_answered(error):
                raise

    def _failed(self, entry: Entry, error: Exception) -> bool | None:
        if is_of_the_command(error) and object_holding_code(error) is None:
            self._breaker.outbox.dead_letter(entry, "error", ReplyError(str(error)))
            return True
        if is_foreign_outage(error) and not never_sent(error):
            self._unknown(entry, str(error))
        self._away(error)
        return None

    def _unknown(self, entry: Entry, why: str) -> None:
        """Nobody knows whether it ran."""
        if entry.safe_twice:
            return  # it is made again
        self._breaker.outbox.dead_letter(entry, "unknown", ReplyError(why))
        self._done(entry)

    def _done(self, entry: Entry) -> None:
        """Nothing more is to be done about the entry at the front."""
        self._breaker.outbox.journal.confirm(entry.seq)
        self._held.pop(entry.seq, None)
        self._premise_failed.discard(entry.seq)

    def _away(self, error: Exception) -> None:
        """Nothing more can be applied now: by an outage, or by what is no fault of an entry."""
        breaker = self._breaker
        if not is_foreign_outage(error):
            self._rests_until = breaker.clock() + breaker.next_wait()
            if (code := object_holding_code(error)) is not None:
                breaker.hold(code)
            return
        breaker.note_error(error)
        if self._counts:
            self.failure = error
            breaker.failure(breaker.era, error, breaker.clock())
        elif breaker.closed:
            breaker.trip(Cause.REPLAY_FAILED, type(error).__name__)

    def _make(self, entry: Entry) -> Steps[Any]:
        call = self._held[entry.seq].call
        if entry.ttl_ms is not None and pool_of(self._client) is not None:
            # A relative expiry counts from the call; redis-py's classes take the absolute form.
            command, *args = unpack((yield from self._at_deadline(entry)))
            return (yield partial(self._client.execute_command, command.decode(), *args))
        return (yield partial(getattr(self._client, call.method), *call.args, **call.kwargs))

    def _at_deadline(self, entry: Entry) -> Steps[bytes]:
        now = self._breaker.clock()
        if self._server_ms is None:
            seconds, micros = yield self._client.time
            self._server_ms = (now, int(seconds) * 1000 + int(micros) // 1000)
        asked, server_ms = self._server_ms
        return entry.at_deadline(now, server_ms + int((now - asked) * 1000))

    def _check_premises(self) -> Steps[None]:
        premises = self._breaker.replay.premises
        if premises:
            # As the caller has spelled them: an object may tell "k" from b"k".
            spelled = {k: word for held in self._held.values() for k, word in _words(held)}
            asked = premises.questions(0)
            absent = []
            for key in asked:
                if not (yield from self._may_be_present(spelled.get(key, key))):
                    absent.append(key)
            self._premise_failed.update(premises.answered(0, absent))

    def _may_be_present(self, key: Any) -> Steps[bool]:
        try:
            return (yield from self.present(key))
        except Exception as error:
            if is_foreign_outage(error):
                raise
            return True  # it cannot be asked for

    def present(self, key: Any) -> Steps[bool]:
        """Whether the object holds anything under `key`. One that cannot be asked may."""
        exists = getattr(self._client, "exists", None)
        if exists is None:
            return True
        found = yield partial(exists, key)
        # A mock answers with another mock: it holds nothing that could be destroyed.
        return isinstance(found, int) and found != 0
