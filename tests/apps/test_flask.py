"""Flask under gunicorn, by each kind of worker."""

from __future__ import annotations

import pytest

from tests.support.servers import Rig

from .running import gunicorn, needs
from .users import live_through

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize(
    "options, serves_others, in_order",
    [
        pytest.param(("-k", "sync", "-w", "4", "--preload"), False, False, id="sync"),
        pytest.param(("-k", "gthread", "--threads", "8", "--preload"), True, True, id="gthread"),
        pytest.param(("-k", "gevent"), True, True, id="gevent"),
        pytest.param(("-k", "gevent", "-w", "2", "--preload"), True, False, id="gevent-preload"),
    ],
)
def test_flask_under_gunicorn(
    valkey_rig: Rig, options: tuple[str, ...], serves_others: bool, in_order: bool
) -> None:
    needs("flask", "gunicorn", "gevent")
    with gunicorn("flask_app:app", valkey_rig.url, *options) as service:
        live_through(service, valkey_rig, serves_others=serves_others, in_order=in_order)
