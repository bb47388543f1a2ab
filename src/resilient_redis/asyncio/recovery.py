"""Recovery: probe, fence, replay. One task, alive only while there is something to recover."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from ..core.batch import Unavailable
from ..core.breaker import Cause
from ..core.exchange import HOLDING, ReplyError
from ..core.fence import fence
from ..core.rights import try_rights
from ..drain import Drain
from ..events import ProbeFailed
from ..observers import logger
from ..seam.failures import OUTAGE
from .link import Link

if TYPE_CHECKING:
    from .breaker import RedisCircuitBreaker

# How long an unanswered write that is not safe to send twice is still waited for before it is cut
# off: its server has just answered a PING, so the reply is a matter of milliseconds.
LAST_WAIT = 0.1
# Where CLIENT KILL is forbidden: what a live server had already read is done by then.
GRACE = 0.1

# What a link raises when the server is away or answers nonsense.
FAILURES = (*OUTAGE, RedisError, Unavailable, ReplyError)


async def recover(breaker: RedisCircuitBreaker) -> None:
    """Runs until the breaker is closed and its gate open."""
    link: Link | None = None
    try:
        while breaker.busy:
            if link is None or not breaker.closed:
                link = await _reconnect(breaker, link)
                if link is None:
                    continue
            if await _drain(breaker, link):
                continue
            link.abort()
            link = None
    except Exception:  # noqa: BLE001 - logged whole, and recovery must not die of it
        # A bug of ours: without this the task would die unseen, and the breaker stay open.
        logger.exception("%s: recovery failed and starts again", breaker.name)
        asyncio.get_running_loop().call_later(breaker.recovery_timeout, breaker.start_recovery)
    finally:
        if link is not None:
            link.abort()
        breaker.wake()  # who waits for the end: the watermarks are deleted


async def _reconnect(breaker: RedisCircuitBreaker, old: Link | None) -> Link | None:
    """A connection to a server that answers; closes the breaker if it was open."""
    if old is not None:
        old.abort()
    if not breaker.closed or old is not None:
        # A forced-open breaker has no permit to give; it sleeps until it is reset.
        await breaker.rest(breaker.next_wait())
    if breaker.closed:
        link = await _open(breaker)
        if link is None and breaker.gate_open:
            await asyncio.sleep(breaker.next_wait())  # only a watermark is left to be deleted
        elif link is None and breaker.closed:
            breaker.trip(Cause.REPLAY_FAILED, "no connection")
        return link
    taken = breaker.take_permit()
    if taken is None:
        return None
    answered = False
    try:
        link = await _open(breaker)
        answered = link is not None
    finally:
        # Also when cancelled: a permit that is not given back would block every later probe.
        breaker.give_back(taken, answered)
    return link


async def _open(breaker: RedisCircuitBreaker) -> Link | None:
    if breaker.template is None:
        await asyncio.sleep(breaker.next_wait())
        return None
    breaker.counters["probes"] += 1
    try:
        return await Link.open(breaker.template, breaker.clock)
    except FAILURES as error:
        breaker.note_error(error)
        breaker.emit(ProbeFailed(breaker.name, breaker.clock(), type(error).__name__))
        return None


async def _drain(breaker: RedisCircuitBreaker, link: Link) -> bool:
    """Fence and replay on `link`. True while the link is good."""
    if breaker.gate_open:
        return await _tidy_up(breaker, link)
    drain = Drain(breaker)
    try:
        await _fence(breaker, link)
        held = None if breaker.rights_known else await _learn_rights(breaker, link)
        if held is None:
            drain.begin()
            held = await link.drive(breaker.replay.run(fresh=link.fresh, server=link.server))
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
        await asyncio.sleep(breaker.next_wait())
        # A replica: the master may be another server by now, where Sentinel or a name leads to it.
        return held != "READONLY"
    drain.finish()
    return await _tidy_up(breaker, link)


async def _learn_rights(breaker: RedisCircuitBreaker, link: Link) -> str | None:
    """The code under which the server takes no writes, and so cannot be asked what is allowed."""
    try:
        breaker.learn_rights(*await link.drive(try_rights(breaker.rights_key)))
    except ReplyError as error:
        if error.code not in HOLDING:
            raise
        return error.code
    return None


async def _tidy_up(breaker: RedisCircuitBreaker, link: Link) -> bool:
    """Deletes the watermarks. True while the link is good."""
    try:
        await link.drive(breaker.replay.cleanup())
    except FAILURES as error:
        logger.debug("%s: a watermark is not deleted yet: %r", breaker.name, error)
        return False
    if not breaker.replay.tidy:
        await asyncio.sleep(breaker.next_wait())
    return True


async def _fence(breaker: RedisCircuitBreaker, link: Link) -> None:
    """No write that was sent before the outage may land after this."""
    until = breaker.clock() + LAST_WAIT
    # Polled: a reply that arrives tells nobody, which keeps the healthy path short.
    while (late := breaker.late_connections()) and breaker.clock() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    for connection in late:
        connection.cut()
    suspects = breaker.suspects
    if not suspects:
        return
    allowed = await link.drive(fence(suspects, breaker.clock(), link.server))
    breaker.fenced(suspects, allowed)
    if not allowed:
        await asyncio.sleep(GRACE)
