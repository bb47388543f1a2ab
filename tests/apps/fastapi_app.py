"""A FastAPI service as anybody would write it; `connection_class` is the one setting."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from redis.asyncio import Redis

from resilient_redis.asyncio import ResilientConnection

app = FastAPI(default_response_class=PlainTextResponse)
redis: Any = Redis.from_url(
    os.environ["REDIS_URL"], connection_class=ResilientConnection, decode_responses=True
)


@app.get("/alive")
async def alive() -> str:
    return "alive"


@app.get("/write")
async def write(user: str, number: int) -> str:
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.hset(f"log:{user}", number, "written").set(f"last:{user}", number)
        await pipeline.execute()
    return "written"


@app.get("/page")
async def page(user: str) -> str:
    cached = await redis.get(f"page:{user}")
    if cached is None:
        cached = f"the page of {user}"  # made of what is in a database
        await redis.set(f"page:{user}", cached, ex=60)
    return str(cached)
