"""A simulated Redis: sessions, transactions with dirty CAS, and errors on demand.

Small on purpose: it knows the commands of the simulation and answers everything else with an
error. What it keeps true to the original is what exactly-once depends on: WATCH is dirtied by
*any* write of the key, the session's own included; a command that was refused while it was queued
makes EXEC fail whole; ids start again with the server.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol

import hiredis

from . import pubsub
from .commands import COMMANDS, OK, Err, Store
from .resp import NIL_ARRAY, NOTHING, encode
from .taking import BLOCKING


class World(Protocol):
    """Where chance and time come from: the loop."""

    @property
    def rng(self) -> random.Random: ...
    def time(self) -> float: ...


class Peer(Protocol):
    """The other end of a session: the network."""

    @property
    def addr(self) -> str: ...
    def reply(self, data: bytes) -> None: ...
    def server_closes(self, how: str) -> None: ...


# The script that core/watermark.py sends, letter by letter. Another one is an error: whoever
# changes it teaches it to this server as well.
GUARD = (
    b"if redis.call('GET',KEYS[1])~=ARGV[1] then "
    b"if redis.call('PEXPIRE',KEYS[1],600000)==1 then redis.call('PERSIST',KEYS[1]) "
    b"else redis.call('SET',KEYS[1],ARGV[1]) redis.call('DEL',KEYS[1]) end "
    b"return 0 end return 1"
)
# Allowed while loading (flags of COMMAND)
_LOADING = frozenset(
    {b"HELLO", b"CLIENT", b"SELECT", b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH"}
)
_QUEUE_PASSES = frozenset({b"EXEC", b"DISCARD", b"MULTI", b"WATCH"})
_OOM = Err("OOM command not allowed when used memory > 'maxmemory'.")
_READONLY = Err("READONLY You can't write against a read only replica.")
_NOREPLICAS = Err("NOREPLICAS Not enough good replicas to write.")
_LOADING_ERR = Err("LOADING Redis is loading the dataset in memory")
_EXECABORT = Err("EXECABORT Transaction discarded because of previous errors.")


class Session:
    """One client, as the server sees it."""

    def __init__(self, server: SimServer, conn: Peer, number: int) -> None:
        self.server = server
        self.conn = conn
        self.id = number
        self.since = server.loop.time()
        self.db = 0
        self.resp3 = False
        self.queue: list[tuple[bytes, ...]] | None = None
        self.aborted = False
        self.watched: set[tuple[int, bytes]] = set()
        self.dirty = False
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}
        self.gone = False
        self._reader = hiredis.Reader()
        self._hung_up = False

    def feed(self, data: bytes) -> None:
        self._reader.feed(data)
        if self.server.frozen:
            self.server.backlog[self] = None
        else:
            self.work()

    def hung_up(self) -> None:
        """FIN or RST: what had come before is executed all the same."""
        self._hung_up = True
        if self.server.frozen:
            self.server.backlog[self] = None
        else:
            self.server.drop(self)

    def work(self) -> None:
        out, waiting = [], self.server.waiting
        while not (self.gone or self in waiting) and (call := self._reader.gets()) is not False:
            out.append(encode(self.server.handle(self, tuple(call)), self.resp3))
        self.answer(b"".join(out))
        if self._hung_up:
            self.server.drop(self)

    def answer(self, data: bytes) -> None:
        if data and not self.gone and not self._hung_up:
            self.conn.reply(data)

    def unwatch(self) -> None:
        self.dirty = False
        for where in self.watched:
            self.server.watchers[where].pop(self, None)
        self.watched.clear()

    def info(self) -> bytes:
        age = int(self.server.loop.time() - self.since)
        return b"id=%d addr=%b laddr=10.0.0.2:6379 fd=8 name= age=%d idle=0 flags=N db=%d\n" % (
            self.id,
            self.conn.addr.encode(),
            age,
            self.db,
        )


class SimServer:
    """One Redis. `mode` is what it answers to writes (or to all, when LOADING) with."""

    def __init__(self, loop: World) -> None:
        self.loop = loop
        self.skew = loop.rng.uniform(-1e6, 1e6)  # its clock is not ours
        self.store = Store(self.unix_ms)
        self.store.touched = self._touched
        self.sessions: dict[int, Session] = {}
        self.watchers: dict[tuple[int, bytes], dict[Session, None]] = {}
        self.backlog: dict[Session, None] = {}
        self.waiting: dict[Session, tuple[bytes, ...]] = {}  # in blocking commands
        self.later: Callable[[float, Callable[[], None]], Any] | None = None  # the loop's
        self.down = False
        self.frozen = False
        self.mode = ""
        self.forbidden: frozenset[bytes] = frozenset()
        self.no_maint = loop.rng.random() < 0.5
        self.lost: list[tuple[int, tuple[bytes, ...]]] = []  # effects that a restart has lost
        self._next_id = 1

    @property
    def no_kill(self) -> bool:
        return b"CLIENT KILL" in self.forbidden

    def unix_ms(self) -> int:
        return int((1.7e9 + self.skew + self.loop.time()) * 1000)

    # -- connections ------------------------------------------------------------------------

    def accept(self, conn: Peer) -> Session:
        session = self.sessions[self._next_id] = Session(self, conn, self._next_id)
        self._next_id += 1
        return session

    def drop(self, session: Session, how: str = "FIN") -> None:
        if not session.gone:
            session.gone = True
            session.unwatch()
            self.waiting.pop(session, None)
            self.sessions.pop(session.id, None)
            session.conn.server_closes(how)

    def _touched(self, db: int, key: bytes) -> None:
        for session in self.watchers.get((db, key), ()):
            session.dirty = True

    # -- faults -----------------------------------------------------------------------------

    def thaw(self) -> None:
        self.frozen = False
        backlog, self.backlog = self.backlog, {}
        for session in backlog:
            if not session.gone:
                session.work()

    def kill(self) -> None:
        self.down = True
        self.frozen = False
        self.backlog.clear()
        for session in list(self.sessions.values()):
            self.drop(session, "RST")

    def restart(self, keep: int | None = None) -> None:
        """Comes back, with its whole data set or with the first `keep` effects of it."""
        self.down = False
        self._next_id = 1
        self.watchers.clear()
        if keep is not None and keep < len(self.store.log):
            keep = max(whole for whole in self.store.wholes if whole <= keep)
            self.lost += self.store.log[keep:]
            self.store.replay(self.store.log[:keep])

    # -- commands ---------------------------------------------------------------------------

    def handle(self, session: Session, args: tuple[bytes, ...]) -> Any:
        name = args[0].upper()
        try:
            if session.queue is not None and name not in _QUEUE_PASSES:
                try:
                    self._admit(name, args)
                except Err:
                    session.aborted = True
                    raise
                session.queue.append((name, *args[1:]))
                return "QUEUED"
            self._admit(name, args)
            reply = self._run(session, name, (name, *args[1:]))
            if reply is NOTHING:
                self._block(session, (name, *args[1:]))
            self._whole()
            return reply
        except Err as error:
            return error

    def _whole(self) -> None:
        """A command is over, or a transaction: who waits for what it has written is served."""
        while len(self.store.log) > self.store.wholes[-1]:
            self.store.wholes.append(len(self.store.log))
            for session, args in list(self.waiting.items()):
                reply = self._run(session, args[0], args)
                if reply is not NOTHING:
                    self._unblock(session, reply)
                    break

    def _block(self, session: Session, args: tuple[bytes, ...]) -> None:
        self.waiting[session] = args
        if seconds := BLOCKING[args[0]](args):
            assert self.later is not None
            self.later(seconds, lambda: self._in_vain(session, args))

    def _in_vain(self, session: Session, args: tuple[bytes, ...]) -> None:
        if self.waiting.get(session) is not args:
            return
        if self.frozen:  # it looks at its clock when it wakes up
            assert self.later is not None
            self.later(0.01, lambda: self._in_vain(session, args))
        else:
            self._unblock(session, NIL_ARRAY if args[0] != b"BLMOVE" else None)

    def _unblock(self, session: Session, reply: Any) -> None:
        del self.waiting[session]
        session.answer(encode(reply, session.resp3))
        session.work()

    def _admit(self, name: bytes, args: tuple[bytes, ...]) -> None:
        """What the server checks before it runs or queues a command."""
        spec = COMMANDS.get(name)
        if spec is None and name not in _SPECIAL:
            raise Err(f"ERR unknown command '{name.decode()}', with args beginning with: ")
        full = b" ".join((name, *args[1:2])).upper() if name == b"CLIENT" else name
        if full in self.forbidden:
            command = full.decode().lower().replace(" ", "|")
            raise Err(f"NOPERM User default has no permissions to run the '{command}' command")
        if spec is not None and len(args) < spec.arity:
            raise Err(f"ERR wrong number of arguments for '{name.decode().lower()}' command")
        if self.mode == "LOADING" and name not in _LOADING:
            raise _LOADING_ERR
        if spec is not None and self.mode:
            if spec.denyoom and self.mode == "OOM":
                raise _OOM
            if spec.write and self.mode == "READONLY":
                raise _READONLY
            if spec.write and self.mode == "NOREPLICAS":
                raise _NOREPLICAS

    def _run(self, session: Session, name: bytes, args: tuple[bytes, ...]) -> Any:
        spec = COMMANDS.get(name)
        if spec is not None:
            if spec.write:
                self.store.tally[name] = self.store.tally.get(name, 0) + 1
            return spec.run(self.store, session.db, args)
        return _SPECIAL[name](self, session, args)

    def _select(self, session: Session, args: tuple[bytes, ...]) -> Any:
        session.db = int(args[1])
        return OK

    def _hello(self, session: Session, args: tuple[bytes, ...]) -> Any:
        session.resp3 = len(args) > 1 and args[1] == b"3"
        proto = 3 if session.resp3 else 2
        return {b"server": b"redis", b"version": b"7.4.0", b"proto": proto, b"id": session.id}

    def _client(self, session: Session, args: tuple[bytes, ...]) -> Any:
        sub = args[1].upper()
        if sub in (b"SETINFO", b"SETNAME"):
            return OK
        if sub == b"INFO":
            return session.info()
        if sub == b"ID":
            return session.id
        if sub == b"LIST":
            wanted = [int(word) for word in args[3:]] if len(args) > 2 else list(self.sessions)
            found = [self.sessions[i] for i in wanted if i in self.sessions]
            return b"".join(s.info() for s in found)
        if sub == b"KILL" and args[2].upper() == b"ID":
            victim = self.sessions.get(int(args[3]))
            if victim is None:
                return 0
            self.drop(victim)
            return 1
        if sub == b"MAINT_NOTIFICATIONS" and not self.no_maint:
            return OK
        raise Err(f"ERR unknown subcommand '{sub.decode()}'. Try CLIENT HELP.")

    def _time(self, _: Session, __: tuple[bytes, ...]) -> Any:
        ms = self.unix_ms()
        return [b"%d" % (ms // 1000), b"%d" % (ms % 1000 * 1000)]

    def _multi(self, session: Session, _: tuple[bytes, ...]) -> Any:
        if session.queue is not None:
            raise Err("ERR MULTI calls can not be nested")
        session.queue, session.aborted = [], False
        return OK

    def _discard(self, session: Session, _: tuple[bytes, ...]) -> Any:
        if session.queue is None:
            raise Err("ERR DISCARD without MULTI")
        session.queue = None
        session.unwatch()
        return OK

    def _exec(self, session: Session, _: tuple[bytes, ...]) -> Any:
        queue, session.queue = session.queue, None
        if queue is None:
            raise Err("ERR EXEC without MULTI")
        dirty = session.dirty
        session.unwatch()
        if session.aborted:
            raise _EXECABORT
        for args in queue if self.mode else ():
            # What has become of the server since they were queued is said by EXEC itself.
            try:
                self._admit(args[0], args)
            except Err as error:
                raise Err(f"EXECABORT Transaction discarded because of: {error}") from None
        if dirty:
            return NIL_ARRAY
        replies: list[Any] = []
        for args in queue:
            try:
                reply = self._run(session, args[0], args)
                replies.append(NIL_ARRAY if reply is NOTHING else reply)
            except Err as error:
                replies.append(error)
        return replies

    def _watch(self, session: Session, args: tuple[bytes, ...]) -> Any:
        if session.queue is not None:
            raise Err("ERR WATCH inside MULTI is not allowed")
        for key in args[1:]:
            session.watched.add((session.db, key))
            self.watchers.setdefault((session.db, key), {})[session] = None
        return OK

    def _unwatch(self, session: Session, _: tuple[bytes, ...]) -> Any:
        session.unwatch()
        return OK

    def _eval(self, session: Session, args: tuple[bytes, ...]) -> Any:
        if args[1] == b"return 1":
            return 1
        if args[1] != GUARD or args[2] != b"1":
            raise Err("ERR the simulated server does not know this script")
        key, expected = args[3], args[4]
        if self.store.typed(session.db, key, bytes) == expected:
            return 1
        call = (b"PEXPIRE", key, b"600000")
        self._admit(b"PEXPIRE", call)
        if self._run(session, b"PEXPIRE", call) == 1:
            self._run(session, b"PERSIST", (b"PERSIST", key))
        else:
            self._admit(b"SET", (b"SET", key, expected))
            self._run(session, b"SET", (b"SET", key, expected))
            self._run(session, b"DEL", (b"DEL", key))
        return 0


_SPECIAL: dict[bytes, Any] = {
    b"CLIENT": SimServer._client,
    b"DISCARD": SimServer._discard,
    b"EVAL": SimServer._eval,
    b"EXEC": SimServer._exec,
    b"HELLO": SimServer._hello,
    b"MULTI": SimServer._multi,
    b"PING": pubsub.ping,
    b"PSUBSCRIBE": pubsub.subscribe,
    b"PUBLISH": pubsub.publish_command,
    b"PUNSUBSCRIBE": pubsub.unsubscribe,
    b"SELECT": SimServer._select,
    b"SUBSCRIBE": pubsub.subscribe,
    b"TIME": SimServer._time,
    b"UNSUBSCRIBE": pubsub.unsubscribe,
    b"UNWATCH": SimServer._unwatch,
    b"WATCH": SimServer._watch,
}
