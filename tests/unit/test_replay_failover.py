"""The replay goes on at another server: what may be concluded of one, and what may not."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_redis.core.replay import Replay
from resilient_redis.core.watermark import may_evict
from resilient_redis.journal import MemoryJournal
from tests.unit.model_server import ModelServer
from tests.unit.test_replay import Heard, Lost, W, write


class Queue:
    """Three writes that are not safe to send twice, and what becomes of them."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.heard = Heard(set())
        sessions = iter(range(100))
        self.replay = Replay(
            self.journal,
            self.heard,
            watermark=W,
            new_session=lambda: b"s%d" % next(sessions),
            clock=lambda: 0.0,
            wall_ms=lambda: 0,
            batch_size=1,
        )
        for n in range(1, 4):
            self.journal.append([write(b"RPUSH", b"l", b"%d" % n)], 0.0, 0)

    def run(
        self, server: ModelServer, name: str, dies_after: bytes = b"", demoted_at: bytes = b""
    ) -> str | None:
        """One recovery connection. The replies to what holds `dies_after` are lost; the server is a
        replica when what holds `demoted_at` comes.
        """
        client, unread = server.connect(), list[Any]()
        dialogue = self.replay.run(server=name)
        try:
            ask = next(dialogue)
            while True:
                if demoted_at and demoted_at in ask.send:
                    server.held = "READONLY"
                unread += server.feed(client, ask.send)
                if dies_after and dies_after in ask.send:
                    raise Lost
                replies, unread = unread[: ask.receive], unread[ask.receive :]
                ask = dialogue.send(replies)
        except StopIteration as stop:
            held: str | None = stop.value
            return held
        finally:
            dialogue.close()


def replica_of(server: ModelServer) -> ModelServer:
    """As far as it has come by now."""
    replica = ModelServer()
    replica.restore(server.data)
    return replica


SECOND = b"\r\n$1\r\n2\r\n"  # in the batch of the second write


def test_a_promoted_replica_without_the_watermark_has_nothing_of_the_batch() -> None:
    """Over one server its entries would be dead letters: they may have been applied."""
    queue, old = Queue(), ModelServer()
    new = replica_of(old)
    with pytest.raises(Lost):
        queue.run(old, "old", dies_after=b"RPUSH")
    assert old.data[0, b"l"] == [b"1"]
    assert queue.run(new, "new") is None
    assert new.data[0, b"l"] == [b"1", b"2", b"3"]
    assert not queue.heard.letters


def test_a_promoted_replica_that_has_the_batch() -> None:
    queue, old = Queue(), ModelServer()
    with pytest.raises(Lost):
        queue.run(old, "old", dies_after=SECOND)
    new = replica_of(old)
    assert queue.run(new, "new") is None
    assert new.data[0, b"l"] == [b"1", b"2", b"3"]


EVICTS = b"allkeys-random"


@pytest.mark.parametrize("when", ["before the failover", "after it"])
def test_where_w_may_be_evicted_its_absence_tells_nothing(when: str) -> None:
    """The replica has the batch and W; then W is evicted, by the old master or the new one. Sent
    again, the first write would be applied twice.
    """
    queue, old = Queue(), ModelServer()
    if when == "before the failover":
        old.policy = EVICTS
    with pytest.raises(Lost):
        queue.run(old, "old", dies_after=b"RPUSH")
    new = replica_of(old)
    new.policy = b"volatile-lru" if when == "before the failover" else EVICTS
    del new.data[0, W]
    assert queue.run(new, "new") is None
    assert new.data[0, b"l"] == [b"1", b"2", b"3"]
    assert queue.heard.letters == {1: "watermark"}


def test_where_nobody_says_it_w_may_be_evicted() -> None:
    queue, old = Queue(), ModelServer()
    old.forbidden.add(b"INFO")
    with pytest.raises(Lost):
        queue.run(old, "old", dies_after=b"RPUSH")
    new = replica_of(old)
    del new.data[0, W]
    assert queue.run(new, "new") is None
    assert new.data[0, b"l"] == [b"1", b"2", b"3"]
    assert queue.heard.letters == {1: "watermark"}


def test_a_key_without_a_ttl_is_evicted_where_all_may_be() -> None:
    info = b"maxmemory_policy:%b\r\n"
    assert not any(may_evict(info % p) for p in (b"noeviction", b"volatile-ttl"))
    assert all(may_evict(x) for x in (info % b"allkeys-lru", info % b"new", b"", None))
    assert not may_evict("maxmemory:0\r\nmaxmemory_policy:noeviction\r\n")


def test_what_a_promoted_replica_lacks_of_the_confirmed_is_lost_and_said() -> None:
    """Redis's own loss. What was not confirmed goes on behind it."""
    queue, old = Queue(), ModelServer()
    with pytest.raises(Lost):
        queue.run(old, "old", dies_after=b"RPUSH")
    new = replica_of(old)
    with pytest.raises(Lost):
        queue.run(old, "old", dies_after=b"\r\n$1\r\n3\r\n")
    assert queue.run(new, "new") is None
    assert new.data[0, b"l"] == [b"1", b"3"]
    assert queue.heard.lost == [(2, 1)]


def test_a_replica_that_is_called_the_master_tells_nothing() -> None:
    """A sentinel is behind, and so is the replica: what it lacks is on the master."""
    queue, master = Queue(), ModelServer()
    replica = replica_of(master)
    replica.held = "READONLY"
    with pytest.raises(Lost):
        queue.run(master, "master", dies_after=b"RPUSH")
    assert queue.run(replica, "replica") == "READONLY"
    assert queue.run(master, "master") is None
    assert master.data[0, b"l"] == [b"1", b"2", b"3"]


def test_what_was_refused_as_a_whole_was_not_sent() -> None:
    """The master is demoted before the first batch. Then W is gone: nothing was in doubt."""
    queue, server = Queue(), ModelServer()
    assert queue.run(server, "one", demoted_at=b"RPUSH") == "READONLY"
    assert list(server.data) == [(0, W)]
    server.held = None
    server.data.clear()
    assert queue.run(server, "one") is None
    assert server.data[0, b"l"] == [b"1", b"2", b"3"]
    assert not queue.heard.letters
