"""Subscribers of every kind through outages: what tests/contract/test_pubsub.py leaves open."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from redis._parsers import _AsyncRESP2Parser
from redis.asyncio.client import PubSub

from resilient_redis.asyncio import CommandRefused, ResilientRedis
from resilient_redis.events import SubscriptionGap
from tests.breadth.story import (
    QUICK,
    Place,
    by_class,
    by_facade,
    every_way,
    goes_down,
    in_use,
    nothing_is_left,
)
from tests.contract.helpers import OPEN, events_of, outcome, recovered, until
from tests.contract.subscribers import listening, published
from tests.support.servers import Rig
from tests.surface.helpers import aside

pytestmark = pytest.mark.server

# Not in redis-py 6: there the sharded part of each test is left out.
SHARDED = hasattr(PubSub, "ssubscribe")


async def spublished(rig: Rig, channel: str, message: str) -> None:
    """Until a subscriber of a shard is there to hear it."""
    if SHARDED:
        await until(lambda: rig.admin.execute_command("SPUBLISH", channel, message))


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "TLS": ("rediss", {}),
    "TLS, RESP2": ("rediss", {"protocol": 2}),
    "Unix socket": ("unix", {}),
    "RESP2, Python parser": ("url", {"protocol": 2, "parser_class": _AsyncRESP2Parser}),
    "RESP3, Python parser": ("url", {"protocol": 3, "parser_class": _AsyncRESP2Parser}),
    "decode_responses": ("url", {"decode_responses": True}),
    "health checks": ("url", {"health_check_interval": 0.01}),
    "health checks, RESP2": ("url", {"health_check_interval": 0.01, "protocol": 2}),
    "short socket_timeout": ("url", {"socket_timeout": 0.3}),
    "single_connection_client": ("url", {"single_connection_client": True}),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_hears_on(place: Place, kind: str) -> None:
    scheme, options = KINDS[kind]
    if scheme == "rediss":
        options = {"ssl_ca_certs": place.authority, **options}
    rig, text = place.rig, "decode_responses" in options

    def data(value: str) -> Any:
        return value if text else value.encode()

    async with ResilientRedis.from_url(getattr(place, scheme), **{**QUICK, **options}) as client:
        breaker = client.breaker
        events = events_of(breaker)
        pubsub = client.pubsub()
        await pubsub.subscribe("a")
        await pubsub.psubscribe("p*")
        shards = [("smessage", data("x"))] if SHARDED else []
        if SHARDED:
            await pubsub.ssubscribe("s")
        async with listening(pubsub) as heard:
            for n in range(3):
                before = len(heard)
                await published(rig, "a", str(n))
                await published(rig, "pattern", str(n))
                await spublished(rig, "s", "x")
                # While it listens, others work on the client.
                assert await client.echo(str(n)) == data(str(n))
                wanted = [("message", data(str(n))), ("pmessage", data(str(n))), *shards]
                end = before + len(wanted)
                await until(lambda end=end: len(heard) >= end)  # type: ignore[misc]  # a default that binds
                assert heard[before:] == wanted
                if n < 2:
                    await goes_down(rig, client, breaker)
                    rig.restart()
                    await recovered(breaker)
        gaps = [event for event in events if isinstance(event, SubscriptionGap)]
        assert [gap.channels for gap in gaps] == [(b"a", b"p*", b"s")[: 2 + SHARDED]] * 2
        assert not in_use(client)
    await nothing_is_left(rig)


@every_way
async def test_all_six_commands_while_it_is_away(rig: Rig, way: Any) -> None:
    """Each of them is what redis-py would do as it connects again; none is queued or refused."""
    async with way(rig.url) as (client, breaker):
        events = events_of(breaker)
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        takes = [
            (pubsub.subscribe, pubsub.unsubscribe, "a", "b"),
            (pubsub.psubscribe, pubsub.punsubscribe, "p*", "q*"),
        ]
        if SHARDED:
            takes.append((pubsub.ssubscribe, pubsub.sunsubscribe, "s", "t"))
        for subscribe, _, first, _ in takes:
            await subscribe(first, f"gone-{first}")
        await pubsub.get_message(timeout=0.1)
        await goes_down(rig, client, breaker)
        for subscribe, unsubscribe, first, second in takes:
            await unsubscribe(f"gone-{first}")
            await subscribe(second)
        assert breaker.pending == 0
        async with listening(pubsub) as heard:
            rig.restart()
            wanted = [("message", "a"), ("message", "b"), ("pmessage", "p1"), ("pmessage", "q1")]
            for _, channel in wanted:
                await published(rig, channel, channel)
            if SHARDED:
                wanted += [("smessage", "s"), ("smessage", "t")]
            for shard in ("s", "t"):
                await spublished(rig, shard, shard)
            await until(lambda: len(heard) == len(wanted))
            assert sorted(heard) == [(kind, channel.encode()) for kind, channel in wanted]
            for channel in ("gone-a", "gone-p1"):
                assert rig.admin.publish(channel, "x") == 0
            assert rig.admin.execute_command("SPUBLISH", "gone-s", "x") == 0
        (gap,) = [event for event in events if isinstance(event, SubscriptionGap)]
        names = sorted(name for _, _, *both in takes for name in both)
        assert gap.channels == tuple(name.encode() for name in names)


async def test_who_unsubscribes_from_everything_while_it_is_away(rig: Rig) -> None:
    async with by_class(rig.url) as (client, breaker):
        pubsub = client.pubsub()
        await pubsub.subscribe("a")
        await pubsub.psubscribe("p*")
        await pubsub.get_message(timeout=0.1)
        await goes_down(rig, client, breaker)
        await pubsub.unsubscribe()
        await pubsub.punsubscribe()
        rig.restart()
        await recovered(breaker)
        await pubsub.get_message(timeout=0.1)
        assert rig.admin.pubsub_numpat() == 0
        assert rig.admin.publish("a", "x") == 0
        # It can be used again, and given back.
        await pubsub.subscribe("b")
        async with listening(pubsub) as heard:
            await published(rig, "b", "1")
            await until(lambda: heard[-1:] == [("message", b"1")])
        assert await client.echo("in step") == b"in step"


@every_way
async def test_run_with_handlers(rig: Rig, way: Any) -> None:
    """`run` goes on through outages without an exception handler; a handler's own error is its."""
    async with way(rig.url) as (client, breaker):
        heard: list[bytes] = []
        errors: list[BaseException] = []

        async def handle(message: dict[str, Any]) -> None:
            heard.append(message["data"])
            if message["data"] == b"poison":
                raise ValueError("the handler's own")

        async def failed(error: BaseException, pubsub: Any) -> None:
            errors.append(error)

        pubsub = client.pubsub()
        await pubsub.subscribe(a=handle)
        if SHARDED:
            await pubsub.ssubscribe(s=handle)
        task = asyncio.create_task(pubsub.run(exception_handler=failed, poll_timeout=0.05))
        for n in range(3):
            await published(rig, "a", str(n))
            await spublished(rig, "s", "x")
            wanted = [str(n).encode(), b"x"][: 1 + SHARDED]
            await until(lambda wanted=wanted: heard[-len(wanted) :] == wanted)  # type: ignore[misc]  # a default that binds
            if n < 2:
                await goes_down(rig, client, breaker)
                rig.restart()
                await recovered(breaker)
        assert errors == []
        await published(rig, "a", "poison")
        await until(lambda: errors)
        assert [type(error) for error in errors] == [ValueError]
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task  # it was asked to end
        await pubsub.aclose()
        assert not in_use(client)


