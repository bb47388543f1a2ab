"""The transition table, the counting, eras and the leased permit."""

import pytest

from resilient_redis.core.breaker import MOVES, Breaker, Cause, IllegalMove, State


def opened(threshold: int = 1) -> Breaker:
    breaker = Breaker(threshold)
    for _ in range(threshold):
        breaker.failure(breaker.era)
    return breaker


def test_opens_at_the_threshold_and_not_before() -> None:
    breaker = Breaker(3)
    assert breaker.failure(0) is None
    assert breaker.failure(0) is None
    move = breaker.failure(0)
    assert move is not None
    assert (move.old, move.new, move.cause) == (State.CLOSED, State.OPEN, Cause.THRESHOLD)
    assert breaker.failures == 3


def test_only_failures_in_a_row_count() -> None:
    breaker = Breaker(2)
    for _ in range(10):
        breaker.failure(0)
        breaker.success(0)
    assert breaker.state.value == "CLOSED"
    assert breaker.failures == 0


def test_an_outcome_of_an_older_era_changes_nothing() -> None:
    breaker = opened()
    breaker.reset()
    assert breaker.failure(0) is None
    breaker.failures = 0
    breaker.failure(breaker.era)
    breaker.reset()
    breaker.success(0)
    assert breaker.state.value == "CLOSED"


def test_a_late_success_does_not_take_back_the_failures_of_a_new_era() -> None:
    breaker = Breaker(3)
    old = breaker.era
    breaker.trip(Cause.HANG)
    breaker.reset()
    breaker.failure(breaker.era)
    breaker.success(old)
    assert breaker.failures == 1


def test_half_open_has_one_permit() -> None:
    breaker = opened()
    taken = breaker.take_permit(now=0.0, lease=1.0)
    assert taken is not None
    assert breaker.state.value == "HALF-OPEN"
    assert breaker.take_permit(now=0.5, lease=1.0) is None
    breaker.give_back(taken[0], succeeded=True)
    assert breaker.state.value == "CLOSED"
    assert breaker.failures == 0


def test_a_permit_that_is_not_given_back_lapses() -> None:
    breaker = opened()
    lost = breaker.take_permit(now=0.0, lease=1.0)
    assert lost is not None
    second = breaker.take_permit(now=1.0, lease=1.0)
    assert second is not None
    assert breaker.give_back(lost[0], succeeded=True) is None, "a void permit closes nothing"
    assert breaker.state.value == "HALF-OPEN"
    breaker.give_back(second[0], succeeded=False)
    assert breaker.state.value == "OPEN"


def test_forced_open_stays_open_until_reset() -> None:
    breaker = Breaker(1)
    breaker.force_open()
    assert breaker.take_permit(now=1e9, lease=1.0) is None
    breaker.reset()
    assert breaker.state.value == "CLOSED"


def test_each_move_raises_the_era_by_one() -> None:
    breaker = opened()
    assert breaker.era == 1
    taken = breaker.take_permit(0.0, 1.0)
    assert taken is not None
    assert breaker.era == 2
    breaker.give_back(taken[0], succeeded=False)
    assert breaker.era == 3


def test_a_move_that_the_table_does_not_know_raises() -> None:
    breaker = Breaker(1)
    assert (State.CLOSED, Cause.PROBE_SUCCEEDED) not in MOVES
    with pytest.raises(IllegalMove, match="PROBE_SUCCEEDED while CLOSED"):
        breaker._move(Cause.PROBE_SUCCEEDED)


def test_no_state_is_a_trap() -> None:
    reached = {State.CLOSED}
    for _ in State:
        reached |= {new for (old, _), new in MOVES.items() if old in reached}
    assert reached == set(State)
    leads_home = {State.CLOSED}
    for _ in State:
        leads_home |= {old for (old, _), new in MOVES.items() if new in leads_home}
    assert leads_home == set(State)


def test_a_threshold_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Breaker(0)
