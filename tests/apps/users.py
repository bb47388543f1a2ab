"""Users of a web service, and what they see while its Redis is killed and frozen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from resilient_redis import RedisCircuitBreaker
from tests.support.servers import Rig

from .running import Service, until

DEADLINE = RedisCircuitBreaker().deadline
LIMIT = DEADLINE + 1  # s; nobody waits for longer
FROZEN = DEADLINE + 0.6  # s; so that the breaker opens, and answers for a while
KILLED = 0.8  # s
# Which of a user's numbers are in Redis.
Found: TypeAlias = Callable[[Rig, str], set[int]]


class User(threading.Thread):
    """Writes 1, 2, 3 …, each under a key of its own and as the last one, and looks at a page."""

    def __init__(self, service: Service, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._service = service
        self._ending = threading.Event()
        self.acknowledged: list[int] = []
        self.seen: list[str] = []  # what was not as it should be
        self.longest = 0.0
        self.cookie = ""

    def run(self) -> None:
        number = 0
        while not self._ending.is_set():
            number += 1
            self.turn(number)
            time.sleep(0.005)  # so that the users leave the machine to the service

    def turn(self, number: int) -> None:
        if self.ask(f"/write?user={self.name}&number={number}", "written"):
            self.acknowledged.append(number)
        self.ask(f"/page?user={self.name}", f"the page of {self.name}")

    def ask(self, path: str, expected: str) -> bool:
        """Whether the answer is `expected`; it is written down if it is not."""
        began = time.monotonic()
        try:
            status, body, cookie = self._service.ask(path, self.cookie)
        except OSError as error:
            status, body, cookie = 0, repr(error), ""
        self.cookie = cookie or self.cookie
        self.longest = max(self.longest, time.monotonic() - began)
        right = status == 200 and body == expected
        if not right:
            self.seen.append(f"{path}: {status} {body[:200]}")
        return right

    def end(self) -> None:
        self._ending.set()
        self.join(15)


class Visitor(User):
    """One whose visits a session counts: a session that is lost, or set back, shows at once."""

    def turn(self, number: int) -> None:
        if self.ask("/visit", str(number)):
            self.acknowledged.append(number)


class Passer(threading.Thread):
    """Asks for what needs no Redis: whether the service serves others, too."""

    def __init__(self, service: Service) -> None:
        super().__init__(name="passer", daemon=True)
        self._service = service
        self.ending = threading.Event()
        self.longest = 0.0

    def run(self) -> None:
        while not self.ending.wait(0.02):
            began = time.monotonic()
            assert self._service.ask("/alive")[0] == 200
            self.longest = max(self.longest, time.monotonic() - began)


def in_hash(rig: Rig, user: str) -> set[int]:
    """Where a service keeps each number as a field."""
    return {int(number) for number in rig.admin.hkeys(f"log:{user}")}


def in_keys(rig: Rig, user: str) -> set[int]:
    """Where a service keeps each number as a key of Django's cache, whose version is 1."""
    return {int(key.rpartition(":")[2]) for key in rig.admin.keys(f":1:log:{user}:*")}


def outages(rig: Rig, users: Sequence[User], found: Found, least: int = 3) -> None:
    """kill -9 and a restart, a freeze and a thaw; all users go on all the time."""
    more(users, least)
    rig.kill()
    outage(users, KILLED, least)
    rig.restart()
    applied(rig, users, found)
    more(users, least)
    rig.freeze()
    outage(users, FROZEN, least)
    rig.thaw()
    applied(rig, users, found)
    more(users, least)


def outage(users: Sequence[User], seconds: float, least: int) -> None:
    began = time.monotonic()
    more(users, least)
    time.sleep(max(0.0, began + seconds - time.monotonic()))


def more(users: Sequence[User], least: int) -> None:
    """Each user has had `least` more writes acknowledged, or something went wrong."""
    had = [len(user.acknowledged) for user in users]
    until(
        lambda: (
            any(user.seen for user in users)
            or all(
                len(user.acknowledged) >= before + least
                for user, before in zip(users, had, strict=True)
            )
        ),
        of="an answer to each user",
    )


def applied(rig: Rig, users: Sequence[User], found: Found) -> None:
    """All is in Redis that was acknowledged until now, to whichever worker process it was said."""

    def missing() -> dict[str, set[int]]:
        left = {}
        for user, numbers in acknowledged.items():
            if lost := numbers - found(rig, user):
                left[user] = lost
        return left

    acknowledged = {user.name: set(user.acknowledged) for user in users}
    until(lambda: not missing(), of="the replay of all that was acknowledged")


def live_through(
    service: Service,
    rig: Rig,
    *,
    found: Found = in_hash,
    last: str = "last:",
    visitors: int = 0,
    serves_others: bool = True,
    in_order: bool = True,
) -> None:
    """The whole story, and its judgement.

    `serves_others`: who needs no Redis does not wait for it. `in_order`: one worker process; among
    several, each with its journal, the last value is not the latest one for certain. `last`: the
    prefix of its key. `visitors`: how many with a session there are beside the users.
    """
    users = [User(service, f"user{n}") for n in range(4)]
    visiting = [Visitor(service, f"visitor{n}") for n in range(visitors)]
    passer = Passer(service)
    for user in (*users, *visiting):
        user.start()
    if serves_others:
        passer.start()
    try:
        outages(rig, users, found)
    finally:
        passer.ending.set()
        for user in (*users, *visiting):
            user.end()
    for user in (*users, *visiting):
        assert user.acknowledged
        assert not user.seen, user.seen[:5]
        assert user.longest < LIMIT, f"{user.longest:.2f} s"
    applied(rig, users, found)
    if in_order:
        for user in users:
            assert int(rig.admin.get(f"{last}{user.name}")) == user.acknowledged[-1]
    if serves_others:
        passer.join(10)
        assert not passer.is_alive()
        assert passer.longest < 0.8 * DEADLINE, "who needs no Redis waited for it"
    assert "Traceback" not in service.log
    total = sum(len(user.acknowledged) for user in users)
    longest = max(user.longest for user in users)
    without = f", {passer.longest:.2f} s without Redis" if serves_others else ""
    print(f"{total} acknowledged writes, 0 lost; the longest answer took {longest:.2f} s{without}")
