"""A Django project in one file: a cache, and sessions of each kind. What is set otherwise than
without this library stands in `CACHES`; `CACHE` in the environment chooses the backend.
"""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from resilient_redis import Policy, RedisCircuitBreaker, ResilientConnection, Rule

URL = os.environ["REDIS_URL"]
# While Redis is down Django is to read a session from the database, and to write both. With
# "nothing found" instead, what it then writes to the cache would be taken for what fills a gap.
SESSIONS = RedisCircuitBreaker(
    policy=Policy([Rule(keys="*django.contrib.sessions*", commands=["GET"], answer="refuse")])
)
BACKENDS: dict[str, dict[str, Any]] = {
    "django": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": URL,
        "OPTIONS": {"connection_class": ResilientConnection.bound_to(SESSIONS)},
    },
    "django-redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": URL,
        "OPTIONS": {
            "CONNECTION_POOL_KWARGS": {"connection_class": ResilientConnection.bound_to(SESSIONS)}
        },
    },
}

settings.configure(
    SECRET_KEY="for tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    INSTALLED_APPS=["django.contrib.sessions"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["DATABASE"],
            "OPTIONS": {"timeout": 10},
        }
    },
    CACHES={"default": BACKENDS[os.environ["CACHE"]]},
    SESSION_ENGINE=f"django.contrib.sessions.backends.{os.environ['SESSIONS']}",
    LOGGING_CONFIG=None,
)
django.setup()
call_command("migrate", verbosity=0)
application = get_wsgi_application()


def alive(request: HttpRequest) -> HttpResponse:
    return HttpResponse("alive")


def write(request: HttpRequest) -> HttpResponse:
    user, number = request.GET["user"], int(request.GET["number"])
    cache.set_many({f"log:{user}:{number}": number, f"last:{user}": number}, timeout=600)
    return HttpResponse("written")


def page(request: HttpRequest) -> HttpResponse:
    user = request.GET["user"]
    cached = cache.get(f"page:{user}")
    if cached is None:
        cached = f"the page of {user}"  # made of what is in a database
        cache.set(f"page:{user}", cached)
    return HttpResponse(cached)


def visit(request: HttpRequest) -> HttpResponse:
    visits = request.session.get("visits", 0) + 1
    request.session["visits"] = visits
    return HttpResponse(str(visits))


def filled(request: HttpRequest) -> HttpResponse:
    return HttpResponse(cache.get_or_set("filled", "full"))


urlpatterns = [path(view.__name__, view) for view in (alive, write, page, visit, filled)]
