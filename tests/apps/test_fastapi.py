"""FastAPI under uvicorn: the asyncio flavour."""

from __future__ import annotations

import pytest

from tests.support.servers import Rig

from .running import needs, uvicorn
from .users import live_through

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_fastapi_under_uvicorn(valkey_rig: Rig) -> None:
    needs("fastapi", "uvicorn")
    with uvicorn("fastapi_app:app", valkey_rig.url) as service:
        live_through(service, valkey_rig)
