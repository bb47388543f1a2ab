"""The server's clock as a drain learns it."""

from resilient_redis.core.exchange import ReplyError
from resilient_redis.core.servertime import ServerTime


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def learn(delays: list[float], reply: object = None) -> ServerTime:
    """A server whose clock is 1,000,000 s ahead of ours; the answers come after `delays`."""
    clock = Clock()
    time = ServerTime(clock, lambda: 5_000)
    dialogue = time.read()
    try:
        next(dialogue)
        for delay in delays:
            # The server reads its clock at once, the answer is slow: the worst case.
            told = reply or [b"%d" % (1_000_000 + int(clock.now)), b"0"]
            clock.now += delay
            dialogue.send([told])
    except StopIteration:
        pass
    return time


def test_a_quick_answer_is_enough() -> None:
    assert abs(learn([0.01]).at(100.0) - 1_000_100_000) <= 10


def test_a_slow_answer_is_asked_for_again_and_the_quickest_counts() -> None:
    # In the soak an answer 650 ms late made deadlines 326 ms wrong.
    assert abs(learn([1.0, 2.0, 0.01]).at(100.0) - 1_000_100_000) <= 10
    assert abs(learn([2.0, 1.0, 2.0]).at(100.0) - 1_000_100_000) <= 500


def test_a_server_that_does_not_tell_is_taken_to_agree_with_us() -> None:
    assert learn([0.01], ReplyError("NOPERM no")).at(100.01) == 5_000
