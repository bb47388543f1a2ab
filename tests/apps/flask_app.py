"""A Flask service as anybody would write it; `connection_class` is the one setting."""

from __future__ import annotations

import os

from flask import Flask, request
from redis import Redis

from resilient_redis import OutcomeUnknown, ResilientConnection

app = Flask(__name__)
redis = Redis.from_url(
    os.environ["REDIS_URL"],
    connection_class=ResilientConnection,
    decode_responses=True,
    socket_timeout=float(os.environ.get("SOCKET_TIMEOUT", "5")),  # redis-py's default
)
redis.set("started", "yes")  # with `--preload` before the fork


@app.get("/alive")
def alive() -> str:
    return "alive"


@app.get("/write")
def write() -> str:
    user, number = request.args["user"], request.args["number"]
    redis.hset(f"log:{user}", number, "written")
    redis.set(f"last:{user}", number)
    return "written"


@app.get("/page")
def page() -> str:
    user = request.args["user"]
    cached = redis.get(f"page:{user}")
    if cached is None:
        cached = f"the page of {user}"  # made of what is in a database
        redis.set(f"page:{user}", cached, ex=60)
    return str(cached)


@app.get("/add")
def add() -> str:
    redis.rpush(f"list:{request.args['user']}", request.args["number"])
    return "added"


@app.errorhandler(OutcomeUnknown)
def unknown(error: OutcomeUnknown) -> tuple[str, int]:
    return "added, or not", 503
