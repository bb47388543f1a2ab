"""Bugs that these attacks must find: `python -m tests.adversarial.plants [NAME …]`.

As `tests.planted`, for the guard over any object, the façade and the partitions: so that no attack
is green for nothing.
"""

from __future__ import annotations

import sys

from tests.planted.__main__ import main
from tests.planted.planting import Plant

OBJECTS, CALLS, GUARDING = "flow/objects.py", "flow/calls.py", "flow/guarding.py"
CLIENT, FACADE = "asyncio/client.py", "flow/client.py"
BREAKER, FAILURES, GUARD = "core/breaker.py", "seam/failures.py", "core/guard.py"


def plant(name: str, promise: str, file: str, old: str, new: str) -> Plant:
    return Plant(name, promise, file, old, new, ("tests/adversarial",))


PLANTS: tuple[Plant, ...] = (
    # -- half-open ---------------------------------------------------------------------------
    plant(
        "everybody gets a permit",
        "half-open lets one call through",
        BREAKER,
        "if self.state is State.HALF_OPEN and self._permit and now < self._permit.deadline:",
        "if self.state is State.HALF_OPEN and self._permit and now < 0:",
    ),
    plant(
        "a cancelled probe keeps its permit",
        "a permit is given back",
        OBJECTS,
        "        breaker.give_back(permit, alive)\n        if alive and",
        "        if alive or outage:\n            breaker.give_back(permit, alive)\n"
        "        if alive and",
    ),
    plant(
        "a permit never lapses",
        "a hung probe is no end",
        BREAKER,
        "self._permit and now < self._permit.deadline:",
        "self._permit:",
    ),
    plant(
        "a void permit counts",
        "an old probe says nothing about now",
        BREAKER,
        "if permit is not self._permit or self.state is not State.HALF_OPEN:",
        "if self.state is State.CLOSED:",
    ),
    plant(
        "forced open is not stronger than traffic",
        "a forced breaker stays open",
        BREAKER,
        "if self._forced or self.state is State.CLOSED:",
        "if self.state is State.CLOSED:",
    ),
    plant(
        "what is no outage puts the probe off",
        "a healthy object is asked again at once",
        OBJECTS,
        "            breaker.plan_probe(0.0)  # the caller's mistake, or his cancellation",
        "            pass  # the caller's mistake, or his cancellation",
    ),
    plant(
        "every caller replays",
        "one replay at a time",
        OBJECTS,
        "if is_over(self.replaying):",
        "if True:",
    ),
    plant(
        "a flush does not take the permit",
        "a flush looks at the object now",
        OBJECTS,
        "permit = None if breaker.closed or under_way else breaker.take_permit()",
        "permit = None",
    ),
    plant(
        "a reset opens the gate at once",
        "nothing overtakes the queue",
        "base.py",
        "        self._moved(self._core.reset())",
        "        self._moved(self._core.reset())\n        self.open_gate()",
    ),
    # -- the threshold -----------------------------------------------------------------------
    plant(
        "one failure too late",
        "opens at the threshold",
        BREAKER,
        "if self.failures >= self.failure_threshold:",
        "if self.failures > self.failure_threshold:",
    ),
    plant(
        "a success changes nothing",
        "consecutive failures",
        BREAKER,
        "            self.failures = 0\n            if self.rate",
        "            if self.rate",
    ),
    plant(
        "old outcomes count",
        "an outcome of an older era is ignored",
        BREAKER,
        "        if era != self.era or self.state is not State.CLOSED:\n            return None\n"
        "        self.failures += 1",
        "        self.failures += 1\n        if self.state is not State.CLOSED:\n"
        "            return None",
    ),
    plant(
        "an error reply is no answer",
        "a server that answers is there",
        OBJECTS,
        "            elif breaker.suspicious and server_answered(error):",
        "            elif False:",
    ),
    plant(
        "an exhausted pool is an outage",
        "what is no outage is not counted",
        FAILURES,
        "_NOT_OUTAGE = (AuthenticationError, AuthorizationError, MaxConnectionsError, ResilienceE",
        "_NOT_OUTAGE = (ResilienceE",
    ),
    plant(
        "all of another client's errors are outages",
        "what is no outage is not counted",
        FAILURES,
        "    return bool(names & _FOREIGN) and not names & _FOREIGN_ALIVE",
        "    return bool(names)",
    ),
    plant(
        "a full server is an outage",
        "what is no outage is not counted",
        FAILURES,
        '    if "max number of clients reached" in str(error):\n        return False\n',
        "",
    ),
    plant(
        "error replies count",
        "what is no outage is not counted",
        OBJECTS,
        "            if is_foreign_outage(error):\n"
        "                breaker.failure(era, error, call.at)\n                self._keep",
        "            if True:\n"
        "                breaker.failure(era, error, call.at)\n                self._keep",
    ),
    plant(
        "a cancelled caller is a failure",
        "the caller's own cancellation is no outage",
        OBJECTS,
        "                breaker.success(era)\n            raise\n",
        "                breaker.success(era)\n            raise\n"
        "        except BaseException as error:\n"
        "            breaker.failure(era, error, call.at)\n            raise\n",
    ),
    plant(
        "the rate is not watched",
        "half of the calls fail",
        BREAKER,
        "        if too_many:\n            return self.trip(Cause.RATE)\n",
        "",
    ),
    # -- the replay --------------------------------------------------------------------------
    plant(
        "a failed entry is forgotten",
        "an entry that fails by an outage stays at the front",
        CALLS,
        "        breaker.note_error(error)\n        if self._counts:",
        "        breaker.outbox.journal.confirm(entry.seq)\n"
        "        breaker.note_error(error)\n        if self._counts:",
    ),
    plant(
        "a failed replay does not open",
        "an entry that fails by an outage opens the breaker",
        CALLS,
        "            breaker.trip(Cause.REPLAY_FAILED, type(error).__name__)\n",
        "            pass\n",
    ),
    plant(
        "a failed replay goes on behind",
        "first in, first out",
        CALLS,
        "                if contact is None:\n                    return",
        "                if contact is None and breaker.pending < 2:\n                    return",
    ),
    plant(
        "poison stops the replay",
        "what the server refuses is set aside",
        CALLS,
        '                self._breaker.outbox.dead_letter(entry, "error", ReplyError(str(error)))\n'
        "                return True",
        "                return None",
    ),
    plant(
        "a push is made again",
        "an unknown outcome is not repeated",
        CALLS,
        "not never_sent(error):\n            self._unknown(entry, str(error))\n",
        "not never_sent(error):\n            pass\n",
    ),
    plant(
        "a push that broke the object is made again",
        "an unknown outcome is not repeated",
        CALLS,
        "                judged = of_all\n                self._unknown(entry, str(error))\n",
        "                judged = of_all\n",
    ),
    plant(
        "a live push is queued",
        "error.queued, and an unknown outcome is not repeated",
        OBJECTS,
        "if not command.shape.safe_twice and not never_sent(cause):",
        "if False:",
    ),
    plant(
        "what was never sent is not queued",
        "error.queued",
        OBJECTS,
        "if not command.shape.safe_twice and not never_sent(cause):",
        "if not command.shape.safe_twice:",
    ),
    plant(
        "queued is never said",
        "error.queued",
        OBJECTS,
        "        _tell(error, queued=True)",
        "        _tell(error, queued=False)",
    ),
    plant(
        "queued is said of all",
        "error.queued",
        OBJECTS,
        "        _tell(error, queued=False)\n        try:",
        "        _tell(error, queued=True)\n        try:",
    ),
    plant(
        "READONLY is the entry's fault",
        "a server that takes no writes costs no entry",
        FAILURES,
        '    for name, code in (("ReadOnlyError", "READONLY"), ("OutOfMemoryError", "OOM")):',
        "    for name, code in ():",
    ),
    plant(
        "an exhausted pool is the entry's fault",
        "a pool costs no entry",
        FAILURES,
        "    if _names(error) & _OF_ALL or",
        "    if",
    ),
    plant(
        "LOADING is the entry's fault",
        "a server that loads costs no entry",
        FAILURES,
        "REJECTED = (BusyLoadingError, MasterDownError, ClusterDownError)",
        "REJECTED = ()",
    ),
    plant(
        "callers wait for the replay as long as it takes",
        "nobody waits longer than drain_wait",
        OBJECTS,
        "yield partial(breaker.joined, self.replaying, left)",
        "yield partial(breaker.joined, self.replaying, None)",
    ),
    plant(
        "live calls pass the queue",
        "never over a newer one",
        OBJECTS,
        "        if breaker.live:\n            return (yield from self._call(call, func))",
        "        if breaker.closed:\n            return (yield from self._call(call, func))",
    ),
    plant(
        "a cancelled caller's write is queued",
        "who was told nothing gets nothing",
        OBJECTS,
        "        yield partial(breaker.joined, self.replaying, left)",
        "        import asyncio\n\n"
        "        try:\n            yield partial(breaker.joined, self.replaying, 1)\n"
        "        except asyncio.CancelledError:\n            pass",
    ),
    # -- bounds and premises -----------------------------------------------------------------
    plant(
        "a time to live counts from the replay",
        "a relative TTL counts from the call",
        CALLS,
        "if entry.ttl_ms is not None:",
        "if False:",
    ),
    plant(
        "nothing is too old",
        "max_age",
        CALLS,
        "if entry.age(breaker.clock()) > entry.limit(breaker.outbox.journal.max_age):",
        "if False:",
    ),
    plant(
        "nobody asked is as good as an answer",
        "a dead object is not up",
        CALLS,
        "                breaker.give_back(permit, False)\n                if not",
        "                breaker.give_back(permit, not breaker.pending)\n                if not",
    ),
    plant(
        "the journal has no bound",
        "JournalFull",
        "journal/memory.py",
        "            raise NoRoom",
        "            pass",
    ),
    plant(
        "queued writes have no premise",
        "no data are destroyed by our own neutral answer",
        "provenance.py",
        "        reads = self._of(owner)\n        premise",
        "        reads = NeutralReads()\n        premise",
    ),
    plant(
        "a live write has no premise",
        "no data are destroyed by our own neutral answer",
        OBJECTS,
        "                yield from self._check_premise(command, keys, call)\n",
        "",
    ),
    plant(
        "a live write at a connection has no premise",
        "no data are destroyed by our own neutral answer",
        "flow/sender.py",
        "if isinstance(decision, Send) and (reads := breaker.provenance.reads_of(owner)):",
        "if isinstance(decision, Send) and (reads := None):",
    ),
    plant(
        "the fast path does not remember",
        "no data are destroyed by our own neutral answer",
        GUARDING,
        "        breaker.provenance.absent(owner, keys, replies.db)\n",
        "",
    ),
    # -- arguments, answers ------------------------------------------------------------------
    plant(
        "arguments are not copied",
        "what is queued is what was given",
        OBJECTS,
        "call = Call(method_name, frozen(args), frozen(kwargs), at, owner, parts)",
        "call = Call(method_name, args, kwargs, at, owner, parts)",
    ),
    plant(
        "iterators are used up",
        "what is queued is what was given",
        CALLS,
        "    if isinstance(value, (list, deque, Iterator, KeysView, ValuesView, ItemsView)):",
        "    if isinstance(value, (list, deque, KeysView, ValuesView, ItemsView)):",
    ),
    plant(
        "SET NX is a plain SET",
        "success for a lock that nobody granted",
        "core/catalog/strings.py",
        '_CONDITIONS = (b"NX", b"XX", b"GET", b"IFEQ"',
        '_CONDITIONS = (b"IFEQ"',
    ),
    plant(
        "counters are queued",
        "what cannot be promised is refused",
        GUARD,
        "    if kind is Kind.WRITE:\n        if _replayable(shape, once):",
        "    if kind in (Kind.WRITE, Kind.COUNTER):\n        if _replayable(shape, once):",
    ),
    plant(
        "what is unknown is answered",
        "what cannot be promised is refused",
        GUARD,
        "    if kind is Kind.READ or kind is Kind.TAKE or kind is Kind.PUBLISH:\n        return",
        "    if kind is not Kind.WRITE:\n        return",
    ),
    plant(
        "rules are not asked",
        "a rule refuses",
        "base.py",
        "return apply_rules(self._rules, batch) if self._rules else batch",
        "return batch",
    ),
    plant(
        "values in the log",
        "no secret in a log",
        CALLS,
        "        self._held[seq] = _Held(call._replace(owner=None), keys)",
        "        self._held[seq] = _Held(call._replace(owner=None), keys)\n"
        '        logger.info("queued %r", call.args)',
    ),
    plant(
        "nobody is told of neutral answers",
        "track()",
        "base.py",
        "        note(answer, command)\n",
        "",
    ),
    # -- loops and ends ----------------------------------------------------------------------
    plant(
        "aclose does not wait",
        "aclose waits for the replay",
        "flow/breaker.py",
        "        while self.busy and (left := until - self.clock()) > 0:\n            if self.obj",
        "        while False and (left := until - self.clock()) > 0:\n            if self.obj",
    ),
    plant(
        "aclose says nothing",
        "aclose says what is left",
        "flow/breaker.py",
        "        if self.pending:\n            logger.error(",
        "        if False:\n            logger.error(",
    ),
    # -- the façade --------------------------------------------------------------------------
    plant(
        "pipelines pass the guard",
        "a pipeline is sent whole or refused",
        FACADE,
        '            return (yield partial(self._facade.breaker.execute, "pipeline", execute))',
        "            return (yield execute)",
    ),
    plant(
        "what redis-py composes is bound to the bare client",
        "locks, scripts and iterators are guarded",
        FACADE,
        "            if pool_of(client) is not None and name in _COMPOSED:",
        "            if False:",
    ),
    plant(
        "methods are not taken for commands",
        "the façade guards",
        "seam/methods.py",
        '    if method_name == "execute_command":\n        return True',
        '    if method_name == "execute_command":\n        return False',
    ),
    plant(
        "neutral answers are not shaped",
        "redis-py's own types",
        "seam/methods.py",
        "        return self.replies.shape(reply, args[0], options)",
        "        return reply",
    ),
    plant(
        "idle connections stay",
        "idle connections are retired",
        "seam/pools.py",
        "            _close(connection)\n        return\n",
        "            pass\n        return\n",
    ),
    plant(
        "those in use come back unguarded",
        "connections of before the guard are closed",
        "seam/pools.py",
        "        if self._is_guarded(connection):\n            super().append",
        "        if True:\n            super().append",
    ),
    plant(
        "another breaker takes over",
        "one client, one breaker",
        GUARDING,
        "    if (breaker_of(client) or breaker) is not breaker:",
        "    if False:",
    ),
    plant(
        "the fast path does not look again",
        "the breaker closes between decision and answer",
        "asyncio/guarding.py",
        "        if breaker.closed:  # since the call",
        "        if False:  # since the call",
    ),
    plant(
        "the fast path hides a full journal",
        "JournalFull",
        GUARDING,
        "    answers = answer_or_refuse(\n"
        "        breaker, command, Answer((step,)), db=replies.db, "
        "at=breaker.clock(), owner=owner\n    )\n",
        "    try:\n"
        "        answers = answer_or_refuse(\n"
        "            breaker, command, Answer((step,)), db=0, at=breaker.clock(), owner=owner\n"
        "        )\n"
        "    except Exception:\n"
        "        return True\n",
    ),
    # -- servers -----------------------------------------------------------------------------
    plant(
        "silence is no failure",
        "a dead server holds up nobody",
        "asyncio/breaker.py",
        "        if not self.closed or since is None:\n            return\n",
        "        return\n",
    ),
    plant(
        "a lost reply is sent again",
        "an unknown outcome is not repeated",
        GUARD,
        "    if sent is Sent.NO:\n        return Repeat()",
        "    return Repeat()",
    ),
    plant(
        "a drain that is cut off starts again",
        "exactly once",
        "core/replay.py",
        "            self._confirm(found.seq)\n            self._marks[db] = found",
        "            self._marks[db] = found",
    ),
    plant(
        "the gate opens with the probe",
        "nothing overtakes the queue",
        "base.py",
        "            self.gate_open = False\n            self._held = None\n        self.refresh()",
        "            self._held = None\n        self.refresh()",
    ),
    plant(
        "an entry is made twice",
        "exactly once",
        CALLS,
        "            reply = yield partial(breaker.limited, self._make(entry), ",
        "            yield from self._make(entry)\n"
        "            reply = yield partial(breaker.limited, self._make(entry), ",
    ),
    plant(
        "a cancelled write is forgotten",
        "what is safe to send twice is made again",
        CALLS,
        "        if entry.safe_twice:\n            return  # it is made again\n",
        "",
    ),
    plant(
        "a cancelled push is made again",
        "exactly once",
        CALLS,
        '            self._unknown(entry, "cancelled")\n',
        "",
    ),
    plant(
        "a push is the probe",
        "a probe costs nothing",
        CALLS,
        "nobody can say whether it ran.\n                yield self._asking(entry)",
        "nobody can say whether it ran.\n                pass",
    ),
    plant(
        "a replayed call has no deadline",
        "a healthy object is not kept down",
        CALLS,
        "yield partial(breaker.limited, self._make(entry), 10 * breaker.probe_timeout)",
        "yield from self._make(entry)",
    ),
    plant(
        "one exception for all who wait",
        "each is told of his own write",
        OBJECTS,
        "error = _another(self._replayer.failure)",
        "error = self._replayer.failure",
    ),
    plant(
        "what does not fit is said to be queued",
        "error.queued",
        OBJECTS,
        '            return  # it says "not queued", as the caller is told',
        "            pass",
    ),
    plant(
        "a stale read is passed on",
        "who was told that it is queued reads it",
        OBJECTS,
        "                if not stale:\n",
        "                if True:\n",
    ),
    plant(
        "a flush with nothing queued takes the permit",
        "the next probe is not put off",
        OBJECTS,
        "        if not breaker.pending:\n            return 0\n        # One",
        "        # One",
    ),
    plant(
        "the owner is who awaits",
        "no data are destroyed by our own neutral answer",
        "asyncio/breaker.py",
        "func, args, kwargs, calling_task())",
        "func, args, kwargs, None)",
    ),
    plant(
        "a breaker that was closed guards nothing",
        "a closed breaker keeps what it holds",
        "asyncio/breaker.py",
        "        if self.object is not None:\n            return self._executed(",
        "        if self.object is not None and not self.reported:\n"
        "            return self._executed(",
    ),
    plant(
        "a loop's tasks outlive it",
        "a breaker serves one loop after the other",
        "asyncio/breaker.py",
        "            self.timer = self._soon = self._recovery = self._hang_check = None",
        "            pass",
    ),
    plant(
        "an answer is as long as the failures",
        "failures are forgotten when it closes",
        BREAKER,
        "        if succeeded:\n            self.failures = 0\n",
        "        if succeeded:\n",
    ),
    plant(
        "closed lets everything pass",
        "never over a newer one",
        GUARD,
        "    if not view.draining:\n        return Send()",
        "    if True:\n        return Send()",
    ),
    plant(
        "the last of a batch is sent again",
        "exactly once",
        "core/replay.py",
        "        self._confirm(batch.last)",
        "        self._confirm(batch.last - (batch.count > 1))",
    ),
    plant(
        "a caller sleeps between two attempts",
        "a dead server holds up nobody",
        "flow/sender.py",
        "_PAUSES = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08)",
        "_PAUSES = (2.0, 2.0)",
    ),
    plant(
        "the fast path takes the class away",
        "a subclass keeps what it adds",
        GUARDING,
        "type(name, (fast_path, client_class), body)",
        "type(name, (fast_path,), body)",
    ),
    plant(
        "the fast path stands in front of the user's own",
        "a subclass keeps what it adds",
        "asyncio/guarding.py",
        "    if type(client).execute_command is Redis.execute_command:",
        "    if True:",
    ),
    plant(
        "there is no fast path",
        "an exhausted pool is no hindrance while open",
        "asyncio/guarding.py",
        "    if type(client).execute_command is Redis.execute_command:",
        "    if False:",
    ),
    plant(
        "a shared pool's connections go by another breaker",
        "one pool, one breaker",
        "seam/pools.py",
        '    pool.connection_kwargs["breaker"] = breaker\n    in_use',
        "    in_use",
    ),
    plant(
        "what a pipeline runs at once passes the guard",
        "nothing overtakes the queue",
        CLIENT,
        '            return await self._facade.breaker.execute("pipeline", send)',
        "            return await command",
    ),
    plant(
        "a refused pipeline keeps its commands",
        "raised means not applied",
        FACADE,
        "                yield reset\n",
        "                pass\n",
    ),
)


if __name__ == "__main__":
    sys.exit(main(PLANTS, sys.argv[1:]))
