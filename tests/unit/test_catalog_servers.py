"""The table held against real servers: what it says of a command is what they do."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from resilient_redis.core.catalog import ROWS, shape_of
from resilient_redis.core.command import Kind, Wire
from resilient_redis.core.wire import pack, reply_bytes
from tests.unit.test_catalog_samples import (
    COUNTERS,
    NEUTRAL,
    QUEUED,
    REFUSED_WITH_KEYS,
    WRITES,
    Sample,
    label,
    samples,
)

pytestmark = pytest.mark.server

FAR = 9_999_999_999_999  # a deadline in ms that no test lives to see


class Raw:
    """A connection that gives replies as the bytes that came."""

    def __init__(self, port: int, protocol: int) -> None:
        self.protocol = protocol
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._file = self._socket.makefile("rb")
        assert not self.ask(b"HELLO", b"%d" % protocol).startswith(b"-")

    def ask(self, *args: bytes) -> bytes:
        return self.ask_all([args])[0]

    def ask_all(self, commands: list[tuple[bytes, ...]]) -> list[bytes]:
        self._socket.sendall(b"".join(pack(args) for args in commands))
        return [self._reply() for _ in commands]

    def on_empty(self, commands: list[tuple[bytes, ...]]) -> list[bytes]:
        """Each command on an empty server; in a transaction, so that none blocks."""
        framed = [
            frame for args in commands for frame in ((b"FLUSHALL",), (b"MULTI",), args, (b"EXEC",))
        ]
        replies = self.ask_all(framed)
        # a command that was not taken into the transaction has answered with the error itself
        return [
            queued if queued.startswith(b"-") else executed.removeprefix(b"*1\r\n")
            for queued, executed in zip(replies[2::4], replies[3::4], strict=True)
        ]

    def _reply(self) -> bytes:
        line = self._file.readline()
        mark, size = line[:1], line[1:-2]
        if mark == b"$" and size != b"-1":
            return line + self._file.read(int(size) + 2)
        if mark in (b"*", b"%", b"~") and size != b"-1":
            parts = int(size) * (2 if mark == b"%" else 1)
            return line + b"".join(self._reply() for _ in range(parts))
        return line

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def raw(request: pytest.FixtureRequest, server_port: int) -> Iterator[Raw]:
    connection = Raw(server_port, request.param)
    yield connection
    connection.ask(b"FLUSHALL")
    connection.close()


def lacks(reply: bytes) -> bool:
    """Is it a server without this command?"""
    return reply.startswith(b"-ERR unknown command")


def leaves(client: Redis) -> dict[str, Any]:
    """COMMAND's own rows, subcommands in the place of their container."""
    found: dict[str, Any] = {}
    rows = client.connection_pool.get_connection()
    rows.send_command("COMMAND")  # type: ignore[no-untyped-call]
    for row in rows.read_response():
        for leaf in row[9] or [row]:
            found[leaf[0].decode().replace("|", " ").upper()] = leaf
    client.connection_pool.release(rows)
    return found


def test_every_command_of_the_server_has_a_row(client: Redis) -> None:
    commands = leaves(client)
    assert len(commands) > 350
    assert not set(commands) - {row.name for row in ROWS}


def test_arity_and_flags_are_those_of_the_server(client: Redis) -> None:
    for name, (_, arity, flags, *_) in leaves(client).items():
        row = next(row for row in ROWS if row.name == name)
        if row.kind is Kind.REFUSED:
            continue
        assert row.arity == arity, name
        assert row.grows == (b"denyoom" in flags), name
        assert row.kind is not Kind.READ or row.may_write == (b"write" in flags), name
        if name not in ("XREAD", "XREADGROUP"):  # only with BLOCK
            assert row.blocking == (b"blocking" in flags), name


def test_a_neutral_answer_is_that_of_an_empty_server(raw: Raw) -> None:
    wanted = [sample for sample in NEUTRAL if sample[0] != b"XREADGROUP"]
    wrong = {
        label(sample): (reply, reply_bytes(shape_of(sample), raw.protocol))
        for sample, reply in zip(wanted, raw.on_empty(wanted), strict=True)
        if not lacks(reply) and reply != reply_bytes(shape_of(sample), raw.protocol)
    }
    assert not wrong


def test_a_group_without_news_answers_as_the_table_does(raw: Raw) -> None:
    raw.ask(b"XGROUP", b"CREATE", b"stream", b"group", b"$", b"MKSTREAM")
    for sample in NEUTRAL:
        if sample[0] == b"XREADGROUP":
            assert raw.ask(*sample) == reply_bytes(shape_of(sample), raw.protocol)


