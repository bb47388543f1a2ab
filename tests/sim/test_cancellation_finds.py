"""What the enumeration of cancellations has found, each with the cuts that show it."""

from __future__ import annotations

from collections.abc import Iterable

from tests.sim.cancelled import ALL
from tests.sim.cancelling import run
from tests.sim.world import Cut


def findings(name: str, cuts: Iterable[Cut]) -> list[str]:
    world, scenario = ALL[name]
    return [f"{cut}: {what}" for cut in cuts for what in run(world, scenario, 0, cut).wrong]


def test_who_is_cancelled_twice_leaves_no_handshake_that_goes_on() -> None:
    """The second cancellation hit the wait for the end of the first: half a handshake went on
    alone, its replies among those of the next command ("read() called while another coroutine").
    """
    twice = [Cut(at, again=again) for at in range(3, 50, 3) for again in (1, 3)]
    assert not findings("connect", twice)
