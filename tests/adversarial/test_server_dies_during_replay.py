"""The server, or the way to it, dies while the queue is being replayed over a real connection."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.contract.helpers import outcome, until

from .conftest import Make
from .worlds import SERVERS, World

pytestmark = pytest.mark.server


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize(
    "die",
    ["before EXEC", "reply of EXEC", "killed", "frozen", "trickle and cut", "again and again"],
)
async def test_the_server_dies_during_the_replay(make_world: Make, name: str, die: str) -> None:
    world: World = await make_world(name, batch_size=10)
    proxy, rig = world.proxy, world.rig
    assert proxy is not None
    assert rig is not None
    await world.opened()
    for n in range(100):
        await world.push(f"{n}")
    if die == "before EXEC":
        proxy.cut_at(60, match=b"RPUSH", times=3)
    elif die in ("reply of EXEC", "again and again"):
        proxy.cut_on_reply(b"EXEC", times=1 if die == "reply of EXEC" else 6)
    elif die == "trickle and cut":
        proxy.trickle(64, 0.0, match=b"RPUSH")
        proxy.cut_at(1500, match=b"RPUSH", how="fin", times=2)
    await proxy.accept()
    if die in ("killed", "frozen"):
        await until(lambda: world.breaker.replay.applied_count > 20)
        rig.kill() if die == "killed" else rig.freeze()
        await asyncio.sleep(0.02)
        rig.restart() if die == "killed" else rig.thaw()
    await world.recovered(timeout=10.0)
    await world.check_row()
    assert len(await world.row()) == 100


async def test_callers_during_a_replay_that_stalls(server: World) -> None:
    """The replay hangs on the wire: nobody waits longer than it may, nothing overtakes it."""
    proxy = server.proxy
    assert proxy is not None
    await server.opened()
    for n in range(20):
        await server.push(f"{n}")
    stall = proxy.stall(b"RPUSH")
    await proxy.accept()
    await until(lambda: stall.fired)
    started = time.monotonic()
    answers = await asyncio.gather(*(outcome(server.push(f"late-{n}")) for n in range(10)))
    assert time.monotonic() - started < server.breaker.drain_wait + server.breaker.deadline + 0.5
    assert not any(isinstance(answer, Exception) for answer in answers)
    stall.end()
    await server.recovered(timeout=10.0)
    await server.check_row(ordered=False)
    found = await server.row()
    assert found[:20] == [f"{n}" for n in range(20)]
