"""Queued calls of an object's methods, and their replay: one by one, first in, first out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.breaker import Cause, Permit
from ..core.entry import Entry
from ..core.exchange import ReplyError
from ..core.wire import unpack
from ..observers import logger
from ..seam.failures import (
    is_foreign_outage,
    is_of_arguments,
    is_of_the_command,
    never_sent,
    object_holding_code,
    server_answered,
)
from ..seam.methods import aged
from ..seam.pools import pool_of
from .steps import Steps, Wait

if TYPE_CHECKING:
    from .breaker import CircuitBreaker


class Call(NamedTuple):
    """`getattr(client, method)(*args, **kwargs)`, asked for at monotonic time `at`."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    at: float
    owner: Any = None  # who has asked; see `Provenance`
    parts: tuple[Call, ...] = ()  # of a pipeline: what it has collected


class Piped:
    """What sends a pipeline over any object, and knows what is in it: the names of methods, with
    their arguments.
    """

    def __init__(
        self, send: Callable[[], Any], calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]
    ) -> None:
        self._send = send
        self.calls = calls

    def __call__(self) -> Any:
        return self._send()


#: Keys as they go on the wire, and as the caller has spelled them: an object may tell "k" from
#: b"k", and is asked in his own words.
Keys = dict[bytes, Any]


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
    keys: Keys


class Replayer:
    """Keeps the calls behind the journal's entries, and makes them again.

    An entry that fails by an outage stays at the front and the breaker opens; one that fails
    otherwise is a dead letter, if the object answers anything else. One of which nobody knows
    whether it ran, and that is not safe to send twice, is a dead letter with the reason "unknown":
    no watermark can tell here.
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
        self._code: str | None = None  # under which the object takes no writes

    def hold(self, seq: int, call: Call, keys: Keys) -> None:
        """`call` stands behind entry `seq`. Its task, frames and all, need not live that long."""
        self._held[seq] = _Held(call._replace(owner=None), keys)

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
        self._begin()
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
                if contact is None and self._code is not None:
                    if permit is not None:  # it has answered
                        breaker.give_back(permit, True)
                        permit = None
                    breaker.hold(self._code)
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

    def _begin(self) -> None:
        self._server_ms = self.failure = self._code = None

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
            yield from self._check_premise_again(entry)
            applies = entry.seq not in self._premise_failed
            if applies and not entry.safe_twice and not self._proved:
                # It cannot be the probe: if its reply is lost, nobody can say whether it ran.
                yield self._asking(entry)
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
            return (yield from self._failed(entry, error))
        except BaseException:
            self._unknown(entry, "cancelled")
            raise
        breaker.outbox.applied(entry, reply)
        return True

    def _asking(self, entry: Entry) -> Wait:
        keys = self._held[entry.seq].keys
        return partial(self._breaker.limited, self.ask(keys), 10 * self._breaker.probe_timeout)

    def ask(self, keys: Keys) -> Steps[bool]:
        """Is it there? What a server answers to that does not matter. `keys`: some that it may be
        asked for. False: it has no method to be asked by, or none that can be awaited.

        Raises what says that it is not, or that it does not work at all.
        """
        key = next(iter(keys.values()), "")
        strange: Exception | None = None
        for name, args in (("ping", ()), ("exists", (key,)), ("get", (key,))):
            question = getattr(self._client, name, None)
            if question is None:
                continue
            try:
                yield partial(question, *args)
            except Exception as error:
                if server_answered(error):
                    return True
                if not is_of_the_command(error):
                    raise
                strange = error
            else:
                return True
        if strange is not None and not is_of_arguments(strange):
            raise strange
        return False

    def _failed(self, entry: Entry, error: Exception) -> Steps[bool | None]:
        judged = error
        if is_of_the_command(error) and object_holding_code(error) is None:
            try:
                if not is_of_arguments(error):
                    yield self._asking(entry)
            except Exception as of_all:  # noqa: BLE001 - judged below
                # Not a fault of this entry: the object does not work.
                judged = of_all
                self._unknown(entry, str(error))
            else:
                self._breaker.outbox.dead_letter(entry, "error", ReplyError(str(error)))
                return True
        elif is_foreign_outage(error) and not never_sent(error):
            self._unknown(entry, str(error))
        self._away(judged)
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
            self._code = object_holding_code(error)
            return
        breaker.note_error(error)
        if self._counts:
            self.failure = error
            breaker.failure(breaker.era, error, breaker.clock())
        elif breaker.closed:
            breaker.trip(Cause.REPLAY_FAILED, type(error).__name__)

    def _make(self, entry: Entry) -> Steps[Any]:
        call = self._held[entry.seq].call
        args, kwargs = call.args, call.kwargs
        if entry.ttl_ms is not None:
            # A relative expiry counts from the call; redis-py's classes take the absolute form.
            if pool_of(self._client) is not None:
                command, *words = unpack((yield from self._at_deadline(entry)))
                return (yield partial(self._client.execute_command, command.decode(), *words))
            args, kwargs = aged(call.method, args, kwargs, entry.age(self._breaker.clock()))
        return (yield partial(getattr(self._client, call.method), *args, **kwargs))

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
            spelled = {k: word for held in self._held.values() for k, word in held.keys.items()}
            asked = premises.questions(0)
            absent = []
            for key in asked:
                if not (yield from self._may_be_present(spelled.get(key, key))):
                    absent.append(key)
            self._premise_failed.update(premises.answered(0, absent))

    def _check_premise_again(self, entry: Entry) -> Steps[None]:
        """When its turn has come: what was absent may have come into being."""
        keys, premises = self._held[entry.seq].keys, self._breaker.replay.premises
        for key in premises.at_stake(0, entry.seq - 1, entry.seq):
            if (yield from self._may_be_present(keys.get(key, key))):
                premises.ask_again(entry.seq - 1)
                yield from self._check_premises()
                return

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
