"""An outage as its callers see it, with us and without; as figures and as a picture."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from rich.console import Group

from .figures import Figure, Result, percentile
from .load import BUCKET, CLIENTS, KINDS, Plan, Seen, outage
from .picture import svg
from .setting import DISK_EACH_SECOND, server
from .strip import strip

QUICK = Plan(kill=0.4, restart=1.0, end=2.0, tasks=4)


def run(quick: bool) -> Result:
    plan = QUICK if quick else Plan()
    result = Result("timeline", "Timeline: an outage as its callers see it")
    result.notes = [
        f"{plan.tasks} tasks, GETs and SETs by turns; the server is killed after {plan.kill:g} s "
        f"and started again after {plan.restart:g} s. All defaults: redis-py's `Redis()` retries.",
    ]
    runs = asyncio.run(_runs(plan))
    for seen in runs:
        result.figures += _figures(seen)
    result.drawing = Group(*map(strip, runs))
    result.picture = svg(runs)
    result.series = {
        "bucket_seconds": BUCKET,
        "plan": asdict(plan),
        **{seen.title: _series(seen) for seen in runs},
    }
    return result


async def _runs(plan: Plan) -> list[Seen]:
    runs = []
    for title in CLIENTS:
        with server(*DISK_EACH_SECOND) as running:
            runs.append(await outage(title, running, plan))
    return runs


def _figures(seen: Seen) -> list[Figure]:
    waits = [seconds for _, seconds, _ in seen.away()]
    live = min(at for at, _, kind in seen.calls if kind == "live" and at > seen.back)
    return [
        Figure(seen.title, "answered while down", seen.answered_away, ""),
        Figure(seen.title, "errors", seen.errors, ""),
        Figure(seen.title, "p99 while down", percentile(waits, 0.99), "s"),
        Figure(seen.title, "longest call", seen.longest, "s"),
        Figure(seen.title, "live again after", live - seen.back, "s"),
        Figure(seen.title, "acknowledged writes", seen.acknowledged, ""),
        Figure(seen.title, "of them lost", seen.lost, ""),
    ]


def _series(seen: Seen) -> dict[str, object]:
    return {
        "down": seen.down,
        "back": seen.back,
        "p99_seconds": seen.p99(),
        **{kind: seen.counts(kind) for kind in KINDS},
    }
