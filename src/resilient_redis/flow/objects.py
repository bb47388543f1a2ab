"""The guard around any object with redis-py's methods: fakeredis, a mock, another client.

The same catalog and policy as at the connection, but what a connection knows is not known here:
whether a command was sent, what the object's own retries do, when it heals. So probing is by
traffic, a failed call is raised again and its write queued, and the replay calls the object's
methods one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..answering import answer_or_refuse, refusal
from ..core.breaker import Permit
from ..core.catalog import UNKNOWN
from ..core.command import Command, Kind, Shape
from ..core.guard import Answer, AwaitDrain, AwaitRecovery, Refuse, Send, Step
from ..errors import JournalFull
from ..seam.failures import is_foreign_outage, never_sent, server_answered
from ..seam.methods import StandIn, is_command
from ..seam.packed import command_of
from ..seam.pools import pool_of
from .background import is_over
from .calls import Call, Keys, Piped, Replayer, frozen
from .sender import READ_AS_NEUTRAL
from .steps import Steps

if TYPE_CHECKING:
    from .breaker import CircuitBreaker

Func = Callable[..., Any]
# What the user has said of the form of his client's replies.
_FORM = ("decode_responses", "encoding", "encoding_errors", "protocol", "legacy_responses")
FOREIGN_ARGUMENTS = "redis-py's method of this name does not take these arguments"


class ObjectGuard:
    """See `RedisCircuitBreaker.execute`. `wait` gives the seconds until the next probe; without
    it that is `recovery_timeout`, because each probe is a caller's call, and may cost a timeout.
    """

    def __init__(
        self, breaker: CircuitBreaker, client: Any, wait: Callable[[], float] | None
    ) -> None:
        self._breaker = breaker
        self._client = client
        self._wait = wait or (lambda: breaker.recovery_timeout)
        self._made: StandIn | None = None
        self._replayer = Replayer(breaker, client)
        self.replaying: Any = None  # what `beside` has returned
        self._ending = False  # the interpreter ends: no replay begins any more

    @property
    def _stand_in(self) -> StandIn:
        if self._made is None:
            pool = pool_of(self._client)
            kwargs = {} if pool is None else pool.connection_kwargs
            self._made = self._breaker.stand_in(
                **{name: kwargs[name] for name in _FORM if name in kwargs}
            )
            if pool is not None:
                self._made.response_callbacks = self._client.response_callbacks
        return self._made

    def begin_anew(self) -> None:
        """In the child of a fork."""
        self._replayer = Replayer(self._breaker, self._client)
        self.replaying = None

    def opened(self) -> None:
        """The breaker has opened: traffic probes again after the wait."""
        self._breaker.plan_probe(self._wait())

    # -- a call -----------------------------------------------------------------------------

    def execute(
        self,
        method_name: str,
        func: Func,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        owner: Any,
    ) -> Steps[Any]:
        """`owner`: who calls (see `Provenance`), which need not be the one that waits."""
        breaker = self._breaker
        at = breaker.clock()
        parts = tuple(Call(*part, at) for part in func.calls) if isinstance(func, Piped) else ()
        call = Call(method_name, frozen(args), frozen(kwargs), at, owner, parts)
        if breaker.live:
            return (yield from self._call(call, func))
        if breaker.breath_is_due():
            yield breaker.breathe
        command, keys = self._command(call)
        until = call.at + breaker.drain_wait
        while True:
            permit = self._permit()
            # A call that blocks may do so for ever, and with it whoever waits for the probe.
            if permit and command.shape.blocking and (yield from self._asked(permit, keys)):
                continue
            if command.shape.kind is Kind.READ and (permit or self._doubtful):
                # A read may go first: it tells whether the object is there, and changes nothing.
                stale = self._replayer.touches(command.shape.keys)
                result = yield from (
                    self._probe(permit, call, func) if permit else self._call(call, func)
                )
                stale = stale or self._replayer.touches(command.shape.keys)
                drained = yield from self._drained(until)
                if not stale:
                    return self._told(call, command, result)
                if drained:
                    continue
            elif permit is not None and not breaker.pending:
                result = yield from self._probe(permit, call, func)
                yield from self._drained(until)  # what was queued meanwhile
                return self._told(call, command, result)
            elif permit is not None:
                yield from self._drained(until, permit)  # the first entry is the probe
                continue
            elif breaker.closed and not breaker.gate_open:
                doubtful = self._doubtful
                drained = yield from self._drained(until)
                if not drained and doubtful and self._replayer.failure:
                    # One failure more of those that are being counted, and this call's own.
                    error = _another(self._replayer.failure)
                    self._keep(call, error, self._replayer.failure)
                    raise error from self._replayer.failure
            now = breaker.clock()
            decision = breaker.decide([command], waited=now >= until, blocked=now - call.at)
            if isinstance(decision, AwaitRecovery):
                # Traffic probes, and this call is traffic.
                left = command.shape.block_ms / 1000 - (now - call.at)
                due = breaker.retry_after() or 1.0
                yield breaker.pausing(min(left, due) if command.shape.block_ms else due)
                continue
            if isinstance(decision, Refuse):
                raise refusal(breaker, decision)
            if isinstance(decision, AwaitDrain):
                if self._replayer.rests or self._ending:
                    until = breaker.clock()  # no use in waiting
                continue
            if isinstance(decision, Send) or decision.steps[0] is Step.SEND:
                yield from self._check_premise(command, keys, call)
                return self._told(call, command, (yield from self._call(call, func)))
            return self._answer(call, command, keys, decision)

    @property
    def _doubtful(self) -> bool:
        """Closed, writes are queued, and failures are being counted."""
        breaker = self._breaker
        return breaker.closed and not breaker.gate_open and breaker.failures > 0

    def _call(self, call: Call, func: Func) -> Steps[Any]:
        breaker = self._breaker
        era = breaker.era
        try:
            result = yield partial(func, *call.args, **call.kwargs)
        except Exception as error:
            _tell(error, queued=False)
            if is_foreign_outage(error):
                breaker.failure(era, error, call.at)
                self._keep(call, error, error)
            elif breaker.suspicious and server_answered(error):
                breaker.success(era)
            raise
        if breaker.suspicious:
            breaker.success(era)
        return result

    def _probe(self, permit: Permit, call: Call, func: Func) -> Steps[Any]:
        """The call itself tells whether the object is back."""
        breaker = self._breaker
        breaker.counters["probes"] += 1
        alive = outage = False
        try:
            result = yield partial(func, *call.args, **call.kwargs)
            alive = True
        except Exception as error:
            _tell(error, queued=False)
            alive, outage = server_answered(error), is_foreign_outage(error)
            if outage:
                breaker.note_error(error)
                self._keep(call, error, error)
            raise
        finally:
            # Also when cancelled: a permit that is not given back would block every later probe.
            self._probed(permit, alive, outage)
        return result

    def _asked(self, permit: Permit, keys: Keys) -> Steps[bool]:
        """A question tells whether the object is back. False: it cannot be asked, and the call
        itself is the probe.
        """
        breaker = self._breaker
        ask = self._replayer.ask(keys)
        asked, alive, outage = True, False, False
        try:
            asked = alive = yield partial(breaker.limited, ask, 10 * breaker.probe_timeout)
        except Exception as error:  # noqa: BLE001 - whatever it raises, it is not back
            outage = True
            breaker.note_error(error)
        finally:
            if asked:
                breaker.counters["probes"] += 1
                self._probed(permit, alive, outage)
        return asked

    def _probed(self, permit: Permit, alive: bool, outage: bool) -> None:
        breaker = self._breaker
        breaker.give_back(permit, alive)
        if alive and breaker.closed and not breaker.pending:
            breaker.open_gate()
        elif not alive and not outage:
            breaker.plan_probe(0.0)  # the caller's mistake, or his cancellation: ask again

    def _permit(self) -> Permit | None:
        breaker = self._breaker
        return None if breaker.closed or breaker.retry_after() else breaker.take_permit()

    # -- the replay ---------------------------------------------------------------------------

    def _drained(self, until: float, permit: Permit | None = None) -> Steps[bool]:
        """Replays what is queued, or waits for who does, until the time is over. Whether the gate
        is open then.
        """
        breaker = self._breaker
        if breaker.gate_open:
            return True
        breaker.adopt()
        if is_over(self.replaying):
            if permit is None and (self._replayer.rests or not breaker.closed):
                return False
            replaying = breaker.beside(self._replayer.run(permit), "replay")
            if replaying is None:
                self._ending = True
                if permit is not None:
                    breaker.give_back(permit, False)
                return False
            self.replaying = replaying
        elif permit is not None:
            breaker.give_back(permit, False)
        left = max(until - breaker.clock(), 0.0)
        yield partial(breaker.joined, self.replaying, left)
        return breaker.gate_open

    def flush(self, seconds: float | None = None) -> Steps[int]:
        """See `RedisCircuitBreaker.flush_re_sync_queue`."""
        breaker = self._breaker
        before = breaker.counters["replayed"]
        if not breaker.pending:
            return 0
        # One that somebody else has started, as a probe, is waited for like our own.
        under_way = not is_over(self.replaying)
        permit = None if breaker.closed or under_way else breaker.take_permit()
        if breaker.closed or under_way or permit is not None:
            wait = breaker.drain_wait if seconds is None else seconds
            yield from self._drained(breaker.clock() + wait, permit)
        return breaker.counters["replayed"] - before

    # -- answers ------------------------------------------------------------------------------

    def _command(self, call: Call) -> tuple[Command, Keys]:
        """What redis-py would send for this call. Raises what its method raises."""
        sent: list[tuple[Any, ...]] = []

        def take(args: tuple[Any, ...], _: dict[str, Any]) -> Any:
            sent.append(args)
            raise _Captured

        reason = UNKNOWN
        if call.parts:
            return self._pipeline(call)
        if is_command(call.method):
            try:
                self._stand_in.run(call.method, call.args, call.kwargs, take)
            except _Captured:
                encoder = self._stand_in.replies.encoder
                command = command_of(sent[0], encoder)
                return self._breaker.ruled([command])[0], _spelled(command, sent[0], encoder)
            except TypeError:
                reason = FOREIGN_ARGUMENTS
        name = call.method.upper()
        return Command((name.encode(),), Shape(name, Kind.REFUSED, reason=reason)), {}

    def _pipeline(self, call: Call) -> tuple[Command, Keys]:
        """As a whole it is sent or refused; of its parts only the keys are looked at."""
        parts: list[Command] = []
        keys: Keys = {}
        for part in call.parts:
            try:
                command, spelled = self._command(part)
                parts.append(command)
                keys.update(spelled)
            except Exception:  # noqa: BLE001, S110 - whatever redis-py's method makes of it
                pass  # as in `_keep`: nothing is known of it
        name = call.method.upper()
        shape = Shape(name, Kind.REFUSED, reason=UNKNOWN)
        return Command((name.encode(),), shape, tuple(parts)), keys

    def _answer(self, call: Call, command: Command, keys: Keys, decision: Answer) -> Any:
        breaker, stand_in = self._breaker, self._stand_in
        answers = answer_or_refuse(breaker, command, decision, db=0, at=call.at, owner=call.owner)
        if answers.first:
            self._replayer.hold(answers.first, call, keys)
            return "OK"
        (slot,) = answers.slots(stand_in.replies.protocol, stand_in.replies.parse_error)
        return stand_in.run(call.method, call.args, call.kwargs, lambda *_: slot)

    def _keep(self, call: Call, error: Exception, cause: Exception) -> None:
        """The call has failed by an outage, `cause`: its write is queued, if that cannot apply it
        twice, and `error.queued` says so.
        """
        breaker = self._breaker
        _tell(error, queued=False)
        try:
            command, keys = self._command(call)
        except Exception:  # noqa: BLE001 - whatever redis-py's method makes of foreign arguments
            return  # the object takes what redis-py does not: nothing is known of it
        decision = breaker.decide([command], waited=True, away=True)
        if not isinstance(decision, Answer) or decision.steps[0] is not Step.QUEUE:
            return
        if not command.shape.safe_twice and not never_sent(cause):
            breaker.count("unknown", command.shape.name)
            return
        try:
            self._answer(call, command, keys, decision)
        except JournalFull:
            return  # it says "not queued", as the caller is told
        _tell(error, queued=True)

    def _check_premise(self, command: Command, keys: Keys, call: Call) -> Steps[None]:
        """Raises `CommandRefused` if this task was told that a key is empty which is not."""
        breaker = self._breaker
        reads = breaker.provenance.reads_of(call.owner)
        premise = reads.premise_of(command, 0) if reads else ()
        if reads is None or not premise:
            return
        era = breaker.era
        try:
            present = []
            for key in premise:
                present.append((yield from self._replayer.present(keys.get(key, key))))
        except Exception as error:
            if is_foreign_outage(error):
                breaker.failure(era, error, call.at)
                _tell(error, queued=False)
            raise
        reads.discard(0, [key for key, there in zip(premise, present, strict=True) if not there])
        if any(present):
            raise refusal(breaker, Refuse(command.shape.name, READ_AS_NEUTRAL))

    def _told(self, call: Call, command: Command, result: Any) -> Any:
        """The task has the truth from the object itself."""
        self._breaker.provenance.live(call.owner, [command], 0)
        self._breaker.refresh()
        return result


def _spelled(command: Command, sent: tuple[Any, ...], encoder: Any) -> Keys:
    """The keys of `command`, which redis-py's method has sent as `sent`."""
    wanted = set(command.shape.keys)
    found: Keys = {}
    for word in sent[1:]:
        if wanted and (key := bytes(encoder.encode(word))) in wanted:
            wanted.discard(key)
            found[key] = word
    return found


def _tell(error: Exception, queued: bool) -> None:
    """The caller is to read `error.queued`, also where its class lets nobody write on it."""
    vars(error)["queued"] = queued


def _another(error: Exception) -> Exception:
    """Another like `error`, because each caller is told of his own write. Made without its
    `__init__` and its `__setattr__`, which `copy` would call, and which may be anything.
    """
    made = type(error).__new__(type(error), *error.args)
    vars(made).update(vars(error))
    return made


class _Captured(Exception):
    """The command that a method sends is known."""
