"""Who hears of a breaker's events; the log is the first of them."""

from __future__ import annotations

import logging

from .events import (
    EntryDeadLettered,
    Event,
    FenceDenied,
    Observer,
    PremisesFailed,
    ProbeFailed,
    ReplayFinished,
    ReplayProgress,
    ReplayStarted,
    RightsMissing,
    ServerLostData,
    StateChanged,
    SubscriptionGap,
    WritesHeld,
)

logger = logging.getLogger("resilient_redis")


class Observers:
    """The observers of one breaker, in the order in which they came."""

    def __init__(self, breaker: str) -> None:
        self._breaker = breaker
        self._observers: list[Observer] = [log_event]

    def add(self, observer: Observer) -> None:
        self._observers.append(observer)

    def tell(self, event: Event) -> None:
        """One that raises is logged once and detached."""
        for observer in list(self._observers):
            try:
                observer(event)
            except Exception:
                # A user's callback may raise anything.
                logger.exception("%s: an observer raised and is detached", self._breaker)
                self._observers.remove(observer)


def log_event(event: Event) -> None:
    """The observer that every breaker begins with: one line per transition, none per command, no
    keys, no values.

    An outage and what it costs is a WARNING, the way back INFO, single probes and entries DEBUG.
    """
    name = event.breaker
    match event:
        case StateChanged(old=old, new=new, reason=reason):
            level = logging.WARNING if old == "CLOSED" else logging.INFO
            level = logging.DEBUG if "HALF-OPEN" in (old, new) and new != "CLOSED" else level
            logger.log(level, "%s: %s -> %s (%s)", name, old, new, reason)
        case ReplayFinished(applied=applied, dead_letters=dead, seconds=seconds):
            logger.log(
                logging.WARNING if dead else logging.INFO,
                "%s: replayed %d queued writes in %.3f s, set %d aside",
                name, applied, seconds, dead,
            )  # fmt: skip
        case PremisesFailed(count=count):
            logger.warning(
                "%s: set %d writes aside: their keys, read as empty during the outage, exist",
                name, count,
            )  # fmt: skip
        case WritesHeld(reason=reason):
            logger.warning("%s: the server takes no writes (%s)", name, reason)
        case RightsMissing(missing=missing):
            logger.warning(
                "%s: the ACL forbids %s: writes that are not safe to send twice are refused while "
                "Redis is away", name, ", ".join(missing),
            )  # fmt: skip
        case FenceDenied(connections=count):
            logger.warning(
                "%s: the ACL forbids CLIENT KILL: %d old connections closed on our side only",
                name, count,
            )  # fmt: skip
        case ServerLostData(confirmed=confirmed, found=found):
            logger.error(
                "%s: Redis lost acknowledged data: the watermark says %d, %d was confirmed",
                name, found, confirmed,
            )  # fmt: skip
        case EntryDeadLettered(seq=seq, command=command, reason=reason):
            logger.debug("%s: entry %d (%s) set aside: %s", name, seq, command, reason)
        case SubscriptionGap(channels=channels, start=start, end=end):
            logger.warning(
                "%s: a subscriber of %d channels was away for %.3f s",
                name, len(channels), end - start,
            )  # fmt: skip
        case ProbeFailed(error=error):
            logger.debug("%s: probe failed: %s", name, error)
        case ReplayStarted(pending=pending):
            logger.debug("%s: replaying %d queued writes", name, pending)
        case ReplayProgress(applied=applied, pending=pending):
            logger.debug("%s: replayed %d queued writes, %d are left", name, applied, pending)
