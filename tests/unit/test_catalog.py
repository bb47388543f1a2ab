"""What the table says of a command, argument by argument; without a server."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest
from redis import Redis

from resilient_redis.core.catalog import ROWS, names, shape_of
from resilient_redis.core.command import Kind, RelativeTTL, Shape, Wire
from resilient_redis.core.wire import reply_bytes
from tests.unit.test_catalog_samples import COUNTERS, NEUTRAL, QUEUED, Sample, label, samples

READ, TAKE, PUBLISH = Kind.READ, Kind.TAKE, Kind.PUBLISH
WRITE, COUNTER, REFUSED = Kind.WRITE, Kind.COUNTER, Kind.REFUSED


def shape(text: str) -> Shape:
    """The shape of a command whose words are split at blanks."""
    return shape_of(text.encode().split())


@pytest.mark.parametrize(
    "text, kind, reply, number",
    [
        ("get k", READ, Wire.NIL, 0),
        ("MGET a b c", READ, Wire.NILS, 3),
        ("TTL k", READ, Wire.INT, -2),
        ("TYPE k", READ, Wire.NONE_STATUS, 0),
        ("object Encoding k", READ, Wire.NIL, 0),
        ("GETEX k", READ, Wire.NIL, 0),
        ("LCS a b LEN", READ, Wire.INT, 0),
        ("LCS a b idx", READ, Wire.LCS_MATCHES, 0),
        ("LPOS k e", READ, Wire.NIL, 0),
        ("LPOS k e COUNT 0", READ, Wire.EMPTY_ARRAY, 0),
        ("SRANDMEMBER k", READ, Wire.NIL, 0),
        ("SRANDMEMBER k 2", READ, Wire.EMPTY_ARRAY, 0),
        ("HSCAN k 0 COUNT 10", READ, Wire.SCAN, 0),
        ("ZRANK k m", READ, Wire.NIL, 0),
        ("ZRANK k m WITHSCORE", READ, Wire.NIL_ARRAY, 0),
        ("GEOPOS k m n", READ, Wire.NIL_ARRAYS, 2),
        ("BITPOS k 1", READ, Wire.INT, -1),
        ("BITPOS k 0", READ, Wire.INT, 0),
        ("SORT k GET a GET b", READ, Wire.EMPTY_ARRAY, 0),
        ("LPOP k", TAKE, Wire.NIL, 0),
        ("LPOP k 1", TAKE, Wire.NIL_ARRAY, 0),
        ("SPOP k", TAKE, Wire.NIL, 0),
        ("SPOP k 1", TAKE, Wire.EMPTY_SET, 0),
        ("ZPOPMIN k", TAKE, Wire.EMPTY_ARRAY, 0),
        ("PUBLISH c m", PUBLISH, Wire.INT, 0),
    ],
)
def test_neutral(text: str, kind: Kind, reply: Wire, number: int) -> None:
    found = shape(text)
    assert (found.kind, found.reply, found.number) == (kind, reply, number)
    assert found.safe_twice == (kind is READ)


@pytest.mark.parametrize(
    "text, reply, number",
    [
        ("SET k v", Wire.OK, 0),
        ("SET k v KEEPTTL", Wire.OK, 0),
        ("MSET k v j w", Wire.OK, 0),
        ("HMSET k f v", Wire.OK, 0),
        ("LTRIM k 0 9", Wire.OK, 0),
        ("PFMERGE d a b", Wire.OK, 0),
        ("DEL a b c", Wire.INT, 3),
        ("UNLINK a", Wire.INT, 1),
        ("EXPIRE k 5", Wire.INT, 1),
        ("PEXPIREAT k 5", Wire.INT, 1),
        ("PERSIST k", Wire.INT, 1),
        ("MSETEX 1 k v", Wire.INT, 1),
        ("HSETEX k FIELDS 1 f v", Wire.INT, 1),
    ],
)
def test_a_constant_acknowledgement_is_given(text: str, reply: Wire, number: int) -> None:
    found = shape(text)
    assert (found.kind, found.receipt) == (WRITE, False)
    assert (found.reply, found.number) == (reply, number)


RECEIPTS = """
HSET k f v | HDEL k f | SADD k m | SREM k m | ZADD k 1 m | ZADD k CH 1 m | ZREM k m | LPUSH k e
RPUSH k e | LREM k 0 e | XADD k * f v | XDEL k 1-1 | XTRIM k MAXLEN 1 | XACK k g 1-1
SUNIONSTORE d a b | ZRANGESTORE d k 0 1 | GEOADD k 1 2 m | PFADD k e | BITOP NOT d k
SORT k STORE d | GEORADIUS k 1 2 3 m STORE d | HEXPIRE k 5 FIELDS 1 f | HPERSIST k FIELDS 1 f
"""


def test_what_a_write_would_answer_is_a_receipt_where_it_is_not_known() -> None:
    for sample in samples(RECEIPTS):
        found = shape_of(sample)
        assert (found.kind, found.receipt) == (WRITE, True), label(sample)
    for sample in samples(COUNTERS):
        found = shape_of(sample)
        assert (found.kind, found.receipt, found.safe_twice) == (COUNTER, True, False)


@pytest.mark.parametrize(
    "text, safe",
    [
        ("SET k v", True),
        ("SET k v EX 5", True),
        ("DEL k", True),
        ("HSET k f v", True),
        ("LTRIM k 0 9", True),
        ("LTRIM k -9 -1", True),
        ("LTRIM k 1 -1", False),
        ("LTRIM k 0 -2", False),
        ("LREM k 0 e", True),
        ("LREM k 1 e", False),
        ("LPUSH k e", False),
        ("ZADD k 1 m", True),
        ("ZADD k INCR 1 m", False),
        ("ZREMRANGEBYSCORE k 0 1", True),
        ("ZREMRANGEBYRANK k 0 1", False),
        ("SUNIONSTORE d a", False),
        ("SORT k STORE d", False),
        ("SORT k", True),
        ("PFADD k e", True),
        ("PFMERGE d k", False),
        ("XADD k 1-1 f v", False),
        ("XTRIM k MAXLEN 5", True),
        ("XTRIM k MAXLEN = 5", True),
        ("XTRIM k MAXLEN ~ 5", False),
        ("XTRIM k MINID ~ 5 LIMIT 100", False),
        ("xtrim k maxlen ~ 5 limit 0 keepref", True),
        ("ARGET k 0", True),
        ("ARSET k 0 v", False),
        ("INCR k", False),
        ("BITFIELD k SET u8 0 1", False),
        ("BITFIELD k GET u8 0", True),
        ("GETDEL k", False),
        ("PUBLISH c m", False),
        ("KEYS *", True),
        ("PING", True),
        ("CONFIG GET x", True),
        ("EVAL_RO s 0", True),
        ("SSCAN k 7", True),
        ("WAIT 1 0", False),
        ("SET k v NX", False),
        ("GETEX k EX 5", False),
        ("EVAL s 0", False),
        ("FLUSHALL", False),
        ("FOO.BAR k", False),
    ],
)
def test_safe_twice(text: str, safe: bool) -> None:
    assert shape(text).safe_twice is safe


CONDITIONAL = """
SET k v NX | SET k v XX EX 5 | SET k v GET | SET k v IFEQ w | SETNX k v | GETSET k v | MSETNX k v
MSETEX 1 k v NX | HSETNX k f v | HSETEX k FNX FIELDS 1 f v | HSETEX k FXX EX 5 FIELDS 1 f v
ZADD k NX 1 m | ZADD k XX 1 m | ZADD k GT 1 m | ZADD k LT CH 1 m | ZADD k NX INCR 1 m
EXPIRE k 5 NX | PEXPIREAT k 5 GT | HEXPIRE k 5 LT FIELDS 1 f | RENAME k j | RENAMENX k j | COPY k j
SMOVE k j m | MOVE k 1 | LINSERT k BEFORE a b | LPUSHX k e | RPUSHX k e | LSET k 0 e | DELIFEQ k v
GEOADD k XX 1 2 m | XADD k NOMKSTREAM * f v | RESTORE k 0 0123456789 | XDELEX k ACKED IDS 1 1-1
"""


def test_conditional_writes_are_refused() -> None:
    for sample in samples(CONDITIONAL):
        found = shape_of(sample)
        assert found.kind is REFUSED, label(sample)
        assert found.reason.startswith("a conditional write"), label(sample)
        assert not found.safe_twice


REFUSALS = """
LMOVE k j LEFT RIGHT | RPOPLPUSH k j | BLMOVE k j LEFT RIGHT 0 | BRPOPLPUSH k j 0
XCLAIM k g c 1 1-1 | XAUTOCLAIM k g c 1 0 | XGROUP CREATE k g $ | XINFO STREAM k | XPENDING k g
WATCH k | UNWATCH | MULTI | EXEC | DISCARD | EVAL s 0 | FCALL f 0 | SCRIPT LOAD s
FUNCTION LIST | WAIT 1 0 | WAITAOF 1 0 0 | KEYS * | SCAN 0 | DBSIZE | RANDOMKEY | PING | ECHO a
INFO | TIME | CONFIG GET a | CONFIG SET a b | CLIENT ID | CLIENT KILL a | FLUSHALL | SUBSCRIBE c
SELECT 1 | AUTH p | HELLO 3 | COMMAND | COMMAND COUNT | MIGRATE h 1 k 0 9 | SWAPDB 0 1
GETEX k EX 5 | GETEX k PERSIST | HGETEX k PERSIST FIELDS 1 f | HSCAN k 5 | SSCAN k 5 | ZSCAN k 5
XREADGROUP GROUP g c STREAMS k 0 | XREADGROUP GROUP g c CLAIM 5 STREAMS k > | XADD k IDMP p 1 * f v
XADD k IDMPAUTO p * f v | XREAD MAXCOUNT 5 STREAMS k 0 | ARGET k 0 | ARSET k 0 v | INCREX k BYINT 1
DIGEST k | SUNIONCARD 1 k | LMOVEM k j LEFT RIGHT | HIMPORT SET k f v | HOTKEYS GET | VADD k
JSON.GET k | FT.SEARCH a b | CONFIG FOO | NONSENSE
"""


def test_what_cannot_be_promised_is_refused_with_a_reason() -> None:
    for sample in samples(REFUSALS):
        found = shape_of(sample)
        assert found.kind is REFUSED, label(sample)
        assert found.reason


@pytest.mark.parametrize(
    "text, reason",
    [
        ("GET", "wrong number of arguments"),
        ("GET k j", "wrong number of arguments"),
        ("HSET k f", "wrong number of arguments"),
        ("HSET k f v g", "wrong number of arguments"),
        ("MSET k v j", "wrong number of arguments"),
        ("LPOP k 1 2", "wrong number of arguments"),
        ("HEXPIRE k 5 FIELDS 2 f", "wrong number of arguments"),
        ("SET k v EX 0", "invalid expire time"),
        ("SET k v EX -1", "invalid expire time"),
        ("SET k v PX 1.5", "invalid expire time"),
        ("SET k v EX 9223372036854775807", "invalid expire time"),
        ("SET k v EXAT 0", "invalid expire time"),
        ("SETEX k 0 v", "invalid expire time"),
        ("PSETEX k x v", "invalid expire time"),
        ("EXPIRE k x", "invalid expire time"),
        ("HEXPIRE k -1 FIELDS 1 f", "invalid expire time"),
        ("SET k v EX 1 PX 1", "syntax error"),
        ("SET k v EX 1 KEEPTTL", "syntax error"),
        ("SET k v EX", "syntax error"),
        ("SET k v WHAT", "syntax error"),
        ("EXPIRE k 5 WHAT", "syntax error"),
        ("ZADD k 1", "wrong number of arguments"),
        ("ZADD k 1 m 2", "syntax error"),
        ("ZADD k x m", "value is not a valid float"),
        ("ZADD k nan m", "value is not a valid float"),
        ("ZADD k 1e999 m", "value is not a valid float"),
        ("LTRIM k a b", "value is not an integer or out of range"),
        ("LRANGE k 0 01", "value is not an integer or out of range"),
        ("INCRBY k 1.5", "value is not an integer or out of range"),
        ("GEOADD k 181 0 m", "invalid longitude, latitude pair"),
        ("XADD k 0-0 f v", "the ID must be greater than 0-0"),
        ("XADD k 1-x f v", "invalid stream ID specified as stream command argument"),
        ("ZUNION 3 a b", "the number of keys does not fit the arguments"),
        ("BLPOP k -1", "timeout is negative or out of range"),
    ],
)
def test_what_the_server_would_refuse_is_refused(text: str, reason: str) -> None:
    found = shape(text)
    assert (found.kind, found.reason) == (REFUSED, reason)


@pytest.mark.parametrize(
    "text, milliseconds, head, tail",
    [
        ("set k v ex 5", 5000, "SET k v PXAT", ""),
        ("SET k v PX 5", 5, "SET k v PXAT", ""),
        ("SETEX k 5 v", 5000, "SET k v PXAT", ""),
        ("PSETEX k 5 v", 5, "SET k v PXAT", ""),
        ("MSETEX 2 k v j w EX 5", 5000, "MSETEX 2 k v j w PXAT", ""),
        ("EXPIRE k 5", 5000, "PEXPIREAT k", ""),
        ("EXPIRE k -5", -5000, "PEXPIREAT k", ""),
        ("PEXPIRE k 5", 5, "PEXPIREAT k", ""),
        ("HEXPIRE k 5 FIELDS 2 f g", 5000, "HPEXPIREAT k", "FIELDS 2 f g"),
        ("HPEXPIRE k 5 FIELDS 1 f", 5, "HPEXPIREAT k", "FIELDS 1 f"),
        ("HSETEX k EX 5 FIELDS 1 f v", 5000, "HSETEX k PXAT", "FIELDS 1 f v"),
        ("RESTORE k 5 0123456789 REPLACE", 5, "RESTORE k", "0123456789 REPLACE ABSTTL"),
    ],
)
def test_relative_expiry(text: str, milliseconds: int, head: str, tail: str) -> None:
    ttl = RelativeTTL(milliseconds, tuple(head.encode().split()), tuple(tail.encode().split()))
    assert shape(text).ttl == ttl


def test_absolute_expiry_stays_as_it_is() -> None:
    for text in ("SET k v EXAT 5", "SET k v PXAT 5", "EXPIREAT k 5", "HPEXPIREAT k 5 FIELDS 1 f"):
        assert (shape(text).kind, shape(text).ttl) == (WRITE, None)


@pytest.mark.parametrize(
    "text, blocking, wait",
    [
        ("BLPOP k 1.5", True, 1500),
        ("BLPOP k j 0", True, 0),
        ("BZMPOP 0.0001 1 k MIN", True, 1),
        ("XREAD STREAMS k 0", False, 0),
        ("XREAD BLOCK 20 STREAMS k 0", True, 20),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS k >", True, 0),
        ("BLMOVE a b LEFT LEFT 1", True, 1000),
        ("WAIT 1 0", True, 0),
        ("LPOP k", False, 0),
    ],
)
def test_blocking(text: str, blocking: bool, wait: int) -> None:
    assert (shape(text).blocking, shape(text).block_ms) == (blocking, wait)


def test_keys_of_a_command_with_a_target() -> None:
    assert shape("ZUNIONSTORE d 2 a b WEIGHTS 1 2").keys == (b"d", b"a", b"b")
    assert shape("SORT k BY STORE STORE d").keys == (b"k", b"d")
    assert shape("XREAD COUNT 1 STREAMS a b 0 0").keys == (b"a", b"b")
    assert shape("XREADGROUP GROUP STREAMS c STREAMS k >").keys == (b"k",)
    assert shape("EVAL s 0").keys == ()
    assert shape("MIGRATE h 1 k 0 9").keys == (b"k",)
    assert shape_of((b"MIGRATE", b"h", b"1", b"", b"0", b"9", b"KEYS", b"a", b"b")).keys == (
        b"a",
        b"b",
    )


def test_names_part_the_table() -> None:
    assert sum(len(names(kind)) for kind in Kind) == len({row.name for row in ROWS}) == len(ROWS)
    assert {"SET", "HSET", "XADD", "DEL", "EXPIRE"} <= names(WRITE)
    assert {"INCR", "APPEND", "SETBIT", "BITFIELD", "ZINCRBY"} <= names(COUNTER)
    assert {"GET", "SORT", "OBJECT ENCODING"} <= names(READ)


def test_a_list_is_as_good_as_a_tuple() -> None:
    assert all(shape_of(list(sample)) == shape_of(sample) for sample in (*NEUTRAL, *QUEUED))


def test_it_never_raises() -> None:
    rnd = random.Random(1)
    words = [word for sample in (*NEUTRAL, *QUEUED) for word in sample] + [
        b"",
        b"\xff",
        b"*",
        b"-9",
    ]
    rows = [tuple(row.name.encode().split()) for row in ROWS]
    assert shape_of(()).kind is REFUSED
    assert shape_of((b"\xff\xfe", b"k")).kind is REFUSED
    assert shape_of((b"OBJECT ENCODING", b"k")).kind is REFUSED
    for row in rows:
        for length in range(8):
            for _ in range(20):
                shape_of((*row, *rnd.choices(words, k=length)))


def test_a_subcommand_of_a_known_command_is_named_whole() -> None:
    assert shape("config get x").name == "CONFIG GET"
    assert shape("CONFIG FOO").name == "CONFIG FOO"
    assert shape("COMMAND").name == "COMMAND"


class Stub:
    """A server that greets, and then gives one answer to everything."""

    def __init__(self) -> None:
        self.answer = b"+OK\r\n"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:  # closed: the test has ended
                return
            with peer:
                while received := peer.recv(65536):
                    if b"HELLO" in received:
                        peer.sendall(b"%2\r\n$5\r\nproto\r\n:3\r\n$7\r\nversion\r\n$3\r\n8.0\r\n")
                    elif b"SETINFO" in received:
                        peer.sendall(b"+OK\r\n" * received.count(b"SETINFO"))
                    else:
                        peer.sendall(self.answer)

    def close(self) -> None:
        self._listener.close()


def as_redis_py_sends(sample: Sample) -> tuple[str | bytes, ...]:
    """The name in one string, subcommand included: by it redis-py finds its callback."""
    name = shape_of(sample).name
    return (name, *sample[len(name.split()) :])


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.close()


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
def test_the_callbacks_of_redis_py_take_every_reply(
    stub: Stub, protocol: int, decode: bool
) -> None:
    with Redis(port=stub.port, protocol=protocol, decode_responses=decode) as client:
        for sample in (*NEUTRAL, *QUEUED):
            stub.answer = reply_bytes(shape_of(sample), protocol)
            client.execute_command(*as_redis_py_sends(sample))


def test_an_acknowledged_set_is_true_and_a_delete_counts(stub: Stub) -> None:
    expected: list[tuple[Sample, object]] = [
        ((b"SET", b"k", b"v"), True),
        ((b"LTRIM", b"k", b"0", b"1"), True),
        ((b"EXPIRE", b"k", b"5"), True),
        ((b"PERSIST", b"k"), True),
        ((b"DEL", b"a", b"b"), 2),
    ]
    with Redis(port=stub.port, protocol=3) as client:
        for sample, answer in expected:
            stub.answer = reply_bytes(shape_of(sample), 3)
            assert client.execute_command(*as_redis_py_sends(sample)) == answer
