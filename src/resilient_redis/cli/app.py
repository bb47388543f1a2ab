"""The command line's arguments."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence

from .commands import page
from .display import Display, Plain
from .rehearse import FAKE, Options, Rehearsal
from .servers import REDIS, VALKEY, ServerError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    # The display shows what the log would say.
    logging.getLogger("resilient_redis").addHandler(logging.NullHandler())
    arguments = _parser().parse_args(argv)
    if arguments.command == "commands":
        print(page(), end="")
        return 0
    options = Options(
        seconds=arguments.seconds,
        url=arguments.url,
        server=arguments.server,
        tasks=arguments.tasks,
        rate=arguments.rate,
        guard=arguments.guard,
    )
    try:
        return asyncio.run(Rehearsal(options, _display(arguments.plain)).run())
    except ServerError as error:
        print(f"resilient-redis: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: no verdict", file=sys.stderr)
        return 130


def _display(plain: bool) -> Display:
    if plain or not sys.stdout.isatty():
        return Plain()
    try:
        from .screen import Screen  # noqa: PLC0415 - rich comes with the extra `cli`
    except ImportError:
        print("a live screen needs rich: pip install 'resilient-redis[cli]'", file=sys.stderr)
        return Plain()
    return Screen()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resilient-redis", description="A circuit breaker with write replay inside redis-py."
    )
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    rehearse = commands.add_parser(
        "rehearse",
        help="go through outages of a real server under load, and judge what became of each write",
        description=(
            "Starts a server, runs a mixed workload through kill -9, restart, freeze and thaw, and "
            "compares what the callers were told with the server's append-only file. Exit code 0 "
            "if every promise was kept, 1 if not, 2 if there is no server."
        ),
    )
    rehearse.add_argument(
        "--seconds", type=_positive, default=20.0, help="how long the load runs (default: 20)"
    )
    rehearse.add_argument(
        "--plain", action="store_true", help="a line per second, as where there is no terminal"
    )
    which = rehearse.add_mutually_exclusive_group()
    which.add_argument("--url", help="your own server; it is loaded, and you do the killing")
    which.add_argument(
        "--server",
        choices=(VALKEY, REDIS, FAKE),
        help="which server to start (default: valkey, or what is there)",
    )
    rehearse.add_argument("--tasks", type=int, default=50, help="asyncio tasks (default: 50)")
    rehearse.add_argument(
        "--rate", type=_positive, help="operations per second in all (default: 2000)"
    )
    rehearse.add_argument(
        "--no-guard",
        dest="guard",
        action="store_false",
        help="plain redis-py, errors caught: what the library is for",
    )
    commands.add_parser(
        "commands",
        help="what each Redis command is answered while Redis is away, as Markdown",
        description="Prints docs/commands.md, made from the table by which the library decides.",
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value
