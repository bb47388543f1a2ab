"""The chaos proxy does what its methods say, to real servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support.faults import FIN, RST
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

pytest_plugins = ["tests.support.fixtures"]


@pytest.fixture
async def proxy(rig: Rig) -> AsyncIterator[ChaosProxy]:
    before = len(asyncio.all_tasks())
    async with ChaosProxy(rig.port) as proxy:
        yield proxy
    assert len(asyncio.all_tasks()) == before, "tasks were left behind"
    assert not proxy.open_links()


def client_of(proxy: ChaosProxy, timeout: float = 1.0) -> Redis:
    return Redis(port=proxy.port, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))


def command(*words: str | bytes) -> bytes:
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


async def until(what: object, timeout: float = 2.0) -> None:
    assert callable(what)
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.002)


async def test_it_passes_everything_on(proxy: ChaosProxy, rig: Rig) -> None:
    big = b"x" * 3_000_000
    async with client_of(proxy, 5.0) as client:
        await client.set("big", big)
        assert await client.get("big") == big
        assert len(proxy.links) == 1
        assert command("GET", "big") in proxy.links[0].sent
    await until(lambda: rig.connections() == 0)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_latency(proxy: ChaosProxy, direction: str) -> None:
    async with client_of(proxy) as client:
        await client.ping()
        fault = proxy.latency(0.05, direction=direction)
        started = time.monotonic()
        await client.ping()
        assert 0.045 < time.monotonic() - started < 0.5
        fault.end()
        started = time.monotonic()
        await client.ping()
        assert time.monotonic() - started < 0.04


async def test_latency_does_not_limit_the_rate(proxy: ChaosProxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.latency(0.05)
    started = time.monotonic()
    for n in range(20):
        writer.write(command("SET", "a", str(n)))
        await asyncio.sleep(0.002)
    for _ in range(20):
        assert await reader.readline() == b"+OK\r\n"
    assert 0.1 < time.monotonic() - started < 0.5, "one line, not one chunk after the other"
    writer.close()
    await writer.wait_closed()


async def test_dropped_requests_are_not_executed(proxy: ChaosProxy, rig: Rig) -> None:
    async with client_of(proxy, 0.1) as client, client_of(proxy) as other:
        await client.ping()
        fault = proxy.drop_requests(b"INCR")
        with pytest.raises(redis.TimeoutError):
            await client.incr("a")
        await other.set("b", "1")  # a connection without INCR
        assert fault.fired == 1
    assert rig.calls("incrby") == 0


async def test_dropped_replies_are_executed(proxy: ChaosProxy, rig: Rig) -> None:
    async with Redis(port=proxy.port, socket_timeout=0.05, retry=Retry(NoBackoff(), 10)) as client:
        await client.ping()
        proxy.drop_replies(b"INCR")
        with pytest.raises(redis.TimeoutError):
            await client.incr("a")
    # FACTS.md: redis-py sends it 11 times (incr() goes out as INCRBY).
    await until(lambda: rig.calls("incrby") == 11)


@pytest.mark.parametrize("how", [FIN, RST])
async def test_cut_on_reply(proxy: ChaosProxy, rig: Rig, how: str) -> None:
    async with client_of(proxy) as client:
        await client.ping()
        fault = proxy.cut_on_reply(b"INCR", how)
        with pytest.raises(redis.ConnectionError):
            await client.incr("a")
        assert fault.fired == 1
        assert await client.get("a") == b"1"
        assert await client.incr("a") == 2, "it fires once"


async def test_stalled_bytes_arrive_after_the_client_has_gone(proxy: ChaosProxy, rig: Rig) -> None:
    async with client_of(proxy, 0.1) as client:
        await client.set("a", "old")
        fault = proxy.stall(b"INCR")
        with pytest.raises(redis.TimeoutError):
            await client.incr("zombie")
        await client.set("a", "new")  # another connection, not stalled
        assert rig.admin.get("zombie") is None
        assert rig.connections() == 2, "the server still has the first one"
        fault.end()
        await until(lambda: rig.admin.get("zombie") == "1")
        await until(lambda: rig.connections() == 1)


async def test_stall_holds_both_directions_of_everything(proxy: ChaosProxy) -> None:
    async with client_of(proxy) as client:
        await client.ping()
        fault = proxy.stall(direction=None)
        waiting = asyncio.ensure_future(client.ping())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        fault.end()
        assert await waiting


async def test_trickle(proxy: ChaosProxy) -> None:
    async with client_of(proxy) as client:
        fault = proxy.trickle(1)
        await client.set("a", "v" * 500)
        assert await client.get("a") == b"v" * 500
        assert fault.fired > 0


@pytest.mark.parametrize("how", [FIN, RST])
async def test_cut_at_each_byte(proxy: ChaosProxy, rig: Rig, how: str) -> None:
    """A command is executed if and only if its last byte was forwarded."""
    batch = command("MULTI") + command("RPUSH", "l", "x") + command("EXEC")
    for k in range(len(batch) + 1):
        rig.admin.delete("l")
        fault = proxy.cut_at(k, b"*1\r\n$5\r\nMULTI", how)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(command("SET", "before", str(k)) + batch)
        try:
            await reader.read()
        except ConnectionResetError:
            assert how == RST
        writer.close()
        assert fault.fired == 1, k
        await until(lambda: rig.connections() == 0)
        assert rig.admin.get("before") == str(k)
        assert rig.admin.llen("l") == (k == len(batch)), k


async def test_cut_counts_from_the_mark_over_several_sends(proxy: ChaosProxy, rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(command("SET", "a", "1"))
    assert await reader.readline() == b"+OK\r\n"
    second, third = command("SET", "b", "1"), command("SET", "c", "1")
    fault = proxy.cut_at(len(second) + 5, how=FIN)
    writer.write(second)
    assert await reader.readline() == b"+OK\r\n"
    assert fault.fired == 0
    writer.write(third)
    assert await reader.read() == b""
    writer.close()
    assert bytes(proxy.links[0].sent_from(second)) == second + third
    assert (rig.admin.get("b"), rig.admin.get("c")) == ("1", None)


async def test_a_late_copy(proxy: ChaosProxy, rig: Rig) -> None:
    async with client_of(proxy) as client:
        await client.rpush("l", "x")
        link = await proxy.seen(b"RPUSH")
    replies = await proxy.replay_late(link.sent_from(b"*3\r\n$5\r\nRPUSH"))
    assert replies == b":2\r\n"
    assert rig.admin.lrange("l", 0, -1) == ["x", "x"]


async def test_an_injected_error(proxy: ChaosProxy, rig: Rig) -> None:
    async with client_of(proxy) as client:
        await client.ping()
        fault = proxy.inject_error("OOM no room", b"SET", times=2)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            await client.set("a", "1")
        assert await client.get("a") is None
        pipe = client.pipeline(transaction=False)
        pipe.set("a", "1")
        pipe.set("b", "2")
        results = await pipe.execute(raise_on_error=False)
        assert [type(result).__name__ for result in results] == ["OutOfMemoryError"] * 2
        assert fault.fired == 2
        assert await client.set("a", "1")


async def test_refused_and_back_on_the_same_port(proxy: ChaosProxy) -> None:
    async with client_of(proxy) as client:
        await client.ping()
        port = proxy.port
        await proxy.refuse()
        assert await client.ping(), "what is connected stays"
        assert proxy.cut_all() == 1
        with pytest.raises(redis.ConnectionError):
            await client.get("a")
        with pytest.raises(redis.ConnectionError):
            await client.get("a")
        await proxy.accept()
        assert await client.ping()
        assert proxy.port == port


async def test_half_open(proxy: ChaosProxy, rig: Rig) -> None:
    proxy.half_open()
    async with client_of(proxy, 0.1) as client:
        with pytest.raises(redis.TimeoutError):
            await client.ping()
        assert rig.connections() == 0
        proxy.half_open(False)
        assert await client.ping()


async def test_a_dead_server_behind_it(proxy: ChaosProxy, rig: Rig) -> None:
    async with client_of(proxy) as client:
        await client.ping()
        rig.kill()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                await client.get("a")
        assert proxy.refused > 0
        rig.restart()
        assert await client.ping()


async def test_cut_all_of_those_that_match(proxy: ChaosProxy) -> None:
    async with client_of(proxy) as first, client_of(proxy) as second:
        await first.set("a", "1")
        await second.get("a")
        assert proxy.cut_all(FIN, b"SET\r\n") == 1
        assert [link.open for link in proxy.links] == [False, True]


async def test_a_function_picks_and_clear_ends_all(proxy: ChaosProxy) -> None:
    async with client_of(proxy, 0.1) as first, client_of(proxy, 0.1) as second:
        await first.ping()
        await second.ping()
        fault = proxy.drop_replies(lambda link: link.number == 1)
        assert await first.ping()
        with pytest.raises(redis.TimeoutError):
            await second.ping()
        proxy.clear()
        assert fault.ended.is_set()
        assert await second.ping()


async def test_a_fault_that_breaks_is_not_silent(rig: Rig) -> None:
    proxy = await ChaosProxy(rig.port).__aenter__()
    proxy.inject_error("ERR", None)
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"*1\r\n$4\r\nPI")
    await proxy.seen(b"PI")
    await asyncio.sleep(0.01)
    writer.close()
    await writer.wait_closed()
    with pytest.raises(AssertionError, match="come whole"):
        await proxy.aclose()