async def test_each_subscriber_is_told_of_his_own_gap(rig: Rig) -> None:
    async with by_facade(rig.url) as (client, breaker):
        events = events_of(breaker)
        subscribers = [client.pubsub() for _ in range(5)]
        for n, each in enumerate(subscribers):
            await each.subscribe(f"c{n}")
        async with contextlib.AsyncExitStack() as stack:
            heard = [await stack.enter_async_context(listening(each)) for each in subscribers]
            for n in range(5):
                await published(rig, f"c{n}", "1")
            await until(lambda: all(heard))
            await goes_down(rig, client, breaker)
            rig.restart()
            for n in range(5):
                await published(rig, f"c{n}", "2")
            await until(lambda: all(len(each) == 2 for each in heard))
            await recovered(breaker)
        gaps = [event for event in events if isinstance(event, SubscriptionGap)]
        assert sorted(gap.channels for gap in gaps) == [(b"c%d" % n,) for n in range(5)]
        assert all(gap.start < gap.end for gap in gaps)


@every_way
async def test_a_subscriber_is_closed_while_it_is_away(rig: Rig, way: Any) -> None:
    """Its connection goes back to the pool, is an ordinary one again, and subscribes to nothing."""
    async with way(rig.url) as (client, breaker):
        events = events_of(breaker)
        pubsub, waiting = client.pubsub(), client.pubsub()
        await pubsub.subscribe("a")
        await waiting.subscribe("a")
        await goes_down(rig, client, breaker)
        listener = asyncio.create_task(waiting.get_message(timeout=None))
        await asyncio.sleep(0)
        await pubsub.aclose()
        listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listener  # it was asked to end
        await waiting.aclose()
        assert not in_use(client)
        assert await aside(client.get, "k") is None
        assert await client.rpush("l", 1) == "OK"
        rig.restart()
        await recovered(breaker)
        assert rig.admin.publish("a", "x") == 0
        results = await asyncio.gather(*(client.echo(str(n)) for n in range(10)))
        assert results == [str(n).encode() for n in range(10)]
        assert not [event for event in events if isinstance(event, SubscriptionGap)]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_ping_and_what_a_subscriber_may_not(rig: Rig, protocol: int) -> None:
    async with by_facade(rig.url, protocol=protocol) as (client, breaker):
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe("a")
        await pubsub.get_message(timeout=0.1)
        await pubsub.ping("hello")
        pong = await pubsub.get_message(ignore_subscribe_messages=False, timeout=1)
        assert (pong["type"], pong["data"]) == ("pong", b"hello")
        await goes_down(rig, client, breaker)
        assert await outcome(pubsub.ping("lost")) in (None, True)  # it asks to be connected
        rig.restart()
        await recovered(breaker)
        await published_after(pubsub, rig)
        await pubsub.ping("again")
        pong = None
        while pong is None or pong["type"] != "pong":
            pong = await pubsub.get_message(ignore_subscribe_messages=False, timeout=1)
        assert pong["data"] == b"again"
        await pubsub.aclose()


