"""What a task has read as neutral, and what follows for its writes."""

from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Command
from resilient_redis.core.premise import MAX_KEYS, NeutralReads, Premises


def command(line: str) -> Command:
    args = tuple(line.encode().split())
    return Command(args, shape_of(args))


def test_a_write_to_what_was_read_as_neutral_has_a_premise() -> None:
    reads = NeutralReads()
    reads.add(0, [b"k"])
    assert reads.premise_of(command("SET k v"), 0)
    assert reads.premise_of(command("MSET a 1 k 2"), 0)
    assert not reads.premise_of(command("SET other v"), 0)
    assert not reads.premise_of(command("SET k v"), 1)


def test_what_takes_keys_away_has_none() -> None:
    reads = NeutralReads()
    reads.add(0, [b"k"])
    for line in ("DEL k", "UNLINK k", "EXPIRE k 5", "PERSIST k"):
        assert not reads.premise_of(command(line), 0)


def test_what_the_task_has_written_itself_is_no_premise() -> None:
    reads = NeutralReads()
    reads.wrote(0, [b"k"])
    reads.add(0, [b"k"])
    assert not reads.premise_of(command("SET k v"), 0)


def test_a_refused_batch_leaves_nothing_behind() -> None:
    """`JournalFull`: nobody was told anything, and nothing was written."""
    reads = NeutralReads()
    reads.add(0, [b"before"])
    reads.begin()
    reads.add(0, [b"k", b"before"])
    reads.wrote(0, [b"w"])
    reads.undo()
    assert not reads.premise_of(command("SET k v"), 0)
    assert reads.premise_of(command("SET before v"), 0)
    reads.add(0, [b"w"])
    assert reads.premise_of(command("SET w v"), 0), "it was not written after all"


def test_beyond_its_bound_every_write_is_conditional() -> None:
    reads = NeutralReads()
    reads.add(0, [b"%d" % n for n in range(MAX_KEYS)])
    reads.add(0, [b"one more"])
    assert reads.premise_of(command("SET never-read v"), 0)


def test_one_command_cannot_pass_the_bound() -> None:
    reads = NeutralReads()
    reads.add(0, [b"%d" % n for n in range(MAX_KEYS + 5)])
    assert len(reads._keys) == MAX_KEYS
    assert reads.premise_of(command("SET never-read v"), 0)


def test_after_a_cut_what_is_not_applied_yet_is_asked_again() -> None:
    premises = Premises()
    for seq, keys in ((1, (b"a",)), (2, (b"b",)), (3, (b"a",)), (4, (b"a", b"b"))):
        premises.add(seq, 0, keys)
    assert premises.questions(0) == [b"a", b"b"]
    assert premises.answered(0, [b"a", b"b"]) == []
    premises.ask_again(confirmed=1)
    assert premises.questions(0) == [b"b"], "what stands in a is ours"
    assert premises.answered(0, []) == [2, 4]
    premises.ask_again(confirmed=2)
    assert premises.questions(0) == []
    assert premises.answered(0, []) == [], "a is still ours"
    premises.add(5, 0, (b"a",))
    premises.ask_again(confirmed=3)
    assert premises.questions(0) == []
    premises.forget()
    premises.add(6, 0, (b"a",))
    assert premises.questions(0) == [b"a"], "the next drain knows nothing of this one"


def test_what_is_at_stake_when_a_batch_is_sent() -> None:
    premises = Premises()
    assert premises.at_stake(0, 0, 10) == []
    for seq, keys in ((2, (b"a",)), (4, (b"b", b"a")), (5, (b"c",)), (9, (b"a", b"d"))):
        premises.add(seq, 0, keys)
    assert premises.answered(0, [b"a", b"b", b"c", b"d"]) == []
    assert premises.at_stake(0, 0, 4) == [b"a", b"b"]
    assert premises.at_stake(0, 2, 5) == [b"b", b"c"], "what stands in a is ours"
    premises.ask_again(5)
    assert premises.questions(0) == [b"d"]
    assert premises.answered(0, [b"d"]) == []
    assert premises.at_stake(0, 5, 9) == [b"d"], "a is still ours"
    assert premises.at_stake(0, 9, 20) == []
    assert not premises.met
