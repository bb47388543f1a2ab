"""Calls of redis-py's command methods: at least one of each, and one for each answer it can get.

What is newer than the redis-py at hand is left out: its methods, and those of its parameters.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import redis
from redis.asyncio import Redis
from redis.commands.core import AsyncCoreCommands

from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Shape
from resilient_redis.seam.methods import AsyncStandIn
from resilient_redis.seam.packed import command_of

FAR = 4_000_000_000  # a deadline in seconds that no test lives to see
# DUMP's of the string "restored", in a version of the format (9) that Redis and Valkey both read
PAYLOAD = b"\x00\x08restored\t\x00e\x97\xe9\x14\x86\xe9iE"
# `HotkeysMetricsTypes.CPU`, `ArrayAggregateOperations.SUM` and `ArrayPredicateType.MATCH`
_core: Any = redis.commands.core
METRIC = getattr(getattr(_core, "HotkeysMetricsTypes", None), "CPU", None)
TOTAL = getattr(getattr(_core, "ArrayAggregateOperations", None), "SUM", None)
MATCH = getattr(getattr(_core, "ArrayPredicateType", None), "MATCH", None)
#: Older than this, redis-py lacks some of the methods and parameters in this file.
COMPLETE = tuple(int(part) for part in redis.__version__.split(".")[:2]) >= (8, 1)


class Call(NamedTuple):
    """One call of a method of redis-py's."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def on(self, client: Any) -> Any:
        """Makes the call: on a client a coroutine, on a pipeline the pipeline."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated or experimental, and promised all the same
            return getattr(client, self.method)(*self.args, **self.kwargs)

    @property
    def known(self) -> bool:
        """Whether the redis-py at hand has such a method, and it takes these arguments."""
        method = getattr(Redis, self.method, None)
        if method is None:
            return False
        try:
            inspect.signature(method).bind(None, *self.args, **self.kwargs)
        except TypeError:
            return False
        return True

    def __str__(self) -> str:
        given = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        return f"{self.method}({', '.join(given)})"


class _Recorder:
    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: Call(name, args, kwargs)


c: Any = _Recorder()


def known(calls: Iterable[Call]) -> list[Call]:
    return [call for call in calls if call.known]


# ---- answered as by an empty server, and each of them legal there

READS: list[Call] = [
    c.get("k"), c.get(b"k"), c.get(1), c.getex("k"), c.getrange("k", 0, -1), c.substr("k", 0),
    c.strlen("k"), c.mget("k"), c.mget(["k", "j"], "i"), c.lcs("k", "j"), c.lcs("k", "j", len=True),
    c.lcs("k", "j", idx=True), c.lcs("k", "j", idx=True, minmatchlen=2, withmatchlen=True),
    c.exists("k"), c.exists("k", "j"), c.touch("k", "j"), c.type("k"), c.ttl("k"), c.pttl("k"),
    c.expiretime("k"), c.pexpiretime("k"), c.dump("k"), c.memory_usage("k"),
    c.memory_usage("k", samples=0), c.object("encoding", "k"), c.object("REFCOUNT", "k"),
    c.object("idletime", "k"), c.object("freq", "k"),
    c.sort("k"), c.sort("k", start=0, num=5, by="w_*", get=["#", "o_*"], desc=True, alpha=True),
    c.sort("k", get=["a_*", "b_*"], groups=True), c.sort_ro("k"), c.sort_ro("k", alpha=True),
    c.hget("k", "f"), c.hmget("k", ["f", "g"]), c.hmget("k", "f"), c.hgetall("k"), c.hkeys("k"),
    c.hvals("k"), c.hlen("k"), c.hstrlen("k", "f"), c.hexists("k", "f"), c.hrandfield("k"),
    c.hrandfield("k", 3), c.hrandfield("k", -3, withvalues=True), c.hscan("k"),
    c.hscan("k", match="f*", count=10), c.hscan("k", no_values=True), c.httl("k", "f"),
    c.hpttl("k", "f", "g"), c.hexpiretime("k", "f"), c.hpexpiretime("k", "f", "g"),
    c.hgetex("k", "f", "g"),
    c.llen("k"), c.lindex("k", 0), c.lrange("k", 0, -1), c.lpos("k", "e"),
    c.lpos("k", "e", rank=-1, maxlen=3), c.lpos("k", "e", count=0),
    c.scard("k"), c.sismember("k", "m"), c.smismember("k", ["m"]), c.smismember("k", ["m", "n"]),
    c.smembers("k"), c.srandmember("k"), c.srandmember("k", 2), c.srandmember("k", -2),
    c.sscan("k"), c.sscan("k", match="m*", count=10), c.sdiff("k", "j"), c.sinter("k", "j"),
    c.sunion("k", "j"), c.sintercard(2, ["k", "j"]), c.sintercard(1, ["k"], limit=3),
    c.zcard("k"), c.zcount("k", "-inf", "(5"), c.zlexcount("k", "-", "[m"), c.zscore("k", "m"),
    c.zmscore("k", ["m"]), c.zmscore("k", ["m", "n"]), c.zrank("k", "m"), c.zrevrank("k", "m"),
    c.zrank("k", "m", withscore=True), c.zrevrank("k", "m", withscore=True),
    c.zrange("k", 0, -1), c.zrange("k", 0, -1, withscores=True),
    c.zrange("k", 0, -1, desc=True, withscores=True, score_cast_func=int),
    c.zrange("k", "(1", "+inf", byscore=True, offset=0, num=5, withscores=True),
    c.zrange("k", "[a", "(b", bylex=True, desc=True, offset=1, num=1), c.zrevrange("k", 0, -1),
    c.zrevrange("k", 0, -1, withscores=True), c.zrangebyscore("k", 0, 1),
    c.zrangebyscore("k", 0, 1, start=0, num=1, withscores=True), c.zrevrangebyscore("k", 1, 0),
    c.zrevrangebyscore("k", 1, 0, withscores=True), c.zrangebylex("k", "-", "+"),
    c.zrangebylex("k", "-", "+", start=0, num=1), c.zrevrangebylex("k", "+", "-"),
    c.zrandmember("k"), c.zrandmember("k", 3), c.zrandmember("k", -3, withscores=True),
    c.zscan("k"), c.zscan("k", match="m*", count=5), c.zdiff(["k", "j"]),
    c.zdiff(["k", "j"], withscores=True), c.zinter(["k", "j"]), c.zunion({"k": 1, "j": 2.5}),
    c.zinter(["k"], withscores=True), c.zunion(["k"], aggregate="MAX", withscores=True),
    c.zintercard(2, ["k", "j"]), c.zintercard(2, ["k", "j"], limit=1),
    c.geodist("k", "m", "n"), c.geodist("k", "m", "n", unit="km"), c.geohash("k"),
    c.geohash("k", "m", "n"), c.geopos("k"), c.geopos("k", "m", "n"),
    c.geosearch("k", member="m", radius=1, unit="km"),
    c.geosearch("k", longitude=1, latitude=2, width=1, height=2, unit="m", sort="ASC", count=3,
                any=True),
    c.geosearch("k", member="m", radius=1, unit="km", withcoord=True, withdist=True, withhash=True),
    c.georadius("k", 1, 2, 3, unit="km"), c.georadius("k", 1, 2, 3, withdist=True, count=2),
    c.georadiusbymember("k", "m", 3), c.georadiusbymember("k", "m", 3, withcoord=True, sort="ASC"),
    c.getbit("k", 7), c.bitcount("k"), c.bitcount("k", 0, -1), c.bitcount("k", 0, 5, "BIT"),
    c.bitpos("k", 0), c.bitpos("k", 1), c.bitpos("k", 1, 2), c.bitpos("k", 0, 2, -1, "BIT"),
    c.bitfield_ro("k", "u8", 0), c.bitfield_ro("k", "u8", 0, items=[("i5", 3)]),
    c.pfcount("k"), c.pfcount("k", "j"),
    c.xlen("k"), c.xrange("k"), c.xrange("k", "(1-1", "5", count=3), c.xrevrange("k"),
    c.xrevrange("k", count=1), c.xread({"k": 0}), c.xread({"k": "0-0", "j": "$"}, count=2),
    c.xread({"k": "$"}, count=1, block=1),
]  # fmt: skip

TAKES: list[Call] = [
    c.getdel("k"), c.hgetdel("k", "f", "g"), c.lpop("k"), c.lpop("k", 2), c.rpop("k"),
    c.rpop("k", 2), c.lmpop(2, "k", "j", direction="LEFT"),
    c.lmpop(1, "k", direction="RIGHT", count=2), c.blpop("k", 0.01), c.blpop(["k", "j"], 0.01),
    c.brpop("k", 0.01), c.blmpop(0.01, 2, "k", "j", direction="LEFT"),
    c.blmpop(0.01, 1, "k", direction="RIGHT", count=2), c.spop("k"), c.spop("k", 2),
    c.zpopmin("k"), c.zpopmin("k", 2), c.zpopmax("k"), c.zpopmax("k", 0),
    c.zmpop(2, ["k", "j"], min=True), c.zmpop(1, ["k"], max=True, count=2),
    c.bzpopmin("k", 0.01), c.bzpopmin(["k", "j"], 0.01), c.bzpopmax("k", 0.01),
    c.bzmpop(0.01, 2, ["k", "j"], min=True), c.bzmpop(0.01, 1, ["k"], max=True, count=2),
    c.xreadgroup("g", "c", {"k": ">"}), c.xreadgroup("g", "c", {"k": ">"}, count=1, noack=True),
    c.xreadgroup("g", "c", {"k": ">"}, block=1),
    c.publish("channel", "message"), c.spublish("channel", "message"),
]  # fmt: skip

# ---- queued, in this order, on what `SEED` has put there; each of them legal then

SEED: list[Call] = [
    c.set("s:old", "v", ex=100), c.set("s:gone", "v"), c.set("s:gone2", "v"), c.set("s:e1", "v"),
    c.set("s:e2", "v"), c.set("s:e3", "v"), c.set("s:e4", "v"), c.set("s:e5", "v", ex=100),
    c.set("s:n", "5"), c.set("s:f", "1.5"), c.set("s:a", "abc"), c.set("s:bits", "ab"),
    c.set("s:other", "xyz"), c.hset("h:h", mapping={"f": "1", "g": "2", "n": "3"}),
    c.rpush("l:l", *"eabecde"), c.rpush("l:trim", *"abcdef"), c.rpush("l:sort", 3, 1, 2),
    c.sadd("t:a", *"mno"), c.sadd("t:b", *"nop"), c.zadd("z:a", {"a": 1, "b": 2, "c": 3, "d": 4}),
    c.zadd("z:b", {"b": 5, "c": 6}), c.zadd("z:lex", {"a": 0, "b": 0, "c": 0}),
    c.geoadd("g:a", (13.3, 38.1, "m", 15.0, 37.5, "n")), c.pfadd("p:a", "x", "y"),
    c.pfadd("p:b", "y", "z"), *(c.xadd("x:a", {"f": "v"}, id=f"{n}-1") for n in range(1, 7)),
    c.xgroup_create("x:a", "g", "0"), c.xreadgroup("g", "c", {"x:a": ">"}),
]  # fmt: skip

#: Answered with the constant that the server answers.
STATUS: list[Call] = [
    c.set("s:1", "v"), c.set(b"s:2", b"v", ex=100), c.set("s:3", 1.5, px=100_000),
    c.set("s:4", 4, exat=FAR), c.set("s:5", "v", pxat=FAR * 1000),
    c.set("s:old", "w", keepttl=True), c.setex("s:6", 100, "v"), c.psetex("s:7", 100_000, "v"),
    c.mset({"s:8": "a", "s:9": "b"}), c.msetex({"s:10": "a", "s:11": "b"}),
    c.msetex({"s:12": "a"}, ex=100), c.hmset("h:1", {"f": "v"}), c.hsetex("h:2", "f", "v"),
    c.hsetex("h:2", mapping={"g": "w", "i": "x"}, ex=100), c.hsetex("h:2", "f", "u", keepttl=True),
    c.ltrim("l:trim", 0, 3), c.ltrim("l:trim", 1, -1), c.pfmerge("p:d", "p:a", "p:b"),
    c.restore("s:13", 0, PAYLOAD, replace=True), c.restore("s:14", 100_000, PAYLOAD, replace=True),
]  # fmt: skip

#: Removal and expiry of whole keys: the number of keys that were given, or True.
ACCEPTED: list[Call] = [
    c.delete("s:gone", "absent"), c.unlink("s:gone2", "absent", "s:nowhere"), c.expire("s:e1", 100),
    c.pexpire("s:e2", 100_000), c.expireat("s:e3", FAR), c.pexpireat("s:e4", FAR * 1000),
    c.persist("s:e5"), c.expire("absent", 100),
]  # fmt: skip

RECEIPTS: list[Call] = [
    c.hset("h:h", "f", "v"), c.hset("h:h", mapping={"i": "1", "j": "2"}), c.hdel("h:h", "j", "no"),
    c.hexpire("h:h", 100, "f"), c.hpexpire("h:h", 100_000, "g"), c.hexpireat("h:h", FAR, "i"),
    c.hpexpireat("h:h", FAR * 1000, "n"), c.hpersist("h:h", "f", "no"),
    c.lpush("l:l", "x", "y"), c.rpush("l:l", 1, 2), c.lrem("l:l", 0, "e"), c.lrem("l:l", 1, "x"),
    c.sort("l:sort", store="l:d"), c.sort("l:sort", by="nosort", get="#", alpha=True, store="l:d2"),
    c.sadd("t:a", "q", "m"), c.srem("t:a", "o", "no"), c.sdiffstore("t:d1", "t:a", "t:b"),
    c.sinterstore("t:d2", ["t:a", "t:b"]), c.sunionstore("t:d3", "t:a", "t:b"),
    c.zadd("z:a", {"e": 5.5, "a": 1.25}), c.zadd("z:a", {"f": 6, "b": 2.5}, ch=True),
    c.zrem("z:a", "c", "no"), c.zremrangebyscore("z:a", 4, "(5"), c.zremrangebyrank("z:a", 0, 0),
    c.zremrangebylex("z:lex", "[a", "(b"), c.zrangestore("z:d1", "z:a", 0, 1),
    c.zdiffstore("z:d2", ["z:a", "z:b"]), c.zinterstore("z:d3", {"z:a": 2, "z:b": 1}),
    c.zunionstore("z:d4", ["z:a", "z:b"], aggregate="MIN"),
    c.geoadd("g:a", (2.35, 48.85, "o")), c.geoadd("g:a", (2.35, 48.86, "o"), ch=True),
    c.geosearchstore("g:d1", "g:a", member="m", radius=500, unit="km"),
    c.geosearchstore("z:d5", "g:a", longitude=14, latitude=38, radius=500, unit="km",
                     storedist=True),
    c.georadius("g:a", 14, 38, 500, unit="km", store="g:d2"),
    c.georadiusbymember("g:a", "m", 500, unit="km", store_dist="z:d6"),
    c.pfadd("p:a", "w", "x"), c.bitop("AND", "s:d1", "s:bits", "s:other"),
    c.bitop("NOT", "s:d2", "s:bits"), c.bitop("DIFF", "s:d3", "s:bits", "s:other"),
    c.xadd("x:b", {"f": "v"}), c.xadd("x:b", {"g": "w"}, maxlen=10),
    c.xadd("x:a", {"f": "w"}, id="9-1"), c.xadd("x:a", {"f": "w"}, id="9-*", minid="1-1"),
    c.xack("x:a", "g", "1-1", "8-8"), c.xackdel("x:a", "g", "2-1", "8-8"),
    c.xdelex("x:a", "3-1", "8-8", ref_policy="DELREF"), c.xdelex("x:a", "5-1"),
    c.xdel("x:a", "4-1", "8-8"),
    c.xtrim("x:a", maxlen=3, approximate=False), c.xtrim("x:a", minid="1-1", limit=5),
]  # fmt: skip

#: Queued by a rule. What they answer goes through `float` and its like.
COUNTED: list[Call] = [
    c.incr("s:n"), c.incrby("s:n", 5), c.decr("s:n"), c.decrby("s:n", 2),
    c.incrbyfloat("s:f", 0.25), c.append("s:a", "def"), c.setrange("s:a", 1, "XY"),
    c.setbit("s:bits", 7, 1), c.hincrby("h:n", "n", 5), c.hincrbyfloat("h:n", "m", 0.5),
    c.zincrby("z:b", 1.5, "b"), c.zadd("z:b", {"c": 2.5}, incr=True),
    c.execute_command("BITFIELD", "s:bits", "SET", "u8", 0, 5, "INCRBY", "i5", "#2", 1),
]  # fmt: skip

#: What the servers of these tests have not got, each by its flavour.
LACKING = {
    "redis": {"msetex"},
    "valkey": {"xackdel", "xdelex", "bitop"},
}

# ---- refused

REFUSED: list[Call] = [
    # conditional, or their answer decides what comes next
    c.set("k", "v", nx=True), c.set("k", "v", xx=True, ex=5), c.set("k", "v", get=True),
    c.set("k", "v", ifeq="w"), c.set("k", "v", ifne="w"), c.set("k", "v", ifdeq="00"),
    c.setnx("k", "v"), c.getset("k", "v"), c.msetnx({"k": "v"}), c.getex("k", ex=5),
    c.getex("k", persist=True), c.delex("k"), c.delex("k", ifeq="v"), c.expire("k", 5, nx=True),
    c.pexpireat("k", 5, gt=True), c.rename("k", "j"), c.renamenx("k", "j"), c.copy("k", "j"),
    c.copy("k", "j", replace=True), c.move("k", 1), c.restore("k", 0, PAYLOAD),
    c.hsetnx("k", "f", "v"), c.hgetex("k", "f", ex=5), c.hexpire("k", 5, "f", xx=True),
    c.lset("k", 0, "e"), c.linsert("k", "BEFORE", "a", "b"), c.lpushx("k", "e"), c.rpushx("k", "e"),
    c.lmove("k", "j"), c.rpoplpush("k", "j"), c.blmove("k", "j", 0.01), c.brpoplpush("k", "j", 1),
    c.lmovem("k", "j"), c.blmovem("k", "j", 0.01), c.smove("k", "j", "m"),
    c.zadd("k", {"m": 1}, nx=True), c.zadd("k", {"m": 1}, xx=True, gt=True),
    c.geoadd("k", (1, 2, "m"), nx=True), c.geoadd("k", (1, 2, "m"), xx=True),
    c.xadd("k", {"f": "v"}, nomkstream=True), c.xadd("k", {"f": "v"}, idmpauto="p"),
    c.xadd("k", {"f": "v"}, idmp=("p", "1")), c.xdelex("k", "1-1", ref_policy="ACKED"),
    c.xackdel("k", "g", "1-1", ref_policy="ACKED"), c.increx("k"),
    # counters, without a rule
    c.incr("k"), c.incrby("k", 5), c.decr("k"), c.decrby("k"), c.incrbyfloat("k"),
    c.append("k", "v"), c.setrange("k", 0, "v"), c.setbit("k", 0, 1), c.hincrby("k", "f"),
    c.hincrbyfloat("k", "f"), c.zincrby("k", 1, "m"), c.zadd("k", {"m": 1}, incr=True),
    # streams and their groups
    c.xautoclaim("k", "g", "c", 0), c.xclaim("k", "g", "c", 0, ["1-1"]),
    c.xnack("k", "g", "FAIL", "1-1"),
    c.xgroup_create("k", "g"), c.xgroup_createconsumer("k", "g", "c"), c.xgroup_destroy("k", "g"),
    c.xgroup_delconsumer("k", "g", "c"), c.xgroup_setid("k", "g", "0"), c.xinfo_consumers("k", "g"),
    c.xinfo_groups("k"), c.xinfo_stream("k"), c.xinfo_stream("k", full=True), c.xpending("k", "g"),
    c.xpending_range("k", "g", "-", "+", 5), c.xreadgroup("g", "c", {"k": "0"}),
    c.xreadgroup("g", "c", {"k": ">"}, claim_min_idle_time=5), c.xread({"k": "0"}, max_count=5),
    c.xcfgset("k", idmp_duration=5),
    # the middle of an iteration, and the whole keyspace
    c.hscan("k", 17), c.sscan("k", 17), c.zscan("k", 17), c.scan(), c.scan(17, match="a*"),
    c.keys(), c.dbsize(), c.randomkey(), c.flushall(), c.flushdb(), c.swapdb(0, 1),
    # scripts and functions
    c.eval("return 1", 0), c.eval("return 1", 1, "k", "arg"), c.eval_ro("return 1", 0),
    c.evalsha("0" * 40, 0), c.evalsha_ro("0" * 40, 0), c.script_exists("0" * 40), c.script_flush(),
    c.script_kill(), c.script_load("return 1"), c.fcall("f", 0), c.fcall_ro("f", 1, "k"),
    c.function_delete("f"), c.function_dump(), c.function_flush(), c.function_kill(),
    c.function_list(), c.function_load("code"), c.function_restore("payload"), c.function_stats(),
    # the server itself, and the connection
    c.ping(), c.echo("a"), c.time(), c.info(), c.role(), c.lastsave(), c.lolwut(), c.auth("p"),
    c.select(1), c.quit(), c.reset(), c.readonly(), c.readwrite(), c.wait(1, 1), c.waitaof(0, 1, 1),
    c.acl_cat(), c.acl_deluser("u"), c.acl_dryrun("u", "GET", "k"), c.acl_genpass(),
    c.acl_getuser("u"), c.acl_help(), c.acl_list(), c.acl_load(), c.acl_log(), c.acl_log_reset(),
    c.acl_save(), c.acl_setuser("u"), c.acl_users(), c.acl_whoami(), c.bgrewriteaof(), c.bgsave(),
    c.save(), c.sync(), c.psync("?", -1), c.replicaof("NO", "ONE"), c.slaveof(),
    c.migrate("host", 1, "k", 0, 9), c.migrate("host", 1, ["k", "j"], 0, 9), c.debug_object("k"),
    c.client_getname(), c.client_getredir(), c.client_id(), c.client_info(), c.client_kill("a:1"),
    c.client_kill_filter(_id="1"), c.client_list(), c.client_no_evict("ON"),
    c.client_no_touch("ON"), c.client_pause(1), c.client_reply("OFF"),
    c.client_setinfo("LIB-NAME", "n"), c.client_setname("n"), c.client_tracking(),
    c.client_tracking_off(), c.client_tracking_on(), c.client_trackinginfo(), c.client_unblock(1),
    c.client_unpause(), c.cluster("info"), c.cluster("nosuch"), c.command(), c.command_count(),
    c.command_getkeys("GET", "k"), c.command_getkeysandflags("GET", "k"), c.command_list(),
    c.config_get(), c.config_resetstat(), c.config_rewrite(), c.config_set("a", "b"),
    c.hotkeys_start([METRIC]), c.hotkeys_get(), c.hotkeys_stop(), c.hotkeys_reset(),
    c.latency_history("e"), c.latency_latest(), c.latency_reset(), c.memory_malloc_stats(),
    c.memory_purge(), c.memory_stats(), c.module_list(), c.module_load("m"), c.module_loadex("m"),
    c.module_unload("m"), c.object("help", "k"), c.object("nosuch", "k"), c.pubsub_channels(),
    c.pubsub_numpat(), c.pubsub_numsub("c"), c.pubsub_shardchannels(), c.pubsub_shardnumsub("c"),
    c.slowlog_get(), c.slowlog_len(), c.slowlog_reset(),
    # newer or older than the servers
    c.arcount("k"), c.ardel("k", 1), c.ardelrange("k", (1, 2)), c.arget("k", 1),
    c.argetrange("k", 1, 2), c.argrep("k", 0, 9, [(MATCH, "v")]), c.arinfo("k"),
    c.arinsert("k", "v"), c.arlastitems("k", 1), c.arlen("k"), c.armget("k", 1),
    c.armset("k", {1: "v"}), c.arnext("k"), c.arop("k", 0, 9, TOTAL), c.arring("k", 5, "v"),
    c.arscan("k", 0, 9), c.arseek("k", 1), c.arset("k", 1, "v"), c.digest("k"),
    c.sdiffcard(1, ["k"]), c.sunioncard(1, ["k"]), c.stralgo("LCS", "k", "j", "keys"),
    c.himport_set("k", "f", ["v"]), c.himport_prepare_internal("f", ["a"]),
    c.himport_discard_internal("f"), c.himport_discard_all_internal(),
]  # fmt: skip

#: No answer of the library's: why.
EXCLUDED = {
    "register_script": "makes an object; its calls are EVALSHA's",
    "bitfield": "makes an object, which has a test of its own",
    "hscan_iter": "an iterator, which has a test of its own",
    "scan_iter": "an iterator, which has a test of its own",
    "sscan_iter": "an iterator, which has a test of its own",
    "zscan_iter": "an iterator, which has a test of its own",
    "digest_local": "computed here, nothing is sent",
    "watch": "of a pipeline; of a client it only warns",
    "unwatch": "of a pipeline; of a client it only warns",
    "shutdown": "redis-py takes a lost connection for its success, and a refusal is one",
    **dict.fromkeys(
        ("command_docs", "command_info", "debug_segfault", "failover", "hello", "latency_doctor",
         "latency_graph", "latency_histogram", "memory_doctor", "memory_help", "script_debug"),
        "redis-py raises NotImplementedError",
    ),
}  # fmt: skip

NEUTRAL = [*READS, *TAKES]
QUEUED = [*STATUS, *ACCEPTED, *RECEIPTS]


def methods() -> list[str]:
    """Those of redis-py's command classes; its client's own send nothing."""
    return [
        name
        for name in dir(AsyncCoreCommands)
        if not name.startswith("_")
        if name != "execute_command"  # what all the others call
        if callable(getattr(Redis, name))
    ]


class Sample(NamedTuple):
    """The shortest call of a method, and the command that it sends."""

    call: Call
    shape: Shape
    sent: int


def samples() -> Iterator[Sample]:
    """One of each method that sends a command: nothing but what it needs."""
    stand_in = AsyncStandIn()
    shortest: dict[str, Call] = {}
    for call in known([*NEUTRAL, *QUEUED, *REFUSED]):
        found = shortest.setdefault(call.method, call)
        if len(call.args) + len(call.kwargs) < len(found.args) + len(found.kwargs):
            shortest[call.method] = call
    for call in shortest.values():
        sent: list[tuple[Any, ...]] = []

        def take(command: tuple[Any, ...], _: dict[str, Any], sent: Any = sent) -> Any:
            sent.append(command)

        stand_in.run(call.method, call.args, call.kwargs, take)
        yield Sample(call, shape_of(command_of(sent[0], stand_in.replies.encoder).args), len(sent))
