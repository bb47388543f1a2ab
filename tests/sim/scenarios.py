"""What is cancelled: a call over guarded connections, on each of its paths."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool
from redis.credentials import CredentialProvider

from resilient_redis.asyncio import Queued, ResilientRedis
from resilient_redis.asyncio.driving import run

from .cancelling import Scenario
from .world import World

#: By name: the world that it takes place in, and what happens there.
ALL: dict[str, tuple[type[World], Scenario]] = {}


def scenario(function: Scenario, world: type[World] = World) -> Scenario:
    ALL[function.__name__] = (world, function)
    return function


async def warm(w: World, **more: Any) -> Any:
    """A client with one connection, through its handshake."""
    client = w.make_client(**more) if more else w.client
    await client.set("warm", "up")
    return client


# -- connecting -------------------------------------------------------------------------------


@scenario
async def connect(w: World) -> None:
    """The first command of all: handshake, introduction, rights."""
    await w.victim(w.push())


@scenario
async def connect_resp2_db1(w: World) -> None:
    await w.victim(w.push(w.make_client(protocol=2, db=1, client_name="me")))


class Vault(CredentialProvider):
    """Takes its time to tell who we are."""

    def get_credentials(self) -> tuple[str]:
        return ("secret",)

    async def get_credentials_async(self) -> tuple[str]:
        await asyncio.sleep(0.01)
        return self.get_credentials()


@scenario
async def connect_with_credentials(w: World) -> None:
    w.clients.clear()
    w.breaker = w.make_breaker()  # for whom the provider names
    w.client = w.make_client(credential_provider=Vault(), protocol=3)
    await w.victim(w.push())


@scenario
async def connect_to_a_black_hole(w: World) -> None:
    """It trips on its way: nobody answers."""
    w.net.swallowing = True
    w.at(1.5, w.net.heal)
    await w.victim(w.push())


@scenario
async def connect_refused(w: World) -> None:
    """Attempts and pauses until the breaker opens; then it is queued."""
    w.server.kill()
    w.at(0.8, w.back)
    await w.victim(w.push())


@scenario
async def connect_beside_another(w: World) -> None:
    """The rights are being asked on another connection at the same time."""
    other = w.loop.create_task(w.push())
    await asyncio.sleep(2 * w.net.latency)
    await w.victim(w.push())
    await other


@scenario
async def last_connection_of_a_pool(w: World) -> None:
    """It waits for the one connection that another call is using."""
    client = await warm(w, pool_class=BlockingConnectionPool, max_connections=1, timeout=5)
    others = [w.loop.create_task(w.push(client)) for _ in range(2)]
    await asyncio.sleep(0)
    await w.victim(w.push(client))
    await asyncio.gather(*others)


@scenario
async def single_connection(w: World) -> None:
    """Several tasks share one connection; the call of one of them is cancelled."""
    client = await warm(w, single=True)
    others = [w.loop.create_task(w.push(client)) for _ in range(2)]
    await w.victim(w.many(False, client=client))
    await asyncio.gather(*others)
    await w.push(client)


# -- sending, reading -------------------------------------------------------------------------


@scenario
async def one_write(w: World) -> None:
    await warm(w)
    await w.victim(w.push())


@scenario
async def one_write_and_then_an_outage(w: World) -> None:
    """The connection is used again for what is queued: receipts find their places."""
    client = await warm(w, single=True)
    await w.victim(w.push(client))
    w.server.kill()
    while w.breaker.state == "CLOSED":
        await client.get("warm")
    receipt = await w.push(client)
    w.check(isinstance(receipt, Queued), f"queued, and answered {receipt!r}")


@scenario
async def one_read(w: World) -> None:
    await warm(w)
    found = await w.victim(w.client.get("warm"))
    w.check(found in (b"up", None) or isinstance(found, Exception), f"GET: {found!r}")


@scenario
async def big_write(w: World) -> None:
    """The transport's buffer is full: `drain`."""
    w.net.window, w.net.high_water, w.net.low_water = 300, 200, 50
    await warm(w)
    big = b"x" * 6000
    await w.victim(w.client.set("big", big))
    w.check(await w.client.get("big") in (big, None), "half a value")


