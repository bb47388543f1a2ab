"""`add_observer()`: who hears of what, and what becomes of one that raises."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import FrozenInstanceError, fields

import pytest

from resilient_redis.events import Event, StateChanged
from tests.contract.helpers import events_of, recovered
from tests.support.flavours import RedisCircuitBreaker
from tests.support.servers import Rig
from tests.surface.helpers import guarded

SECRET = "s3cret"


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if record.name == "resilient_redis" and record.levelno >= logging.ERROR
    ]


def test_observers_hear_each_event_in_order() -> None:
    breaker = RedisCircuitBreaker(name="billing")
    first, second = events_of(breaker), events_of(breaker)
    breaker.force_open()
    breaker.reset()
    assert first == second
    assert [(e.old, e.new, e.era) for e in first if isinstance(e, StateChanged)] == [
        ("CLOSED", "OPEN", 1),
        ("OPEN", "CLOSED", 2),
    ]
    assert {e.breaker for e in first} == {"billing"}
    assert [e.at for e in first] == sorted(e.at for e in first)


def test_an_observer_hears_nothing_of_before_it_came() -> None:
    breaker = RedisCircuitBreaker()
    breaker.force_open()
    events = events_of(breaker)
    breaker.reset()
    assert len(events) == 1


def test_an_observer_sees_the_state_that_it_is_told() -> None:
    breaker = RedisCircuitBreaker()
    seen: list[tuple[str, str]] = []

    def look(event: Event) -> None:
        assert isinstance(event, StateChanged)
        seen.append((event.new, breaker.state))

    breaker.add_observer(look)
    breaker.force_open()
    breaker.reset()
    assert seen == [("OPEN", "OPEN"), ("CLOSED", "CLOSED")]


def test_what_an_observer_hears_is_frozen() -> None:
    breaker = RedisCircuitBreaker()
    events = events_of(breaker)
    breaker.force_open()
    for field in fields(events[0]):
        with pytest.raises(FrozenInstanceError):
            setattr(events[0], field.name, None)


def test_one_that_raises_is_logged_once_and_detached(caplog: pytest.LogCaptureFixture) -> None:
    breaker = RedisCircuitBreaker(name="billing")
    calls: list[Event] = []

    def faulty(event: Event) -> None:
        calls.append(event)
        raise ZeroDivisionError("a bug of the user's")

    before = events_of(breaker)
    breaker.add_observer(faulty)
    after = events_of(breaker)
    for _ in range(5):
        breaker.force_open()
        breaker.reset()
    assert len(calls) == 1
    assert len(before) == len(after) == 10
    (record,) = errors(caplog)
    assert "billing" in record.getMessage()
    assert "detached" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_each_one_that_raises_is_detached(caplog: pytest.LogCaptureFixture) -> None:
    breaker = RedisCircuitBreaker()
    calls: list[str] = []

    def faulty(name: str) -> None:
        calls.append(name)
        raise ValueError(name)

    breaker.add_observer(lambda _: faulty("a"))
    breaker.add_observer(lambda _: faulty("b"))
    breaker.force_open()
    breaker.reset()
    assert calls == ["a", "b"]
    assert len(errors(caplog)) == 2


@pytest.mark.server
async def test_a_caller_does_not_notice_an_observer_that_raises(
    valkey_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with guarded(valkey_rig) as (client, breaker):
        await client.exists("warm")

        def faulty(event: Event) -> None:
            raise RuntimeError(type(event).__name__)

        breaker.add_observer(faulty)
        valkey_rig.kill()
        assert await client.set(f"k-{SECRET}", SECRET) is True
        valkey_rig.restart()
        await recovered(breaker)
        assert await client.get(f"k-{SECRET}") == SECRET.encode()
    assert [record.exc_info[1].args for record in errors(caplog) if record.exc_info] == [  # type: ignore[union-attr]  # it has one
        ("StateChanged",)
    ]


async def test_an_observer_may_act_on_the_breaker() -> None:
    """The decision is made when it hears of it."""
    breaker = RedisCircuitBreaker()
    events = events_of(breaker)

    def impatient(event: Event) -> None:
        if isinstance(event, StateChanged) and event.new == "OPEN":
            breaker.reset()

    breaker.add_observer(impatient)
    breaker.force_open()
    assert breaker.state == "CLOSED"
    assert len(events) == 2
    await asyncio.sleep(0)
    await breaker.aclose()
