"""What redis-py leaves to the transports of a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from resilient_redis.seam.sockets import abort


def of_uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, of_uvloop])
def test_one_that_is_closed_already_is_cut_off(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """uvloop has no descriptor of it any more: a write in flight at a kill was a ValueError."""

    async def story() -> None:
        ended = asyncio.Event()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await ended.wait()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.get_extra_info("socket")  # uvloop keeps what was asked for
        writer.transport.abort()
        await asyncio.sleep(0.01)
        abort(writer, reset=True)
        ended.set()
        server.close()
        await asyncio.sleep(0.01)

    loop = new_loop()
    loop.run_until_complete(story())
    loop.close()
