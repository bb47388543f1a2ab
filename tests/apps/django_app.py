"""A Django project in one file: a cache, and sessions of each kind. What is set otherwise than
without this library stands in `CACHES`; `CACHE` in the environment chooses the backend.
"""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings

from resilient_redis import Policy, RedisCircuitBreaker, ResilientConnection, Rule

URL = os.environ["REDIS_URL"]
# What Django puts before the key of a session, the version of the cache included.
SESSIONS = RedisCircuitBreaker(
    policy=Policy([Rule(keys="*:django.contrib.sessions.*", answer="refuse")])
)
BACKENDS: dict[str, dict[str, Any]] = {
    "django": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": URL,
        "OPTIONS": {"connection_class": ResilientConnection},
    },
    "django-redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": URL,
        "OPTIONS": {"CONNECTION_POOL_KWARGS": {"connection_class": ResilientConnection}},
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
    CACHES={
        "default": BACKENDS[os.environ.get("CACHE", "django")],
        "sessions": {
            **BACKENDS["django"],
            "OPTIONS": {"connection_class": ResilientConnection.bound_to(SESSIONS)},
        },
    },
    SESSION_ENGINE=f"django.contrib.sessions.backends.{os.environ.get('SESSIONS', 'cached_db')}",
    SESSION_CACHE_ALIAS=os.environ.get("SESSION_CACHE", "default"),
    LOGGING_CONFIG=None,
)
django.setup()
