"""What an answer costs while Redis is away: CPU time, beside a command that redis-py sends."""

from __future__ import annotations

from .figures import Result, ratios, spread
from .peers import PEERS
from .rounds import Contest
from .setting import NO_DISK, one_core, server
from .subjects import BY_FACADE, OURS
from .subjects_sync import BY_FACADE_SYNC, OURS_SYNC, STOCK, stock_of
from .work import Work

LIVE = 100  # live calls in a round
ANSWERS = 600  # answers in a round
REJECTED = "rejected call"
BOTH = (*OURS, *OURS_SYNC)
# column -> (call, the live call beside it, whether it is rejected, who gives such answers)
COLUMNS = {
    "neutral GET": ("get", "get", False, BOTH),
    "queued SET": ("set", "set", False, BOTH),
    "refused INCR": ("incr", "get", True, BOTH),
    REJECTED: ("get", "get", True, tuple(PEERS)),
}
# redis-py's synchronous command takes less than half of the other's time.
CLAIMS = {(BY_FACADE, "neutral GET"): "<= 0.1", (BY_FACADE_SYNC, "neutral GET"): "<= 0.2"}


def run(quick: bool) -> Result:
    result = Result("away", "Away: CPU time of an answer, beside redis-py's live command")
    result.notes = [
        "The queued SET beside a live SET, the others beside a live GET, both of the same round. "
        "The server was killed, and each breaker opened by that.",
    ]
    rounds, live, answers = (2, 20, 40) if quick else (25, LIVE, ANSWERS)
    with server(*NO_DISK) as there, server(*NO_DISK) as killed, one_core(there):
        urls = {**dict.fromkeys(STOCK, there.url), **dict.fromkeys((*BOTH, *PEERS), killed.url)}
        with Contest(urls) as contest:
            everyone = dict.fromkeys((*BOTH, *PEERS), Work("get", 1))
            contest.rounds(0, "", everyone)
            killed.kill()
            contest.trip(everyone)
            for column, (call, beside, rejected, who) in COLUMNS.items():
                answer = Work(call, answers, away=True, rejected=rejected)
                alive = dict.fromkeys(map(stock_of, who), Work(beside, live))
                works = {**alive, **dict.fromkeys(who, answer)}
                contest.rounds(rounds, column, works)
    result.absent = contest.absent
    for column, (_, _, _, who) in COLUMNS.items():
        for stock in dict.fromkeys(map(stock_of, who)):
            found = [1e6 * each for each in contest.cpu[stock, column]]
            result.figures.append(spread(stock, column, found, "µs"))
        for subject in who:
            if subject not in contest.absent:
                shares = ratios(
                    contest.cpu[subject, column], contest.cpu[stock_of(subject), column]
                )
                claim = CLAIMS.get((subject, column))
                result.figures.append(spread(subject, column, shares, "x", claim))
    return result
