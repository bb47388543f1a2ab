"""Results as tables: rich on a terminal, Markdown where there is none."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .figures import Figure, Result, keyed

PLAIN_WIDTH = 160  # of what is not a terminal
REACHED = 0.02  # a change below this share is none


def console() -> Console:
    made = Console(highlight=False)
    if not made.is_terminal:
        made = Console(highlight=False, width=PLAIN_WIDTH, color_system=None)
    return made


def show(out: Console, result: Result) -> None:
    """The tables of a benchmark, what is missing from them, and its drawing."""
    out.print(f"\n[bold]{escape(result.title)}[/]")
    for note in result.notes:
        out.print(f"[bright_black]{escape(note)}[/]")
    for figures in _apart(result.figures):
        out.print(_pivot(out, figures))
    for row, reason in result.absent.items():
        out.print(f"[bold red]{escape(row)}: {escape(reason)}[/]")
        if reason.startswith("NOT INSTALLED"):
            out.print("    pip install 'resilient-redis\\[bench]'")
    for figure in result.figures:
        if figure.holds is False:
            found = f"claimed {figure.claim}, measured {written(figure.value, figure.unit)}"
            out.print(f"[bold red]NOT HELD: {escape(figure.key)}: {found}[/]")
    if result.drawing is not None:
        out.print()
        out.print(result.drawing)


def compare(out: Console, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Each figure of both files, and by how much it has changed."""
    old, new = keyed(before["benchmarks"]), keyed(now["benchmarks"])
    table = _table(out)
    table.add_column("benchmark")
    table.add_column("figure")
    for column in ("before", "now", "change"):
        table.add_column(column, justify="right")
    for place in dict.fromkeys((*old, *new)):
        was, is_ = old.get(place), new.get(place)
        if was is not None and is_ is None and place[0] not in now["benchmarks"]:
            continue  # this benchmark was not run this time
        table.add_row(*place, _value(was), _value(is_), _change(was, is_))
    out.print("\n[bold]Change; marked where the quartiles do not meet[/]")
    for what in ("python", "server", "processor", "packages"):
        if before["setting"][what] != now["setting"][what]:
            out.print(f"[yellow]not the same {what}: {before['setting'][what]}[/]")
    out.print(table)


def written(value: float, unit: str) -> str:
    """A figure for people."""
    if unit == "s":
        return f"{value * 1000:,.1f} ms" if value < 1 else f"{value:,.2f} s"
    if unit == "x":
        return f"{value:.2f} x" if value >= 0.1 else f"{value:.3f} x"
    if unit in ("/s", ""):
        return f"{value:,.0f}{unit}"
    return f"{value:,.1f} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def _apart(figures: list[Figure]) -> list[list[Figure]]:
    """Figures that share neither a row nor a column stand in different tables."""
    tables: list[list[Figure]] = []
    for figure in figures:
        near = [
            table
            for table in tables
            if any(other.row == figure.row or other.column == figure.column for other in table)
        ]
        joined = [other for table in near for other in table] + [figure]
        tables = [table for table in tables if table not in near] + [joined]
    return tables


def _pivot(out: Console, figures: list[Figure]) -> Table:
    cells = {(figure.row, figure.column): figure for figure in figures}
    columns = list(dict.fromkeys(figure.column for figure in figures))
    table = _table(out)
    rows = list(dict.fromkeys(figure.row for figure in figures))
    table.add_column("", no_wrap=True, min_width=max(map(len, rows)))
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        style = "bold" if row.startswith(("ours", "with")) else ""
        table.add_row(Text(row, style=style), *(_cell(cells.get((row, c))) for c in columns))
    return table


def _table(out: Console) -> Table:
    return Table(box=box.SIMPLE_HEAD if out.is_terminal else box.MARKDOWN)


def _cell(figure: Figure | None) -> Text:
    if figure is None:
        return Text("-", style="bright_black")
    said = written(figure.value, figure.unit)
    cell = Text(f">= {said}" if figure.at_least else said)
    if figure.holds is not None:
        cell.stylize("bold green" if figure.holds else "bold red")
        cell.append(f" ({figure.claim})", style="bright_black")
    if figure.low is not None and figure.high is not None and figure.low != figure.high:
        cell.append(f"\n{_range(figure.low, figure.high, figure.unit)}", style="bright_black")
    return cell


def _range(low: float, high: float, unit: str) -> str:
    first, last = written(low, unit), written(high, unit)
    suffix = first.lstrip("0123456789.,")
    # Milliseconds may stand beside seconds.
    return f"{first.removesuffix(suffix) if last.endswith(suffix) else first} - {last}"


def _value(figure: dict[str, Any] | None) -> str:
    return "-" if figure is None else written(figure["value"], figure["unit"])


def _change(was: dict[str, Any] | None, is_: dict[str, Any] | None) -> Text:
    if was is None or is_ is None:
        return Text("gone" if is_ is None else "new", style="yellow")
    if not was["value"]:
        return Text("" if not is_["value"] else "from 0")
    share = is_["value"] / was["value"] - 1
    cell = Text(f"{share:+.0%}")
    if abs(share) >= REACHED and _apart_from(was, is_):
        cell = Text(f"{share:+.0%} *", style="bold yellow")
    return cell


def _apart_from(was: dict[str, Any], is_: dict[str, Any]) -> bool:
    """Whether their quartiles do not meet."""
    if "low" not in was or "low" not in is_:
        return False
    return bool(was["low"] > is_["high"] or was["high"] < is_["low"])
