"""What src uses of redis-py's inside is there, and is listed.

A name that redis-py moves makes `test_it_is_all_there` fail, and nothing else here; a name that src
begins to use makes `test_the_list_is_complete` fail. Both read where src uses it from the syntax
trees.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from redis.asyncio.connection import AbstractConnection as AsyncAbstractConnection
from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.asyncio.connection import UnixDomainSocketConnection as AsyncUnixDomainSocketConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

import resilient_redis
from resilient_redis import asyncio
from resilient_redis.asyncio.retry import GuardedRetry as AsyncGuardedRetry
from resilient_redis.sync.retry import GuardedRetry

from .privates import INSIDE, PRIVATE, Private
from .privates_sync import INSIDE_SYNC, PRIVATE_SYNC

SRC = Path(__file__).resolve().parent.parent.parent / "src" / "resilient_redis"
REDIS = Path(redis.__file__).parent
# The modules whose classes src subclasses, or whose objects it holds.
MODULES = (
    *("asyncio/connection.py", "asyncio/client.py", "asyncio/retry.py"),
    *("connection.py", "client.py", "retry.py"),
    *(path.relative_to(REDIS).as_posix() for path in sorted((REDIS / "_parsers").glob("*.py"))),
)
# Where redis-py's objects are touched; tests/test_house.py keeps the others from all of this.
UNITS = ("seam", "flow", "asyncio", "sync")
# Ours, on objects of our own, and spelled like one of redis-py's by chance.
BY_CHANCE = {"_host", "_lock", "_read"}
# Somebody else's: asyncio's streams and locks, the standard library's named tuples.
FOREIGN = {"_protocol", "_get_close_waiter", "_waiters", "_fields", "_replace"}

# What src overrides, with what it is put in the place of.
OVERRIDES: list[tuple[type, type]] = [
    (asyncio.ResilientConnection, AsyncConnection),
    (asyncio.ResilientSSLConnection, AsyncSSLConnection),
    (asyncio.ResilientUnixDomainSocketConnection, AsyncUnixDomainSocketConnection),
    (AsyncGuardedRetry, AsyncRetry),
    (resilient_redis.ResilientConnection, Connection),
    (resilient_redis.ResilientSSLConnection, SSLConnection),
    (resilient_redis.ResilientUnixDomainSocketConnection, UnixDomainSocketConnection),
    (GuardedRetry, Retry),
]
LISTED = [*PRIVATE, *PRIVATE_SYNC]
CALLED = [*INSIDE, *INSIDE_SYNC]


class Use(NamedTuple):
    """A place where src touches an underscore name."""

    name: str
    place: str


def sources() -> Iterator[tuple[str, str]]:
    for unit in UNITS:
        for path in sorted((SRC / unit).rglob("*.py")):
            yield path.relative_to(SRC.parent).as_posix(), path.read_text(encoding="utf-8")


def everything_of_ours() -> Iterator[str]:
    """A shell uses names that are made in flow/, and of a breaker or a journal beside it."""
    for path in sorted(SRC.rglob("*.py")):
        yield path.read_text(encoding="utf-8")


def attributes(place: str, text: str) -> Iterator[Use]:
    """Every attribute, private or not."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            yield Use(node.attr, f"{place}:{node.lineno}")


def spelled(place: str, text: str) -> Iterator[Use]:
    """Every private name in quotes: for `getattr`."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Constant(value=str(name)) if name.isidentifier() and is_private(name):
                yield Use(name, f"{place}:{node.lineno}")


def imports(place: str, text: str) -> Iterator[Use]:
    """Every name that comes out of redis-py, in full."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "redis":
                yield Use(name, f"{place}:{node.lineno}")


def is_private(name: str) -> bool:
    parts = name.split(".")
    return any(part.strip("_") and part[0] == "_" and part[:2] != "__" for part in parts)


def defined(texts: Iterable[str]) -> set[str]:
    """The private attributes and functions that these sources make."""
    found: set[str] = set()
    for text in texts:
        tree = ast.parse(text)
        # What is only annotated is made by somebody else.
        declared = [n for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and n.value is None]
        annotated = {id(node.target) for node in declared}
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(name)
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                    found.add(name)  # of another object it is the other's
                case ast.Name(id=name, ctx=ast.Store()) if id(node) not in annotated:
                    found.add(name)  # a class attribute is a name that is stored
    return {name for name in found if is_private(name)}


