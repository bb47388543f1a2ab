"""A command was sent and its reply is lost: repeated if that is safe, else `OutcomeUnknown`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import TimeoutError

from resilient_redis import OutcomeUnknown
from tests.contract.helpers import (
    CLOSED,
    KEY,
    VALUE,
    Client,
    from_url,
    guarded,
    outcome,
    recovered,
    until,
)
from tests.support.faults import DOWN, FIN, RST, Fault
from tests.support.flavours import RedisCircuitBreaker
from tests.support.proxy import ChaosProxy
from tests.support.servers import Rig

if TYPE_CHECKING:
    from tests.support.proxy import Link

pytestmark = pytest.mark.server


class CutAfter(Fault):
    """Lets so many lines of the replies pass, then ends the connection."""

    def __init__(self, lines: int, how: str, match: bytes) -> None:
        super().__init__(match, DOWN, times=1)
        self.lines = lines
        self.how = how

    async def act(self, link: Link, direction: str, chunk: bytes) -> bytes:
        passed = b"".join(chunk.splitlines(keepends=True)[: self.lines])
        self.lines -= passed.count(b"\r\n")
        link.write(DOWN, passed)
        if self.lines <= 0:
            if link.client.transport.get_write_buffer_size() == 0:
                await asyncio.sleep(0.005)  # an RST takes with it what was not read
            self.fire()
            link.close(self.how)
        return b""


@pytest.fixture
async def proxy(rig: Rig) -> AsyncIterator[ChaosProxy]:
    async with ChaosProxy(rig.port) as proxy:
        yield proxy


UNSAFE: dict[str, tuple[Callable[[Client], Any], str]] = {
    "INCRBY": (lambda c: c.incr("n"), "incrby"),
    "RPUSH": (lambda c: c.rpush("n", VALUE), "rpush"),
    "XADD": (lambda c: c.xadd("n", {"field": VALUE}), "xadd"),
    "LPOP": (lambda c: c.lpop("n"), "lpop"),
    "EVAL": (lambda c: c.eval("return redis.call('incr', KEYS[1])", 1, "n"), "eval"),
}


@pytest.mark.parametrize("how", ["cut", "silence"])
@pytest.mark.parametrize("name", UNSAFE)
async def test_it_runs_once_and_nobody_claims_to_know(
    proxy: ChaosProxy, rig: Rig, name: str, how: str
) -> None:
    """Every reply is lost, redis-py would retry ten times: stock runs an INCR 11 times."""
    call, command = UNSAFE[name]
    breaker = RedisCircuitBreaker()
    async with guarded(proxy.port, breaker, socket_timeout=0.1) as client:
        await client.echo("warm")  # the first connection of all tries EVAL by itself
        before = rig.calls(command)
        if how == "cut":
            fault = proxy.cut_on_reply(name.encode(), times=None)
        else:
            fault = proxy.drop_replies(name.encode())
        with pytest.raises(OutcomeUnknown) as raised:
            await call(client)
        assert raised.value.replies == ()
        assert raised.value.command == name
        assert isinstance(raised.value, TimeoutError)  # what handlers for outages catch
        fault.end()
        assert rig.calls(command) - before == 1
        assert (breaker.state, breaker.pending) == (CLOSED, 0)
        assert await client.echo(VALUE) == VALUE.encode()


@pytest.mark.parametrize("how", [FIN, RST])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
async def test_a_pipeline_that_dies_after_k_replies(
    proxy: ChaosProxy, rig: Rig, k: int, how: str
) -> None:
    breaker = RedisCircuitBreaker()
    async with guarded(proxy.port, breaker) as client:
        await client.echo("warm")
        before = rig.calls("incrby"), rig.calls("set")
        # The replies are +OK, :1, and $… with its value of two lines; after 3 it is half there.
        fault = proxy.add(CutAfter(k, how, b"INCRBY"))
        pipe = client.pipeline(transaction=False).set(KEY, VALUE).incr("n").get(KEY)
        says = await outcome(pipe.execute())
        assert fault.fired == 1
        assert rig.calls("incrby") - before[0] == 1
        assert rig.calls("set") - before[1] == 1
        if k < 2:
            assert isinstance(says, OutcomeUnknown)
            assert says.command == "INCRBY"
            assert says.replies == (b"OK",)[:k]
        else:  # what is left is a read, which is repeated
            assert says == [True, 1, VALUE.encode()]
        assert await client.get("n") == b"1"
        assert breaker.state == CLOSED


SAFE: dict[str, tuple[Callable[[Client], Any], Any]] = {
    "GET": (lambda c: c.get(KEY), VALUE.encode()),
    "SET": (lambda c: c.set(KEY, "new"), True),
    "HSET": (lambda c: c.hset("hash", "field", VALUE), 0),  # the first time it was 1
    "DEL": (lambda c: c.delete(KEY), 0),
    "KEYS": (lambda c: c.keys("nothing*"), []),
}


@pytest.mark.parametrize("make", [guarded, from_url])
@pytest.mark.parametrize("name", SAFE)
async def test_what_is_safe_twice_is_repeated(
    proxy: ChaosProxy, rig: Rig, name: str, make: Any
) -> None:
    call, reply = SAFE[name]
    breaker = RedisCircuitBreaker()
    async with make(proxy.port, breaker) as client:
        await client.set(KEY, VALUE)
        links = len(proxy.links)
        fault = proxy.cut_on_reply(b"\r\n%b\r\n" % name.encode(), times=1)
        assert await call(client) == reply
        assert (fault.fired, len(proxy.links)) == (1, links + 1)
        assert (breaker.state, breaker.failures) == (CLOSED, 0)


async def test_a_set_of_which_every_reply_is_lost_is_queued(proxy: ChaosProxy, rig: Rig) -> None:
    """It may run several times, which changes nothing; then it is in the journal, once."""
    breaker = RedisCircuitBreaker(recovery_timeout=0.1)
    async with from_url(proxy.port, breaker) as client:
        await client.echo("warm")
        fault = proxy.cut_on_reply(VALUE.encode(), times=None)
        assert await client.set(KEY, VALUE) is True
        assert (breaker.state != CLOSED, breaker.pending) == (True, 1)
        fault.end()
        await recovered(breaker)
        assert await client.get(KEY) == VALUE.encode()
        assert breaker.dead_letters == ()


async def test_a_write_that_was_cut_off_does_not_land_later(proxy: ChaosProxy, rig: Rig) -> None:
    """Held back in the network while its caller gives up; the next write is the last word."""
    breaker = RedisCircuitBreaker(deadline=0.3)
    async with guarded(proxy.port, breaker, socket_timeout=0.1) as client:
        await client.echo("warm")
        stall = proxy.stall(b"old")
        with pytest.raises(OutcomeUnknown):
            await client.rpush("list", "old")
        assert await client.rpush("list", "new") == 1
        stall.end()
        await until(lambda: len(proxy.open_links()) <= 1)
        assert await client.lrange("list", 0, -1) == [b"new"]
