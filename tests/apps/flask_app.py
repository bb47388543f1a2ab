"""A Flask service as anybody would write it; `connection_class` is the one setting."""

from __future__ import annotations

import os

from flask import Flask, request
from redis import Redis

from resilient_redis import ResilientConnection

app = Flask(__name__)
redis = Redis.from_url(
    os.environ["REDIS_URL"], connection_class=ResilientConnection, decode_responses=True
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
