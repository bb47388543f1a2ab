"""`resilient-redis commands`: the page docs/commands.md, made from the catalog.

Nothing is described here. A line of the page is an example and what the catalog and the guard say
of it; `EXAMPLES` only chooses which arguments are worth showing. The page is ASCII, so that a
redirected stdout writes the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..core.breaker import State
from ..core.catalog import (
    bits,
    geo,
    hashes,
    keys,
    lists,
    refused,
    sets,
    shape_of,
    streams,
    strings,
    zsets,
)
from ..core.catalog.row import Row
from ..core.command import Command, Kind
from ..core.guard import AWAY, Answer, AwaitRecovery, Refuse, Step, View, decide
from ..core.rules import apply_rules
from ..core.wire import reply_bytes
from ..policy import COUNTERS, Rule

TABLES: tuple[tuple[str, Sequence[Row]], ...] = (
    ("Strings", strings.ROWS),
    ("Keys and their expiry", keys.ROWS),
    ("Hashes", hashes.ROWS),
    ("Lists", lists.ROWS),
    ("Sets", sets.ROWS),
    ("Sorted sets", zsets.ROWS),
    ("Geo", geo.ROWS),
    ("Bitmaps and HyperLogLogs", bits.ROWS),
    ("Streams", streams.ROWS),
    ("Pub/sub", [row for row in refused.ROWS if row.kind is not Kind.REFUSED]),
)
ALWAYS_REFUSED = [row for row in refused.ROWS if row.kind is Kind.REFUSED]

# At least one for each row of the tables, and one for each answer that it can give.
EXAMPLES = """
GET key | GETEX key | GETEX key EX 10 | GETRANGE key 0 -1 | SUBSTR key 0 -1 | STRLEN key | MGET a b
LCS a b | LCS a b LEN | LCS a b IDX | GETDEL key
SET key value | SET key value EX 10 | SET key value KEEPTTL | SET key value NX | SET key value XX
SET key value GET | SET key value IFEQ old | SETEX key 10 value | PSETEX key 10000 value
MSET a 1 b 2 | MSETEX 2 a 1 b 2 | MSETEX 2 a 1 b 2 EX 10 | MSETEX 2 a 1 b 2 NX
INCR key | DECR key | INCRBY key 5 | DECRBY key 5 | INCRBYFLOAT key 0.5 | APPEND key value
SETRANGE key 5 value

EXISTS a b | TOUCH a b | TYPE key | TTL key | PTTL key | EXPIRETIME key | PEXPIRETIME key | DUMP key
OBJECT ENCODING key | OBJECT FREQ key | OBJECT IDLETIME key | OBJECT REFCOUNT key | MEMORY USAGE key
SORT key | SORT key STORE target | SORT_RO key | DEL a b | UNLINK a b
EXPIRE key 10 | EXPIRE key 10 NX | PEXPIRE key 10000 | PEXPIRE key 10000 NX
EXPIREAT key 2000000000 | EXPIREAT key 2000000000 NX | PEXPIREAT key 2000000000000
PEXPIREAT key 2000000000000 NX | PERSIST key | RESTORE key 0 serialized-value REPLACE
RESTORE key 10000 serialized-value REPLACE | RESTORE key 0 serialized-value

HGET key field | HMGET key f g | HGETALL key | HKEYS key | HVALS key | HLEN key | HSTRLEN key field
HEXISTS key field | HRANDFIELD key | HRANDFIELD key 2 | HSCAN key 0 | HSCAN key 17
HTTL key FIELDS 2 f g | HPTTL key FIELDS 2 f g | HEXPIRETIME key FIELDS 2 f g
HPEXPIRETIME key FIELDS 2 f g | HGETEX key FIELDS 2 f g | HGETEX key EX 10 FIELDS 2 f g
HGETDEL key FIELDS 2 f g | HSET key field value | HMSET key field value
HSETEX key FIELDS 1 field value | HSETEX key EX 10 FIELDS 1 field value
HSETEX key FNX FIELDS 1 field value | HDEL key field
HEXPIRE key 10 FIELDS 1 field | HEXPIRE key 10 NX FIELDS 1 field | HPEXPIRE key 10000 FIELDS 1 field
HPEXPIRE key 10000 NX FIELDS 1 field | HEXPIREAT key 2000000000 FIELDS 1 field
HEXPIREAT key 2000000000 NX FIELDS 1 field | HPEXPIREAT key 2000000000000 FIELDS 1 field
HPEXPIREAT key 2000000000000 NX FIELDS 1 field | HPERSIST key FIELDS 1 field
HINCRBY key field 5 | HINCRBYFLOAT key field 0.5

