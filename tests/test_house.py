"""The house rules of DESIGN section 3, read from the syntax trees and not from anyone's memory.

Each rule is a function from one source file to its findings. It is applied to the whole tree, and
to planted bad sources, so that a rule which can no longer fail fails here.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

PACKAGE = "resilient_redis"
ROOT = Path(__file__).resolve().parent.parent / "src" / PACKAGE

# cli -> shells -> seam, journal -> core -> errors, events, policy, receipt: a unit imports only
# what stands on a lower floor. A new top-level module or directory must be given its floor here.
FLOORS = {
    "cli": 60,
    "contrib": 60,  # for other packages; nothing here may need it
    "__init__": 50,  # the public face; mirrors the shells
    "sync": 40,
    "asyncio": 40,
    "flow": 38,  # what both shells do, the waiting left open
    "answering": 35,  # what a breaker says in the server's place
    "drain": 35,  # what observers hear of it
    "base": 30,  # what both shells share
    "observers": 25,
    "pacing": 25,
    "outbox": 25,  # the journal's other side: receipts and dead letters
    "settings": 25,
    "provenance": 25,  # who was told what while Redis was away
    "seam": 20,
    "journal": 20,
    "policy": 15,  # its rules are checked against the catalog
    "core": 10,
    "track": 0,
    "errors": 0,
    "events": 0,
    "receipt": 0,
    "snapshot": 0,
}
# On the ground floor neighbours may know each other (a receipt raises one of the errors);
# higher up they may not: `sync` and `asyncio`, `seam` and `journal` are strangers.
GROUND = 0

# What `core` may import besides this package: nothing that waits, reads a clock, draws lots or
# talks to anyone.
PURE = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "fnmatch",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "struct",
    "types",
    "typing",
}
# Built-in doors out of a pure module.
DOORS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}

# The private attributes of redis-py's connections, parsers and pools (8.1.0; found by listing
# `self._*` in its sources), less the words that anyone may use for a private of their own
# (`_lock`, `_buffer`, `_read`, `_connect`, `_close`, `_cache`, `_host`).
REDIS_PRIVATE = {
    "_active_read_timeout",
    "_available_connections",
    "_buffer_cutoff",
    "_checkpid",
    "_command_packer",
    "_connect_callbacks",
    "_connection_kwargs",
    "_created_connections",
    "_current_command_cache_key",
    "_event_dispatcher",
    "_get_free_connections",
    "_get_in_use_connections",
    "_get_pool_lock",
    "_get_push_notifications_parser",
    "_handshake_metadata",
    "_host_error",
    "_in_use_connections",
    "_maint_notifications_connection_handler",
    "_maint_notifications_pool_handler",
    "_parser",
    "_re_auth_token",
    "_read_from_socket",
    "_read_response",
    "_reader",
    "_send_packed_command",
    "_send_ping",
    "_should_reconnect",
    "_should_update_connection",
    "_sock",
    "_socket_connect_timeout",
    "_socket_timeout",
    "_stream",
    "_writer",
}
IN_CONTRIB = {"amqp", "billiard", "celery", "kombu"}
TOUCHES_REDIS = {"seam", "sync", "asyncio"}  # the shells subclass redis-py's connections

MAX_LINES = 400


class Source(NamedTuple):
    """One file: its place inside the package (`core/wire.py`) and its text."""

    place: PurePosixPath
    text: str

    @property
    def unit(self) -> str:
        """The top-level module or directory that the file belongs to."""
        return self.place.parts[0].removesuffix(".py")

    @property
    def package(self) -> tuple[str, ...]:
        """Where a relative import in this file starts from."""
        return (PACKAGE, *self.place.parent.parts)

    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.place))


def imports(source: Source) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and absolute dotted name of everything imported, at any depth, for types only or not.

    `from a import b` yields `a.b`: whether `b` is a module is left to the reader.
    """
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base: tuple[str, ...] = ()
            if node.level:
                base = source.package[: len(source.package) - node.level + 1]
            module = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield node.lineno, (*module, alias.name)


def unit_of(name: tuple[str, ...]) -> str | None:
    """The unit of this package that `name` leads to, or None for another package."""
    if name[0] != PACKAGE:
        return None
    return name[1] if len(name) > 1 and name[1] in FLOORS else "__init__"


def imports_go_one_way(source: Source) -> Iterator[str]:
    here = source.unit
    if here not in FLOORS:
        yield f"{source.place}: {here!r} has no floor yet: give it one in FLOORS"
        return
    for line, name in imports(source):
        there = unit_of(name)
        if there is None or there == here:
            continue
        if FLOORS[there] > FLOORS[here] or (FLOORS[there] == FLOORS[here] != GROUND):
            yield f"{source.place}:{line}: {here} must not import {'.'.join(name)}"