@scenario
async def big_write_whose_connection_breaks(w: World) -> None:
    w.net.window, w.net.high_water, w.net.low_water = 300, 200, 50
    await warm(w)
    w.at(3 * w.net.latency, w.break_all)
    await w.victim(w.client.set("big", b"x" * 6000))


@scenario
async def pipeline(w: World) -> None:
    await warm(w)
    await w.victim(w.many(transaction=False))


@scenario
async def health_check(w: World) -> None:
    """redis-py's PING before the command."""
    client = await warm(w, health_check_interval=1)
    await asyncio.sleep(2)
    await w.victim(w.push(client))


@scenario
async def health_check_of_a_hung_connection(w: World) -> None:
    client = await warm(w, health_check_interval=1)
    await asyncio.sleep(2)
    w.net.stall(w.net.live())
    w.at(1.0, w.net.heal)
    await w.victim(w.push(client))


@scenario
async def server_has_closed_the_idle_socket(w: World) -> None:
    await warm(w)
    for session in list(w.server.sessions.values()):
        w.server.drop(session)
    await asyncio.sleep(0.1)
    await w.victim(w.push())


# -- replies that do not come -----------------------------------------------------------------


def _lost_reply(write: Callable[[World], Any]) -> Scenario:
    async def lost(w: World) -> None:
        await warm(w)
        w.lose_replies(0.05)
        await w.victim(write(w))

    return lost


ALL["lost_reply_of_a_read"] = (World, _lost_reply(lambda w: w.client.get("warm")))
ALL["lost_reply_of_a_safe_write"] = (World, _lost_reply(lambda w: w.put()))
ALL["lost_reply_of_an_unsafe_write"] = (World, _lost_reply(lambda w: w.push()))
ALL["lost_replies_of_a_pipeline"] = (World, _lost_reply(lambda w: w.many(False)))
ALL["lost_replies_of_a_transaction"] = (World, _lost_reply(lambda w: w.many(True)))


@scenario
async def lost_again_and_again(w: World) -> None:
    """A safe write whose connection ends each time: pauses, repeats, the trip, the queue."""
    await warm(w)
    for n in range(60):
        w.at((0.5 + 2.5 * n) * w.net.latency, w.break_all)
    await w.victim(w.put())


@scenario
async def rejected(w: World) -> None:
    """LOADING: answered, but not now."""
    await warm(w)
    w.server.mode = "LOADING"
    w.at(0.3, lambda: setattr(w.server, "mode", ""))
    await w.victim(w.push())


@scenario
async def writes_held(w: World) -> None:
    """READONLY: the write is queued, and replayed as soon as the server takes writes."""
    await warm(w)
    w.server.mode = "READONLY"
    w.at(0.5, lambda: setattr(w.server, "mode", ""))
    await w.victim(w.push())


@scenario
async def hang_check(w: World) -> None:
    """The server is frozen: a PING on a second connection, the trip, the queue."""
    await warm(w)
    w.server.frozen = True
    w.at(1.2, w.server.thaw)
    await w.victim(w.put())


@scenario
async def hang_of_an_unsafe_write(w: World) -> None:
    """It waits on when the breaker opens; the fence is put up against it."""
    client = await warm(w, socket_timeout=2.0)
    w.server.frozen = True
    w.at(0.9, w.server.thaw)
    await w.victim(w.push(client))


@scenario
async def fence_while_closed(w: World) -> None:
    """A connection died with an unanswered write: the next write waits for the fence."""
    await warm(w)
    gone = w.loop.create_task(w.push())
    await asyncio.sleep(w.net.latency / 4)
    gone.cancel()
    await asyncio.wait({gone})
    w.check(bool(w.breaker.suspects), "nobody is suspected")
    await w.victim(w.push())


