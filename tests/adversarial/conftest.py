"""Every attack is also held to this: no task is left, no error goes unseen, no secret is logged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.contract.conftest import hygiene, quick_collections
from tests.support.servers import Rigs

from .worlds import OBJECTS, SERVERS, World, world_of

__all__ = ["hygiene", "quick_collections"]

Make = Callable[..., Any]


def _params(names: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(name, marks=pytest.mark.server if name in SERVERS else ()) for name in names
    ]


@pytest.fixture
async def make_world(rigs: Rigs) -> AsyncIterator[Make]:
    """`await make_world(name, **options of the breaker)`; it is taken down after the test."""
    async with AsyncExitStack() as stack:

        async def make(name: str, **options: Any) -> World:
            return await stack.enter_async_context(world_of(name, rigs, **options))

        yield make


@pytest.fixture(params=_params(OBJECTS + SERVERS))
async def world(request: pytest.FixtureRequest, make_world: Make) -> World:
    """The attack runs once over each."""
    made: World = await make_world(request.param)
    return made


@pytest.fixture(params=_params(OBJECTS))
async def any_object(request: pytest.FixtureRequest, make_world: Make) -> World:
    """Over each of the objects that are guarded by `execute`."""
    made: World = await make_world(request.param)
    return made


@pytest.fixture(params=_params(SERVERS))
async def server(request: pytest.FixtureRequest, make_world: Make) -> World:
    """Over each real server, by connection class and by façade."""
    made: World = await make_world(request.param)
    return made
