"""What planted bugs have shown that no other test held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError, WatchError
from tenacity import wait_fixed

from resilient_redis.asyncio import (
    CommandRefused,
    OutcomeUnknown,
)
from resilient_redis.asyncio.driving import end
from resilient_redis.core.batch import in_doubt
from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command
from resilient_redis.core.entry import Entry, entry_of
from resilient_redis.core.exchange import Dialogue, Exchange, ReplyError
from resilient_redis.core.replay import Replay
from resilient_redis.journal import MemoryJournal
from tests.contract.recovery_helpers import guarded, healthy, proxied, raised, until
from tests.support.servers import Rig
from tests.unit.model_server import ModelServer

W = b"resilient-redis:w"


# -- the replay, against a model of the server ----------------------------------------------------


class Heard:
    """The replay's listener."""

    def __init__(self) -> None:
        self.applied_seqs: list[int] = []
        self.letters: dict[int, str] = {}

    def applied(self, entry: Entry, reply: Any) -> None:
        self.applied_seqs.append(entry.seq)

    def applied_in_a_row(self, first: int, replies: Sequence[Any]) -> None:
        self.applied_seqs += range(first, first + len(replies))

    def dead_letter(self, entry: Entry, reason: str, error: ReplyError | None) -> None:
        self.letters[entry.seq] = reason

    def lost_data(self, confirmed: int, found: int) -> None:
        raise AssertionError("the server has lost nothing")


class Bench:
    """A replay whose exchanges a test may look into."""

    def __init__(self, *lines: str, max_age: float = 300.0) -> None:
        self.server = ModelServer()
        self.journal = MemoryJournal(max_age=max_age)
        self.heard = Heard()
        self.now = 0.0
        sessions: Iterator[int] = iter(range(1000))
        self.replay = Replay(
            self.journal,
            self.heard,
            watermark=W,
            new_session=lambda: b"s%d" % next(sessions),
            clock=lambda: self.now,
            wall_ms=lambda: 0,
        )
        self.journal.append([command(line) for line in lines], 0.0, 0)

    def drive(self, dialogue: Dialogue[Any], before: Callable[[Exchange], bool]) -> Any:
        """On one connection. Where `before` says so what it sends does not arrive, and it dies."""
        client = self.server.connect()
        unread: list[Any] = []
        try:
            ask = next(dialogue)
            while True:
                if before(ask):
                    raise ConnectionResetError
                unread += self.server.feed(client, ask.send)
                replies, unread = unread[: ask.receive], unread[ask.receive :]
                ask = dialogue.send(replies)
        except StopIteration as stop:
            return stop.value
        finally:
            dialogue.close()
            self.server.clients.remove(client)


def command(line: str) -> Command:
    args = tuple(line.encode().split())
    return Command(args, shape_of(args))


def test_what_stands_before_a_write_in_doubt_is_in_doubt() -> None:
    """DEL k alone, sent again, would take away what the RPUSH behind it has put there."""
    lines = ["DEL k", "DEL other", "SET k v", "RPUSH k a", "DEL k"]
    entries = [entry_of(command(line), n, 0.0, 0) for n, line in enumerate(lines, 1)]
    assert sorted(entry.seq for entry in in_doubt(entries)) == [1, 3, 4]


def test_a_watermark_that_came_between_is_not_written_over() -> None:
    """Two copies of a priming are on their way, each with its WATCH behind it."""
    bench = Bench("RPUSH l a")
    asks: list[bytes] = []

    def before(ask: Exchange) -> bool:
        asks.append(ask.send)
        return False

    assert bench.drive(bench.replay.run(), before) is None
    (prime,) = [ask for ask in asks if ask.startswith(b"*1\r\n$5\r\nMULTI") and b"RPUSH" not in ask]
    bench.server.data[0, W] = b"another:7"
    bench.server.feed(bench.server.connect(), prime)
    assert bench.server.data[0, W] == b"another:7"


