"""The rehearsal as a live screen, with rich."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .display import Result, Sample, Title
from .verdict import ANOMALIES

BARS = " ▁▂▃▄▅▆▇█"
SERVER = {"up": "green", "down": "red", "frozen": "bright_cyan", "yours": "green"}
STATE = {
    "CLOSED": "green",
    "OPEN": "red",
    "HALF-OPEN": "yellow",
    "DRAINING": "bright_blue",
    "-": "bright_black",
}
# name, what it takes from a sample, colour
RATES: tuple[tuple[str, Callable[[Sample], float], str], ...] = (
    ("live", lambda s: s.live / s.span, "green"),
    ("neutral", lambda s: s.neutral / s.span, "yellow"),
    ("queued", lambda s: s.queued / s.span, "bright_blue"),
    ("refused", lambda s: s.refused / s.span, "magenta"),
    ("unknown", lambda s: (s.unknown + s.errors) / s.span, "red"),
)
FASTEST_MS, SLOWEST_MS = 0.05, 5000.0  # the ends of the logarithmic latency scale
NOTES = 7
LABELS, VALUES = 10, 11  # widths of what stands beside the timelines


class Screen:
    """Timelines of the server, the breaker, the answers and the latency; below, what happened."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.width = max(20, min(120, self.console.width - LABELS - VALUES - 8))
        self.interval = 0.25
        self.samples: deque[Sample] = deque(maxlen=self.width)
        self.notes: deque[tuple[float, str]] = deque(maxlen=NOTES)
        self.totals = dict.fromkeys((name for name, _, _ in RATES), 0)
        self.title = Title("", 0, 0.0, guarded=True)
        # No thread: a frame is drawn when a sample comes, in the loop that is being watched.
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    # -- Display

    def begin(self, title: Title) -> None:
        self.title = title
        # One column a sample, the whole rehearsal in one line where it fits.
        self.interval = min(1.0, max(0.12, (title.seconds + 1.0) / self.width))
        self.live.start()
        self._draw()

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)
        for name, read, _ in RATES:
            self.totals[name] += round(read(sample) * sample.span)
        self._draw()

    def note(self, at: float, text: str) -> None:
        self.notes.append((at, text))
        self._draw()

    def end(self, result: Result) -> None:
        # The last frame stays; the verdict comes under it.
        self.live.transient = False
        self._draw()
        self.live.stop()
        self.console.print(verdict_panel(result))

    def close(self) -> None:
        self.live.stop()

    # -- how

    def _draw(self) -> None:
        if self.live.is_started:
            self.live.update(self.render(), refresh=True)

    def render(self) -> RenderableType:
        """One frame."""
        at = self.samples[-1].at if self.samples else 0.0
        guard = "guarded" if self.title.guarded else "[red]plain redis-py, no guard[/]"
        return Panel(
            Group(self._timelines(), Text(), self._notes()),
            title=f"[bold]resilient-redis rehearse[/] · {self.title.server} · "
            f"{self.title.tasks} tasks · {guard}",
            subtitle=f"{min(at, self.title.seconds):.0f} of {self.title.seconds:.0f} s",
            border_style=STATE[self.samples[-1].state] if self.samples else "white",
            padding=(1, 1),
        )

    def _timelines(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=LABELS, style="bold", no_wrap=True)
        grid.add_column(width=self.width, no_wrap=True)
        grid.add_column(width=VALUES, justify="right", no_wrap=True)
        last = self.samples[-1] if self.samples else None
        if last is None:
            grid.add_row("server", "", "starting")
            return grid
        samples = list(self.samples)
        grid.add_row(
            "server", _blocks(samples, lambda s: SERVER[s.server]), _word(last.server, SERVER)
        )
        grid.add_row(
            "breaker", _blocks(samples, lambda s: STATE[s.state]), _word(last.state, STATE)
        )
        grid.add_row()
        # One scale for all rates, so that their heights can be compared.
        top = max(1.0, *(read(s) for s in samples for _, read, _ in RATES))
        for name, read, colour in RATES:
            line = Text(spark([read(s) / top for s in samples]), style=colour)
            grid.add_row(name, line, _number(read(last), "/s", colour))
        grid.add_row()
        most = max(1, *(s.journal for s in samples), 1)
        line = Text(spark([s.journal / most for s in samples]), style="bright_blue")
        grid.add_row("journal", line, _number(last.journal, "", "bright_blue"))
        grid.add_row("p50", _latencies([s.p50 for s in samples]), _ms(last.p50))
        grid.add_row("p99", _latencies([s.p99 for s in samples]), _ms(last.p99))
        return grid

    def _notes(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=LABELS, justify="right", style="bright_black", no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        for at, text in self.notes:
            fault = text.startswith(("kill", "freeze", "restart", "thaw"))
            grid.add_row(f"{at:.2f} s", Text(text, style="bold" if fault else ""))
        for _ in range(NOTES - len(self.notes)):
            grid.add_row("", "")
        return grid


def spark(shares: Sequence[float]) -> str:
    """A line of bars for values from 0 to 1; anything above 0 is visible."""
    return "".join(BARS[0 if x <= 0 else max(1, min(8, math.ceil(x * 8)))] for x in shares)


def _blocks(samples: Sequence[Sample], colour: Callable[[Sample], str]) -> Text:
    line = Text()
    for sample in samples:
        line.append("█", style=colour(sample))
    return line


def _latencies(values: Sequence[float | None]) -> Text:
    """Bars on a logarithmic scale, green below 5 ms, red above 500."""
    line = Text()
    whole = math.log(SLOWEST_MS / FASTEST_MS)
    for value in values:
        if value is None:
            line.append(" ")
            continue
        share = math.log(max(value, FASTEST_MS * 1.01) / FASTEST_MS) / whole
        line.append(spark([share]), style=_heat(value))
    return line


def _heat(ms: float) -> str:
    return "green" if ms < 5 else "yellow" if ms < 500 else "red"


def _ms(value: float | None) -> Text:
    if value is None:
        return Text("-", style="bright_black")
    return Text(f"{value:.2f} ms" if value < 100 else f"{value:.0f} ms", style=_heat(value))


def _number(value: float, unit: str, colour: str) -> Text:
    return Text(f"{value:,.0f}{unit}", style=colour if value else "bright_black")


def _word(word: str, colours: dict[str, str]) -> Text:
    return Text(word, style=f"bold {colours[word]}")


def verdict_panel(result: Result) -> RenderableType:
    """The end: every promise with its count."""
    verdict = result.verdict
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="bright_black")
    told = ", ".join(f"{count:,} {name}" for name, count in sorted(verdict.outcomes.items()))
    table.add_row("acknowledged", Text(f"{verdict.acknowledged:,}", style="bold"), told)
    for name, meaning in ANOMALIES.items():
        count = int(getattr(verdict, name))
        style = "bold red" if count else "bold green"
        table.add_row(name.replace("_", " "), Text(f"{count:,}", style=style), meaning)
    below = [Text(f"e.g. {example}", style="red") for example in verdict.examples[:8]]
    below += [Text(f"not visible here: {what}", style="yellow") for what in verdict.blind]
    below += [Text(remark, style="yellow") for remark in result.remarks]
    mark, style = ("✔", "bold green") if result.ok else ("✘", "bold red")
    end = Text(f"{mark} {result.conclusion}", style=style)
    return Panel(
        Group(table, Text(), *below, end),
        title=f"[bold]verdict[/], from {result.witness}",
        border_style="green" if result.ok else "red",
        padding=(1, 2),
    )
