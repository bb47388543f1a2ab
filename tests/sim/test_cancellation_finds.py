"""What the enumeration of cancellations has found, each with the cuts that show it."""

from __future__ import annotations

from collections.abc import Iterable

from resilient_redis.core.rights import try_rights
from tests.sim import scenarios_object as _objects  # noqa: F401 - it adds to ALL
from tests.sim.cancelling import run
from tests.sim.loop import SimLoop
from tests.sim.scenarios import ALL
from tests.sim.server import SimServer
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


def test_no_key_is_left_of_the_rights() -> None:
    """Cancelled between the two round trips of `try_rights`, a caller left its key behind for
    ever, where the next one asked in another database.
    """
    loop = SimLoop(0)
    server = SimServer(loop)
    session = server.accept(Deaf())
    session.feed(next(try_rights(b"rights")).send)
    assert server.store.tally[b"SET"] == 2, "it has not tried"
    assert not server.store.data
    loop.close()


class Deaf:
    """A caller who does not hear the answers any more."""

    addr = "10.0.0.1:1"

    def reply(self, data: bytes) -> None:
        pass

    def server_closes(self, how: str) -> None:
        pass


def test_aclose_waits_for_a_replay_that_a_caller_has_started() -> None:
    """Half-open, with somebody else's probe under way, `flush_re_sync_queue` and `aclose` gave up
    at once: whoever had been cancelled in `aclose` could not drain the journal any more.
    """
    assert not findings("object_aclose", [Cut(at) for at in range(1, 40)])


def test_no_cancellation_is_swallowed() -> None:
    """`asyncio.wait_for` returns, before Python 3.12, what it has waited for: the caller, who was
    cancelled at that very moment, went on.
    """
    assert not findings("big_write", [Cut(at) for at in range(1, 30)])
    assert not findings("outcome_within_a_time", [Cut(at) for at in range(1, 82)])