def test_what_is_queued_is_accepted_and_its_placeholder_has_the_type_of_the_reply(
    raw: Raw,
) -> None:
    accepted = [*samples(WRITES), *samples(COUNTERS)]
    for sample, reply in zip(accepted, raw.on_empty(accepted), strict=True):
        placeholder = reply_bytes(shape_of(sample), raw.protocol)
        if not lacks(reply):
            assert reply[:1] == placeholder[:1], label(sample)
            if reply[:1] == b"*":
                assert reply[:4] == placeholder[:4], label(sample)


def test_acknowledgements_are_the_constants_of_the_server(raw: Raw) -> None:
    for sample in samples(WRITES):
        shape = shape_of(sample)
        setup = [(b"FLUSHALL",), (b"SETEX", b"k", b"99", b"v"), (b"SET", b"j", b"v")]
        if shape.name in ("HMSET", "HSETEX", "LTRIM", "PFMERGE"):
            setup = [(b"FLUSHALL",)]
        *_, reply = raw.ask_all([*setup, sample])
        if not shape.receipt and not lacks(reply):
            assert reply == reply_bytes(shape, raw.protocol), label(sample)


# What one of the servers lacks, and a form that GETKEYS does not take, though PFMERGE does
NO_GETKEYS = ("MSETEX", "XDELEX", "XACKDEL", "PFMERGE d")


def test_keys_are_where_the_server_finds_them(raw: Raw) -> None:
    keyed = [*NEUTRAL, *QUEUED, *samples(REFUSED_WITH_KEYS)]
    asked = raw.ask_all([(b"COMMAND", b"GETKEYS", *sample) for sample in keyed])
    for sample, reply in zip(keyed, asked, strict=True):
        keys = shape_of(sample).keys
        if reply.startswith(b"-ERR The command has no key"):
            assert not keys, label(sample)
        elif reply.startswith(b"-"):
            assert label(sample).startswith(NO_GETKEYS), reply
        else:
            assert sorted(reply.split(b"\r\n")[2:-1:2]) == sorted(keys), label(sample)


def rewritten(sample: Sample, deadline_ms: int) -> Sample:
    ttl = shape_of(sample).ttl
    assert ttl is not None
    return (*ttl.head, b"%d" % deadline_ms, *ttl.tail)


RELATIVE = samples("""
SET k v EX 100 | SET k v px 100000 | SETEX k 100 v | PSETEX k 100000 v
MSETEX 2 k v j w EX 100 | MSETEX 1 k v PX 100000 | EXPIRE k 100 | PEXPIRE k 100000
HSETEX k EX 100 FIELDS 1 f v | HSETEX k PX 100000 FIELDS 2 f v g w
HEXPIRE k 100 FIELDS 1 f | HPEXPIRE k 100000 FIELDS 2 f g
""")


def test_every_command_with_a_relative_expiry_is_tried() -> None:
    relative = [sample for sample in QUEUED if shape_of(sample).ttl is not None]
    assert {sample[0] for sample in relative} == {sample[0] for sample in RELATIVE}


def set_up(sample: Sample) -> list[Sample]:
    """An empty server but for what `sample` expires or overwrites."""
    hashed = sample[0].startswith(b"H")
    old = (b"HSET", b"k", b"f", b"1", b"g", b"2") if hashed else (b"SET", b"k", b"old")
    return [(b"FLUSHALL",), old]


def state_of(raw: Raw, sample: Sample) -> tuple[bytes, int]:
    """What `k` holds and when it expires, in ms."""
    if sample[0].startswith(b"H"):
        times = raw.ask(b"HPEXPIRETIME", b"k", b"FIELDS", b"1", b"f")
        return raw.ask(b"HGETALL", b"k"), int(times.split(b":")[1])
    return raw.ask(b"GET", b"k"), int(raw.ask(b"PEXPIRETIME", b"k")[1:])


@pytest.mark.parametrize("sample", RELATIVE, ids=label)
def test_a_relative_expiry_rewritten_is_the_same_command(raw: Raw, sample: Sample) -> None:
    ttl = shape_of(sample).ttl
    assert ttl is not None
    assert ttl.milliseconds == 100_000
    *_, time, reply = raw.ask_all([*set_up(sample), (b"TIME",), sample])
    if lacks(reply):
        pytest.skip("not a command of this server")
    deadline = int(time.split(b"\r\n")[2]) * 1000 + ttl.milliseconds
    value, expires = state_of(raw, sample)
    assert deadline <= expires <= deadline + 30_000
    *_, again = raw.ask_all([*set_up(sample), rewritten(sample, deadline)])
    assert again == reply
    assert state_of(raw, sample) == (value, deadline)