def test_what_was_sent_once_does_not_grow_too_old() -> None:
    """It may still arrive: "set aside, too old" could be a lie."""
    bench = Bench("RPUSH l a", "RPUSH l b", max_age=10.0)
    with pytest.raises(ConnectionResetError):
        bench.drive(bench.replay.run(), lambda ask: b"RPUSH" in ask.send)
    bench.now = 11.0
    assert bench.drive(bench.replay.run(), lambda _: False) is None
    assert bench.server.data[0, b"l"] == [b"a", b"b"]
    assert (bench.heard.applied_seqs, bench.heard.letters) == ([1, 2], {})


# -- the shell, against a real server -------------------------------------------------------------


async def in_a_task(work: Any) -> Any:
    """What this task reads is no premise of the test's own."""
    return await asyncio.create_task(work)


async def test_a_default_does_not_go_over_what_redis_holds(valkey_rig: Rig) -> None:
    """The premise: read as neutral, then written, in one outage."""
    async with guarded(valkey_rig.port) as (guard, client):
        await client.set("held", "precious")
        guard.breaker.force_open()
        for key in ("held", "absent"):
            assert await client.get(key) is None
            assert await client.set(key, "default") is True
        await in_a_task(client.set("unread", "new"))
        await guard.reopened()
        assert valkey_rig.admin.mget("held", "absent", "unread") == ["precious", "default", "new"]
        assert guard.letters() == [("SET", "premise")]


async def test_a_default_does_not_go_over_what_redis_holds_later(valkey_rig: Rig) -> None:
    """Read as neutral while away, written when Redis was back: refused until it is read again; a
    retry around the write alone knows nothing more.
    """
    async with guarded(valkey_rig.port) as (guard, client):
        await client.set("held", "precious")
        guard.breaker.force_open()
        assert await client.get("held") is None
        await guard.reopened()
        for _ in range(3):
            with pytest.raises(CommandRefused):
                await client.set("held", "default")
        assert valkey_rig.admin.get("held") == "precious"
        assert await client.get("held") == b"precious"
        assert await client.set("held", "on purpose") is True
        assert valkey_rig.admin.get("held") == "on purpose"


async def test_what_is_queued_closes_the_gate(valkey_rig: Rig) -> None:
    """Out of time for one caller, whose SET is queued, while the breaker stays closed."""
    async with guarded(valkey_rig.port, drain_wait=2.0) as (guard, client):
        await client.set("k", "before")
        other = guard.client()
        await healthy(other)
        first = guard.breaker.queue([command("SET k queued")], 0, guard.breaker.clock())
        assert first == 1
        assert not guard.breaker.live
        assert await other.get("k") == b"queued"
        await guard.recovered()
        assert valkey_rig.admin.get("k") == "queued"


async def test_what_is_queued_while_a_caller_connects_is_read(valkey_rig: Rig) -> None:
    """It was decided before the handshake that the read may go live; that is not so any more."""
    async with proxied(valkey_rig, failure_threshold=1000, deadline=1.0) as (proxy, guard, client):
        await client.set("key", "before")
        proxy.cut_on_reply(b"GET", times=1)
        handshake = proxy.stall()
        handshake.match = lambda link: link.number > 0 and b"INFO" in link.sent
        reader = asyncio.create_task(client.get("key"))
        await until(lambda: handshake.fired)  # its first attempt was cut off: it connects again
        guard.breaker.queue([command("SET key queued")], 0, guard.breaker.clock())
        handshake.end()
        assert await reader == b"queued"
        await guard.recovered()


