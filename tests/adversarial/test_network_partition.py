"""The network is cut, flaps, goes silent or one-way: each attack over each kind of client."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from resilient_redis import CommandRefused
from tests.contract.helpers import CLOSED, KEY, OPEN, VALUE, outcome
from tests.support.flavours import RedisCircuitBreaker

from .conftest import Make
from .worlds import FAKE, SCRIPTED, THRESHOLD, Fate, World, fate_of, gather

# Wider than DESIGN's bounds by what two busy cores add to them.
SLACK = 0.5


# -- 1. an acknowledged write is applied exactly once, in order, over nothing newer ---------------


async def test_what_is_acknowledged_is_applied_once_and_in_order(world: World) -> None:
    for n in range(5):
        await world.push(f"before-{n}")
    await world.opened()
    for n in range(50):
        assert await world.push(f"cut-{n}") is Fate.ACKNOWLEDGED
    await world.healed()
    for n in range(5):
        assert await world.push(f"after-{n}") is Fate.ACKNOWLEDGED
    await world.check_row()
    assert len(await world.row()) == 60


async def test_flapping(world: World) -> None:
    """Ten short cuts under five writers, who never stop."""
    stop = False

    async def work(writer: int) -> None:
        number = 0
        while not stop:
            await world.push(f"{writer}-{number}", f"{KEY}-{writer}")
            number += 1
            await asyncio.sleep(0.001)

    writers = [asyncio.create_task(work(n)) for n in range(5)]
    for _ in range(10):
        await asyncio.sleep(0.01)
        await world.cut()
        await asyncio.sleep(0.01)
        await world.heal()
        world.probe()  # the next call probes
    stop = True
    await asyncio.gather(*writers)
    await world.healed()
    told = world.told
    assert len(told) > 100
    for writer in range(5):
        world.told = [(value, fate) for value, fate in told if value.startswith(f"{writer}-")]
        await world.check_row(f"{KEY}-{writer}")


async def test_a_queued_write_never_lands_on_a_newer_one(world: World) -> None:
    """Everybody writes again in the moment in which the network heals."""
    await world.opened()
    keys = [f"{KEY}-{n}" for n in range(40)]
    await gather([world.client.set(key, "older") for key in keys])
    await world.heal()
    world.probe()
    newer = await gather([world.client.set(key, "newer") for key in keys])
    assert [fate_of(answer) for answer in newer] == [Fate.ACKNOWLEDGED] * len(keys)
    await world.recovered()
    assert [await world.truth.get(key) for key in keys] == [b"newer"] * len(keys)


async def test_an_older_write_never_follows_its_own_delete(world: World) -> None:
    await world.opened()
    for n in range(20):
        await world.client.set(f"{KEY}-{n}", VALUE)
        await world.client.delete(f"{KEY}-{n}")
    await world.healed()
    assert [await world.truth.get(f"{KEY}-{n}") for n in range(20)] == [None] * 20


async def test_each_of_the_calls_that_meet_the_cut_is_told_the_truth(world: World) -> None:
    """Nobody knows yet: 30 writers are on their way as the network goes."""
    await world.push("before")
    at_once = asyncio.gather(*(world.push(f"{n}") for n in range(30)))
    await asyncio.sleep(0)
    await world.cut()
    await at_once
    await world.opened()
    await world.healed()
    await world.check_row(ordered=False)


async def test_the_queue_survives_many_cuts_during_its_replay(make_world: Make) -> None:
    """Over an object: the server dies at every third call, for as long as it takes."""
    world: World = await make_world(SCRIPTED)
    await world.opened()
    for n in range(30):
        await world.client.set(f"{KEY}-{n % 7}", n)
    scripted = world.scripted
    assert scripted is not None
    calls = 0

    def every_third(method: str, args: tuple[Any, ...]) -> str:
        nonlocal calls
        calls += 1
        return "away" if calls % 3 == 0 else "ok"

    scripted.fate = every_third
    await world.recovered()
    written = [(key, value) for method, key, value in scripted.effects if method == "set"]
    assert written == [(f"{KEY}-{n % 7}", n) for n in range(30)], "not once each, or not in order"


# -- 2. who gets an error gets no effect, and nobody wins what nobody granted ---------------------


async def test_what_is_refused_is_never_applied(world: World) -> None:
    await world.opened()
    refused = [
        await outcome(world.client.set(KEY, VALUE, nx=True)),
        await outcome(world.client.incr(f"{KEY}-n")),
        await outcome(world.client.ping()),
    ]
    assert [type(error) for error in refused] == [CommandRefused] * 3
    assert world.breaker.pending == 0
    await world.healed()
    assert await world.truth.exists(KEY, f"{KEY}-n") == 0


async def test_only_the_server_grants_a_lock(world: World) -> None:
    """Twenty want one lock while the network comes and goes: a success is the server's own."""
    won: list[int] = []

    async def want(who: int) -> None:
        for _ in range(20):
            answer = await outcome(world.client.set(KEY, f"{who}", nx=True))
            if answer and not isinstance(answer, Exception):
                won.append(who)
            await asyncio.sleep(0.002)

    contenders = [asyncio.create_task(want(n)) for n in range(20)]
    await world.cut()
    await asyncio.sleep(0.02)
    await world.heal()
    await asyncio.gather(*contenders)
    await world.healed()
    holder = await world.truth.get(KEY)
    assert len(won) <= 1
    assert not won or holder == b"%d" % won[0]


