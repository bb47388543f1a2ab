"""A receipt is nothing but a receipt."""

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
import redis

from resilient_redis.core.exchange import ReplyError
from resilient_redis.errors import ReplyUnknown
from resilient_redis.receipt import Queued


@pytest.mark.parametrize(
    "use",
    [
        bool,
        int,
        float,
        len,
        list,
        math.floor,
        operator.index,
        operator.neg,
        lambda r: r + 1,
        lambda r: 1 + r,
        lambda r: r - 1,
        lambda r: r * 2,
        lambda r: r / 2,
        lambda r: r < 1,
        lambda r: r >= 1,
        lambda r: "x" in r,
        range,
    ],
)
def test_use_as_a_number_or_truth_value_raises(use: Callable[[Any], Any]) -> None:
    with pytest.raises(ReplyUnknown):
        use(Queued(7, "RPUSH"))


def test_reply_unknown_is_no_connection_error() -> None:
    assert not issubclass(ReplyUnknown, (redis.ConnectionError, redis.TimeoutError, OSError))


def test_it_equals_ok_and_nothing_else() -> None:
    receipt = Queued(7, "RPUSH")
    assert receipt == "OK"
    assert receipt == b"OK"
    assert receipt != 1
    assert receipt != True  # noqa: E712 - equality, not truth
    assert receipt != "QUEUED"
    assert receipt == receipt
    assert receipt != Queued(7, "RPUSH")


def test_it_reads_well_and_shows_no_value() -> None:
    assert repr(Queued(7, "RPUSH")) == str(Queued(7, "RPUSH")) == "<Queued RPUSH seq=7 queued>"


def test_it_learns_its_reply() -> None:
    receipt = Queued(7, "RPUSH")
    heard: list[int] = []
    receipt.on_settled(lambda: heard.append(receipt.result()))
    with pytest.raises(ReplyUnknown):
        receipt.result()
    receipt.settle(True, 3)
    receipt.on_settled(lambda: heard.append(0))
    assert heard == [3, 0]
    assert "applied" in repr(receipt)


def test_a_dead_letter_raises_its_error() -> None:
    receipt = Queued(7, "RPUSH")
    receipt.settle(False, ReplyError("WRONGTYPE x"))
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        receipt.result()