@scenario
async def fence_on_another_connection(w: World) -> None:
    """As before, on a connection that is there already: the fence goes before the command."""
    await asyncio.gather(w.push(), w.push())
    gone = w.loop.create_task(w.push())
    await asyncio.sleep(w.net.latency / 4)
    gone.cancel()
    await asyncio.wait({gone})
    await w.victim(w.push())


# -- away ---------------------------------------------------------------------------------------


@scenario
async def queue(w: World) -> None:
    """Open: 32 answers without I/O, then a breath."""
    await w.outage()
    w.at(1.0, w.back)

    async def writes() -> None:
        for _ in range(70):
            await w.push()

    await w.victim(writes())


@scenario
async def queue_a_pipeline(w: World) -> None:
    await w.outage()
    w.at(1.0, w.back)
    await w.victim(w.many(transaction=False))


@scenario
async def queue_a_transaction(w: World) -> None:
    await w.outage()
    w.at(1.0, w.back)
    await w.victim(w.many(transaction=True))


@scenario
async def fast_path(w: World) -> None:
    """The façade's, while open: what is answered without a connection."""
    client = ResilientRedis(breaker=w.breaker, connection_pool=w.client.connection_pool)
    await w.outage()
    w.at(1.0, w.back)

    async def calls() -> None:
        for _ in range(40):
            await w.push(client)
            w.check(await client.get("nothing") is None, "GET")

    await w.victim(calls())


@scenario
async def premise(w: World) -> None:
    """Told during the outage that a key is empty: EXISTS goes before the write."""
    await w.client.set("k", "v")
    w.net.refusing = True
    w.break_all()

    async def read_then_write() -> None:
        while w.breaker.state == "CLOSED":
            await w.client.get("k")
        await w.client.get("fresh")
        w.net.refusing = False
        await run(w.breaker.wait_recovered(30.0))
        await w.push(key="fresh")

    await w.victim(read_then_write())


# -- the replay is on ---------------------------------------------------------------------------


async def draining(w: World) -> None:
    """Queued writes, and a server that is back: the replay goes slowly."""
    w.net.latency = max(w.net.latency, 0.002)
    await w.outage(queued=12)
    w.back()
    while w.breaker.state != "CLOSED":
        await w.breaker.pausing(1.0)()


@scenario
async def write_waits_for_its_entry(w: World) -> None:
    await draining(w)
    await w.victim(w.push())


@scenario
async def read_waits_for_the_drain(w: World) -> None:
    await draining(w)
    await w.victim(w.client.get("warm"))


@scenario
async def transaction_waits_for_its_entry(w: World) -> None:
    await draining(w)
    await w.victim(w.many(transaction=True))


@scenario
async def flush_from_the_outage_on(w: World) -> None:
    """`flush_re_sync_queue`: wakes the recovery, which probes, puts up the fence, replays."""
    await w.outage(queued=8)
    w.back()
    await w.victim(w.breaker.flush_re_sync_queue())


@scenario
async def outcome(w: World) -> None:
    """`receipt.outcome()`, from the outage to the end of the replay."""
    await w.outage(queued=4)
    receipt = await w.push()
    w.check(isinstance(receipt, Queued), f"{receipt!r}")
    w.at(0.2, w.back)
    length = await w.victim(receipt.outcome())
    w.check(length in (5, None) or isinstance(length, Exception), f"outcome: {length!r}")
    if not receipt.settled:
        length = await receipt.outcome(30.0)
        w.check(length == 5, f"outcome, awaited again: {length!r}")


@scenario
async def outcome_within_a_time(w: World) -> None:
    await w.outage(queued=1)
    receipt = await w.push()
    w.at(0.2, w.back)
    await w.victim(receipt.outcome(5.0))


@scenario
async def aclose(w: World) -> None:
    """`breaker.aclose(drain_timeout)`; awaited again where it was cancelled."""
    await w.outage(queued=6)
    w.at(0.2, w.back)
    left = await w.victim(w.breaker.aclose(drain_timeout=5.0))
    if left != 0 or isinstance(left, bool):
        w.back()
        left = await w.breaker.aclose(drain_timeout=30.0)
    w.check(left == 0, f"left: {left}")
