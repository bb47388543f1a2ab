"""What a command costs while Redis is there: CPU time of the client's process."""

from __future__ import annotations

from .figures import Result, ratios, spread
from .peers import PEERS
from .rounds import Contest
from .setting import NO_DISK, one_core, server
from .subjects import CONTROL, OURS, PIPELINE, PLAIN
from .subjects_sync import OURS_SYNC, PLAIN_SYNC, STOCK, stock_of
from .work import Work

# column -> (call, calls in a round, what we claim for ours, and for ours among threads)
COLUMNS = {
    "GET": ("get", 200, "<= 1.0", "<= 1.02"),
    "SET": ("set", 200, "<= 1.0", "<= 1.02"),
    f"pipeline({PIPELINE})": ("pipeline", 15, "<= 1.05", "<= 1.05"),
}


def run(quick: bool) -> Result:
    result = Result("healthy", "Healthy: CPU time of a command, beside redis-py's")
    result.notes = [
        "Median of the ratios to redis-py in the same round, and quartiles; one process each, "
        "all on the server's core. The pipeline of MultiDBClient is a MULTI; the others send none.",
    ]
    rounds, shrink = (2, 5) if quick else (40, 1)
    subjects = (PLAIN, CONTROL, *OURS, *PEERS, PLAIN_SYNC, *OURS_SYNC)
    with (
        server(*NO_DISK) as running,
        one_core(running),
        Contest(dict.fromkeys(subjects, running.url)) as contest,
    ):
        for column, (call, times, *_) in COLUMNS.items():
            work = Work(call, max(1, times // shrink))
            contest.rounds(rounds, column, dict.fromkeys(subjects, work))
    result.absent = contest.absent
    for column, (_, _, claim, claim_sync) in COLUMNS.items():
        claims = {**dict.fromkeys(OURS, claim), **dict.fromkeys(OURS_SYNC, claim_sync)}
        for subject in subjects:
            found = contest.cpu[subject, column]
            if subject in STOCK:
                result.figures.append(spread(subject, column, [1e6 * each for each in found], "µs"))
            elif subject not in contest.absent:
                shares = ratios(found, contest.cpu[stock_of(subject), column])
                result.figures.append(spread(subject, column, shares, "x", claims.get(subject)))
    return result
