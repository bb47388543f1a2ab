"""Entries: what is stored is what is sent, and a relative expiry counts from the call."""

from hypothesis import given
from hypothesis import strategies as st

from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command
from resilient_redis.core.entry import entry_at, entry_of, head_of
from resilient_redis.core.wire import pack, unpack


def command(*args: bytes) -> Command:
    return Command(args, shape_of(args))


def sent(call: Command, at: float, now: float, server_ms: int) -> tuple[bytes, ...]:
    return unpack(entry_of(call, 1, at, 0).at_deadline(now, server_ms))


def test_a_write_without_expiry_is_sent_as_it_was_called() -> None:
    call = command(b"SET", b"k", b"v")
    assert sent(call, at=10.0, now=99.0, server_ms=5) == call.args


def test_an_expiry_counts_from_the_call() -> None:
    call = command(b"SET", b"k", b"v", b"PX", b"1500")
    now_ms = 1_700_000_000_000
    assert sent(call, at=10.0, now=11.0, server_ms=now_ms) == (
        b"SET", b"k", b"v", b"PXAT", b"%d" % (now_ms + 500),
    )  # fmt: skip


def test_a_deadline_that_has_passed_is_sent_all_the_same() -> None:
    call = command(b"SETEX", b"k", b"1", b"v")
    *_, option, deadline = sent(call, at=0.0, now=60.0, server_ms=1_700_000_000_000)
    assert option == b"PXAT"
    assert int(deadline) == 1_700_000_000_000 - 59_000


def test_a_deadline_of_any_length_keeps_the_frame_whole() -> None:
    call = command(b"EXPIRE", b"k", b"%d" % 10**11)
    *_, deadline = sent(call, at=0.0, now=0.0, server_ms=1_700_000_000_000)
    assert int(deadline) == 1_700_000_000_000 + 10**14


@given(
    args=st.lists(st.binary(max_size=40), min_size=1, max_size=6),
    seq=st.integers(1, 2**60),
    at=st.floats(0, 1e9),
    db=st.integers(0, 15),
)
def test_an_entry_reads_as_what_was_written(
    args: list[bytes], seq: int, at: float, db: int
) -> None:
    entry = entry_of(command(b"SET", b"k", *args), seq, at, db)
    assert entry_at(seq, at, b"junk" + head_of(entry), 4, entry.payload) == entry


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8))
def test_unpack_reads_what_pack_wrote(args: list[bytes]) -> None:
    assert unpack(pack(args)) == tuple(args)