def unlisted(texts: list[tuple[str, str]], theirs: set[str], ours: set[str]) -> Iterator[str]:
    """What `texts` use and the list lacks; `theirs` are the private names that redis-py has, `ours`
    those that our classes have.
    """
    listed = {private.name for private in LISTED}
    for place, text in texts:
        for use in imports(place, text):
            if is_private(use.name) and use.name not in listed:
                yield f"{use.place}: {use.name} is inside redis-py: list it"
        for use in attributes(place, text):
            if not is_private(use.name) or use.name in listed | BY_CHANCE | FOREIGN:
                continue
            if use.name in theirs and use.name in ours:
                yield (
                    f"{use.place}: {use.name} is ours and redis-py's: "
                    "list it, or give ours another name"
                )
            elif use.name not in ours:
                yield f"{use.place}: {use.name} is not ours: list it"
        for use in spelled(place, text):
            if use.name in theirs - listed:
                yield f"{use.place}: {use.name!r} is inside redis-py: list it"


def missing(private: Private) -> str | None:
    """What is wrong with it in this redis-py, and where that hurts; None where it is as listed."""
    try:
        if private.holds():
            return None
        why = "it is something else"
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs into the message
        why = f"{type(error).__name__}: {error}"
    used = [
        use.place
        for place, text in sources()
        for use in (*attributes(place, text), *spelled(place, text), *imports(place, text))
        if use.name == private.name
    ]
    return (
        f"{private.name} of {private.owner} has moved in redis-py {redis.__version__} ({why}); "
        f"expected: {private.shape}; used in {', '.join(used)}"
    )


def not_overridden_any_more(ours: type, theirs: type) -> Iterator[str]:
    """Where a method of ours no longer takes what redis-py gives to its own."""
    for name, own in inspect.getmembers(ours, inspect.isfunction):
        stock = getattr(theirs, name, None)
        if stock is None or own is stock or name == "__init__":
            continue
        taken = inspect.signature(own).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in taken):
            continue
        names = {p.name for p in taken}
        for parameter in inspect.signature(stock).parameters:
            if parameter not in names:
                where = own.__qualname__
                yield (
                    f"{theirs.__name__}.{name} takes {parameter!r} in redis-py "
                    f"{redis.__version__}, and {where} in its place does not"
                )


def test_it_is_all_there() -> None:
    findings = [found for private in LISTED + CALLED if (found := missing(private)) is not None]
    for ours, theirs in OVERRIDES:
        findings += not_overridden_any_more(ours, theirs)
    assert not findings, "\n".join(findings)


def test_the_list_is_complete() -> None:
    texts = list(sources())
    assert len(texts) > 10, f"nothing to read under {SRC}"
    theirs = defined((REDIS / name).read_text(encoding="utf-8") for name in MODULES)
    findings = list(unlisted(texts, theirs, defined(everything_of_ours())))
    assert not findings, "\n".join(findings)
    # And what is no longer used is no longer listed.
    used = {
        use.name
        for place, text in texts
        for use in (*attributes(place, text), *spelled(place, text), *imports(place, text))
    }
    idle = {private.name for private in LISTED + CALLED} - used
    assert not idle, f"src does not use {sorted(idle)}"


UNLISTED = [
    "def f(c): c._buffer_cutoff = 1",
    "from redis._parsers.resp3 import _AsyncRESP3Parser",
    "import redis._parsers.encoders",
    "def f(c): return getattr(c, '_buffer_cutoff')",
    # redis-py's own by that name would be written over
    "class C(Connection):\n    def g(self):\n        self._handshake_metadata = 1",
]


@pytest.mark.parametrize("text", UNLISTED)
def test_a_name_that_is_not_listed_is_found(text: str) -> None:
    theirs = {"_handshake_metadata", "_buffer_cutoff"}
    (finding,) = unlisted([("seam/new.py", text)], theirs, defined([text]))
    assert finding.startswith("seam/new.py:")


def test_a_name_that_moves_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the one test that is for it, with the places in src that use it."""
    by_name: dict[str, Any] = {private.name: private for private in PRIVATE}
    monkeypatch.delattr(AsyncAbstractConnection, "_send_ping", raising=False)
    told = missing(by_name["_send_ping"])
    assert told is not None
    assert "_send_ping of Connection has moved" in told
    assert "resilient_redis/seam/stock.py:" in told
    with pytest.raises(AssertionError, match="_send_ping of Connection has moved"):
        test_it_is_all_there()
