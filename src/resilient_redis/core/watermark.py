"""W, the watermark: how far this drain has come, kept by the server itself.

Each batch sets W to its last sequence number inside its own transaction, so "was it applied?"
has an answer after any loss of connection. The value is `session:sequence`; the session is new
for each priming, so that a late copy of an older batch never matches.

W has no TTL: one with a TTL was evicted by `volatile-ttl` after 12 SETs (FACTS.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

#: KEYS[1] is W, ARGV[1] the value that this batch continues from. If W has another value, the
#: script touches W, and so makes this connection's own EXEC fail: WATCH alone protects nothing in
#: batches that are sent blind (`[1,2,3,1,2,3]` was measured). PEXPIRE and PERSIST are allowed when
#: out of memory and leave no TTL; where W is gone, SET and DEL leave nothing.
GUARD = (
    b"if redis.call('GET',KEYS[1])~=ARGV[1] then "
    b"if redis.call('PEXPIRE',KEYS[1],600000)==1 then redis.call('PERSIST',KEYS[1]) "
    b"else redis.call('SET',KEYS[1],ARGV[1]) redis.call('DEL',KEYS[1]) end "
    b"return 0 end return 1"
)


class Mark(NamedTuple):
    """A value of W."""

    session: bytes
    seq: int

    def value(self) -> bytes:
        return b"%b:%d" % (self.session, self.seq)


def may_evict(info: Any) -> bool:
    """Whether a server that says `info` to INFO memory may drop a key without a TTL, as W is, when
    it is out of memory. One that does not say so may.
    """
    text = info.decode() if isinstance(info, bytes) else str(info)
    said = dict(line.partition(":")[::2] for line in text.splitlines())
    return not said.get("maxmemory_policy", "").startswith(("noeviction", "volatile-"))


def read_mark(value: Any, session: bytes) -> Mark | None:
    """The mark in W's value, if this session wrote it."""
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes):
        return None
    name, _, number = value.rpartition(b":")
    if name != session or not number.isdigit():
        return None
    return Mark(session, int(number))