@pytest.mark.parametrize("sample", RELATIVE, ids=label)
def test_a_deadline_that_has_passed_takes_the_old_value_away(raw: Raw, sample: Sample) -> None:
    *_, reply = raw.ask_all([*set_up(sample), rewritten(sample, 1)])
    if lacks(reply):
        pytest.skip("not a command of this server")
    assert not reply.startswith(b"-")
    command = (b"HGET", b"k", b"f") if sample[0].startswith(b"H") else (b"GET", b"k")
    assert raw.ask(*command) == reply_bytes(shape_of(command), raw.protocol)


def test_restore(client: Redis) -> None:
    client.set("source", "v")
    payload = client.dump("source")
    assert isinstance(payload, bytes)
    for ttl, more in (
        (b"0", ()),
        (b"5000", ()),
        (b"5000", (b"IDLETIME", b"3")),
        (b"%d" % FAR, (b"ABSTTL",)),
    ):
        sample = (b"RESTORE", b"k", ttl, payload, b"REPLACE", *more)
        shape = shape_of(sample)
        assert (shape.kind, shape.reply, shape.safe_twice) == (Kind.WRITE, Wire.OK, True)
        assert (shape.ttl is not None) == (ttl == b"5000")
        command = rewritten(sample, FAR) if shape.ttl else sample
        answer = client.execute_command(*command)  # type: ignore[no-untyped-call]
        assert answer in (b"OK", True)
        assert client.pexpiretime("k") == (-1 if ttl == b"0" else FAR)
    refused = shape_of((b"RESTORE", b"k", b"0", payload))
    assert refused.kind is Kind.REFUSED


# ---- arguments at random

TEXT = """
0 1 -1 2 3 +1 01 -0 1.5 -1.5 1e400 1e-400 nan inf -inf +inf infinity 0x10 .5 5. +1.5 1e5
9223372036854775807 -9223372036854775808 9223372036854775808 18446744073709551615
18446744073709551616 9223372036854775 9223372036854776 9221577000000000 70368744177663
70368744177 4294967295 4294967296 536870911 (1 (inf ( [ [a - + (- (+ * $ > 1-* *-1 0-0 1-2-3
-1-1 ~ = # #1 u8 u64 i64 i65 U8 i0 k m km KM EX PX EXAT PXAT KEEPTTL NX XX GET GT LT CH INCR
FNX FXX COUNT MATCH NOVALUES LIMIT WITHSCORES WITHSCORE WITHVALUES BYSCORE BYLEX REV WEIGHTS
AGGREGATE SUM MIN MAX STORE STOREDIST WITHCOORD WITHDIST WITHHASH ASC DESC ANY BY ALPHA LEFT
RIGHT RANK MAXLEN MINID BLOCK STREAMS NOMKSTREAM IDS LEN IDX MINMATCHLEN WITHMATCHLEN REPLACE
ABSTTL FROMMEMBER FROMLONLAT BYRADIUS BYBOX BYTE BIT SAMPLES OVERFLOW WRAP SAT FAIL SET INCRBY
"""
WORDS = [*TEXT.encode().split(), b"", b" 1", b"1 ", b"\xff\x00", b"1\n"]


def mutated(sample: Sample, rnd: random.Random) -> Sample:
    args = list(sample)
    for _ in range(rnd.choice((1, 1, 2, 3))):
        at = rnd.randrange(1, len(args) + 1)
        how = rnd.choice(["replace", "replace", "insert", "delete", "lower"])
        if how == "insert" or at == len(args):
            args.insert(at, rnd.choice(WORDS))
        elif how == "replace":
            args[at] = rnd.choice(WORDS)
        elif how == "delete":
            del args[at]
        else:
            args[at] = args[at].lower()
    return tuple(args)


def test_no_answer_stands_in_for_an_error_of_the_server(raw: Raw) -> None:
    """What an empty server refuses is refused; what it answers to a read is the neutral answer."""
    rnd = random.Random(raw.protocol)
    pool = [s for s in (*NEUTRAL, *samples(WRITES), *samples(COUNTERS)) if s[0] != b"XREADGROUP"]
    commands = [mutated(rnd.choice(pool), rnd) for _ in range(5000)]
    wrong = []
    for start in range(0, len(commands), 100):
        some = commands[start : start + 100]
        for command, reply in zip(some, raw.on_empty(some), strict=True):
            shape = shape_of(command)
            if shape.kind is Kind.REFUSED or lacks(reply):
                continue
            answered = shape.kind not in (Kind.WRITE, Kind.COUNTER)
            if reply.startswith(b"-") or (answered and reply != reply_bytes(shape, raw.protocol)):
                wrong.append((command, reply))
    assert not wrong
