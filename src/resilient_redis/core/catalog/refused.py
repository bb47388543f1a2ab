"""What cannot be promised, each with the reason that the caller is given; and PUBLISH.

Where a group is `safe_twice`, its commands only read: one whose reply was lost may be sent again.
"""

from __future__ import annotations

from ..command import Kind, Shape, Wire
from .parse import CONDITIONAL, NEWER, counted_keys, waits_for_seconds
from .row import (
    Args,
    Refuse,
    Row,
    every,
    every_other,
    first,
    first_two,
    no_keys,
    refuse,
    second,
)

MOVES = "it decides what comes next: its answer cannot be known now"
CLAIMS = "it takes entries from others: its answer cannot be known now"
TRANSACTION = "a transaction cannot be promised while Redis is away"
SCRIPT = "what a script does and answers cannot be known now"
KEYSPACE = "it asks about all keys: a neutral answer would be a lie"
TRUTH = "it asks about the server: it must see the truth"
ADMIN = "administration"
CONNECTION = "it changes the state of one connection"
SUBSCRIPTION = "a subscription waits until Redis is back"
REPLICAS = "only replicas can answer this"
NEEDS_STREAM = "it is an error where the stream or its group is missing"
VECTOR_SET = "a module command"
REMOVED = "Redis 7 has it no more: LCS takes its place"


def _waits(args: Args, shape: Shape) -> Shape:
    """For how long, while it is sent: what waits longer has lost its reply."""
    try:
        return waits_for_seconds(args, shape, len(args) - 1)
    except Refuse:
        return shape  # the reason of the row comes first


def _migrate_keys(args: Args) -> tuple[bytes, ...]:
    """`MIGRATE host port key …`; with an empty key they follow the word KEYS, the last option."""
    if len(args) > 3 and args[3]:
        return (args[3],)
    at = next((i for i, arg in enumerate(args) if i > 5 and arg.upper() == b"KEYS"), len(args))
    return tuple(args[at + 1 :])