def core_is_pure(source: Source) -> Iterator[str]:
    if source.unit != "core":
        return
    for line, name in imports(source):
        if name[0] != PACKAGE and name[0] not in PURE:
            yield f"{source.place}:{line}: core must not import {'.'.join(name)}"
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.Name) and node.id in DOORS:
            yield f"{source.place}:{node.lineno}: core must not use {node.id}"
        elif isinstance(node, (ast.AsyncFunctionDef, ast.Await)):
            yield f"{source.place}:{node.lineno}: core waits for nothing"


def files_are_short(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines > MAX_LINES:
        yield f"{source.place}: {lines} lines, at most {MAX_LINES}"


def silence_gives_its_reason(source: Source) -> Iterator[str]:
    """An error may be dropped where a comment says why; a pragma for a linter is no reason."""
    pragmas = ("noqa", "type:", "pragma:")
    commented = set()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        words = token.string.lstrip("# ")
        if token.type == tokenize.COMMENT and words and not words.startswith(pragmas):
            commented.add(token.start[0])
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.ExceptHandler):
            if not all(is_nothing(statement) for statement in node.body):
                continue
            what, last = "handler", node.body[-1].end_lineno or node.lineno
        elif isinstance(node, ast.Call) and called(node) == "suppress":
            what, last = "suppress", node.end_lineno or node.lineno
        else:
            continue
        if commented.isdisjoint(range(node.lineno, last + 1)):
            yield f"{source.place}:{node.lineno}: silent {what} without a reason in a comment"


def is_nothing(statement: ast.stmt) -> bool:
    """Does the statement leave no trace of the error: `pass`, `...`, `continue`, `return`?"""
    if isinstance(statement, ast.Return):
        return statement.value is None
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, (ast.Pass, ast.Continue))


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def redis_privates_stay_at_the_seam(source: Source) -> Iterator[str]:
    """By name only: a syntax tree does not know whose attribute it sees."""
    if source.unit in TOUCHES_REDIS:
        return
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.Attribute) and node.attr in REDIS_PRIVATE:
            yield f"{source.place}:{node.lineno}: {node.attr} is redis-py's: use the seam"


def other_packages_stay_in_contrib(source: Source) -> Iterator[str]:
    """They need not be installed."""
    if source.unit == "contrib":
        return
    for line, name in imports(source):
        if name[0] in IN_CONTRIB:
            yield f"{source.place}:{line}: only contrib may import {name[0]}"


Rule = Callable[[Source], Iterator[str]]
RULES: list[Rule] = [
    imports_go_one_way,
    core_is_pure,
    files_are_short,
    silence_gives_its_reason,
    redis_privates_stay_at_the_seam,
    other_packages_stay_in_contrib,
]


@pytest.fixture(scope="module")
def house() -> list[Source]:
    return [
        Source(PurePosixPath(path.relative_to(ROOT).as_posix()), path.read_text(encoding="utf-8"))
        for path in sorted(ROOT.rglob("*.py"))
    ]


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps(rule: Rule, house: list[Source]) -> None:
    assert len(house) > 3, f"nothing to read under {ROOT}"
    findings = [finding for source in house for finding in rule(source)]
    assert not findings, "\n".join(findings)


IMPURE = ("redis", "asyncio", "threading", "time", "random", "socket", "os", "logging")

