"""`failure_rate`, `failure_window`, `minimum_calls`: open by the share of failed calls, too."""

from __future__ import annotations

import random
from collections import deque

import pytest
from redis.exceptions import ConnectionError, ResponseError

from resilient_redis.core.breaker import Breaker, Cause
from resilient_redis.core.rate import BUCKETS, FailureRate
from resilient_redis.events import StateChanged
from tests.contract.helpers import CLOSED, OPEN, events_of, outcome, recovered
from tests.support.flavours import Redis, RedisCircuitBreaker, ResilientConnection
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig
from tests.surface.helpers import Store, aside, no_answer

# -- the window


def test_below_minimum_calls_the_share_says_nothing() -> None:
    rate = FailureRate(0.5, window=10.0, minimum_calls=4)
    assert [rate.count(0.0, failed=True) for _ in range(5)] == [False, False, False, True, True]


@pytest.mark.parametrize(
    "share, failed, total, too_many",
    [
        (0.5, 5, 10, True),
        (0.5, 4, 10, False),
        (1.0, 10, 10, True),
        (1.0, 9, 10, False),
        (0.1, 1, 10, True),
        (0.11, 1, 10, False),
    ],
)
def test_the_share_itself_is_too_much(
    share: float, failed: int, total: int, too_many: bool
) -> None:
    rate = FailureRate(share, window=10.0, minimum_calls=total)
    for n in range(total - 1):
        assert not rate.count(0.0, failed=n < failed - 1 or (n < failed and failed == total))
    assert rate.count(0.0, failed=True) is too_many


def test_what_is_older_than_the_window_counts_no_more() -> None:
    rate = FailureRate(0.5, window=10.0, minimum_calls=10)
    for _ in range(9):
        rate.count(0.0, failed=True)
    assert rate.count(9.9, failed=True), "they are in the window"
    rate = FailureRate(0.5, window=10.0, minimum_calls=10)
    for _ in range(9):
        rate.count(0.0, failed=True)
    assert not rate.count(10.0, failed=True), "they are out of it"


