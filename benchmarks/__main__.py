"""`python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from resilient_redis.cli.servers import ServerError

from . import away, detection, healthy, memory, replay, scaling, timeline
from .figures import Result
from .report import compare, console, show
from .setting import setting, summary

BENCHMARKS: dict[str, Callable[[bool], Result]] = {
    module.__name__.rpartition(".")[2]: module.run
    for module in (healthy, away, detection, replay, memory, scaling, timeline)
}
PICTURE = Path(__file__).resolve().parent / "outage.svg"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmarks; returns the exit code."""
    asked = _parser().parse_args(argv)
    # Each trip of a breaker would be a line on stderr.
    logging.getLogger("resilient_redis").addHandler(logging.NullHandler())
    before = json.loads(asked.compare.read_text(encoding="utf-8")) if asked.compare else None
    out = console()
    found: dict[str, Any] = {"setting": setting(), "quick": asked.quick, "benchmarks": {}}
    out.print(summary(found["setting"]))
    try:
        for name in asked.names or BENCHMARKS:
            result = _run(name, asked.quick)
            show(out, result)
            found["benchmarks"][name] = result.as_json()
            picture = asked.picture or (None if asked.quick else PICTURE)
            if result.picture is not None and picture is not None:
                picture.write_text(result.picture, encoding="utf-8")
                out.print(f"The picture: {picture}")
    except ServerError as error:
        Console(stderr=True).print(f"benchmarks: {error}", markup=False)
        return 2
    if asked.quick:
        out.print("\n[bold yellow]--quick: these figures show that it runs, and nothing else.[/]")
    if asked.json:
        text = json.dumps(found, indent=2, ensure_ascii=False)
        asked.json.write_text(text + "\n", encoding="utf-8")
    if before is not None:
        compare(out, before, found)
    return 0


def _run(name: str, quick: bool) -> Result:
    began = time.monotonic()
    with Console(stderr=True).status(name):
        result = BENCHMARKS[name](quick)
    if quick:
        result.figures = [replace(figure, claim=None) for figure in result.figures]
    result.notes.append(f"Took {time.monotonic() - began:.0f} s.")
    return result


def _name(text: str) -> str:
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"one of {', '.join(BENCHMARKS)}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What resilient-redis costs and what it buys, beside redis-py and its peers.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", type=_name, help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only whether it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="show the change since that JSON file"
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="where `timeline` draws the outage (default: benchmarks/outage.svg, not with --quick)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
