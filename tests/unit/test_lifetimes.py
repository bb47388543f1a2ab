"""What is left of a time to live, when a method of redis-py's is called later than it was meant."""

from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from resilient_redis.core.catalog import shape_of
from resilient_redis.seam.methods import LIFETIMES, AsyncStandIn, aged, is_command, method_of
from resilient_redis.seam.packed import command_of
from tests.unit.test_catalog_samples import QUEUED


def lifetime(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """ms that redis-py's own method asks for."""
    client, sent = AsyncStandIn(), []
    client.run(method, args, kwargs, lambda args, _: sent.append(args))
    ttl = command_of(sent[0], client.replies.encoder).shape.ttl
    assert ttl is not None
    return ttl.milliseconds


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("set", ("k", "v"), {"ex": 100}),
    ("set", ("k", "v", 100), {}),
    ("set", ("k", "v"), {"px": 100_000}),
    ("set", ("k", "v", None, 100_000), {}),
    ("set", ("k", "v", "100"), {}),
    ("set", ("k", "v"), {"ex": timedelta(seconds=100)}),
    ("set", ("k", "v"), {"px": timedelta(seconds=100)}),
    ("setex", ("k", 100, "v"), {}),
    ("setex", ("k", timedelta(seconds=100), "v"), {}),
    ("psetex", ("k", 100_000, "v"), {}),
    ("expire", ("k", 100), {}),
    ("expire", (), {"name": "k", "time": 100}),
    ("pexpire", ("k", 100_000), {}),
    ("hexpire", ("k", 100, "f", "g"), {}),
    ("hpexpire", ("k", 100_000, "f", "g"), {}),
    ("restore", ("k", 100_000, b"a dump of ten bytes", True), {}),
    ("hsetex", ("k", "f", "v"), {"ex": 100}),
    ("msetex", ({"k": "v"},), {"px": 100_000}),
]


@pytest.mark.parametrize("method,args,kwargs", CALLS)
def test_it_counts_from_the_call(
    method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if not hasattr(Redis, method):
        pytest.skip(f"this redis-py has no {method}")
    assert lifetime(method, args, kwargs) == 100_000
    assert lifetime(method, *aged(method, args, kwargs, 0.0)) == 100_000
    fine = "px" in kwargs or 100_000 in args  # it counts milliseconds
    assert lifetime(method, *aged(method, args, kwargs, 60.25)) == (39_750 if fine else 40_000)
    # Over: what the key held before has to go all the same.
    assert lifetime(method, *aged(method, args, kwargs, 500.0)) == (1 if fine else 1000)


def test_what_has_none_stays() -> None:
    for method, args, kwargs in (
        ("set", ("k", "v"), {"keepttl": True}),
        ("set", ("k", "v", None), {"pxat": 5}),
        ("expire", ("k", 0), {}),
        ("restore", ("k", 0, b"a dump of ten bytes"), {}),
        ("rpush", ("k", 100), {}),
    ):
        assert aged(method, args, kwargs, 60.0) == (args, kwargs)


def test_every_command_that_has_one_is_known() -> None:
    relative = {shape_of(sample).name for sample in QUEUED if shape_of(sample).ttl is not None}
    methods = {method_of(name) for name in relative}
    assert {method for method in methods if is_command(method)} <= set(LIFETIMES)
    assert len(methods) > 8
