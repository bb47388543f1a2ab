"""The bugs. Each breaks one promise of DESIGN.md section 1, or what a promise rests on."""

from __future__ import annotations

from .planting import Plant

ANSWERS = "tests/contract/test_answers.py::"
BOUNDS = "tests/contract/test_journal_bounds.py::"
BREAKER = "tests/unit/test_breaker.py::"
CACHING = "tests/sync/test_caching.py::"
CANCELLED = "tests/sim/test_cancellation.py::test_some_of_it_at_once"
FINDS = "tests/sim/test_finds.py::"
CUTS = "tests/contract/test_replay_cuts.py::"
ENTRY = "tests/unit/test_entry.py::"
FAILURES = "tests/unit/test_failures.py::"
FENCE = "tests/contract/test_fence.py::"
GUARD = "tests/unit/test_guard.py::"
HOLES = "tests/planted/test_holes.py::"
JOURNAL = "tests/unit/test_journal.py::"
LIFETIME = "tests/contract/test_lifetime.py::"
NO_OUTAGE = "tests/contract/test_not_an_outage.py::"
OUTAGE = "tests/contract/test_write_outage.py::"
RECEIPT = "tests/unit/test_receipt.py::"
RECOVERY = "tests/contract/test_recovery.py::"
REPLAY = "tests/unit/test_replay.py::"
THREADS = "tests/sync/test_interleavings.py::"
UNKNOWN = "tests/contract/test_unknown.py::"

