"""The outage as an SVG file, for README: written by hand, needs nothing, reads well in the dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .figures import on_log_scale
from .load import BUCKET, KINDS, Seen

WIDTH, LEFT, RIGHT = 900, 64, 24
TOP = 84  # title and legend
RATE, GAP, LATENCY = 96, 10, 48  # heights of the two charts of a panel
PANEL = 30 + RATE + GAP + LATENCY + 26
BOTTOM = 38  # the seconds
HEADROOM = 1.12
VISIBLE = 3.0  # an error is seen, however few there are
FASTEST, SLOWEST = 0.0001, 10.0  # seconds
TICKS = {0.001: "1 ms", 0.1: "100 ms", 10.0: "10 s"}
MEANING = {
    "live": "answered by Redis",
    "neutral": "answered as by an empty Redis",
    "queued": "write queued",
    "errors": "error raised",
}

# GitHub shows an SVG as an image: its media queries see the reader's system, not GitHub's own
# switch. Hence a card of its own colour, that is right on either page.
STYLE = """
text { font: 12px ui-sans-serif, system-ui, -apple-system, "Segoe UI", Helvetica, sans-serif }
.card { fill: #ffffff; stroke: #d1d9e0 } .ink { fill: #1f2328 } .faint { fill: #59636e }
.head { font-size: 17px; font-weight: 600 } .name { font-size: 13px; font-weight: 600 }
.grid { stroke: #d1d9e0; stroke-width: 1; fill: none } .down { fill: #cf222e; opacity: .09 }
.edge { stroke: #cf222e; stroke-width: 1; stroke-dasharray: 3 3; opacity: .7 }
.live { fill: #2da44e } .neutral { fill: #d4a72c } .queued { fill: #218bff }
.errors { fill: #cf222e } .wait { stroke: #8250df; stroke-width: 1.6; fill: none }
.dot { fill: #8250df }
@media (prefers-color-scheme: dark) {
.card { fill: #0d1117; stroke: #3d444d } .ink { fill: #f0f6fc } .faint { fill: #9198a1 }
.grid { stroke: #3d444d } .down { fill: #f85149; opacity: .14 } .edge { stroke: #f85149 }
.live { fill: #2ea043 } .neutral { fill: #d29922 } .queued { fill: #4493f8 }
.errors { fill: #f85149 } .wait { stroke: #ab7df8 } .dot { fill: #ab7df8 }
}
"""


def svg(runs: Sequence[Seen]) -> str:
    """One panel a run, one above the other, on one scale."""
    height = TOP + PANEL * len(runs) + BOTTOM
    plan = runs[0].plan
    busiest = max(sum(counts) for seen in runs for counts in zip(*_all(seen), strict=True))
    top = max(busiest, plan.rate * BUCKET * HEADROOM)
    told = (
        f"{plan.tasks} tasks call Redis, GET and SET by turns; the server is killed after "
        f"{plan.kill:g} s and is back after {plan.restart:g} s"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="title told"><title id="title">An outage of Redis</title>'
        f'<desc id="told">{escape(told)}.</desc><style>{STYLE}</style>',
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(20, 30, "An outage of Redis, as its callers see it", "head ink"),
        _text(20, 50, told, "faint"),
        *_legend(),
    ]
    for place, seen in enumerate(runs):
        parts += _panel(seen, TOP + place * PANEL, top)
    base = TOP + PANEL * len(runs)
    for second in range(0, int(plan.end) + 1, 1 if plan.end <= 15 else 5):
        parts.append(_text(_x(second, plan.end), base + 4, f"{second}", "faint", "middle"))
    parts.append(_text(_x(plan.end / 2, plan.end), base + 24, "seconds", "faint", "middle"))
    return "\n".join([*parts, "</svg>", ""])


def _all(seen: Seen) -> list[list[int]]:
    return [seen.counts(kind) for kind in KINDS]


def _legend() -> list[str]:
    parts = []
    x = 20.0
    for kind, meaning in MEANING.items():
        parts.append(f'<rect class="{kind}" x="{x:.0f}" y="63" width="11" height="11" rx="2"/>')
        parts.append(_text(x + 16, 73, meaning, "ink"))
        x += 34 + 6.4 * len(meaning)
    parts.append(f'<path class="wait" d="M{x:.0f} 69h16"/>')
    parts.append(_text(x + 21, 73, "p99 latency", "ink"))
    x += 34 + 6.4 * 11 + 12
    parts.append(f'<rect class="down" x="{x:.0f}" y="63" width="16" height="11"/>')
    parts.append(_text(x + 21, 73, "server down", "ink"))
    return parts


def _panel(seen: Seen, y: float, top: float) -> list[str]:
    end = seen.plan.end
    rate, latency = y + 30, y + 30 + RATE + GAP
    down, back = _x(seen.down, end), _x(seen.back, end)
    said = (
        f"{seen.answered_away:,} calls answered while down · {seen.errors:,} errors · longest "
        f"call {_duration(seen.longest)} · {seen.lost:,} of {seen.acknowledged:,} acknowledged "
        "writes lost"
    )
    whole = rate + RATE * (1 - seen.plan.rate * BUCKET / top)
    parts = [
        _text(LEFT, y + 20, seen.title, "name ink"),
        _text(WIDTH - RIGHT, y + 20, said, "faint", "end"),
        f'<rect class="down" x="{down:.1f}" y="{rate}" width="{back - down:.1f}" '
        f'height="{RATE + GAP + LATENCY}"/>',
        f'<path class="grid" d="M{LEFT} {whole:.1f}h{WIDTH - LEFT - RIGHT}M{LEFT} {rate + RATE}'
        f'h{WIDTH - LEFT - RIGHT}M{LEFT} {latency + LATENCY}h{WIDTH - LEFT - RIGHT}"/>',
        _text(LEFT - 8, whole + 4, f"{seen.plan.rate:,.0f}", "faint", "end"),
        _text(LEFT - 8, rate + RATE / 2 + 4, "calls/s", "faint", "end"),
        _text(LEFT - 8, rate + RATE, "0", "faint", "end"),
        *_bars(seen, rate, top),
        f'<path class="edge" d="M{down:.1f} {rate}v{RATE + GAP + LATENCY}M{back:.1f} {rate}'
        f'v{RATE + GAP + LATENCY}"/>',
        *_line(seen, latency),
    ]
    for seconds, label in TICKS.items():
        tick = latency + LATENCY * (1 - on_log_scale(seconds, FASTEST, SLOWEST))
        parts.append(_text(LEFT - 8, tick + 4, label, "faint", "end"))
    return parts


def _bars(seen: Seen, y: float, top: float) -> list[str]:
    """One path for each kind, stacked."""
    end = seen.plan.end
    wide = _x(BUCKET, end) - _x(0, end) - 0.8
    floor = [0] * len(seen.p99())
    parts = []
    for kind in KINDS:
        path = []
        for place, count in enumerate(seen.counts(kind)):
            if count:
                tall = max(RATE * count / top, VISIBLE if kind == "errors" else 0)
                low = y + RATE - RATE * floor[place] / top
                floor[place] += count
                left = _x(place * BUCKET, end)
                path.append(f"M{left:.1f} {low:.1f}v{-tall:.1f}h{wide:.1f}v{tall:.1f}z")
        if path:
            parts.append(f'<path class="{kind}" d="{"".join(path)}"/>')
    return parts


def _line(seen: Seen, y: float) -> list[str]:
    """The latency; it is interrupted where no call ended, and a lonely moment is a dot."""
    path, dots = [], []
    p99 = [None, *seen.p99(), None]
    for place in range(1, len(p99) - 1):
        seconds = p99[place]
        if seconds is None:
            continue
        x = _x((place - 0.5) * BUCKET, seen.plan.end)
        height = y + LATENCY * (1 - on_log_scale(seconds, FASTEST, SLOWEST))
        if p99[place - 1] is None and p99[place + 1] is None:
            dots.append(f'<circle class="dot" cx="{x:.1f}" cy="{height:.1f}" r="2"/>')
        path.append(f"{'M' if p99[place - 1] is None else 'L'}{x:.1f} {height:.1f}")
    return [f'<path class="wait" d="{"".join(path)}"/>', *dots]


def _x(seconds: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end


def _text(x: float, y: float, said: str, look: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" class="{look}" text-anchor="{anchor}">{escape(said)}</text>'
    )


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
