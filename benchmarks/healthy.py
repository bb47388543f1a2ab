"""What a command costs while Redis is there: CPU time of the client's process."""

from __future__ import annotations

from .figures import Result, ratios, spread
from .peers import PEERS
from .rounds import Contest
from .setting import NO_DISK, one_core, server
from .subjects import CONTROL, OURS, PIPELINE, PLAIN
from .work import Work

# column -> (call, calls in a round, what we claim for ours)
COLUMNS = {
    "GET": ("get", 200, "<= 1.0"),
    "SET": ("set", 200, "<= 1.0"),
    f"pipeline({PIPELINE})": ("pipeline", 15, "<= 1.05"),
}


def run(quick: bool) -> Result:
    result = Result("healthy", "Healthy: CPU time of a command, beside redis-py's")
    result.notes = [
        "Median of the ratios to redis-py in the same round, and quartiles; one process each, "
        "all on the server's core. The pipeline of MultiDBClient is a MULTI; the others send none.",
    ]
    rounds, shrink = (2, 5) if quick else (40, 1)
    subjects = (PLAIN, CONTROL, *OURS, *PEERS)
    with (
        server(*NO_DISK) as running,
        one_core(running),
        Contest(dict.fromkeys(subjects, running.url)) as contest,
    ):
        for column, (call, times, _) in COLUMNS.items():
            work = Work(call, max(1, times // shrink))
            contest.rounds(rounds, column, dict.fromkeys(subjects, work))
    result.absent = contest.absent
    for column, (_, _, claim) in COLUMNS.items():
        stock = contest.cpu[PLAIN, column]
        result.figures.append(spread(PLAIN, column, [1e6 * each for each in stock], "µs"))
        for subject in subjects[1:]:
            if subject not in contest.absent:
                shares = ratios(contest.cpu[subject, column], stock)
                ours = claim if subject in OURS else None
                result.figures.append(spread(subject, column, shares, "x", ours))
    return result
