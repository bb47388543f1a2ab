"""Every command that is answered neutrally or queued, in each of its forms."""

from __future__ import annotations

import pytest

from resilient_redis.core.catalog import names, shape_of
from resilient_redis.core.command import Kind

Sample = tuple[bytes, ...]

READS = """
GET k | GETEX k | GETRANGE k 0 -1 | SUBSTR k 0 -1 | STRLEN k | MGET k | MGET k j i
LCS k j | LCS k j LEN | LCS k j IDX | LCS k j IDX MINMATCHLEN 2 WITHMATCHLEN
EXISTS k | EXISTS k j | TOUCH k j | TYPE k | TTL k | PTTL k | EXPIRETIME k | PEXPIRETIME k
DUMP k | OBJECT ENCODING k | OBJECT FREQ k | OBJECT IDLETIME k | OBJECT REFCOUNT k
MEMORY USAGE k | MEMORY USAGE k SAMPLES 0
SORT k | SORT k BY w_* LIMIT 0 5 GET # GET o_* DESC ALPHA | SORT_RO k | SORT_RO k LIMIT 0 5 ASC
HGET k f | HMGET k f | HMGET k f g | HGETALL k | HKEYS k | HVALS k | HLEN k | HSTRLEN k f
HEXISTS k f | HRANDFIELD k | HRANDFIELD k 3 | HRANDFIELD k -3 WITHVALUES
HSCAN k 0 | HSCAN k 0 MATCH f* COUNT 10 NOVALUES
HTTL k FIELDS 1 f | HPTTL k FIELDS 2 f g | HEXPIRETIME k FIELDS 1 f | HPEXPIRETIME k FIELDS 1 f
HGETEX k FIELDS 2 f g
LLEN k | LINDEX k 0 | LRANGE k 0 -1 | LPOS k e | LPOS k e RANK -1 MAXLEN 3 | LPOS k e COUNT 0
SCARD k | SISMEMBER k m | SMISMEMBER k m | SMISMEMBER k m n | SMEMBERS k | SRANDMEMBER k
SRANDMEMBER k 2 | SRANDMEMBER k -2 | SSCAN k 0 | SSCAN k 0 MATCH m* COUNT 10
SDIFF k j | SINTER k j | SUNION k j | SINTERCARD 2 k j | SINTERCARD 1 k LIMIT 3
ZCARD k | ZCOUNT k -inf (5 | ZLEXCOUNT k - [m | ZSCORE k m | ZMSCORE k m | ZMSCORE k m n
ZRANK k m | ZRANK k m WITHSCORE | ZREVRANK k m | ZREVRANK k m WITHSCORE
ZRANGE k 0 -1 | ZRANGE k 0 -1 REV WITHSCORES | ZRANGE k (1 +inf BYSCORE LIMIT 0 5 WITHSCORES
ZRANGE k [a (b BYLEX REV LIMIT 1 1 | ZREVRANGE k 0 -1 | ZREVRANGE k 0 -1 WITHSCORES
ZRANGEBYSCORE k 0 1 | ZRANGEBYSCORE k 0 1 WITHSCORES LIMIT 0 1 | ZREVRANGEBYSCORE k 1 0
ZRANGEBYLEX k - + | ZRANGEBYLEX k - + LIMIT 0 1 | ZREVRANGEBYLEX k + -
ZRANDMEMBER k | ZRANDMEMBER k 3 | ZRANDMEMBER k -3 WITHSCORES | ZSCAN k 0 | ZSCAN k 0 COUNT 5
ZDIFF 2 k j | ZDIFF 2 k j WITHSCORES | ZINTER 2 k j | ZUNION 2 k j WEIGHTS 1 2.5 AGGREGATE MAX
ZINTER 1 k WITHSCORES | ZINTERCARD 2 k j | ZINTERCARD 2 k j LIMIT 1
GEODIST k m n | GEODIST k m n km | GEOHASH k | GEOHASH k m n | GEOPOS k | GEOPOS k m n
GEOSEARCH k FROMMEMBER m BYRADIUS 1 km | GEOSEARCH k FROMLONLAT 1 2 BYBOX 1 2 m ASC COUNT 3 ANY
GEOSEARCH k FROMMEMBER m BYRADIUS 1 km WITHCOORD WITHDIST WITHHASH DESC
GEORADIUS k 1 2 3 km | GEORADIUS k 1 2 3 km WITHDIST COUNT 2 | GEORADIUSBYMEMBER k m 3 km
GEORADIUS_RO k 1 2 3 km ASC | GEORADIUSBYMEMBER_RO k m 3 km WITHCOORD
GETBIT k 7 | BITCOUNT k | BITCOUNT k 0 -1 | BITCOUNT k 0 5 BIT
BITPOS k 0 | BITPOS k 1 | BITPOS k 1 2 | BITPOS k 0 2 -1 BIT
BITFIELD k | BITFIELD k GET u8 0 GET i64 #1 | BITFIELD_RO k | BITFIELD_RO k GET u8 0 GET i5 3
PFCOUNT k | PFCOUNT k j
XLEN k | XRANGE k - + | XRANGE k (1-1 5 COUNT 3 | XREVRANGE k + - | XREVRANGE k + - COUNT 1
XREAD STREAMS k 0 | XREAD COUNT 2 STREAMS k j 0-0 $ | XREAD COUNT 1 BLOCK 5 STREAMS k $
"""
TAKES = """
GETDEL k | HGETDEL k FIELDS 2 f g
LPOP k | LPOP k 2 | LPOP k 0 | RPOP k | RPOP k 2 | LMPOP 2 k j LEFT | LMPOP 1 k RIGHT COUNT 2
BLPOP k 0.01 | BRPOP k j 0.01 | BLMPOP 0.01 2 k j LEFT | BLMPOP 0.01 1 k RIGHT COUNT 2
SPOP k | SPOP k 2 | SPOP k 0
ZPOPMIN k | ZPOPMIN k 2 | ZPOPMAX k | ZPOPMAX k 0 | ZMPOP 2 k j MIN | ZMPOP 1 k MAX COUNT 2
BZPOPMIN k j 0.01 | BZPOPMAX k 0.01 | BZMPOP 0.01 2 k j MIN | BZMPOP 0.01 1 k MAX COUNT 2
XREADGROUP GROUP group me STREAMS stream >
XREADGROUP GROUP group me COUNT 1 BLOCK 5 NOACK STREAMS stream >
PUBLISH channel message | SPUBLISH channel message
"""
WRITES = """
SET k v | SET k v EX 10 | SET k v PX 10 | SET k v EXAT 9999999999 | SET k v PXAT 1
SET k v KEEPTTL
SETEX k 10 v | PSETEX k 10 v | MSET k v | MSET k v j w
MSETEX 2 k v j w | MSETEX 1 k v EX 5 | MSETEX 1 k v PX 5 | MSETEX 1 k v KEEPTTL
DEL k | DEL k j | UNLINK k j | PERSIST k
EXPIRE k 10 | EXPIRE k -1 | PEXPIRE k 10 | EXPIREAT k 10 | PEXPIREAT k 9999999999999
SORT k STORE d | SORT k BY nosort GET # STORE d ALPHA
HSET k f v | HSET k f v g w | HMSET k f v | HDEL k f | HDEL k f g
HSETEX k FIELDS 1 f v | HSETEX k EX 10 FIELDS 2 f v g w | HSETEX k PX 10 FIELDS 1 f v
HSETEX k KEEPTTL FIELDS 1 f v | HSETEX k EXAT 9999999999 FIELDS 1 f v
HSETEX k PXAT 9999999999999 FIELDS 1 f v
HEXPIRE k 10 FIELDS 1 f | HPEXPIRE k 10 FIELDS 2 f g | HEXPIREAT k 9999999999 FIELDS 1 f
HPEXPIREAT k 9999999999999 FIELDS 1 f | HPERSIST k FIELDS 2 f g
LPUSH k e | RPUSH k e f | LREM k 0 e | LREM k -2 e | LTRIM k 0 9 | LTRIM k -9 -1 | LTRIM k 1 -1
SADD k m n | SREM k m n | SDIFFSTORE d k j | SINTERSTORE d k j | SUNIONSTORE d k j
ZADD k 1 m | ZADD k CH 1.5 m -inf n | ZREM k m | ZREMRANGEBYSCORE k -inf (5
ZREMRANGEBYLEX k [a + | ZREMRANGEBYRANK k 0 1
ZRANGESTORE d k 0 -1 | ZRANGESTORE d k 0 5 BYSCORE LIMIT 0 1 | ZRANGESTORE d k + - BYLEX REV
ZDIFFSTORE d 2 k j | ZINTERSTORE d 2 k j WEIGHTS 1 2 | ZUNIONSTORE d 2 k j AGGREGATE MIN
GEOADD k 1 2 m | GEOADD k CH 1 2 m 3 4 n | GEOSEARCHSTORE d k FROMLONLAT 1 2 BYRADIUS 5 km
GEOSEARCHSTORE d k FROMMEMBER m BYBOX 1 2 km STOREDIST
GEORADIUS k 1 2 3 km STORE d | GEORADIUSBYMEMBER k m 3 km COUNT 5 STOREDIST d
PFADD k | PFADD k e f | PFMERGE d | PFMERGE d k j
BITOP AND d k j | BITOP NOT d k
XADD k * f v | XADD k 1-1 f v g w | XADD k 1-* f v | XADD k MAXLEN ~ 10 LIMIT 5 * f v
XADD k MINID = 5 * f v | XADD k MAXLEN 10 * f v
XDEL k 1-1 2 | XACK k g 1-1 2 | XTRIM k MAXLEN 5 | XTRIM k MINID ~ 5-1 LIMIT 3
XTRIM k MAXLEN ~ 5 | XTRIM k MAXLEN ~ 5 limit 0 | XTRIM k MINID = 5-1
"""
# Newer than Valkey 9.1: a server that lacks them answers an error
REDIS_ONLY = """
XDELEX k IDS 1 1-1 | XDELEX k DELREF IDS 2 1 2 | XACKDEL k g IDS 2 1-1 2
XTRIM k MAXLEN 5 KEEPREF | XADD k DELREF MAXLEN 5 * f v
BITOP ONE d k | BITOP DIFF d k j | BITOP DIFF1 d k j | BITOP ANDOR d k j
"""
COUNTERS = """
INCR k | DECR k | INCRBY k 5 | DECRBY k -5 | INCRBYFLOAT k 1.5e3 | APPEND k v | SETRANGE k 3 v
HINCRBY k f -1 | HINCRBYFLOAT k f 0.1 | ZINCRBY k 1.5 m | ZADD k INCR 2 m | SETBIT k 7 1
BITFIELD k SET u8 0 5 | BITFIELD k OVERFLOW FAIL INCRBY i5 #1 1 GET u4 0
"""
# Keys of commands that are refused; those with keys at unusual places
REFUSED_WITH_KEYS = """
SETNX k v | GETSET k v | HSETNX k f v | LSET k 0 e | LINSERT k BEFORE a b | LPUSHX k e
RPUSHX k e | MOVE k 1 | MSETNX k v j w | RENAME k j | RENAMENX k j | COPY k j | SMOVE k j m
LMOVE k j LEFT RIGHT | RPOPLPUSH k j | BLMOVE k j LEFT RIGHT 1 | BRPOPLPUSH k j 1
XCLAIM k g c 1 1-1 | XAUTOCLAIM k g c 1 0 | XGROUP CREATE k g $ | XGROUP CREATECONSUMER k g c
XGROUP DELCONSUMER k g c | XGROUP DESTROY k g | XGROUP SETID k g $ | XSETID k 1-1
XINFO CONSUMERS k g | XINFO GROUPS k | XINFO STREAM k FULL | XPENDING k g
EVAL script 2 k j arg | EVALSHA sha 1 k | EVAL_RO script 1 k arg | EVALSHA_RO sha 1 k
FCALL f 2 k j | FCALL_RO f 1 k | MIGRATE host 1 k 0 9 | WATCH k j | PFDEBUG ENCODING k
SET k v NX | SET k v EX 5 GET | GETEX k EX 5 | HGETEX k EX 5 FIELDS 1 f | ZADD k NX 1 m
EXPIRE k 5 GT | HEXPIRE k 5 NX FIELDS 1 f | HSETEX k FNX FIELDS 1 f v | RESTORE k 0 payload
GEOADD k NX 1 2 m | XADD k NOMKSTREAM * f v | SSCAN k 5 | HSCAN k 5 | ZSCAN k 5
XREADGROUP GROUP group me STREAMS stream 0
"""


