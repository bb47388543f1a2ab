"""Django under gunicorn: its own cache backend, django-redis, and sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.servers import Rig

from .running import Service, gunicorn, needs, until
from .users import in_keys, live_through

pytestmark = [pytest.mark.server, pytest.mark.slow]
THREADS = ("-k", "gthread", "--threads", "8", "--preload")


def django(rig: Rig, folder: Path, cache: str, sessions: str = "cached_db") -> Service:
    env = {"CACHE": cache, "SESSIONS": sessions, "DATABASE": str(folder / "db.sqlite3")}
    return gunicorn("django_app:application", rig.url, *THREADS, **env)


@pytest.mark.parametrize("cache", ["django", "django-redis"])
def test_cache_and_cached_sessions(valkey_rig: Rig, tmp_path: Path, cache: str) -> None:
    needs("django", "gunicorn", "django_redis")
    with django(valkey_rig, tmp_path, cache) as service:
        live_through(service, valkey_rig, found=in_keys, last=":1:last:", visitors=2)


def test_what_django_cannot_do_meanwhile(valkey_rig: Rig, tmp_path: Path) -> None:
    """`add` is a SET NX, which is refused, and `get_or_set` uses it. Sessions that are nowhere but
    in the cache are gone, because Django takes an error there for a session that does not exist.
    """
    needs("django", "gunicorn")
    with django(valkey_rig, tmp_path, "django", sessions="cache") as service:
        status, body, cookie = service.ask("/visit")
        assert (status, body) == (200, "1")
        assert service.ask("/visit", cookie)[1] == "2"
        valkey_rig.kill()
        until(lambda: service.ask("/page?user=u")[0] == 200)
        assert service.ask("/filled")[0] == 500
        assert service.ask("/visit", cookie)[0] == 500
        assert service.log.count("CommandRefused: SET") >= 2