def test_the_window_slides() -> None:
    """Against a count of each call by itself, a tenth of the window apart at most."""
    dice = random.Random(7)
    rate, span = FailureRate(0.3, window=2.0, minimum_calls=10), 2.0 / BUCKETS
    calls: deque[tuple[float, bool]] = deque()
    now, verdicts = 0.0, 0
    for _ in range(3000):
        now += dice.expovariate(20.0)
        failed = dice.random() < (0.6 if int(now) % 4 == 0 else 0.1)
        calls.append((now, failed))
        first = (int(now // span) - BUCKETS + 1) * span
        while calls[0][0] < first - 1e-9:
            calls.popleft()
        failures = sum(failed for _, failed in calls)
        wanted = len(calls) >= 10 and failures >= 0.3 * len(calls)
        assert rate.count(now, failed) is wanted, now
        verdicts += wanted
    assert 100 < verdicts < 2900


def test_a_new_beginning_forgets() -> None:
    rate = FailureRate(0.5, window=10.0, minimum_calls=2)
    rate.count(0.0, failed=True)
    rate.clear()
    assert not rate.count(0.0, failed=True)


# -- the breaker's core


def flaky(breaker: Breaker, calls: int, every: int) -> Breaker:
    """One call in `every` fails, a tenth of a second apart."""
    for n in range(calls):
        if breaker.state.value != CLOSED:
            break
        if n % every == 0:
            breaker.failure(breaker.era, n / 10)
        else:
            breaker.success(breaker.era, n / 10)
    return breaker


def test_every_second_call_opens_by_the_rate_and_never_by_the_threshold() -> None:
    without = flaky(Breaker(5), 1000, 2)
    assert (without.state.value, without.failures) == (CLOSED, 0)
    with_it = Breaker(5, FailureRate(0.5, 10.0, 20))
    moves = []
    move = with_it._move

    def seen(cause: Cause) -> object:
        moves.append(cause)
        return move(cause)

    with_it._move = seen  # type: ignore[method-assign,assignment]  # to see why
    flaky(with_it, 1000, 2)
    assert with_it.state.value == OPEN
    assert moves == [Cause.RATE]
    assert flaky(Breaker(5, FailureRate(0.5, 10.0, 20)), 1000, 3).state.value == CLOSED


def test_the_threshold_holds_all_the_same() -> None:
    breaker = Breaker(5, FailureRate(1.0, 10.0, 100))
    for n in range(5):
        assert breaker.state.value == CLOSED
        breaker.failure(0, n / 10)
    assert breaker.state.value == OPEN


def test_an_outcome_of_an_older_era_is_not_counted() -> None:
    breaker = Breaker(5, FailureRate(0.5, 10.0, 2))
    breaker.trip(Cause.HANG)
    breaker.reset()
    for _ in range(10):
        breaker.failure(0, 1.0)
    assert breaker.state.value == CLOSED


# -- end to end


class Flaky(Store):
    """Fails every second call."""

    async def get(self, key: str) -> object:
        self.down = no_answer() if len(self.calls) % 2 else None
        return await super().get(key)


async def test_over_an_object_that_fails_every_second_call() -> None:
    store = Flaky()
    breaker = RedisCircuitBreaker(store, failure_rate=0.5, minimum_calls=10)
    events = events_of(breaker)
    answers = [await outcome(breaker.execute("get", store.get, "k")) for _ in range(20)]
    assert breaker.state == OPEN
    assert len(store.calls) == 10
    assert [type(a).__name__ for a in answers[:4]] == ["NoneType", "TimeoutError"] * 2
    assert answers[10:] == [None] * 10
    assert [e.reason for e in events if isinstance(e, StateChanged)] == ["failure rate reached"]
    without = RedisCircuitBreaker(Flaky())
    for _ in range(50):
        await outcome(without.execute("get", without.client.get, "k"))
    assert without.state == CLOSED


@pytest.mark.server
async def test_over_a_line_that_loses_every_third_reply(valkey_rig: Rig) -> None:
    """Callers of reads notice nothing: what is lost is asked again. The rate is noticed."""
    async with ChaosProxy(valkey_rig.port) as proxy:
        breaker = RedisCircuitBreaker(failure_rate=0.25, minimum_calls=20, recovery_timeout=0.1)
        events = events_of(breaker)
        client = Redis.from_url(
            proxy.url, connection_class=ResilientConnection, breaker=breaker, socket_timeout=0.02
        )
        await client.set("k", "v")
        asked = 0
        while breaker.state == CLOSED:
            assert asked < 200
            asked += 1
            fault = proxy.drop_replies(b"lost", times=1) if asked % 3 == 0 else None
            found = await aside(client.get, "lost" if fault else "k")
            if breaker.state == CLOSED:
                assert breaker.failures < 5
                assert found == (None if fault else b"v")
        assert 15 <= asked <= 40
        first = next(e for e in events if isinstance(e, StateChanged))
        assert first.reason == "failure rate reached"
        proxy.clear()
        await recovered(breaker)
        assert await client.get("k") == b"v"
        await client.aclose()
        await breaker.aclose()


@pytest.mark.server
async def test_an_error_of_the_server_is_a_call_that_did_not_fail(valkey_rig: Rig) -> None:
    breaker = RedisCircuitBreaker(failure_rate=0.1, minimum_calls=5)
    client = Redis.from_url(valkey_rig.url, connection_class=ResilientConnection, breaker=breaker)
    await client.set("text", "v")
    for _ in range(30):
        with pytest.raises(ResponseError):
            await client.sadd("text", "x")
    assert breaker.state == CLOSED
    await client.aclose()
    await breaker.aclose()


async def test_the_count_of_failures_in_a_row_is_as_without_a_rate() -> None:
    store = Store()
    breaker = RedisCircuitBreaker(store, 3, failure_rate=0.9, minimum_calls=1000)
    store.down = ConnectionError()
    for n in range(3):
        assert (breaker.failures, breaker.state) == (n, CLOSED)
        await outcome(breaker.execute("get", store.get, "k"))
    assert breaker.state == OPEN