def samples(text: str) -> list[Sample]:
    return [
        tuple(word.encode() for word in command.split())
        for line in text.strip().splitlines()
        for command in line.split(" | ")
    ]


def label(sample: Sample) -> str:
    return b" ".join(sample).decode()


NEUTRAL = [*samples(READS), *samples(TAKES)]
QUEUED = [*samples(WRITES), *samples(REDIS_ONLY), *samples(COUNTERS)]


@pytest.mark.parametrize(
    "text, kinds",
    [
        (READS, {Kind.READ}),
        (TAKES, {Kind.TAKE, Kind.PUBLISH}),
        (WRITES, {Kind.WRITE}),
        (REDIS_ONLY, {Kind.WRITE}),
        (COUNTERS, {Kind.COUNTER}),
        (REFUSED_WITH_KEYS, {Kind.REFUSED}),
    ],
)
def test_each_sample_is_of_its_kind(text: str, kinds: set[Kind]) -> None:
    wrong = [label(sample) for sample in samples(text) if shape_of(sample).kind not in kinds]
    assert not wrong


def test_every_row_that_is_not_refused_has_a_sample() -> None:
    sampled = {shape_of(sample).name for sample in (*NEUTRAL, *QUEUED)}
    promised = frozenset().union(*(names(kind) for kind in Kind if kind is not Kind.REFUSED))
    assert promised - sampled == {"RESTORE"}  # its payload comes from a server