LLEN key | LINDEX key 0 | LRANGE key 0 -1 | LPOS key value | LPOS key value COUNT 2
LPOP key | LPOP key 2 | RPOP key | RPOP key 2 | LMPOP 2 a b LEFT | BLPOP a b 5 | BRPOP a b 5
BLMPOP 5 2 a b LEFT | LPUSH key value | RPUSH key value | LREM key 0 value | LREM key 1 value
LTRIM key 0 99 | LTRIM key -100 -1 | LTRIM key 1 -1

SCARD key | SISMEMBER key member | SMISMEMBER key m n | SMEMBERS key | SRANDMEMBER key
SRANDMEMBER key 2 | SSCAN key 0 | SSCAN key 17 | SDIFF a b | SINTER a b | SUNION a b
SINTERCARD 2 a b | SPOP key | SPOP key 2 | SADD key member | SREM key member
SDIFFSTORE target a b | SINTERSTORE target a b | SUNIONSTORE target a b

ZCARD key | ZCOUNT key 0 10 | ZLEXCOUNT key - + | ZSCORE key member | ZMSCORE key m n
ZRANK key member | ZRANK key member WITHSCORE | ZREVRANK key member | ZREVRANK key member WITHSCORE
ZRANGE key 0 -1 | ZREVRANGE key 0 -1 | ZRANGEBYSCORE key 0 10 | ZREVRANGEBYSCORE key 10 0
ZRANGEBYLEX key - + | ZREVRANGEBYLEX key + - | ZRANDMEMBER key | ZRANDMEMBER key 2
ZSCAN key 0 | ZSCAN key 17 | ZDIFF 2 a b | ZINTER 2 a b | ZUNION 2 a b | ZINTERCARD 2 a b
ZPOPMIN key | ZPOPMAX key | ZMPOP 2 a b MIN | BZPOPMIN a b 5 | BZPOPMAX a b 5 | BZMPOP 5 2 a b MIN
ZADD key 1 member | ZADD key CH 1 member | ZADD key NX 1 member | ZADD key GT 1 member
ZADD key INCR 1 member | ZREM key member | ZREMRANGEBYSCORE key 0 10 | ZREMRANGEBYLEX key - +
ZREMRANGEBYRANK key 0 9 | ZRANGESTORE target key 0 9 | ZDIFFSTORE target 2 a b
ZINTERSTORE target 2 a b | ZUNIONSTORE target 2 a b | ZINCRBY key 1 member

GEODIST key m n | GEOHASH key m n | GEOPOS key m n | GEOSEARCH key FROMMEMBER member BYRADIUS 5 km
GEORADIUS key 13.4 52.5 5 km | GEORADIUS key 13.4 52.5 5 km STORE target
GEORADIUSBYMEMBER key member 5 km | GEORADIUSBYMEMBER key member 5 km STORE target
GEORADIUS_RO key 13.4 52.5 5 km | GEORADIUSBYMEMBER_RO key member 5 km
GEOADD key 13.4 52.5 member | GEOADD key NX 13.4 52.5 member
GEOSEARCHSTORE target key FROMMEMBER member BYRADIUS 5 km

GETBIT key 7 | BITCOUNT key | BITPOS key 0 | BITPOS key 1 | BITFIELD_RO key GET u8 0 GET u8 8
PFCOUNT a b | PFADD key value | PFMERGE target a b | BITOP AND target a b | SETBIT key 7 1
BITFIELD key GET u8 0 | BITFIELD key SET u8 0 1

XLEN key | XRANGE key - + | XREVRANGE key + - | XREAD STREAMS a b 0 0 | XREAD BLOCK 5000 STREAMS a $
XREADGROUP GROUP group consumer STREAMS key > | XREADGROUP GROUP group consumer STREAMS key 0
XREADGROUP GROUP group consumer BLOCK 5000 STREAMS key > | XADD key * field value
XADD key MAXLEN ~ 1000 * field value | XADD key NOMKSTREAM * field value | XDEL key 1-0
XDELEX key IDS 1 1-0 | XDELEX key ACKED IDS 1 1-0 | XACK key group 1-0
XACKDEL key group IDS 1 1-0 | XACKDEL key group ACKED IDS 1 1-0 | XTRIM key MAXLEN 1000
XTRIM key MAXLEN ~ 1000 | XADD key IDMPAUTO producer * field value | XREAD MAXCOUNT 9 STREAMS key 0
XREADGROUP GROUP group consumer CLAIM 5000 STREAMS key >