PLANTS = [
    # -- the fence ----------------------------------------------------------------------------
    Plant(
        "no fence",
        "No write that was sent before the outage lands after one that was replayed.",
        "core/fence.py",
        "    named = [suspect for suspect in here if suspect.client_id]\n",
        "    return True\n    named = [suspect for suspect in here if suspect.client_id]\n",
        (FENCE + "test_delayed_by_the_network[valkey]",),
    ),
    Plant(
        "fence kills by id alone",
        "Ids start again with the server: nobody else's connection is killed.",
        "core/fence.py",
        '    if identity is None or fields.get("addr") != identity.addr:\n',
        "    if identity is not None:\n        return identity\n    if True:\n",
        (FENCE + "test_an_innocent_client_with_an_old_id_lives",),
    ),
    Plant(
        "fence does not look at the age",
        "A client that came after a restart by the same id and port is not killed.",
        "core/fence.py",
        "AGE_SLACK = 5.0",
        "AGE_SLACK = 1e9",
        (FENCE + "test_who_is_killed",),
    ),
    Plant(
        "what still waits is not cut off before the fence",
        "A counter in flight at the trip cannot land behind the replay.",
        "flow/recovery.py",
        "        connection.cut()\n",
        "        pass\n",
        (FENCE + "test_a_counter_in_flight_is_cut_off_before_the_replay[valkey]",),
    ),
    Plant(
        "a dead recovery connection is not fenced",
        "Batches of a recovery connection that died may be as late as anybody's writes.",
        "flow/recovery.py",
        "    except FAILURES as error:\n        breaker.suspect(link.identity)\n",
        "    except FAILURES as error:\n",
        (FENCE + "test_a_recovery_connection_that_died_is_fenced_itself[valkey]",),
    ),
    Plant(
        "suspects are not fenced while closed",
        "A write that was cut off does not land after the next one, outage or not.",
        "flow/sender.py",
        "if isinstance(decision, Send) and breaker.suspects and writes(batch) and left > 0:",
        "if False:",
        (HOLES + "test_the_next_write_on_another_connection_waits_for_the_fence",),
    ),
    Plant(
        "nobody is suspected of a late write",
        "Of each connection that dies with an unanswered write the fence is told.",
        "core/guard.py",
        "        command.shape.kind is not Kind.READ\n",
        "        command.shape.kind is Kind.PUBLISH\n",
        (GUARD + "test_what_may_be_cut_and_what_the_fence_must_know",),
    ),
    Plant(
        "one connection's fence is taken for everybody's",
        "The replay waits for its own fence, not for another connection's that is still at it.",
        "flow/handshake.py",
        "        allowed = yield from _drive(connection, ask)\n"
        "        breaker.fenced(suspects, allowed)\n",
        "        breaker.fenced(suspects, True)\n        yield from _drive(connection, ask)\n",
        (FENCE + "test_another_connections_fence_is_not_ours[valkey]",),
    ),
    # -- exactly once, in order ---------------------------------------------------------------
    Plant(
        "no in-band guard",
        "A late copy of a batch is not applied a second time.",
        "core/marking.py",
        'watch + pack((b"EVAL", GUARD, b"1"',
        'watch + pack((b"EVAL", b"return 1", b"1"',
        (CUTS + "test_a_late_copy_during_the_drain[valkey]",),
    ),
    Plant(
        "the guard script does not touch the watermark",
        "Where EXEC is not made to fail, nobody believes that the guard guards.",
        "core/watermark.py",
        "if redis.call('PEXPIRE',KEYS[1],600000)==1 then redis.call('PERSIST',KEYS[1]) ",
        "if redis.call('EXISTS',KEYS[1])==1 then redis.call('GET',KEYS[1]) ",
        (RECOVERY + "test_the_watermark_is_there_during_the_drain_only[valkey]",),
    ),
    Plant(
        "WATCH without GET in the fallback",
        "Without EVAL a batch is sent only if the watermark is what it continues from.",
        "core/marking.py",
        "fine = guarded == 1 or guarded == expected.value()",
        "fine = guarded == 1 or self.mode is Mode.CHECKED",
        (REPLAY + "test_without_the_guard_script",),
    ),
    Plant(
        "watermark off by one",
        "The watermark tells exactly what was applied.",
        "core/replay.py",
        "done = Mark(self._marks[batch.db].session, batch.last)",
        "done = Mark(self._marks[batch.db].session, batch.last - 1)",
        (REPLAY + "test_exactly_once_and_in_order[lost]",),
    ),
    Plant(
        "watermark with a TTL",
        "The watermark neither expires nor is evicted in the middle of a drain.",
        "core/replay.py",
        'pack((b"SET", self._watermark, done.value()))',
        'pack((b"SET", self._watermark, done.value(), b"EX", b"600"))',
        (RECOVERY + "test_the_watermark_is_there_during_the_drain_only[valkey]",),
    ),
    Plant(
        "the watermark is left behind",
        "A replay leaves no key of ours on the server.",
        "core/marking.py",
        "            if (yield from self._use(db)):\n",
        "            if not db and (yield from self._use(db)):\n",
        (RECOVERY + "test_aclose_leaves_no_watermark[valkey]",),
    ),
    Plant(
        "the watermark is primed over a late copy's",
        "Of two primings that are on their way only one takes place.",
        "core/marking.py",
        '*((b"NX",) if found is None else ())',
        "*()",
        (HOLES + "test_a_watermark_that_came_between_is_not_written_over",),
    ),
    Plant(
        "a watermark that is gone is no reason for doubt",
        "What may have been applied and is not safe twice is set aside, never sent again.",
        "core/batch.py",
        "        if not entry.safe_twice or not keys.isdisjoint(touched):\n",
        "        if not entry.safe_twice and keys:\n",
        (REPLAY + "test_exactly_once_and_in_order[vanishes]",),
    ),
    Plant(
        "DEL is sent again in front of a push that is in doubt",
        "What stands before a dead letter on the same key is not sent again over it.",
        "core/batch.py",
        "        if not entry.safe_twice or not keys.isdisjoint(touched):\n",
        "        if not entry.safe_twice:\n",
        (HOLES + "test_what_stands_before_a_write_in_doubt_is_in_doubt",),
    ),
    Plant(
        "a server that went back is not noticed",
        "What the server has lost is told, and the rest is applied behind it.",
        "core/replay.py",
        "            self._listener.lost_data(mark.seq, found.seq)\n",
        "",
        (REPLAY + "test_the_schedules_meet_what_they_are_for",),
    ),
    Plant(
        "two databases in one batch",
        "A write goes to the database that it was called on.",
        "core/replay.py",
        "            if piece.db != batch.db or (count and count + piece.size > limit):",
        "            if count and count + piece.size > limit:",
        (REPLAY + "test_exactly_once_and_in_order[calm]",),
    ),
    Plant(
        "relative TTL at replay",
        "A time to live counts from the call.",
        "core/entry.py",
        "server_ms - int((now - at) * 1000) + ttl_ms",
        "server_ms + ttl_ms",
        (ENTRY + "test_an_expiry_counts_from_the_call",),
    ),
    Plant(
        "expired entry skipped",
        "A write whose deadline has passed is still sent: the old value must go.",
        "core/replay.py",
        "                if now - piece.oldest > max_age:\n"
        "                    return self._build(after, each=True)\n",
        "                return self._build(after, each=True)\n"
        "            elif piece.ttl_ms is not None and piece.age(now) * 1000 > piece.ttl_ms:\n"
        '                self._aside.setdefault(piece.seq, ("age", None))\n'
        "                batch.aside.append(piece)\n"
        "                batch.last = piece.seq\n"
        "                continue\n",
        (RECOVERY + "test_a_time_to_live_counts_from_the_call[valkey]",),
    ),
    Plant(
        "max_age is not looked at",
        "A queued write older than max_age is set aside.",
        "core/replay.py",
        "entry.age(now) > entry.limit(self._source.max_age):",
        "entry.age(now) > 2 * entry.limit(self._source.max_age):",
        (BOUNDS + "test_too_old",),
    ),
    Plant(
        "what was tried may be set aside as too old",
        "An entry that was sent, and may still arrive, is not set aside for its age.",
        "core/replay.py",
        "        if entry.seq > self._tried and entry.age(now)",
        "        if entry.age(now)",
        (HOLES + "test_what_was_sent_once_does_not_grow_too_old",),
    ),
    Plant(
        "poison put back at the front",
        "An entry that the server refuses is a dead letter, and the rest goes on.",
        "core/replay.py",
        '            self._listener.dead_letter(entry, "error", reply)\n',
        "            raise reply\n",
        (REPLAY + "test_exactly_once_and_in_order[calm]",),
    ),
    Plant(
        "an error in a stretch is not seen",
        "An entry that the server refuses is a dead letter, also among many that it took.",
        "core/replay.py",
        "            elif sound:\n",
        "            elif replies:\n",
        (REPLAY + "test_exactly_once_and_in_order[calm]",),
    ),
    Plant(
        "a stretch is as young as its last",
        "A queued write older than max_age is set aside, also in front of a younger one.",
        "journal/memory.py",
        "Stretch(self.first + row, count, min(times), ",
        "Stretch(self.first + row, count, times[-1], ",
        (JOURNAL + "test_like_a_list", BOUNDS + "test_too_old"),
    ),
    Plant(
        "LOADING at replay is a dead letter",
        "A server that is not ready stops the drain; nothing is set aside for it.",
        "core/exchange.py",
        'UNAVAILABLE = frozenset({"LOADING", ',
        "UNAVAILABLE = frozenset({",
        (
            OUTAGE + "test_loading_stops_the_drain[valkey-"
            r"*3\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n$1\r\n0\r\n]",
        ),
    ),
    Plant(
        "out of memory drains what grows",
        "Under OOM only deletes and expiries drain without the watermark.",
        "core/replay.py",
        "            elif denied and (piece.grows or not piece.safe_twice or piece.parts):\n",
        "            elif denied and not piece.safe_twice:\n",
        (OUTAGE + "test_out_of_memory_after_an_outage[valkey]",),
    ),
    Plant(
        "each drain has the same session",
        "A late copy of an earlier drain's batch never meets a watermark that it expects.",
        "core/marking.py",
        "mark = Mark(self._new_session(), self._confirmed)",
        'mark = Mark(b"same", self._confirmed)',
        (
            REPLAY + "test_exactly_once_and_in_order[copied]",
            REPLAY + "test_exactly_once_and_in_order[everything]",
        ),
    ),
    Plant(
        "without rights what is not safe twice is sent all the same",
        "A write that nothing keeps exactly once is set aside or refused.",
        "core/replay.py",
        "        elif self.mode is Mode.BARE and (entry.parts or not entry.safe_twice):\n",
        "        elif self.mode is Mode.BARE and entry.db < 0:\n",
        (
            RECOVERY
            + "test_rights_are_known_before_the_first_batch[False--watch-only writes that are"
            " safe to send twice]",
        ),
    ),
    # -- the gate -----------------------------------------------------------------------------
    Plant(
        "gate opens before the journal is empty",
        "While the journal holds anything, nothing overtakes it.",
        "flow/recovery.py",
        "        held = yield from link.driving(replay)\n",
        "        breaker.open_gate()\n        held = yield from link.driving(replay)\n",
        (RECOVERY + "test_a_write_during_the_drain_gets_its_real_reply[valkey-12]",),
    ),
    Plant(
        "queueing does not close the gate",
        "A write that is queued for one caller is not overtaken by another's.",
        "base.py",
        "        # While the journal holds anything, nothing overtakes it.\n"
        "        self.gate_open = False\n",
        "",
        (HOLES + "test_what_is_queued_closes_the_gate",),
    ),
    Plant(
        "reads live before the drain",
        "A read never goes back behind the caller's own write.",
        "core/guard.py",
        "    if not view.draining:\n",
        "    if not view.draining or all(c.shape.kind is Kind.READ for c in batch):\n",
        (GUARD + "test_draining_everything_else_waits",),
    ),
    Plant(
        "reads are neutral while writes are held",
        "A write outage holds writes only.",
        "core/guard.py",
        "(Kind.READ, Kind.PUBLISH):\n            steps.append(Step.SEND)\n",
        "(Kind.READ, Kind.PUBLISH):\n            steps.append(Step.NEUTRAL)\n",
        (GUARD + "test_held_writes_leave_reads_live",),
    ),
    Plant(
        "the gate is not looked at again after connecting",
        "What was decided before a connect is decided anew if the journal has filled meanwhile.",
        "flow/socket.py",
        "        if (breaker.era, breaker.gate_open) != before:\n",
        "        if breaker.era < 0:\n",
        (HOLES + "test_what_is_queued_while_a_caller_connects_is_read",),
    ),
    # -- the breaker --------------------------------------------------------------------------
    Plant(
        "breaker closes on a write probe",
        "A probe is a PING of our own: while half-open no write goes to the server.",
        "core/guard.py",
        "    if view.state is not State.CLOSED:\n        return _while_away(batch, view)\n",
        "    if view.state is State.OPEN:\n        return _while_away(batch, view)\n"
        "    if view.state is State.HALF_OPEN:\n        return Send()\n",
        (GUARD + "test_away_reads_are_neutral_and_writes_queued",),
    ),
    Plant(
        "a late success closes the half-open breaker",
        "Only the holder of the permit says that the server is back.",
        "core/breaker.py",
        "        if era == self.era and self.state is State.CLOSED:\n"
        "            self.failures = 0\n",
        "        if era == self.era and self.state is State.HALF_OPEN:\n"
        "            self._move(Cause.PROBE_SUCCEEDED)\n"
        "        if era == self.era:\n            self.failures = 0\n",
        ("tests/sim/test_core_swarm.py::TestBreaker",),
    ),
    Plant(
        "two probes at a time",
        "While half-open one permit is out, and no more.",
        "core/breaker.py",
        "self.state is State.HALF_OPEN and self._permit and now < self._permit.deadline:\n",
        "self.state is State.HALF_OPEN and now < 0:\n",
        (BREAKER + "test_half_open_has_one_permit",),
    ),
    Plant(
        "permit lost on cancel",
        "A cancelled probe gives its permit back.",
        "flow/recovery.py",
        "    finally:\n        # Also when cancelled",
        "    except Exception:\n        raise\n    else:\n        # Also when cancelled",
        (HOLES + "test_a_cancelled_probe_gives_its_permit_back",),
    ),
    Plant(
        "a permit never lapses",
        "A probe that hangs does not keep the breaker open for ever.",
        "core/breaker.py",
        "self._permit = Permit(self.era, now + lease)",
        'self._permit = Permit(self.era, float("inf"))',
        (BREAKER + "test_a_permit_that_is_not_given_back_lapses",),
    ),
    Plant(
        "an older era counts",
        "An outcome of before the last move says nothing about now.",
        "core/breaker.py",
        "        if era != self.era or self.state is not State.CLOSED:\n",
        "        if self.state is not State.CLOSED:\n",
        (BREAKER + "test_an_outcome_of_an_older_era_changes_nothing",),
    ),
    Plant(
        "hang check dropped",
        "A frozen server is noticed within the deadline, whatever the socket's timeout.",
        "asyncio/breaker.py",
        "            self.check_hang(since)\n",
        "            pass\n",
        (LIFETIME + "test_a_healthy_breaker_in_several_loops",),
    ),
    Plant(
        "a slow command is taken for a hang",
        "A server that answers a PING is slow, not lost.",
        "flow/background.py",
        "        for connection in list(self.connections):\n"
        "            connection.cleared(asked)\n",
        '        self.trip(Cause.HANG, "slow")\n',
        (NO_OUTAGE + "test_a_callers_own_timeout[valkey-0.08]",),
    ),
    # -- what is no outage --------------------------------------------------------------------
    Plant(
        "pool exhaustion counted",
        "An exhausted local pool says nothing about the server.",
        "seam/failures.py",
        "_NOT_OUTAGE = (AuthenticationError, AuthorizationError, MaxConnectionsError, ",
        "_NOT_OUTAGE = (AuthenticationError, AuthorizationError, ",
        (FAILURES + "test_no_outage",),
    ),
    Plant(
        "caller's cancellation counted",
        "The caller's own cancellation never trips the breaker.",
        "flow/receiver.py",
        "        now = breaker.clock()\n        if self.waiting_since() is",
        "        now = breaker.clock()\n"
        "        breaker.failure(self._era, TimeoutError(), now)\n"
        "        if self.waiting_since() is",
        (NO_OUTAGE + "test_a_callers_own_timeout[valkey-0.02]",),
    ),
    Plant(
        "the end of an idle socket is counted",
        "EOF on an idle pooled socket is no failure.",
        "flow/receiver.py",
        "        if not idle_eof and not blocked and not dismissed:\n            breaker.failure(",
        "        if not blocked and not dismissed:\n            breaker.failure(",
        (NO_OUTAGE + "test_idle_sockets_that_the_server_closed[valkey-50-guarded]",),
    ),
    Plant(
        "a blocking command's timeout counted",
        "A blocking command that waits trips nothing.",
        "flow/receiver.py",
        "any(c.shape.blocking for c in rest)",
        "not rest",
        (NO_OUTAGE + "test_blpop_longer_than_every_timeout[valkey]",),
    ),
    # -- connections --------------------------------------------------------------------------
    Plant(
        "a reply left on the connection after cancel",
        "A caller gets the reply to its own command.",
        "asyncio/connection.py",
        "                        timeout,\n"
        "                        disconnect_on_error=disconnect_on_error,\n",
        "                        timeout,\n                        disconnect_on_error=False,\n",
        (NO_OUTAGE + "test_a_cancelled_caller_leaves_a_clean_connection[valkey]",),
    ),
    Plant(
        "stale socket reused after an outage",
        "A socket from before an outage carries no command after it.",
        "asyncio/connection.py",
        "            and self._outage == self.breaker.outages\n",
        "",
        seeds=range(100),
    ),
    Plant(
        "half a handshake is left on the connection",
        "A caller who is cancelled while connecting leaves no connection in use behind.",
        "asyncio/connection.py",
        "            try:\n"
        "                await end(task)  # it may be cancelled again\n"
        "            finally:\n"
        "                await self.disconnect(nowait=True)\n",
        "",
        (LIFETIME + "test_cancelled_while_connecting[GET]",),
    ),
    Plant(
        "what was lost under WATCH goes on without it",
        "A transaction whose WATCH went with its connection fails.",
        "flow/receiver.py",
        "        if tied:\n            raise ",
        "        if False:\n            raise ",
        (HOLES + "test_a_connection_that_is_lost_under_watch[in flight]",),
    ),
    Plant(
        "a transaction begins anew on another connection",
        "A transaction whose WATCH went with its connection fails.",
        "flow/socket.py",
        "        if self._tied is Tie.WATCHES:\n            # A new",
        "        if False:\n            # A new",
        (HOLES + "test_a_connection_that_is_lost_under_watch[idle]",),
    ),
    Plant(
        "a socket is closed, not aborted",
        "What was not sent by a connection that is given up is never sent.",
        "seam/sockets.py",
        "    sock = writer.transport.get_extra_info",
        "    return writer.transport.close()\n    sock = writer.transport.get_extra_info",
        (HOLES + "test_what_has_not_left_this_process_never_does",),
    ),
    # -- the answers --------------------------------------------------------------------------
    Plant(
        "ambiguous INCR retried",
        "What is not safe to send twice is never sent again behind the caller's back.",
        "core/guard.py",
        "    if sent is Sent.NO:\n        return Repeat()\n",
        "    if sent is Sent.NO or len(rest) == 1:\n        return Repeat()\n",
        (UNKNOWN + "test_it_runs_once_and_nobody_claims_to_know[valkey-INCRBY-cut]",),
    ),
    Plant(
        "redis-py retries what is unknown",
        "redis-py's own retry does not run such a command 11 times.",
        "flow/retry.py",
        "decided = isinstance(error, ResilienceError)",
        "decided = False",
        (UNKNOWN + "test_it_runs_once_and_nobody_claims_to_know[valkey-INCRBY-cut]",),
    ),
    Plant(
        "what may be sent is taken for unsent",
        "Only what has not left this process cannot have run.",
        "seam/sockets.py",
        "    return transport.get_write_buffer_size() > 0\n",
        "    return True\n",
        (UNKNOWN + "test_it_runs_once_and_nobody_claims_to_know[valkey-INCRBY-cut]",),
    ),
    Plant(
        "queued and raised",
        "Raised means not queued.",
        "flow/sender.py",
        "            if isinstance(decision, Refuse):\n",
        "            if isinstance(decision, Refuse):\n"
        '                writes_ = [c for c in batch if c.shape.kind.value == "write"]\n'
        "                if writes_ and not breaker.closed:\n"
        "                    breaker.queue(writes_, db, at)\n",
        (ANSWERS + "test_refused_at_once_and_nothing_is_queued[guarded]",),
    ),
    Plant(
        "queued, and raised for want of a reply",
        "Raised means not queued: who waits too long for the drain gets a receipt.",
        "flow/sender.py",
        "            yield from breaker.wait_settled(list(answers.receipts.values()), "
        "breaker.drain_wait)\n",
        "            receipts = list(answers.receipts.values())\n"
        "            yield from breaker.wait_settled(receipts, breaker.drain_wait)\n"
        "            if not all(receipt.settled for receipt in receipts):\n"
        "                raise self._refusal(self._too_often(batch), False)\n",
        (RECOVERY + "test_a_write_that_waits_too_long_for_the_drain_is_queued[valkey-1500]",),
    ),
    Plant(
        "refused, although it may have run",
        "An error that says refused is never told of what may have been applied.",
        "flow/receiver.py",
        "carried = yield from self._carry(calls, at, touched=touched)",
        "carried = yield from self._carry(calls, at)",
        (HOLES + "test_what_may_have_run_is_not_refused",),
    ),
    Plant(
        "receipt truthy for SADD",
        "A receipt is no number and no truth value.",
        "receipt.py",
        "    __bool__ = __int__ = ",
        "    def __bool__(self) -> bool:\n        return True\n\n    __int__ = ",
        (RECEIPT + "test_use_as_a_number_or_truth_value_raises",),
    ),
    Plant(
        "SADD answers a number while it is queued",
        "A reply that is not known is not made up.",
        "core/catalog/sets.py",
        '    write("SADD", -3, Wire.INT, receipt=True, ',
        '    write("SADD", -3, Wire.INT, ',
        (ANSWERS + "test_acknowledgements[valkey-directly-2-_AsyncRESP2Parser-bytes]",),
    ),
    Plant(
        "every receipt of a pipeline is the first one's",
        "A receipt learns the reply to its own write.",
        "answering.py",
        "receipt = self.receipts.get(seq)\n        acknowledgement",
        "receipt = self.receipts.get(self.first)\n        acknowledgement",
        (ANSWERS + "test_acknowledgements[valkey-in a pipeline-2-_AsyncRESP2Parser-bytes]",),
    ),
    Plant(
        "premise not checked",
        "Nobody's data are destroyed by our own neutral answer.",
        "core/premise.py",
        "        self._unchecked[seq] = (db, keys)\n\n    def __contains__",
        "        pass\n\n    def __contains__",
        (HOLES + "test_a_default_does_not_go_over_what_redis_holds",),
    ),
    Plant(
        "premise not checked once Redis is back",
        "Nobody's data are destroyed by our own neutral answer, after the outage either.",
        "flow/sender.py",
        "isinstance(decision, Send) and (reads := breaker.provenance.reads_of(owner)):",
        "not decision and (reads := breaker.provenance.reads_of(owner)):",
        (HOLES + "test_a_default_does_not_go_over_what_redis_holds_later",),
    ),
    Plant(
        "what a client may do is asked of a server that takes no writes",
        "A write outage holds writes only: who starts meanwhile can read.",
        "core/rights.py",
        "            return None\n",
        "            raise reply\n",
        (OUTAGE + "test_a_client_that_starts_meanwhile_reads[valkey-NOREPLICAS]",),
    ),
    Plant(
        "an approximate trim is sent twice",
        "What is safe to send twice leaves the same, sent twice.",
        "core/catalog/streams.py",
        "    return shape._replace(safe_twice=False) if limited else shape\n",
        "    return shape\n",
        ("tests/unit/test_catalog.py::test_safe_twice",),
    ),
    Plant(
        "RESP3 before the first handshake",
        "An answer is readable, whatever parser the connection has.",
        "seam/replies.py",
        "            kind = _FOR_RESP3.get(kind, kind)\n",
        "            pass\n",
        ("tests/unit/test_own_replies.py",),
    ),
    # -- the journal --------------------------------------------------------------------------
    Plant(
        "journal bytes never freed",
        "What is confirmed makes room.",
        "journal/memory.py",
        "            self._bytes -= front.size(len(front.ends)) - self._front\n",
        "",
        (JOURNAL + "test_what_is_confirmed_makes_room",),
    ),
    Plant(
        "half a pipeline is journaled",
        "A pipeline is queued whole or not at all.",
        "journal/memory.py",
        "        if len(entries) > room or self._bytes + added > self.max_bytes:\n",
        "        entries = entries[:room]\n"
        "        if not entries or self._bytes + added > self.max_bytes:\n",
        (JOURNAL + "test_all_or_none",),
    ),
    # -- cancellation -------------------------------------------------------------------------
    Plant(
        "a second cancellation is heard at once",
        "Nor does a call that is cancelled again while its handshake is being ended.",
        "asyncio/driving.py",
        "            cancelled = error\n",
        "            raise\n",
        (CANCELLED + "[connect]",),
    ),
    Plant(
        "a cancelled probe keeps its permit",
        "The next call over an object probes, and not the one after a lease.",
        "flow/objects.py",
        "        breaker.give_back(permit, alive)\n",
        "        alive and breaker.give_back(permit, alive)\n",
        (CANCELLED + "[object_probe_with_nothing_queued]",),
    ),
    Plant(
        "a cancelled call's receipts are another's",
        "What is queued later on the same connection is answered with a receipt.",
        "asyncio/retry.py",
        "                connection.in_client = False\n",
        "                pass\n",
        (CANCELLED + "[one_write_and_then_an_outage]",),
    ),
    Plant(
        "a question about a hang is left over",
        "Where the loop ends, no task of ours is left that nobody has cancelled.",
        "flow/receiver.py",
        "            breaker.check_hang_soon(",
        "            breaker.check_hang(",
        ("tests/sim/test_loop_ends.py::test_no_task_is_left_over[lost_reply_of_a_read]",),
    ),
    Plant(
        "a gap that PING has closed is not told",
        "Also where not the reader has connected anew, observers hear of the gap.",
        "flow/subscriber.py",
        "        if self._heard_at is not None:\n",
        "        if False:\n",
        (FINDS + "test_a_gap_is_told_also_where_who_subscribes_has_connected_anew",),
    ),
    # -- what takers and listeners rely on ------------------------------------------------------
    Plant(
        "a pop that an outage came over just waits",
        "A pop whose reply is lost is OutcomeUnknown, and never sent again.",
        "flow/receiver.py",
        "        if blocked and isinstance(verdict, Repeat):\n",
        "        if blocked:\n",
        (FINDS + "test_a_pop_that_an_outage_came_over_is_not_sent_again_by_redis_py",),
    ),
    Plant(
        "a pop whose own time is over just waits",
        "As soon as the server owes it a reply, its loss counts like any other.",
        "flow/receiver.py",
        "blocked = not 0 < rest[0].shape.block_ms <= ",
        "blocked = True or ",
        (FINDS + "test_a_pop_whose_own_time_is_over_has_lost_its_reply",),
    ),
    Plant(
        "a subscription gap begins when it is noticed",
        "What a subscriber may have missed lies between a gap's start and its end.",
        "flow/subscriber.py",
        "self._heard_at or self.breaker.clock()",
        "self.breaker.clock()",
        (FINDS + "test_a_subscription_gap_begins_where_the_last_message_was_heard",),
    ),
    # -- redis-py's client-side cache -----------------------------------------------------------
    Plant(
        "a neutral answer is kept in the client-side cache",
        "What an empty Redis would say is not said any more when Redis is back.",
        "sync/caching.py",
        "            self._view.forget()  # it is not what Redis holds\n",
        "            pass\n",
        (CACHING + "test_a_neutral_answer_is_not_kept",),
    ),
    Plant(
        "what is cached outlives its connection",
        "Nothing of before the outage is answered after it.",
        "sync/caching.py",
        "        view.flush()\n",
        "        pass\n",
        (CACHING + "test_nothing_of_before_a_new_socket_is_known",),
    ),
    Plant(
        "who looks into the cache takes the reply of another",
        "A reply is its holder's, whoever looks for what has changed.",
        "sync/caching.py",
        "if not self.idle:",
        "if False:",
        (CACHING + "test_nobody_takes_the_reply_of_another",),
    ),
    Plant(
        "what was found in the cache is looked up again",
        "Who was to be answered out of the cache does not wait at a silent socket.",
        "seam/caching.py",
        "        if self._hit is not None:\n",
        "        if self._hit is not None and self._shared.get(key) is not None:\n",
        (CACHING + "test_what_was_found_is_answered",),
    ),
    Plant(
        "redis-py's locks before a cache are held while a write waits",
        "Nobody waits for a lock for as long as Redis is away.",
        "seam/caching.py",
        "    proxy._cache_lock = proxy._pool_lock = nullcontext()\n",
        "",
        (CACHING + "test_closing_does_not_wait_for_who_waits",),
    ),
    # -- among threads ------------------------------------------------------------------------
    Plant(
        "no second look behind what is on the wire",
        "A write that is sent as the breaker opens is seen by who opens it, or sees that.",
        "sync/connection.py",
        "            if breaker.live and self._outage == breaker.outages:  # type: ignore",
        "            if True:  # type: ignore",
        (THREADS + "test_a_healthy_write_and_the_fence",),
    ),
    Plant(
        "what is on the wire is told after the second look",
        "Who opens the breaker, or is about to put up the fence, knows of each write on the wire.",
        "sync/connection.py",
        "                self._write(chunks)\n                if special",
        "                sent, self._sent = self._sent, None\n                self._write(chunks)\n"
        "                self._sent = sent\n                if special",
        (THREADS + "test_a_healthy_write_and_the_fence",),
    ),
    Plant(
        "who closes his own connection leaves nothing to the fence",
        "An unanswered write of a connection that is closed does not land late.",
        "sync/socket.py",
        "            self._close()  # under the lock",
        "            super().disconnect()  # under the lock",
        ("tests/sync/test_interrupted.py::test_its_write_does_not_land_late[by a signal]",),
    ),
    Plant(
        "the gate opens in another step than the last look at the journal",
        "No gate opens before entries.",
        "flow/recovery.py",
        "    breaker.drain.finish()\n",
        "    yield breaker.breathe\n    breaker.drain.finish()\n",
        (THREADS + "test_an_append_and_the_gate",),
    ),
    Plant(
        "a recovery is still there when it has looked for the last time",
        "Who opens the breaker as a recovery ends begins another.",
        "sync/driving.py",
        "        return self._over or not self.thread.is_alive()\n",
        "        return not self.thread.is_alive()\n",
        (THREADS + "test_a_recovery_that_ends_and_a_trip",),
    ),
    Plant(
        "a change between the decision to wait and the wait is not seen",
        "No wakeup is lost.",
        "flow/background.py",
        "        return partial(self.wait_until, lambda: self.changes != before, seconds)\n",
        "        return lambda: self.wait_until(\n"
        "            lambda before=self.changes: self.changes != before, seconds\n"
        "        )\n",
        (THREADS + "test_an_append_and_the_gate",),
    ),
    Plant(
        "a receipt that is settled as somebody begins to wait",
        "Who waits for a receipt is told.",
        "receipt.py",
        "        self._listeners.append(listener)\n        if self._result is not None:\n"
        "            listener()\n",
        "        if self._result is not None:\n            listener()\n        else:\n"
        "            self._listeners.append(listener)\n",
        (THREADS + "test_a_receipt_is_told",),
    ),
    Plant(
        "the lock is held while a step waits",
        "Nobody holds the lock at I/O.",
        "sync/driving.py",
        "                value = wait()\n",
        "                with held:\n                    value = wait()\n",
        (THREADS + "test_a_write_and_the_recovery",),
    ),
    Plant(
        "observers are told under the lock",
        "Nobody holds the lock before an observer.",
        "sync/driving.py",
        "        if not self._events or self.held._is_owned():\n",
        "        if not self._events:\n",
        (THREADS + "test_telling_of_a_drill_and_a_trip",),
    ),
    Plant(
        "who has told takes his successor's claim away",
        "Observers hear of one thing at a time, in order.",
        "sync/driving.py",
        "            del me\n",
        "            self._teller = _nobody\n",
        (THREADS + "test_telling_as_another_has_just_told",),
    ),
]
