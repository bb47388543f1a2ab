"""`make matrix` and `make transparency` can fail, and put in what they say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.matrix.__main__ import Cell, Result, report
from tests.transparency.__main__ import HERE, between
from tests.transparency.listed import LISTED, reason

CELL, OTHER = Cell("3.12", "6.4", "valkey"), Cell("3.13", "6.4", "redis-6.2")
GOOD, BAD, NEVER = (
    Result(True, "9 passed, 1 s"),
    Result(False, "1 failed, 1 s"),
    "there is no wheel",
)


@pytest.mark.parametrize(
    "results, code",
    [
        ({CELL: GOOD}, 0),
        ({CELL: GOOD, OTHER: NEVER}, 0),
        ({CELL: GOOD, OTHER: BAD}, 1),
        ({OTHER: NEVER}, 1),
    ],
)
def test_a_matrix_is_as_good_as_its_cells(
    results: dict[Cell, Result | str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(results) == code
    said = capsys.readouterr().out
    assert ("FAILED, 1 failed" in said) is (BAD in results.values())
    told = "CANNOT BE: Python 3.13, redis-py 6.4, redis-6.2: there is no wheel"
    assert (told in said) is (NEVER in results.values())


def test_a_published_test_that_only_the_guard_fails_is_found() -> None:
    listed = next(iter(LISTED))
    stock = {"a": ("passed", ""), "b": ("failed", "E"), f"{listed}[x]": ("passed", "")}
    guarded = {"b": ("failed", "E"), f"{listed}[x]": ("failed", "as listed")}
    found = between(stock, guarded)
    assert [(d.nodeid, d.said) for d in found] == [
        ("a", "it did not run"),
        (f"{listed}[x]", "as listed"),
    ]
    assert [reason(d.nodeid) is None for d in found] == [True, False]


def test_the_guard_is_put_into_all_that_redis_py_makes() -> None:
    code = (
        "import put_in, redis.asyncio as r\n"
        "pools = [r.Redis().connection_pool, r.BlockingConnectionPool()]\n"
        "pools += [r.Redis.from_url(u).connection_pool for u in ('rediss://h', 'unix:///s')]\n"
        "pools.append(r.ConnectionPool(connection_class=r.connection.Connection))\n"
        "print(*[p.connection_class.__name__ for p in pools], r.Connection.__name__)"
    )
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        *("ResilientConnection", "ResilientConnection"),
        *("ResilientSSLConnection", "ResilientUnixDomainSocketConnection"),
        *("ResilientConnection", "ResilientConnection"),
    ]
