"""Recovery: probe, fence, replay. It runs only while there is something to recover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from ..core.batch import Unavailable
from ..core.breaker import Cause
from ..core.exchange import ReplyError
from ..core.fence import fence
from ..core.rights import Mode, try_rights
from ..events import ProbeFailed
from ..observers import logger
from ..seam.failures import OUTAGE, is_denial, unverified
from .credentials import CredentialsFailed
from .link import LinkBase
from .steps import Steps

if TYPE_CHECKING:
    from .breaker import CircuitBreaker

# How long an unanswered write that is not safe to send twice is still waited for before it is cut
# off: its server has just answered a PING, so the reply is a matter of milliseconds.
LAST_WAIT = 0.1
# Where CLIENT KILL is forbidden: what a live server had already read is done by then.
GRACE = 0.1

# What a link raises when the server is away or answers nonsense.
FAILURES = (*OUTAGE, RedisError, Unavailable, ReplyError)


def recover(breaker: CircuitBreaker) -> Steps[None]:
    """Runs until the breaker is closed and its gate open."""
    link: LinkBase | None = None
    try:
        while breaker.busy:
            if link is None or not breaker.closed:
                link = yield from _reconnect(breaker, link)
                if link is None:
                    continue
            if (yield from _drain(breaker, link)):
                continue
            link.abort()
            link = None
    except Exception:  # noqa: BLE001 - logged whole, and recovery must not die of it
        # A bug of ours: without this it would die unseen, and the breaker stay open.
        logger.exception("%s: recovery failed and starts again", breaker.name)
        breaker.later(breaker.recovery_timeout, breaker.start_recovery)
    finally:
        if link is not None:
            link.abort()
        breaker.wake()  # who waits for the end: the watermarks are deleted


def _reconnect(breaker: CircuitBreaker, old: LinkBase | None) -> Steps[LinkBase | None]:
    """A connection to a server that answers; closes the breaker if it was open."""
    if old is not None:
        old.abort()
    if not breaker.closed or old is not None or breaker.denied:
        # A forced-open breaker has no permit to give; it sleeps until it is reset.
        yield breaker.resting(breaker.next_wait())
    if breaker.closed:
        link = yield from _open(breaker)
        if link is None and breaker.gate_open:
            yield breaker.sleeping(breaker.next_wait())  # only a watermark is left
        elif link is None and not breaker.denied and breaker.closed:
            breaker.trip(Cause.REPLAY_FAILED, "no connection")
        return link
    taken = breaker.take_permit()
    if taken is None:
        return None
    answered = False
    try:
        link = yield from _open(breaker)
        answered = link is not None or breaker.denied
    finally:
        # Also when cancelled: a permit that is not given back would block every later probe.
        breaker.give_back(taken, answered)
    return link


def _open(breaker: CircuitBreaker) -> Steps[LinkBase | None]:
    if breaker.template is None:
        yield breaker.sleeping(breaker.next_wait())
        return None
    breaker.counters["probes"] += 1
    try:
        link: LinkBase = yield from breaker.opening_link()
    except FAILURES as error:
        _not_open(breaker, error, denied=is_denial(error))
    except CredentialsFailed as failed:
        _not_open(breaker, failed.error, denied=True)
    else:
        deny(breaker, "")
        return link
    return None


def _not_open(breaker: CircuitBreaker, error: Exception, *, denied: bool) -> None:
    error = unverified(error) or error
    name = type(error).__name__
    breaker.note_error(error)
    breaker.emit(ProbeFailed(breaker.name, breaker.clock(), name))
    deny(breaker, name if denied else "")


def deny(breaker: CircuitBreaker, error: str) -> None:
    """Redis does not let the recovery in (`error`, a class name), or does again ("").

    That is no outage. The breaker is closed and its gate shut: each command tries for itself, and
    raises what redis-py raises.
    """
    if error and not breaker.denied:
        waiting = breaker.pending
        logger.warning(
            "%s: Redis does not let us in (%s): %d writes wait", breaker.name, error, waiting
        )
    breaker.denied = bool(error)
    breaker.denials += breaker.denied
    breaker.wake()


def _drain(breaker: CircuitBreaker, link: LinkBase) -> Steps[bool]:
    """Fence and replay on `link`. True while the link is good."""
    if breaker.gate_open:
        return (yield from _tidy_up(breaker, link))
    try:
        yield from _fence(breaker, link)
        if not breaker.rights_known:
            rights = yield from link.driving(try_rights(breaker.rights_key))
            if rights is None:  # nobody knows whether the guard script may run
                breaker.replay.mode = Mode.CHECKED
            else:
                breaker.learn_rights(*rights)
        breaker.drain.begin()
        replay = breaker.drain.watched(breaker.replay.run(fresh=link.fresh, server=link.server))
        held = yield from link.driving(replay)
        link.fresh = False
    except FAILURES as error:
        breaker.suspect(link.identity)
        if breaker.closed:
            breaker.trip(Cause.REPLAY_FAILED, type(error).__name__)
        return False
    if not breaker.closed:
        breaker.suspect(link.identity)
        return False
    if held is not None:
        breaker.hold(held)
        yield breaker.sleeping(breaker.next_wait())
        # A replica: the master may be another server by now, where Sentinel or a name leads to it.
        return held != "READONLY"
    breaker.drain.finish()
    return (yield from _tidy_up(breaker, link))


def _tidy_up(breaker: CircuitBreaker, link: LinkBase) -> Steps[bool]:
    """Deletes the watermarks. True while the link is good."""
    try:
        yield from link.driving(breaker.replay.cleanup())
    except FAILURES as error:
        logger.debug("%s: a watermark is not deleted yet: %r", breaker.name, error)
        return False
    if not breaker.replay.tidy:
        yield breaker.sleeping(breaker.next_wait())
    return True


def _fence(breaker: CircuitBreaker, link: LinkBase) -> Steps[None]:
    """No write that was sent before the outage may land after this."""
    until = breaker.clock() + LAST_WAIT
    # Polled: a reply that arrives tells nobody, which keeps the healthy path short.
    while (late := breaker.late_connections()) and breaker.clock() < until:
        yield breaker.sleeping(0.005)
    for connection in late:
        connection.cut()
    suspects = breaker.suspects
    if not suspects:
        return
    allowed = yield from link.driving(fence(suspects, breaker.clock(), link.server))
    breaker.fenced(suspects, allowed)
    if not allowed:
        yield breaker.sleeping(GRACE)
