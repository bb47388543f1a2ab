"""Questions to the sentinels: which server is the service now.

redis-py asks one after the other, and tries one that is away eleven times before the next (4 s
where its port is closed): longer than any caller waits here, and as it puts the one that has
answered first only at the end, the next caller would fare no better. So a question is put beside
the caller, after a quarter of a deadline all are asked whether they are there, and the first that
is comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redis.exceptions import ConnectionError

from ..seam.failures import is_alive
from .background import is_over
from .steps import Steps, Wait

Address = tuple[str, int]


@dataclass
class Place:
    """Where the master was when it was last reached, and when Sentinel was asked for that."""

    address: Address | None = None
    as_of: float = 0.0
    #: The last question that was not answered soon. While it is not nobody asks anew before a
    #: sentinel says that it is there: a thread that waits for a host that is gone may wait for
    #: minutes, and each ask would add one.
    unanswered: Question | None = None
    pings: dict[Any, Question] = field(default_factory=dict)


class Question:
    """What redis-py asks, in a task or thread of its own: a thread cannot be interrupted in it."""

    def __init__(self, breaker: Any, sentinels: list[Any], put: Wait) -> None:
        self._breaker = breaker
        self._sentinels = sentinels
        self._wanted = 0
        self._answer: Any = None
        self.error: Exception | None = ConnectionError("no sentinel was asked")
        self._asked_by = breaker.beside(self._putting(put), "sentinels")

    def _putting(self, put: Wait) -> Steps[None]:
        sentinels, known = self._sentinels, list(self._sentinels)
        try:
            self._answer = yield put
            self.error = None
        except Exception as error:  # noqa: BLE001 - it is raised to whoever looks
            self.error = error
        finally:
            # redis-py swaps the one that has answered to the front by its number in the list, which
            # may have been put in another order since: none is lost or doubled by that.
            sentinels[:] = dict.fromkeys([*sentinels, *known])
            self._breaker.wake_waiting()

    def over(self) -> bool:
        return is_over(self._asked_by)

    def answer(self) -> Any:
        """Raises what it was answered with, if that is an error."""
        if self.error is not None:
            raise self.error
        return self._answer

    def waiting(self, seconds: float) -> Wait:
        """A wait for its end, for so long at most."""
        return partial(self._breaker.wait_until, self.over, seconds)

    def __enter__(self) -> Question:
        self._wanted += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._wanted -= 1
        if not self._wanted and not self.over():
            self._breaker.stop(self._asked_by)


def ask(
    breaker: Any, sentinels: list[Any], place: Place, put: Wait, seconds: float
) -> Steps[Address]:
    """The address that `put`, redis-py's own question, is answered with within `seconds`."""
    until, patience = breaker.clock() + seconds, min(breaker.deadline / 4, seconds)
    earlier = place.unanswered
    if earlier is not None:
        yield earlier.waiting(patience)
    current: Question | None = None

    def answered() -> bool:
        return current is not None and current.over()

    with ExitStack() as asked:

        def asking(seconds: float) -> Steps[Question]:
            question = asked.enter_context(Question(breaker, sentinels, put))
            yield question.waiting(seconds)
            if not question.over():
                place.unanswered = question
            return question

        if earlier is None or earlier.over():
            current = yield from asking(patience)
        there = not answered() and (
            yield from _comes_first(breaker, sentinels, place, until, answered)
        )
        if there:
            current = yield from asking(until - breaker.clock())
        if current is None or not current.over():
            raise ConnectionError("no sentinel answers")
        address: Address = current.answer()
        return address


def _comes_first(
    breaker: Any,
    sentinels: list[Any],
    place: Place,
    until: float,
    answered: Callable[[], bool],
) -> Steps[bool]:
    """Moves the sentinel that answers a PING first to the front. False where none does until then,
    or before the question is `answered`.
    """
    pings = place.pings
    for each in list(sentinels):
        if each not in pings or pings[each].over():
            pings[each] = Question(breaker, sentinels, partial(each.execute_command, "PING"))
    pinged = {ping: each for each, ping in pings.items()}
    left = set(pinged)

    def news() -> bool:
        return answered() or any(ping.over() for ping in left)

    with ExitStack() as asked:
        for ping in pinged:
            asked.enter_context(ping)
        while left and not answered():
            yield partial(breaker.wait_until, news, until - breaker.clock())
            done = {ping for ping in left if ping.over()}
            left -= done
            for ping in done:
                if ping.error is None or is_alive(ping.error):
                    first = pinged[ping]
                    sentinels[:] = [first, *(each for each in sentinels if each is not first)]
                    return True
            if breaker.clock() >= until:
                break
    return False
