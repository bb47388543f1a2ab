"""The logger `resilient_redis`: a line per transition, none per command, and no secrets."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.helpers import outcome, recovered, until
from tests.support.flavours import Redis, RedisCircuitBreaker, ResilientConnection, ResilientRedis
from tests.support.servers import Rig
from tests.surface.helpers import QUICK, aside, goes_down, guarded, quick

SOURCE = Path(__file__).resolve().parents[2] / "src"
# Parts of all keys and values, and of the password.
KEY, VALUE, PASSWORD = "k3y", "v4lue", "pa55word"


@contextmanager
def said(level: int = logging.INFO) -> Iterator[list[str]]:
    """What the logger and its children say, as a handler of the application would write it."""
    lines: list[str] = []
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    handler.setLevel(level)
    log = logging.getLogger("resilient_redis")
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        lines.extend(stream.getvalue().splitlines())


@pytest.mark.server
async def test_a_line_per_transition_and_none_per_command(valkey_rig: Rig) -> None:
    with said() as lines:
        async with guarded(valkey_rig, quick(name="billing")) as (client, breaker):
            await client.set("text", "v")
            for n in range(100):
                await client.get(f"{KEY}{n}")
            await goes_down(valkey_rig, client, breaker)
            for n in range(250):
                await aside(client.get, f"{KEY}{n}")
                await client.set(f"{KEY}{n}", VALUE)
                await outcome(client.incr(f"{KEY}{n}"))
            await client.sadd("text", VALUE)
            await until(lambda: breaker.snapshot().counters["probes"] > 5)
            valkey_rig.restart()
            await recovered(breaker)
            for n in range(100):
                await client.get(f"{KEY}{n}")
    assert [line.rpartition(" queued writes in ")[0] or line for line in lines] == [
        "WARNING resilient_redis billing: CLOSED -> OPEN (failure threshold reached)",
        "INFO resilient_redis billing: HALF-OPEN -> CLOSED (probe succeeded)",
        "WARNING resilient_redis billing: replayed 250",
    ]
    assert lines[-1].endswith("set 1 aside")


@pytest.mark.server
async def test_what_is_set_aside_nowhere_is_information(valkey_rig: Rig) -> None:
    with said() as lines:
        async with guarded(valkey_rig) as (client, breaker):
            await goes_down(valkey_rig, client, breaker)
            await client.set(KEY, VALUE)
            valkey_rig.restart()
            await recovered(breaker)
    assert [line.split()[0] for line in lines] == ["WARNING", "INFO", "INFO"]


@pytest.mark.server
async def test_at_debug_too_a_line_per_transition_and_none_per_command(valkey_rig: Rig) -> None:
    """Probes and entries that are set aside; never a command."""
    with said(logging.DEBUG) as lines:
        async with guarded(valkey_rig) as (client, breaker):
            await client.exists("warm")
            breaker.force_open()
            for n in range(500):
                await aside(client.get, f"{KEY}{n}")
                await client.set(f"{KEY}{n}", VALUE)
            breaker.reset()
            await recovered(breaker)
    assert [line.split(":")[1].strip().split(" (")[0] for line in lines][:3] == [
        "CLOSED -> OPEN",
        "OPEN -> CLOSED",
        "replaying 500 queued writes",
    ]
    assert len(lines) == 4


@pytest.mark.server
async def test_no_key_no_value_no_password(valkey_rig: Rig) -> None:
    """On any logger of ours, at any level; nor in any repr."""
    valkey_rig.acl("app", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    url = f"redis://app:{PASSWORD}@127.0.0.1:{valkey_rig.port}/0"
    with said(logging.DEBUG) as lines:
        client = ResilientRedis.from_url(url, **QUICK)
        breaker = client.breaker
        await client.set(KEY, VALUE)
        await client.set("text", VALUE)
        valkey_rig.kill()
        await outcome(client.rpush(KEY, VALUE))
        await client.set(KEY, VALUE)
        await client.sadd("text", VALUE)
        refused = await outcome(client.incr(KEY))
        shown = [breaker, breaker.snapshot()]
        shown += [refused, await client.rpush(KEY, VALUE)]
        valkey_rig.restart()
        # The server has forgotten the user, and takes the password no longer.
        await until(lambda: breaker.snapshot().counters.get("probes", 0) > 1)
        valkey_rig.acl("app", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        await recovered(breaker)
        shown += [*breaker.dead_letters, breaker.snapshot()]
        breaker.force_open()
        await client.set(KEY, VALUE)
        await client.aclose()
    assert lines
    everything = "\n".join([*lines, *map(repr, shown), *map(str, shown)])
    for secret in (KEY, VALUE, PASSWORD):
        assert secret not in everything


@pytest.mark.server
async def test_a_wrong_password_is_not_logged_either(valkey_rig: Rig) -> None:
    url = f"redis://nobody:{PASSWORD}@127.0.0.1:{valkey_rig.port}/0"
    with said(logging.DEBUG) as lines:
        async with ResilientRedis.from_url(url, **QUICK) as client:
            error = await outcome(client.get(KEY))
            client.breaker.force_open()
            client.breaker.reset()
    assert type(error).__name__ == "AuthenticationError"
    assert PASSWORD not in "\n".join([*lines, str(error), repr(error)])


def test_the_name_is_in_every_line() -> None:
    breaker, other = RedisCircuitBreaker(name="billing"), RedisCircuitBreaker(name="search")
    with said() as lines:
        breaker.force_open()
        other.force_open()
        breaker.reset()
    assert [line.split(":")[0].rpartition(" ")[2] for line in lines] == [
        *("billing", "search", "billing"),
    ]


def test_a_shared_breaker_is_named_after_its_endpoint() -> None:
    connection = ResilientConnection(host="127.0.0.1", port=1, username="u", password=PASSWORD)
    assert connection.breaker.name == "127.0.0.1:1"
    assert PASSWORD not in repr(connection)
    assert PASSWORD not in repr(connection.breaker)


def test_without_a_configuration_of_logging_nothing_but_warnings_is_said() -> None:
    """In a process of its own: no handler is added, nothing is printed at import."""
    code = (
        "import logging, resilient_redis.asyncio as a\n"
        "log = logging.getLogger('resilient_redis')\n"
        "assert log.handlers == [] and log.level == logging.NOTSET and log.propagate\n"
        "b = a.RedisCircuitBreaker()\n"
        "b.force_open(); b.reset()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": str(SOURCE), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["redis: CLOSED -> OPEN (forced open)"]


@pytest.mark.server
async def test_a_healthy_client_says_nothing(valkey_rig: Rig) -> None:
    with said(logging.DEBUG) as lines:
        async with guarded(valkey_rig) as (client, _):
            for n in range(50):
                await client.set(f"{KEY}{n}", VALUE)
            await client.pipeline().get("a").get("b").execute()
        Redis.from_url(valkey_rig.url)
    assert lines == []