PUBLISH channel message | SPUBLISH channel message

EVAL script 0 | EVALSHA sha1 0 | FCALL function 0 | EVAL_RO script 0 | EVALSHA_RO sha1 0
FCALL_RO function 0 | SDIFFCARD 1 key | SUNIONCARD 1 key
"""

# redis.io has no page for these, valkey.io has: https://github.com/redis/docs/tree/63f31f6
# (content/commands), https://github.com/valkey-io/valkey-doc/tree/fe8f96a (commands). What has
# no page is in neither. What is newer than Redis 8.2 has its page on the first one's main branch.
VALKEY = frozenset({
    "CLIENT CAPA", "CLIENT IMPORT-SOURCE", "CLUSTER CANCELSLOTMIGRATIONS",
    "CLUSTER GETSLOTMIGRATIONS", "CLUSTER MIGRATESLOTS", "CLUSTER SYNCSLOTS", "CLUSTERSCAN",
    "COMMANDLOG GET", "COMMANDLOG HELP", "COMMANDLOG LEN", "COMMANDLOG RESET", "DELIFEQ",
    "SCRIPT SHOW",
})  # fmt: skip
NO_PAGE = frozenset({"CLUSTER FLUSHSLOT", "STRALGO"})

INTRODUCTION = """\
# Commands while Redis is away

<!-- Made by `resilient-redis commands > docs/commands.md`. Do not edit. -->

While Redis is away a command gets one of three answers:

- **neutral**: what an empty Redis would say. Nothing is queued.
- **queued**: the write is in the journal and acknowledged. It is applied exactly once, in the order
  of acknowledgement, as soon as Redis is back. What is too old by then, or builds on a neutral
  answer that was wrong, is set aside as a dead letter ([README](../README.md#the-contract)).
- **refused**: `CommandRefused` is raised, a `redis.ConnectionError` that says why. Nothing is
  queued.

This page is made by the code that decides: each line is an example, and what it was answered. A
command has several lines where its answer depends on its arguments. Commands that are refused with
any arguments are [at the end](#always-refused), `SETNX`, `LMOVE` and their like too.

**Reply** is what the server would send. redis-py makes of it what it always does: `nil` becomes
`None`, `OK` and the `1` of `EXPIRE` become `True`. `DEL` and `UNLINK` answer the number of keys
given. Where the real reply cannot be known yet, it is a *receipt*, a `Queued` object: it equals
`"OK"`, its `outcome()` is the real reply, and using it as a number or a truth value raises
`ReplyUnknown`. Arguments that the server would not take are refused.

**Safe twice** decides what happens to a command that was sent and whose reply was lost. *Yes*: sent
again, and then again what followed it, it leaves the same data. So it is sent again, or answered as
if it had not been sent. *No*: the caller gets `OutcomeUnknown`, and it is never sent again. Where
the ACL forbids what exactly-once replay needs, a write that is not safe twice is refused while
Redis is away.

**Rules come first.** A `Policy` can refuse any command and can queue counters
(`Rule(commands=COUNTERS, answer="queue")`) and messages (`Rule(commands=["PUBLISH"],
answer="queue")`); `Policy.store()` refuses reads and pops. Neutral answers are right for caches and
wrong for sessions, revocation lists, quotas and locks: give those keys `Rule(keys="session:*",
answer="refuse")`.

**In a pipeline** one refused command refuses the whole, and a read before a write of the same key
makes the two together not safe twice. A blocking command in it is refused: it could not wait. A
transaction (`MULTI` ... `EXEC`, redis-py's `pipeline()`) is answered as a whole: only writes are
one entry of the journal and are applied atomically, only reads are neutral, both together are
refused.
"""

Args = tuple[bytes, ...]

# The ACL grants all that a replay needs.
_AWAY = View(State.OPEN, draining=True, held=None, waited=False, once=True)
_COUNTING = Rule(commands=COUNTERS, answer="queue").compiled


class Line(NamedTuple):
    """One example, and what is said to it while Redis is away."""

    example: str
    answer: str  # "neutral", "queued" or "refused"
    detail: str  # the reply, or the reason
    safe_twice: bool


def examples(name: str) -> list[Args]:
    """The examples of a command; its bare name if none is needed."""
    return _EXAMPLES.get(name) or [tuple(name.encode().split())]


def line(args: Args) -> Line:
    """Asks the catalog and the guard."""
    command = Command(args, shape_of(args))
    answer, detail = _decided(command)
    if answer == "refused":
        ruled, reply = _decided(*apply_rules([_COUNTING], [command]))
        if ruled == "queued":
            detail += f". With a rule for `COUNTERS` queued: {reply}"
    return Line(b" ".join(args).decode(), answer, detail, command.shape.safe_twice)


def page() -> str:
    """The whole of docs/commands.md."""
    return "\n".join([INTRODUCTION, *_tables(), *_always_refused(), ""])


def _decided(command: Command) -> tuple[str, str]:
    decision = decide([command], _AWAY)
    if isinstance(decision, AwaitRecovery):
        nothing = f"`{_spelled(command)}` if its time is over first"
        return "neutral", f"waits until Redis is back; {nothing}"
    if isinstance(decision, Refuse):
        return "refused", decision.reason.removeprefix(f"{AWAY}: ")
    if decision == Answer((Step.NEUTRAL,)):
        return "neutral", f"`{_spelled(command)}`"
    reply = "receipt" if command.shape.receipt else f"`{_spelled(command)}`"
    return "queued", reply + ("; the TTL counts from the call" if command.shape.ttl else "")


def _spelled(command: Command) -> str:
    return _value(iter(reply_bytes(command.shape, 3).decode().split("\r\n")))


def _value(lines: Iterator[str]) -> str:
    """A RESP3 value, for people."""
    first = next(lines)
    mark, text = first[:1], first[1:]
    if mark == "_":
        return "nil"
    if mark == "$":
        return f'"{next(lines)}"'
    if mark not in "*~%":
        return text
    parts = [_value(lines) for _ in range(int(text) * (2 if mark == "%" else 1))]
    if mark == "%":
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
    return f"[{', '.join(parts)}]" if mark == "*" else f"set({', '.join(parts)})"


def _by_name(text: str) -> dict[str, list[Args]]:
    found: dict[str, list[Args]] = {}
    for written in text.replace("\n", " | ").split(" | "):
        if args := tuple(written.encode().split()):
            found.setdefault(shape_of(args).name, []).append(args)
    return found


_EXAMPLES = _by_name(EXAMPLES)


def _tables() -> Iterator[str]:
    for title, rows in TABLES:
        yield f"## {title}\n"
        yield "| example | answer | reply or reason | safe twice |"
        yield "|---|---|---|---|"
        for row in rows:
            for place, found in enumerate(map(line, examples(row.name))):
                example = f"`{found.example}`" if place else _link(row.name, found.example)
                safe = "yes" if found.safe_twice else "no"
                yield f"| {example} | {found.answer} | {found.detail} | {safe} |"
        yield ""


def _always_refused() -> Iterator[str]:
    yield "## Always refused\n"
    yield "By the reason that the error gives; unknown and module commands too.\n"
    groups: dict[str, dict[bool, list[str]]] = {}
    for row in ALWAYS_REFUSED:
        for found in map(line, examples(row.name)):
            links = groups.setdefault(found.detail, {}).setdefault(found.safe_twice, [])
            links.append(_link(row.name, row.name))
    for reason, by_safety in groups.items():
        yield f"### {reason[0].upper()}{reason[1:]}\n"
        for safe, links in by_safety.items():
            yield f"{'Safe' if safe else 'Not safe'} twice:"
            yield ",\n".join(links) + ".\n"
    unknown = line((b"NO.SUCH", b"key"))
    yield f"### Any other command\n\n{unknown.answer.capitalize()}: {unknown.detail}."


def _link(name: str, text: str) -> str:
    if name in NO_PAGE:
        return f"`{text}`"
    site = "https://valkey.io" if name in VALKEY else "https://redis.io/docs/latest"
    return f"[`{text}`]({site}/commands/{name.lower().replace(' ', '-')}/)"
