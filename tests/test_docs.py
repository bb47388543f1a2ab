"""docs/commands.md is what `resilient-redis commands` prints, and shows every answer there is."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest

from resilient_redis.cli.app import main
from resilient_redis.cli.commands import (
    ALWAYS_REFUSED,
    NO_PAGE,
    TABLES,
    VALKEY,
    examples,
    line,
    page,
)
from resilient_redis.core import catalog
from resilient_redis.core.catalog import ROWS, parse, shape_of, streams
from resilient_redis.core.catalog.row import WRONG_NUMBER
from resilient_redis.core.command import Kind, Shape, Wire
from tests.unit.test_catalog import CONDITIONAL, REFUSALS
from tests.unit.test_catalog_samples import NEUTRAL, QUEUED, REFUSED_WITH_KEYS, samples
from tests.unit.test_catalog_servers import mutated

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
UPDATE = "resilient-redis commands > docs/commands.md"

# Why arguments are refused that no server takes: the page shows none of these.
MALFORMED = {
    WRONG_NUMBER,
    parse.INVALID_EXPIRE,
    parse.NOT_AN_INTEGER,
    parse.NOT_A_FLOAT,
    parse.NOT_A_RANGE,
    parse.SYNTAX,
    streams.INVALID_ID,
    "DUMP payload version or checksum are wrong",
    "INCR takes one pair of score and member",
    "a distance cannot be negative",
    "invalid bitfield type",
    "invalid longitude, latitude pair",
    "the ID must be greater than 0-0",
    "the number of keys does not fit the arguments",
    "timeout is negative or out of range",
    "wrong number of keys and IDs",
}
IN_TABLES = [row for _, rows in TABLES for row in rows]


def differences() -> str:
    """How the file differs from what is printed; empty if it does not."""
    stored = PAGE.read_text("ascii").splitlines()
    diff = unified_diff(
        stored, page().splitlines(), "docs/commands.md", "catalog", lineterm="", n=0
    )
    return "\n".join(diff)


def test_the_page_is_what_the_catalog_says() -> None:
    found = differences()
    assert not found, f"docs/commands.md is not what the catalog says. Run: {UPDATE}\n\n{found}"


# ASCII, so that a redirected stdout writes the same bytes on every platform.
def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["commands"]) == 0
    assert capsys.readouterr().out == page()
    assert page().isascii()


@pytest.mark.parametrize(
    "name, changes",
    [
        ("GET", {"reply": Wire.EMPTY_STRING}),
        ("TTL", {"number": 0}),
        ("GETDEL", {"kind": Kind.REFUSED}),
        ("HSET", {"kind": Kind.COUNTER}),
        ("SADD", {"receipt": False}),
        ("LPUSH", {"safe_twice": True}),
        ("BLPOP", {"blocking": False}),
        ("EXPIRE", {"by_args": None}),
        ("INCR", {"kind": Kind.WRITE}),
        ("PING", {"reason": "because"}),
        ("PING", {"safe_twice": False}),
        ("PING", {"kind": Kind.READ}),
    ],
)
def test_a_planted_change_is_found(
    name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = catalog._COMMANDS[name.encode()]
    monkeypatch.setitem(catalog._COMMANDS, name.encode(), replace(row, **changes))
    assert f"[`{name}" in differences()


def test_every_row_is_on_the_page_once() -> None:
    assert Counter(row.name for row in (*IN_TABLES, *ALWAYS_REFUSED)) == Counter(
        row.name for row in ROWS
    )


def test_every_example_is_one_of_its_row_and_none_is_malformed() -> None:
    for row in ROWS:
        for args in examples(row.name):
            shape = shape_of(args)
            assert shape.name == row.name
            assert shape.reason not in MALFORMED, line(args)
    for row in ALWAYS_REFUSED:
        (args,) = examples(row.name)
        assert shape_of(args).reason == row.reason


def test_a_line_of_a_table_has_four_cells() -> None:
    lines = [text for text in page().splitlines() if text.startswith("|")]
    assert len(lines) > len(IN_TABLES)
    assert {text.count("|") for text in lines} == {5}


def test_links_name_commands() -> None:
    assert {row.name for row in ROWS} >= VALKEY | NO_PAGE


Case = tuple[Kind, Wire, bool, bool, bool, bool, str]


def case(shape: Shape) -> Case:
    """What the page tells of one answer from another, but for numbers that follow the arguments."""
    relative = shape.ttl is not None
    return (
        shape.kind,
        shape.reply,
        shape.receipt,
        shape.safe_twice,
        shape.blocking,
        relative,
        shape.reason,
    )


# Words that turn an answer into another one, put into every place of every sample.
WORDS = b"NX XX GT LT FNX FXX GET INCR PERSIST NOMKSTREAM ACKED 17".split()
PAIRS = [(word, value) for word in (b"EX", b"STORE", b"BLOCK", b"COUNT") for value in (b"5", b"d")]
INSERTED = [*((word,) for word in WORDS), *PAIRS]


def test_no_answer_is_missing() -> None:
    """Whatever arguments do to the answer of a command can be seen on the page."""
    shown = {row.name: {case(shape_of(args)) for args in examples(row.name)} for row in IN_TABLES}
    pool = [
        *NEUTRAL,
        *QUEUED,
        *(
            sample
            for text in (REFUSED_WITH_KEYS, CONDITIONAL, REFUSALS)
            for sample in samples(text)
        ),
        *(args for row in IN_TABLES for args in examples(row.name)),
    ]
    rnd = random.Random(1)
    tried = [
        *pool,
        *(mutated(rnd.choice(pool), rnd) for _ in range(50_000)),
        *(
            (*args[:at], *words, *args[at:])
            for args in pool
            for at in range(1, len(args) + 1)
            for words in INSERTED
        ),
    ]
    missing = {}
    for args in tried:
        shape = shape_of(args)
        if shape.reason not in MALFORMED and case(shape) not in shown.get(
            shape.name, {case(shape)}
        ):
            missing[shape.name, case(shape)] = line(args)
    assert not missing