# -- 3. a healthy server is up, a dead one holds up nobody ----------------------------------------


async def test_after_the_cut_all_is_as_before(world: World) -> None:
    for _ in range(3):
        await world.opened()
        await world.client.set(KEY, VALUE)
        await world.healed()
        assert (world.breaker.state, world.breaker.failures, world.breaker.pending) == (
            CLOSED,
            0,
            0,
        )
        assert await world.client.get(KEY) == VALUE.encode()
        assert await world.client.incr(f"{KEY}-n") > 0
    assert world.breaker.dead_letters == ()
    assert await world.truth.get(f"{KEY}-n") == b"3"


async def test_a_short_cut_below_the_threshold_trips_nothing(make_world: Make) -> None:
    world: World = await make_world(FAKE)
    for _ in range(5):
        await world.cut()
        for n in range(1, THRESHOLD):
            assert isinstance(await outcome(world.client.get(KEY)), Exception)
            assert world.breaker.failures == n
        await world.heal()
        assert await world.client.get(KEY) is None
        assert (world.breaker.state, world.breaker.failures) == (CLOSED, 0)


async def test_nobody_waits_longer_than_the_deadline(world: World) -> None:
    """Also those who are on their way when it happens."""
    await world.push("before")
    took = []

    async def ask(n: int) -> None:
        for _ in range(5):
            started = time.monotonic()
            await outcome(world.client.get(KEY) if n % 2 else world.client.set(KEY, VALUE))
            took.append(time.monotonic() - started)

    crowd = asyncio.gather(*(ask(n) for n in range(20)))
    await world.cut()
    await crowd
    assert max(took) < world.breaker.deadline + SLACK
    await world.healed()


async def test_who_is_alone_does_not_sleep_between_his_attempts(server: World) -> None:
    """Nobody else's failure opens the breaker for him: five refusals take him milliseconds."""
    await server.push("before")
    await server.cut()
    started = time.monotonic()
    assert await server.client.get(f"{KEY}-other") is None
    assert time.monotonic() - started < server.breaker.deadline / 2
    await server.healed()


async def test_a_silent_network_holds_up_nobody(server: World) -> None:
    """Nothing is refused and nothing is closed: the bytes just go nowhere."""
    proxy = server.proxy
    assert proxy is not None
    await server.push("before")
    await gather([server.client.get(f"{KEY}-other") for _ in range(20)])  # as many connections
    proxy.half_open()
    hole = proxy.stall(direction=None)
    started = time.monotonic()
    answers = await gather([server.client.get(f"{KEY}-other") for _ in range(20)])
    assert time.monotonic() - started < 2 * server.breaker.deadline + SLACK
    assert answers == [None] * 20
    assert server.breaker.state != CLOSED
    assert await server.push("queued") is Fate.ACKNOWLEDGED
    proxy.half_open(False)
    hole.end()
    await server.recovered()
    await server.check_row()


