"""What the simulation's takers and listeners have found, each as a test of its own."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from resilient_redis.asyncio import OutcomeUnknown
from resilient_redis.events import Event, SubscriptionGap
from tests.sim.cancelling import Scenario, run
from tests.sim.pubsub import publish
from tests.sim.world import Cut, World


def ends_well(scenario: Scenario) -> None:
    found = run(World, scenario, 0, Cut())
    assert not found.wrong, "\n".join(found.wrong)


def test_a_subscription_gap_begins_where_the_last_message_was_heard() -> None:
    """It began where the outage was noticed, and what was lost before that was in no gap."""

    async def scenario(w: World) -> None:
        gaps: list[Event] = []
        w.breaker.add_observer(gaps.append)
        pubsub = w.client.pubsub()
        await pubsub.subscribe("news")
        w.check((await pubsub.get_message(timeout=1.0))["type"] == "subscribe", "not subscribed")
        publish(w.server, b"news", b"heard")
        w.check((await pubsub.get_message(timeout=1.0))["data"] == b"heard", "not heard")
        await asyncio.sleep(0.2)
        w.net.stall(w.net.live())
        w.net.swallowing = True
        publish(w.server, b"news", b"lost")
        lost = w.loop.time()
        await asyncio.sleep(1.0)
        w.breaker.force_open()
        w.breaker.reset()
        w.net.swallowing = False
        await pubsub.get_message(timeout=1.0)
        (gap,) = [event for event in gaps if isinstance(event, SubscriptionGap)]
        w.check(gap.start <= lost <= gap.end, f"{lost} is not in {gap}")
        await pubsub.aclose()

    ends_well(scenario)


def test_a_pop_that_an_outage_came_over_is_not_sent_again_by_redis_py() -> None:
    """At `socket_timeout` it raised redis-py's TimeoutError, which redis-py's retry repeats: the
    element of the first try was nobody's, and nobody was told.
    """

    async def scenario(w: World) -> None:
        retry = Retry(NoBackoff(), 3)
        client = w.make_client(retry=retry, socket_timeout=1.0)
        await client.rpush("queue", "a", "b")
        w.server.frozen = True
        pop = w.loop.create_task(client.blpop("queue", 5.0))
        await w.put()  # nobody answers: the breaker opens
        w.check(w.breaker.state == "OPEN", "still closed")
        w.at(1.1, w.server.thaw)
        await asyncio.wait({pop})
        w.check(isinstance(pop.exception(), OutcomeUnknown), f"{pop}")
        w.check(len(w.server.store.taken) <= 1, f"taken: {w.server.store.taken}")

    ends_well(scenario)


def test_a_pop_whose_own_time_is_over_has_lost_its_reply() -> None:
    """A BLPOP of 0.1 s that has no answer after 0.5 s does not wait: its reply was lost. BLMOVE
    likewise, which is refused during an outage, and nevertheless may have run before.
    """

    async def scenario(w: World) -> None:
        retry = Retry(NoBackoff(), 3)
        client = w.make_client(retry=retry, socket_timeout=0.5)
        await client.rpush("queue", "a", "b", "c", "d")
        for call in (client.blpop("queue", 0.1), client.blmove("queue", "moved", 0.1)):
            await client.get("warm")
            w.net.stall(w.net.live(), up=False)
            error = (await asyncio.wait({w.loop.create_task(call)}))[0].pop().exception()
            w.check(isinstance(error, OutcomeUnknown), f"{error!r}")
            w.check(w.breaker.failures == 1, "the server owes it a reply like any other")
            w.check(w.breaker.state == "CLOSED", "the server lives")
        w.check(len(w.server.store.taken) == 2, f"taken: {w.server.store.taken}")

    ends_well(scenario)


def test_a_gap_is_told_also_where_who_subscribes_has_connected_anew() -> None:
    """Not the reader, but PING or SUBSCRIBE found the socket closed: nobody was told of the gap."""

    async def scenario(w: World) -> None:
        gaps: list[Event] = []
        w.breaker.add_observer(gaps.append)
        pubsub = w.client.pubsub()
        await pubsub.subscribe("news")
        w.check((await pubsub.get_message(timeout=1.0))["type"] == "subscribe", "not subscribed")
        for session in list(w.server.sessions.values()):
            w.server.drop(session)
        await asyncio.sleep(0.1)
        lost = w.loop.time()
        await pubsub.subscribe("other")
        await pubsub.get_message(timeout=1.0)
        found = [event for event in gaps if isinstance(event, SubscriptionGap)]
        w.check(len(found) == 1 and found[0].start <= lost <= found[0].end, f"{found}")
        await pubsub.aclose()

    ends_well(scenario)


def test_a_first_connection_reads_from_a_server_that_takes_no_writes() -> None:
    """What asks for the rights was refused, and that was raised to whoever had only read."""

    async def scenario(w: World) -> None:
        w.server.mode = "READONLY"
        w.check(await w.client.get("k") is None, "GET")
        w.check(not w.breaker.rights_known, "known")
        w.server.mode = ""
        await w.client.connection_pool.disconnect()
        w.check(await w.client.set("k", "v"), "SET")
        w.check(w.breaker.rights_known, "asked again")

    ends_well(scenario)


@pytest.mark.parametrize("readers", [0, 1, 10])
def test_who_waits_for_the_server_is_not_kept_from_it_for_as_long_as_it_was_away(
    readers: int,
) -> None:
    """With the defaults the wait between two probes has grown to 3.2 s or more after 7 s, and so
    long, at most, the server was back and nobody knew. Traffic asks for a probe every 0.5 s; more
    of it asks for no more. Without traffic the wait grows as before.
    """

    async def scenario(w: World) -> None:
        await w.outage()
        began, live = w.loop.time(), list[float]()
        probes = w.breaker.counters["probes"]

        async def reader() -> None:
            for _ in range(2000):
                if await w.client.get("warm") is not None:
                    live.append(w.loop.time())
                    return
                await asyncio.sleep(0.01)

        reading = [w.loop.create_task(reader()) for _ in range(readers)]
        await asyncio.sleep(7.0)
        in_it = w.breaker.counters["probes"] - probes
        w.back()
        back = w.loop.time()
        if reading:
            await asyncio.wait(reading)
            w.check(max(live) - back < 0.6, f"known after {max(live) - back:.2f} s")
            w.check(12 <= in_it <= 20, f"{in_it} probes in {back - began:.1f} s")
        else:
            w.check(in_it <= 9, f"{in_it} probes in {back - began:.1f} s")

    found = run(partial(World, recovery_timeout=10.0), scenario, 0, Cut())
    assert not found.wrong, "\n".join(found.wrong)
