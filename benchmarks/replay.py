"""How fast the queued writes are applied: beside redis-py's pipeline and a bare socket."""

from __future__ import annotations

import asyncio
import gc
import socket
import time

from redis.asyncio import Redis

from resilient_redis.cli.servers import ServerProcess

from .figures import Result, ratios, spread
from .outage import queue_and_replay, queue_and_replay_sync
from .setting import NO_DISK, server
from .subjects import VALUE

OURS_SYNC = "ours, sync, replay"
OURS, PIPELINE, RAW = "ours, replay", "redis-py, pipeline(1000)", "bare socket, packed before"
SPEED, BESIDE = "writes per second", f"beside {PIPELINE}"
BATCH = 1000
OK = len(b"+OK\r\n")


def run(quick: bool) -> Result:
    number, rounds = (2000, 1) if quick else (100_000, 4)
    result = Result("replay", f"Replay: {number:,} SETs of 100 B that were queued")
    result.notes = [
        "Ours from ReplayStarted to ReplayFinished, in MULTIs of 1,000, exactly once, in order. "
        "The other two keep none of these promises; the bare socket sends and receives at once.",
    ]
    speeds = asyncio.run(_measure(number, rounds))
    with server(*NO_DISK) as running:
        speeds[OURS_SYNC] = [
            number / queue_and_replay_sync(running, number).replayed for _ in range(rounds)
        ]
    for row, found in speeds.items():
        result.figures.append(spread(row, SPEED, found, "/s"))
    for row in (OURS, OURS_SYNC, RAW):
        claim = None if row == RAW else ">= 5"
        beside = ratios(speeds[row], speeds[PIPELINE])
        result.figures.append(spread(row, BESIDE, beside, "x", claim))
    result.figures.append(spread(OURS, f"beside {RAW}", ratios(speeds[OURS], speeds[RAW]), "x"))
    return result


async def _measure(number: int, rounds: int) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {OURS: [], PIPELINE: [], RAW: []}
    packed = b"".join(pack(n) for n in range(number))
    with server(*NO_DISK) as running:
        for _ in range(rounds):
            running.restart()
            speeds[PIPELINE].append(number / await _pipeline(running, number))
            running.restart()
            speeds[RAW].append(number / await _raw(running, packed, number))
            replayed = await queue_and_replay(running, number)
            speeds[OURS].append(number / replayed.replayed)
    return speeds


async def _pipeline(running: ServerProcess, number: int) -> float:
    client = Redis.from_url(running.url)
    await client.ping()
    gc.collect()
    began = time.monotonic()
    for start in range(0, number, BATCH):
        pipe = client.pipeline(transaction=False)
        for n in range(start, min(start + BATCH, number)):
            pipe.set(f"key:{n}", VALUE)
        await pipe.execute()
    seconds = time.monotonic() - began
    assert await client.dbsize() == number
    await client.aclose()
    return seconds


async def _raw(running: ServerProcess, packed: bytes, number: int) -> float:
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        sock.setblocking(False)
        gc.collect()
        began = time.monotonic()
        sending = asyncio.create_task(loop.sock_sendall(sock, packed))
        missing = number * OK
        while missing > 0:
            missing -= len(await loop.sock_recv(sock, 1 << 16))
        await sending
        seconds = time.monotonic() - began
    assert missing == 0
    return seconds


def pack(n: int) -> bytes:
    """SET of the n-th key, as RESP."""
    parts = (b"SET", b"key:%d" % n, VALUE.encode())
    return b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
