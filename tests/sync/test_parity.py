"""Two flavours, one surface: names, signatures and documentation."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import redis

import resilient_redis
import resilient_redis.asyncio

# What redis-py itself spells differently: its asynchronous client has `aclose`.
RENAMED = {"aclose": "close"}
# Only an asynchronous client is awaited and initialized.
ASYNC_ONLY = {"__await__", "__aenter__", "__aexit__", "initialize"}
SYNC_ONLY = {"__enter__", "__exit__"}
CLASSES = [
    name
    for name in sorted(resilient_redis.__all__)
    if inspect.isclass(getattr(resilient_redis, name))
    and getattr(resilient_redis, name) is not getattr(resilient_redis.asyncio, name)
]
# The parts of a name or a sentence in which the flavours differ.
WORDS = (
    ("redis.asyncio.", "redis."),
    ("asyncio.TimeoutError", "TimeoutError"),
    ("whose reply can be awaited", "whose reply can be waited for"),
)


def test_the_names() -> None:
    assert set(resilient_redis.__all__) == set(resilient_redis.asyncio.__all__)
    assert {"RedisCircuitBreaker", "ResilientConnection", "ResilientRedis"} <= set(CLASSES)


def own(cls: type[Any]) -> dict[str, Any]:
    """The public members that are ours: redis-py's differ as redis-py has it."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base.__module__.startswith("resilient_redis"):
            for name, member in vars(base).items():
                if not name.startswith("_"):
                    found.setdefault(name, member)
    return found


def both(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    there = own(getattr(resilient_redis.asyncio, name))
    renamed = {
        RENAMED.get(member, member): value
        for member, value in there.items()
        if member not in ASYNC_ONLY and not (member == "close" and "aclose" in there)
    }
    return own(getattr(resilient_redis, name)), renamed


@pytest.mark.parametrize("name", ["Queued", "RedisCircuitBreaker", "ResilientRedis"])
def test_the_members(name: str) -> None:
    here, there = both(name)
    assert set(here) == set(there)


@pytest.mark.parametrize("name", CLASSES)
def test_signatures_and_documentation(name: str) -> None:
    here, there = both(name)
    sync_class, async_class = getattr(resilient_redis, name), getattr(resilient_redis.asyncio, name)
    assert said(inspect.getdoc(sync_class)) == said(inspect.getdoc(async_class))
    if name == "RedisCircuitBreaker":
        assert inspect.signature(sync_class) == inspect.signature(async_class)
    for member in set(here) & set(there):
        mine, theirs = here[member], there[member]
        if not inspect.isfunction(mine) or mine is theirs or hasattr(redis.Connection, member):
            continue  # what redis-py has itself is as it has it in each
        assert parameters(mine) == parameters(theirs), member
        assert said(inspect.getdoc(mine)) == said(inspect.getdoc(theirs)), member


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [
        (each.name, each.kind, each.default)
        for each in inspect.signature(function).parameters.values()
    ]


def said(doc: str | None) -> str:
    text = " ".join((doc or "").split())
    for theirs, ours in WORDS:
        text = text.replace(theirs, ours)
    return text
