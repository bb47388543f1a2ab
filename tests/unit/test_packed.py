"""The short way of a read, beside the long way of every command."""

from __future__ import annotations

import pytest
from redis._parsers import Encoder
from redis.exceptions import DataError

from resilient_redis.core.catalog import ROWS
from resilient_redis.core.command import Command
from resilient_redis.core.guard import Step, away_step
from resilient_redis.core.premise import shows_absence
from resilient_redis.core.wire import reply_bytes
from resilient_redis.seam.packed import Call, PlainRead, command_of, plain_read
from tests.unit.test_catalog import as_redis_py_sends
from tests.unit.test_catalog_samples import NEUTRAL, QUEUED, REFUSED_WITH_KEYS, samples

ENCODER = Encoder("utf-8", "strict", False)  # type: ignore[no-untyped-call]  # redis-py


def judge(call: Call) -> PlainRead | None:
    """What the short way says of `call` is what the long way says."""
    command: Command = command_of(call, ENCODER)
    found = plain_read(call, ENCODER)
    if found is None:
        return None
    read, keys = found
    shape = command.shape
    assert (read.row.name, keys) == (shape.name, shape.keys), call
    assert read.replies == {protocol: reply_bytes(shape, protocol) for protocol in (2, 3)}, call
    assert away_step(shape, False) is Step.NEUTRAL, call
    assert shows_absence(command), call
    return read


def test_it_says_the_same_of_every_command_that_it_knows() -> None:
    known = set()
    for sample in (*NEUTRAL, *QUEUED, *samples(REFUSED_WITH_KEYS)):
        read = judge(as_redis_py_sends(sample))
        known.add(None if read is None else read.row.name)
    for row in ROWS:
        for number in range(9):
            judge((row.name, *["1"] * number))
    assert None in known
    assert {"GET", "HGETALL", "EXISTS", "OBJECT ENCODING"} <= known


@pytest.mark.parametrize(
    "call",
    [("GET",), ("GET", "k", "j"), ("MGET", "k"), ("SET", "k", "v"), ("get", "k"), (b"GET", "k")],
)
def test_what_it_leaves_to_the_long_way(call: Call) -> None:
    assert plain_read(call, ENCODER) is None


def test_what_redis_py_does_not_send_is_not_answered() -> None:
    with pytest.raises(DataError):
        plain_read(("GET", None), ENCODER)
    found = plain_read(("GET", memoryview(b"k")), ENCODER)
    assert found is not None
    assert found[1] == (b"k",)
