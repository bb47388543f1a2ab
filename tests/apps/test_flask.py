"""Flask under gunicorn, by each kind of worker."""

from __future__ import annotations

import pytest

from tests.support.servers import Rig

from .running import gunicorn, needs, until
from .users import LIMIT, User, live_through, outage

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize(
    "options, serves_others, in_order",
    [
        pytest.param(("-k", "sync", "-w", "4", "--preload"), False, False, id="sync"),
        pytest.param(("-k", "gthread", "--threads", "8", "--preload"), True, True, id="gthread"),
        pytest.param(("-k", "gevent"), True, True, id="gevent"),
        pytest.param(("-k", "gevent", "-w", "2", "--preload"), True, False, id="gevent-preload"),
    ],
)
def test_flask_under_gunicorn(
    valkey_rig: Rig, options: tuple[str, ...], serves_others: bool, in_order: bool
) -> None:
    needs("flask", "gunicorn", "gevent")
    with gunicorn("flask_app:app", valkey_rig.url, *options) as service:
        live_through(service, valkey_rig, serves_others=serves_others, in_order=in_order)


class Adder(User):
    """Adds 1, 2, 3 … to a list of its own."""

    unknown = 0

    def turn(self, number: int) -> None:
        if self.ask(f"/add?user={self.name}&number={number}", "added"):
            self.acknowledged.append(number)
        elif self.seen[-1].endswith(": 503 added, or not"):
            self.seen.pop()
            self.unknown = number


def test_what_is_not_safe_to_send_twice(valkey_rig: Rig) -> None:
    """Who has it on the wire when Redis freezes is told so after `socket_timeout`; nobody waits for
    longer, it is applied once or not at all, and all later ones are taken.
    """
    needs("flask", "gunicorn")
    options = ("-k", "gthread", "--threads", "8")
    with gunicorn("flask_app:app", valkey_rig.url, *options, SOCKET_TIMEOUT="1.0") as service:
        users = [Adder(service, f"user{n}") for n in range(4)]
        for user in users:
            user.start()
        try:
            outage(users, 0.2, 3)
            valkey_rig.freeze()
            outage(users, LIMIT + 0.5, 3)
            valkey_rig.thaw()
            outage(users, 0.2, 3)
        finally:
            for user in users:
                user.end()

        def there(user: Adder) -> list[int]:
            return [int(number) for number in valkey_rig.admin.lrange(f"list:{user.name}", 0, -1)]

        for user in users:
            assert not user.seen, user.seen[:5]
            assert user.longest < LIMIT, f"{user.longest:.2f} s"
            until(lambda user=user: set(user.acknowledged) <= set(there(user)), of="the replay")  # type: ignore[misc]
            assert [n for n in there(user) if n != user.unknown] == user.acknowledged
            assert there(user).count(user.unknown) <= 1
        assert any(user.unknown for user in users)
        print(f"{sum(bool(u.unknown) for u in users)} unknown, {max(u.longest for u in users):.2f}")


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_a_worker_that_ends_says_what_it_leaves(valkey_rig: Rig, kind: str) -> None:
    """Told to end while Redis is away: one line, with the number, of the worker that has them; and
    none of the process that it was forked from.
    """
    needs("flask", "gunicorn", "gevent")
    with gunicorn("flask_app:app", valkey_rig.url, "-k", kind, "--preload") as service:
        valkey_rig.kill()
        for number in range(2):
            assert service.ask(f"/write?user=somebody&number={number}")[:2] == (200, "written")
        service.end()
        said = [line for line in service.log.splitlines() if "unapplied" in line]
    assert [line.partition(": ")[2] for line in said] == [
        "the process ends with 4 acknowledged writes unapplied"
    ]