ROWS: tuple[Row, ...] = (
    Row("PUBLISH", 3, Kind.PUBLISH, Wire.INT, keys=no_keys),
    Row("SPUBLISH", 3, Kind.PUBLISH, Wire.INT, keys=no_keys),
    *refuse(CONDITIONAL, """
        SETNX, GETSET, HSETNX, LSET, LINSERT, LPUSHX, RPUSHX, MOVE, DELIFEQ, DELEX,
        RESTORE-ASKING
        """, keys=first),
    *refuse(CONDITIONAL, "MSETNX", keys=every_other),
    *refuse(CONDITIONAL, "RENAME, RENAMENX, COPY, SMOVE", keys=first_two),
    *refuse(MOVES, "LMOVE, LMOVEM, RPOPLPUSH", keys=first_two),
    *refuse(MOVES, "BLMOVE, BRPOPLPUSH", keys=first_two, blocking=True, by_args=_waits),
    *refuse(MOVES, "BLMOVEM", keys=first_two, blocking=True),
    *refuse(CLAIMS, "XCLAIM, XAUTOCLAIM", keys=first),
    *refuse(NEEDS_STREAM, """
        XGROUP CREATE, XGROUP CREATECONSUMER, XGROUP DELCONSUMER, XGROUP DESTROY, XGROUP SETID
        """, keys=second),
    *refuse(NEEDS_STREAM, "XSETID", keys=first),
    *refuse(NEEDS_STREAM, "XINFO CONSUMERS, XINFO GROUPS, XINFO STREAM",
            keys=second, safe_twice=True),
    *refuse(NEEDS_STREAM, "XPENDING", keys=first, safe_twice=True),
    *refuse(TRANSACTION, "MULTI, EXEC, DISCARD, UNWATCH"),
    *refuse(TRANSACTION, "WATCH", keys=every),
    *refuse(SCRIPT, "EVAL, EVALSHA, FCALL", keys=counted_keys(2)),
    *refuse(SCRIPT, "EVAL_RO, EVALSHA_RO, FCALL_RO", keys=counted_keys(2), safe_twice=True),
    *refuse(SCRIPT, """
        SCRIPT DEBUG, SCRIPT FLUSH, SCRIPT KILL, SCRIPT LOAD,
        FUNCTION DELETE, FUNCTION FLUSH, FUNCTION KILL, FUNCTION LOAD, FUNCTION RESTORE
        """),
    *refuse(SCRIPT, """
        SCRIPT EXISTS, SCRIPT HELP, SCRIPT SHOW,
        FUNCTION DUMP, FUNCTION HELP, FUNCTION LIST, FUNCTION STATS
        """, safe_twice=True),
    *refuse(KEYSPACE, "KEYS, SCAN, CLUSTERSCAN, DBSIZE, RANDOMKEY", safe_twice=True),
    *refuse(KEYSPACE, "FLUSHALL, FLUSHDB, SWAPDB"),
    *refuse(REPLICAS, "WAIT, WAITAOF", blocking=True),
    *refuse(SUBSCRIPTION, """
        SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE, UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE
        """),
    *refuse(CONNECTION, """
        AUTH, HELLO, SELECT, RESET, QUIT, ASKING, READONLY, READWRITE,
        CLIENT CACHING, CLIENT CAPA, CLIENT IMPORT-SOURCE, CLIENT NO-EVICT, CLIENT NO-TOUCH,
        CLIENT REPLY, CLIENT SETINFO, CLIENT SETNAME, CLIENT TRACKING
        """),
    *refuse(TRUTH, """
        PING, ECHO, TIME, INFO, ROLE, LASTSAVE, LOLWUT,
        ACL CAT, ACL DRYRUN, ACL GENPASS, ACL GETUSER, ACL HELP, ACL LIST, ACL USERS, ACL WHOAMI,
        CLIENT GETNAME, CLIENT GETREDIR, CLIENT HELP, CLIENT ID, CLIENT INFO, CLIENT LIST,
        CLIENT TRACKINGINFO,
        CLUSTER COUNT-FAILURE-REPORTS, CLUSTER COUNTKEYSINSLOT, CLUSTER GETKEYSINSLOT,
        CLUSTER GETSLOTMIGRATIONS, CLUSTER HELP, CLUSTER INFO, CLUSTER KEYSLOT, CLUSTER LINKS,
        CLUSTER MYID, CLUSTER MYSHARDID, CLUSTER NODES, CLUSTER REPLICAS, CLUSTER SHARDS,
        CLUSTER SLAVES, CLUSTER SLOT-STATS, CLUSTER SLOTS,
        COMMAND, COMMAND COUNT, COMMAND DOCS, COMMAND GETKEYS, COMMAND GETKEYSANDFLAGS,
        COMMAND HELP, COMMAND INFO, COMMAND LIST,
        COMMANDLOG GET, COMMANDLOG HELP, COMMANDLOG LEN,
        CONFIG GET, CONFIG HELP,
        HOTKEYS GET,
        LATENCY DOCTOR, LATENCY GRAPH, LATENCY HELP, LATENCY HISTOGRAM, LATENCY HISTORY,
        LATENCY LATEST,
        MEMORY DOCTOR, MEMORY HELP, MEMORY MALLOC-STATS, MEMORY STATS,
        MODULE HELP, MODULE LIST,
        OBJECT HELP, XGROUP HELP, XINFO HELP,
        PUBSUB CHANNELS, PUBSUB HELP, PUBSUB NUMPAT, PUBSUB NUMSUB, PUBSUB SHARDCHANNELS,
        PUBSUB SHARDNUMSUB,
        SLOWLOG GET, SLOWLOG HELP, SLOWLOG LEN
        """, safe_twice=True),
    *refuse(ADMIN, """
        ACL DELUSER, ACL LOAD, ACL LOG, ACL SAVE, ACL SETUSER,
        BGREWRITEAOF, BGSAVE, SAVE, SHUTDOWN, FAILOVER, REPLICAOF, SLAVEOF, DEBUG, MONITOR,
        PFSELFTEST, PSYNC, SYNC, REPLCONF,
        CLIENT KILL, CLIENT PAUSE, CLIENT UNBLOCK, CLIENT UNPAUSE,
        CLUSTER ADDSLOTS, CLUSTER ADDSLOTSRANGE, CLUSTER BUMPEPOCH, CLUSTER CANCELSLOTMIGRATIONS,
        CLUSTER DELSLOTS, CLUSTER DELSLOTSRANGE, CLUSTER FAILOVER, CLUSTER FLUSHSLOT,
        CLUSTER FLUSHSLOTS, CLUSTER FORGET, CLUSTER MEET, CLUSTER MIGRATESLOTS,
        CLUSTER REPLICATE, CLUSTER RESET, CLUSTER SAVECONFIG, CLUSTER SET-CONFIG-EPOCH,
        CLUSTER SETSLOT, CLUSTER SYNCSLOTS,
        COMMANDLOG RESET, CONFIG RESETSTAT, CONFIG REWRITE, CONFIG SET,
        HOTKEYS RESET, HOTKEYS START, HOTKEYS STOP, LATENCY RESET,
        MEMORY PURGE, MODULE LOAD, MODULE LOADEX, MODULE UNLOAD, SLOWLOG RESET
        """),
    *refuse(ADMIN, "MIGRATE", keys=_migrate_keys),
    *refuse(ADMIN, "PFDEBUG", keys=second),
    *refuse(VECTOR_SET, "VADD, VREM, VSETATTR", keys=first),
    *refuse(VECTOR_SET, """
        VCARD, VDIM, VEMB, VGETATTR, VINFO, VISMEMBER, VLINKS, VRANDMEMBER, VRANGE, VSIM
        """, keys=first, safe_twice=True),
    # redis-py 8.1 has methods for these (Redis 8.4 to 8.8). What they answer where there is nothing
    # was not seen on a server.
    *refuse(NEWER, """
        ARDEL, ARDELRANGE, ARINSERT, ARMSET, ARRING, ARSEEK, ARSET, INCREX, XCFGSET, XNACK
        """, keys=first),
    *refuse(NEWER, """
        ARCOUNT, ARGET, ARGETRANGE, ARGREP, ARINFO, ARLASTITEMS, ARLEN, ARMGET, ARNEXT, AROP,
        ARSCAN, DIGEST
        """, keys=first, safe_twice=True),
    *refuse(NEWER, "SDIFFCARD, SUNIONCARD", keys=counted_keys(1), safe_twice=True),
    *refuse(NEWER, "HIMPORT SET", keys=second),
    *refuse(NEWER, "HIMPORT DISCARD, HIMPORT DISCARDALL, HIMPORT PREPARE"),
    *refuse(REMOVED, "STRALGO", safe_twice=True),
)  # fmt: skip