async def test_the_next_write_on_another_connection_waits_for_the_fence(valkey_rig: Rig) -> None:
    """That connection stands already: no handshake of its own puts up a fence."""
    async with proxied(valkey_rig, failure_threshold=1000) as (proxy, guard, client):
        await healthy(client)
        impatient = guard.client(socket_timeout=0.05)
        await healthy(impatient)
        stall = proxy.stall(b"old")
        assert isinstance(await raised(impatient.rpush("l", "old")), OutcomeUnknown)
        held = await proxy.seen(b"old")
        assert guard.breaker.closed
        assert await client.rpush("l", "new") == 1
        stall.end()
        await until(lambda: held.server is not None and held.server.is_closing())
        assert valkey_rig.admin.lrange("l", 0, -1) == ["new"]


async def test_what_may_have_run_is_not_refused(valkey_rig: Rig) -> None:
    """A SET whose replies are lost and for which the journal has no room may have been applied."""
    journal = MemoryJournal(max_entries=1)
    async with proxied(valkey_rig, journal=journal, recovery_wait=wait_fixed(1.0)) as (
        proxy, guard, client,
    ):  # fmt: skip
        await healthy(client)
        fault = proxy.drop_replies(b"in-flight")
        other = guard.client()
        await healthy(other)
        waiting = asyncio.create_task(raised(client.set("k", "in-flight")))
        await until(lambda: fault.fired)
        assert valkey_rig.admin.get("k") == "in-flight"
        guard.breaker.force_open()
        await guard.client().set("fills", "the journal")
        proxy.cut_all()
        error = await asyncio.wait_for(waiting, 2.0)
        assert isinstance(error, OutcomeUnknown), error
        fault.end()
        await guard.reopened()


@pytest.mark.parametrize("how", ["idle", "in flight"])
async def test_a_connection_that_is_lost_under_watch(valkey_rig: Rig, how: str) -> None:
    """The transaction fails, as in redis-py: on a new connection nothing would be watched."""
    async with proxied(valkey_rig, failure_threshold=1000) as (proxy, _, client):
        await client.set("k", "1")
        async with client.pipeline() as pipe:
            await pipe.watch("k")
            if how == "idle":
                assert await pipe.get("k") == b"1"
                proxy.cut_all()
                await until(lambda: not proxy.open_links())
                await asyncio.sleep(0.01)
                valkey_rig.admin.set("k", "2")  # which nobody watches any more
                pipe.multi()
                pipe.set("k", "3")
                with pytest.raises((WatchError, ConnectionError)):
                    await pipe.execute()
                assert valkey_rig.admin.get("k") == "2"
            else:
                proxy.cut_on_reply(b"GET", times=1)
                with pytest.raises((WatchError, ConnectionError)):
                    await pipe.get("k")


async def test_a_cancelled_probe_gives_its_permit_back(valkey_rig: Rig) -> None:
    """As when its event loop ends: the next probe must not wait until the lease is over."""
    async with proxied(valkey_rig, probe_timeout=2.0) as (proxy, guard, client):
        breaker = guard.breaker
        await healthy(client)
        proxy.half_open()
        proxy.cut_all()
        assert await client.set("k", "queued") is True
        await until(lambda: breaker.state == "HALF-OPEN")
        probe = breaker._recovery
        assert probe is not None
        await end(probe)  # one cancellation alone may be swallowed: see there
        assert breaker.state == "OPEN"
        proxy.half_open(False)
        breaker.start_recovery()
        await guard.recovered(1.0)
        assert valkey_rig.admin.get("k") == "queued"


async def test_what_has_not_left_this_process_never_does(valkey_rig: Rig) -> None:
    """Most of 30 MB waits in this process when their sender gives up."""
    async with guarded(valkey_rig.port, failure_threshold=1000) as (_, client):
        await healthy(client)
        valkey_rig.freeze()
        big = asyncio.create_task(client.rpush("l", b"x" * 30_000_000))
        await asyncio.sleep(0.02)
        big.cancel()
        await asyncio.wait({big})
        valkey_rig.thaw()
        # Only our admin's connection is left: all that it was sent has been dealt with.
        await until(lambda: valkey_rig.admin.info("clients")["connected_clients"] == 1)
        assert valkey_rig.admin.llen("l") == 0
