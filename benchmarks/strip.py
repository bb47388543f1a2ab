"""The outage on a terminal: a line of blocks for each kind of answer, and one for the latency."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resilient_redis.cli.screen import spark

from .figures import on_log_scale
from .load import BUCKET, KINDS, Seen

COLOURS = {"live": "green", "neutral": "yellow", "queued": "bright_blue", "errors": "red"}
MARGIN = 24  # what stands beside the blocks
FASTEST, SLOWEST = 0.0001, 10.0  # seconds; the ends of the latency's logarithmic scale


def strip(seen: Seen, width: int | None = None) -> Table:
    """Each block is a moment; none is taller than the busiest moment of all kinds."""
    buckets = len(seen.p99())
    room = width or Console().width
    each = -(-buckets // max(10, room - MARGIN))  # buckets to a block, rounded up
    answered = {kind: merged(seen.counts(kind), each) for kind in KINDS}
    top = max(max(counts) for counts in answered.values()) or 1
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", width=8, no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row("", Text(seen.title, style="bold"), "")
    table.add_row("server", _server(seen, each, buckets), "")
    for kind, counts in answered.items():
        if sum(counts):
            line = Text(spark([count / top for count in counts]), style=COLOURS[kind])
            table.add_row(kind, line, f"{sum(counts):,}")
    table.add_row("p99", _latency(seen.p99(), each), "")
    table.add_row("", _seconds(each, buckets), "seconds")
    table.add_row("", "", "")
    return table


def merged(counts: Sequence[int], each: int) -> list[int]:
    return [sum(counts[start : start + each]) for start in range(0, len(counts), each)]


def _server(seen: Seen, each: int, buckets: int) -> Text:
    line = Text()
    for start in range(0, buckets, each):
        down = seen.down <= (start + each / 2) * BUCKET < seen.back
        line.append("░" if down else "█", style="red" if down else "green")
    return line


def _latency(p99: Sequence[float | None], each: int) -> Text:
    line = Text()
    for start in range(0, len(p99), each):
        waits = [wait for wait in p99[start : start + each] if wait is not None]
        if not waits:
            line.append(" ")
            continue
        worst = max(waits)
        style = "green" if worst < 0.01 else "yellow" if worst < 1 else "red"
        line.append(spark([on_log_scale(worst, FASTEST, SLOWEST)]), style=style)
    return line


def _seconds(each: int, buckets: int) -> Text:
    blocks = -(-buckets // each)
    line = [" "] * (blocks + 3)
    for second in range(0, int(buckets * BUCKET) + 1, 2):
        place = round(second / BUCKET / each)
        line[place : place + len(str(second))] = str(second)
    return Text("".join(line).rstrip(), style="bright_black")