PLANTED: list[tuple[Rule, str, str]] = [
    (imports_go_one_way, "core/guard.py", "from ..seam import conn"),
    (imports_go_one_way, "core/guard.py", "from resilient_redis import journal"),
    (
        imports_go_one_way,
        "core/guard.py",
        "from resilient_redis.journal.memory import MemoryJournal",
    ),
    (imports_go_one_way, "core/guard.py", "import resilient_redis.asyncio.connection"),
    (imports_go_one_way, "core/guard.py", "import resilient_redis"),
    (imports_go_one_way, "core/catalog/keys.py", "from ... import seam"),
    (imports_go_one_way, "core/guard.py", "def late():\n    from .. import asyncio"),
    (imports_go_one_way, "core/guard.py", "if TYPE_CHECKING:\n    from ..journal import base"),
    (imports_go_one_way, "errors.py", "from .core import command"),
    (imports_go_one_way, "policy.py", "from . import base"),
    (imports_go_one_way, "seam/conn.py", "from ..journal import memory"),
    (imports_go_one_way, "journal/memory.py", "from ..base import thing"),
    (imports_go_one_way, "sync/client.py", "from ..asyncio import client"),
    (imports_go_one_way, "asyncio/client.py", "from ..sync.client import ResilientRedis"),
    (imports_go_one_way, "asyncio/client.py", "from .. import ResilientRedis"),
    (imports_go_one_way, "asyncio/client.py", "from ..cli import main"),
    (imports_go_one_way, "__init__.py", "from .contrib import celery"),
    (imports_go_one_way, "cli/main.py", "from ..contrib import celery"),
    (imports_go_one_way, "flow/processes.py", "def late():\n    from ..contrib import celery"),
    (imports_go_one_way, "attic/old.py", ""),
    (other_packages_stay_in_contrib, "flow/processes.py", "import celery"),
    (other_packages_stay_in_contrib, "sync/client.py", "from kombu.transport import redis"),
    *[(core_is_pure, "core/guard.py", f"import {name}") for name in (*IMPURE, "redis.asyncio")],
    (core_is_pure, "core/catalog/keys.py", "from redis.exceptions import ConnectionError"),
    (core_is_pure, "core/guard.py", "def now():\n    from time import monotonic"),
    (core_is_pure, "core/guard.py", "__import__('time')"),
    (core_is_pure, "core/guard.py", "open('x')"),
    (core_is_pure, "core/guard.py", "async def f(): ..."),
    (files_are_short, "core/guard.py", "x = 1\n" * 401),
    (silence_gives_its_reason, "cli/x.py", "try:\n    f()\nexcept OSError:\n    pass"),
    (silence_gives_its_reason, "cli/x.py", "try:\n    f()\nexcept OSError:  # noqa: S110\n    ..."),
    (
        silence_gives_its_reason,
        "cli/x.py",
        "def g():\n    try:\n        f()\n    except E:\n        return",
    ),
    (
        silence_gives_its_reason,
        "cli/x.py",
        "for x in y:\n    try:\n        f()\n    except E: continue",
    ),
    (silence_gives_its_reason, "cli/x.py", "try:\n    f('# no')\nexcept E:\n    '# no comment'"),
    (silence_gives_its_reason, "cli/x.py", "with contextlib.suppress(OSError):\n    f()  # why"),
    (silence_gives_its_reason, "cli/x.py", "with suppress(OSError):  # type: ignore[x]\n    f()"),
    (redis_privates_stay_at_the_seam, "core/guard.py", "def f(c): c._writer.write(b'')"),
    (redis_privates_stay_at_the_seam, "base.py", "def f(p): return len(p._available_connections)"),
    (redis_privates_stay_at_the_seam, "cli/x.py", "def f(c): c._parser = None"),
]


@pytest.mark.parametrize("rule, place, text", PLANTED)
def test_a_planted_fault_is_found(rule: Rule, place: str, text: str) -> None:
    assert list(rule(Source(PurePosixPath(place), text)))


ALLOWED: list[tuple[Rule, str, str]] = [
    (imports_go_one_way, "asyncio/client.py", "import asyncio\nfrom redis.asyncio import Redis"),
    (
        imports_go_one_way,
        "asyncio/client.py",
        "from ..core import guard\nfrom .recovery import run",
    ),
    (imports_go_one_way, "asyncio/__init__.py", "from .client import ResilientRedis"),
    (imports_go_one_way, "__init__.py", "from .sync import ResilientRedis\nfrom .errors import X"),
    (imports_go_one_way, "receipt.py", "from .errors import ReplyUnknown"),
    (imports_go_one_way, "journal/memory.py", "from ..core.entry import Entry"),
    (imports_go_one_way, "cli/oracle.py", "import resilient_redis"),
    (imports_go_one_way, "contrib/celery.py", "import celery\nfrom ..sync.breaker import X"),
    (other_packages_stay_in_contrib, "contrib/celery.py", "from kombu.transport import redis"),
    (core_is_pure, "core/guard.py", "from collections.abc import Iterable\nfrom ..errors import X"),
    (core_is_pure, "asyncio/client.py", "import time"),
    (files_are_short, "core/guard.py", "x = 1\n" * 400),
    (silence_gives_its_reason, "cli/x.py", "try:\n    f()\nexcept E:\n    pass  # gone already"),
    (silence_gives_its_reason, "cli/x.py", "try:\n    f()\nexcept E:\n    log(1)"),
    (silence_gives_its_reason, "cli/x.py", "with suppress(E):  # gone already\n    f()"),
    (redis_privates_stay_at_the_seam, "seam/conn.py", "def f(c): c._writer.write(b'')"),
]


@pytest.mark.parametrize("rule, place, text", ALLOWED)
def test_what_is_right_is_left_alone(rule: Rule, place: str, text: str) -> None:
    assert not list(rule(Source(PurePosixPath(place), text)))


def test_the_list_of_pure_modules_names_the_standard_library() -> None:
    assert PURE - {"__future__"} <= sys.stdlib_module_names
