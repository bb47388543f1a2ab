"""The names that `import resilient_redis` gives, and those that it does not."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest
import redis.asyncio

import resilient_redis
import resilient_redis.asyncio
import resilient_redis.events
from resilient_redis.events import Event

# What DESIGN names, and what its code block imports. A name that goes is a breaking change.
COMMON = {
    *("COUNTERS", "READS", "TAKES", "WRITES", "WRITE_COMMANDS"),
    *("CommandRefused", "JournalCorrupt", "JournalFull", "OutcomeUnknown"),
    *("ReplyUnknown", "ResilienceError"),
    *("MemoryJournal", "Policy", "Queued", "Rule", "Tracker", "track"),
}
FLAVOURED = {
    *("RedisCircuitBreaker", "ResilientConnection", "ResilientRedis"),
    *("ResilientSSLConnection", "ResilientUnixDomainSocketConnection"),
    *("ResilientSentinelManagedConnection", "ResilientSentinelManagedSSLConnection"),
}
MODULES = [resilient_redis, resilient_redis.asyncio]


def public(module: ModuleType) -> dict[str, Any]:
    """What a user finds in `module`, submodules aside."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }


def groups(name: str) -> tuple[bool, bool, str]:
    """Constants, classes, functions; each in alphabetical order."""
    return not name.isupper(), not name[0].isupper(), name


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_names_what_is_there(module: ModuleType) -> None:
    names: list[str] = module.__all__
    assert names == sorted(names, key=groups)
    assert len(names) == len(set(names))
    assert set(names) == set(public(module)), "exported by accident, or not at all"


def test_the_names_are_those_of_the_design() -> None:
    assert set(resilient_redis.asyncio.__all__) == COMMON | FLAVOURED
    # The synchronous flavour brings FLAVOURED here, too.
    assert COMMON <= set(resilient_redis.__all__) <= COMMON | FLAVOURED


@pytest.mark.parametrize("module", MODULES)
def test_a_star_import_brings_them_all(module: ModuleType) -> None:
    names: dict[str, Any] = {}
    exec(f"from {module.__name__} import *", names)
    assert set(module.__all__) <= set(names)


def test_what_both_flavours_have_is_the_same_object() -> None:
    for name in sorted(COMMON - {"Queued"}):
        assert getattr(resilient_redis, name) is getattr(resilient_redis.asyncio, name), name


def described() -> dict[str, Any]:
    """Every public class and function of ours."""
    return {
        name: value
        for module in (*MODULES, resilient_redis.events)
        for name, value in public(module).items()
        if inspect.isclass(value) or inspect.isfunction(value)
        if value.__module__.startswith("resilient_redis")
    }


# What a user calls and reads; the rest of these classes is for the shells.
MEMBERS = {
    "RedisCircuitBreaker": "state failures pending dead_letters snapshot add_observer force_open "
    "reset flush_re_sync_queue aclose execute take_client guards_object",
    "ResilientConnection": "bound_to",
    "ResilientSentinelManagedConnection": "bound_to",
    "ResilientRedis": "from_url from_pool aclose close initialize",
    "Policy": "cache store",
    "Queued": "settled result on_settled",
    "Tracker": "degraded",
}


@pytest.mark.parametrize("name", sorted(described()))
def test_a_public_class_or_function_has_a_docstring(name: str) -> None:
    text = described()[name].__doc__ or ""
    assert len(text.split()) >= 2, name
    # A dataclass without one is given its signature by Python.
    assert not text.startswith(f"{name}("), name


@pytest.mark.parametrize("name", MEMBERS)
def test_what_a_user_calls_has_a_docstring(name: str) -> None:
    cls = getattr(resilient_redis.asyncio, name)
    for member in MEMBERS[name].split():
        assert inspect.getdoc(inspect.getattr_static(cls, member)), f"{name}.{member}"


def test_the_docstrings_are_looked_for() -> None:
    assert {"RedisCircuitBreaker", "track", "StateChanged", "Rule"} <= set(described())
    assert len(described()) > 25


# -- "`resilient_redis.asyncio` mirrors `redis.asyncio`, name for name" ----------------------------


def test_each_guarded_class_has_the_name_of_the_one_that_it_stands_for() -> None:
    names = [name for name in resilient_redis.asyncio.__all__ if name.startswith("Resilient")]
    assert names
    for name in names:
        assert hasattr(redis.asyncio, name.removeprefix("Resilient")), name
    for name in ("Redis", "Connection", "SSLConnection", "UnixDomainSocketConnection"):
        assert f"Resilient{name}" in names


def test_the_synchronous_flavour_has_the_same_names() -> None:
    assert set(resilient_redis.__all__) == COMMON | FLAVOURED


# -- events: importable, and what DESIGN names -----------------------------------------------------

FIELDS = {
    "StateChanged": ("old", "new", "era", "reason"),
    "ProbeFailed": (),
    "WritesHeld": (),
    "FenceDenied": (),
    "ReplayStarted": (),
    "ReplayProgress": ("applied", "pending"),
    "ReplayFinished": (),
    "EntryDeadLettered": ("reason",),
    "SubscriptionGap": ("channels", "start", "end"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_events_of_the_design_are_there(name: str) -> None:
    event = getattr(resilient_redis.events, name)
    assert issubclass(event, Event)
    fields = list(inspect.signature(event).parameters)
    assert fields[:2] == ["breaker", "at"]
    assert set(FIELDS[name]) <= set(fields)
    if name in ("StateChanged", "SubscriptionGap"):
        assert tuple(fields[2:]) == FIELDS[name]