async def published_after(pubsub: Any, rig: Rig) -> None:
    """Polls, as a subscriber does that does other things too, until it is subscribed again."""
    for _ in range(400):
        await pubsub.get_message(timeout=0)
        if rig.admin.publish("a", "x"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has not subscribed again")


async def test_publish_reaches_nobody(rig: Rig) -> None:
    """PUBLISH and SPUBLISH say 0, which is what nobody has heard; nothing of it comes late."""
    async with by_facade(rig.url) as (client, breaker):
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe("a")
        await goes_down(rig, client, breaker)
        assert await client.publish("a", "lost") == 0
        assert await client.execute_command("SPUBLISH", "s", "lost") == 0
        with pytest.raises(CommandRefused):
            await client.pubsub_numsub("a")
        assert breaker.pending == 0
        async with listening(pubsub) as heard:
            rig.restart()
            await published(rig, "a", "1")
            await until(lambda: heard)
            assert heard == [("message", b"1")]


async def test_a_pool_that_is_disconnected_under_a_subscriber(rig: Rig) -> None:
    async with by_facade(rig.url, failure_threshold=3) as (client, breaker):
        pubsub = client.pubsub()
        await pubsub.subscribe("a")
        async with listening(pubsub) as heard:
            await published(rig, "a", "1")
            await until(lambda: len(heard) == 1)
            await client.connection_pool.disconnect()
            await published(rig, "a", "2")
            await until(lambda: len(heard) == 2)
            assert breaker.state != OPEN