async def test_a_one_way_network_applies_nothing_twice(server: World) -> None:
    """Requests arrive, replies do not; and what went out late arrives late."""
    proxy = server.proxy
    assert proxy is not None
    await server.push("before")
    fault = proxy.drop_replies()
    # The client's own timeout is longer than this; who hangs is cut off when the cut is total.
    calls = [asyncio.create_task(server.push(f"{n}")) for n in range(10)]
    await asyncio.sleep(0.05)
    await proxy.refuse()
    proxy.cut_all()
    await asyncio.gather(*calls)
    fault.end()
    await server.healed()
    await server.check_row(ordered=False)
    assert Fate.PERHAPS in {fate for _, fate in server.told}


@pytest.mark.parametrize("how", ["killed", "frozen", "killed at once again"])
async def test_the_server_itself_goes(server: World, how: str) -> None:
    rig = server.rig
    assert rig is not None
    for n in range(3):
        await server.push(f"before-{n}")
    if how == "frozen":
        rig.freeze()
    else:
        rig.kill()
    while server.breaker.state == CLOSED:
        assert await server.client.get(f"{KEY}-other") is None
    for n in range(200):
        assert await server.push(f"cut-{n}") is Fate.ACKNOWLEDGED
    if how == "frozen":
        rig.thaw()
    else:
        rig.restart()
    if how == "killed at once again":
        await asyncio.sleep(0.01)  # a probe or a replay is under way
        rig.restart()
    await server.recovered(timeout=10.0)
    await server.check_row()


# -- 5. nobody's data are destroyed by our own neutral answer -------------------------------------


async def test_a_default_never_goes_over_what_is_there(world: World) -> None:
    """`value = get(k) or default; set(k, value)` while cut off, and again while it heals."""
    await world.truth.set(KEY, "precious")
    await world.opened()

    async def load_and_store() -> None:
        for _ in range(2):
            value = await outcome(world.client.get(KEY))
            if value is None:
                await outcome(world.client.set(KEY, "default"))

    await asyncio.gather(*(load_and_store() for _ in range(5)))
    await world.heal()
    world.probe()
    await asyncio.gather(*(load_and_store() for _ in range(5)))
    await world.recovered()
    assert await world.truth.get(KEY) == b"precious"


async def test_who_was_told_of_an_empty_key_before_it_healed_is_asked_after(world: World) -> None:
    """Read while cut off, written after: refused once, with the reason."""
    await world.truth.set(KEY, "precious")
    await world.opened()
    assert await world.client.get(KEY) is None
    await world.healed()
    refused = await outcome(world.client.set(KEY, "default"))
    assert isinstance(refused, CommandRefused)
    assert "read it again" in refused.reason
    assert await world.truth.get(KEY) == b"precious"
    assert await world.client.get(KEY) == b"precious"
    assert await world.client.set(KEY, "informed") is True
    assert await world.truth.get(KEY) == b"informed"


# -- the end --------------------------------------------------------------------------------------


async def test_closing_while_cut_off_says_what_is_left(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.opened()
    for n in range(7):
        await world.client.set(f"{KEY}-{n}", VALUE)
    started = time.monotonic()
    assert await world.breaker.aclose(drain_timeout=0.05) == 7
    assert time.monotonic() - started < 0.05 + SLACK
    assert "closed with 7 acknowledged writes unapplied" in caplog.text


async def test_closing_after_it_healed_leaves_nothing(world: World) -> None:
    await world.opened()
    for n in range(7):
        await world.client.set(f"{KEY}-{n}", VALUE)
    await world.heal()
    world.probe()
    assert await world.breaker.aclose(drain_timeout=0.8) == 0
    assert await world.truth.exists(*(f"{KEY}-{n}" for n in range(7))) == 7


async def test_forced_open_is_a_cut_too(world: World) -> None:
    breaker: RedisCircuitBreaker = world.breaker
    breaker.force_open()
    world.probe()
    assert await world.client.get(KEY) is None
    assert await world.push("forced") is Fate.ACKNOWLEDGED
    await asyncio.sleep(0.03)
    assert breaker.state == OPEN
    assert await world.truth.exists(KEY) == 0
    breaker.reset()
    await world.recovered()
    await world.check_row()
