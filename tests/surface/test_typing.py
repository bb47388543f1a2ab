"""What a type checker sees, and that nothing warns."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src"

# Lines with `# -> x` must be revealed as x, those with the same `# = name` as one another; those
# with `# ! x` must be errors that say x.
CHECKED = """
import redis.asyncio
from redis.asyncio import ConnectionPool, Redis
from resilient_redis.asyncio import CommandRefused, Policy, Queued, Rule, track
from resilient_redis.asyncio import RedisCircuitBreaker, ResilientConnection, ResilientRedis
from resilient_redis.events import Event, StateChanged


async def library(client: redis.asyncio.Redis) -> None:
    reveal_type(await client.get("k"))  # = get
    reveal_type(await client.set("k", "v"))  # = set
    reveal_type(await client.hgetall("h"))  # = hgetall
    reveal_type(client.pipeline().get)  # = pipeline


async def application(url: str) -> None:
    r = ResilientRedis.from_url(url, failure_threshold=5)
    reveal_type(r)  # -> resilient_redis.asyncio.client.ResilientRedis
    await library(r)
    as_redis: Redis = r
    reveal_type(await r.get("k"))  # = get
    reveal_type(await r.set("k", "v"))  # = set
    reveal_type(await r.hgetall("h"))  # = hgetall
    reveal_type(r.pipeline().get)  # = pipeline
    reveal_type(r.pipeline())  # -> redis.asyncio.client.Pipeline
    reveal_type(r.pubsub())  # -> redis.asyncio.client.PubSub
    reveal_type(r.breaker)  # -> resilient_redis.asyncio.breaker.RedisCircuitBreaker
    reveal_type(await r.aclose())  # -> int
    async with ResilientRedis(RedisCircuitBreaker(Redis.from_url(url))) as entered:
        reveal_type(entered)  # -> resilient_redis.asyncio.client.ResilientRedis
    reveal_type(ResilientRedis.from_pool(ConnectionPool()))  # -> ResilientRedis


async def breakers() -> None:
    b = RedisCircuitBreaker(None, 5, 1.0, policy=Policy([Rule("k:*", answer="refuse")]))
    reveal_type(b.state)  # -> str
    reveal_type(b.failures)  # -> int
    reveal_type(b.pending)  # -> int
    reveal_type(b.dead_letters[0].reason)  # -> str
    reveal_type(b.snapshot().retry_after)  # -> float | None
    reveal_type(await b.flush_re_sync_queue())  # -> int
    reveal_type(await b.aclose(1.0))  # -> int
    b.state = "OPEN"  # ! read-only
    b.failures = 0  # ! read-only
    b.snapshot().state = "OPEN"  # ! read-only
    RedisCircuitBreaker(None, 5, 1.0, Policy())  # ! Too many positional arguments
    RedisCircuitBreaker(failure_treshold=3)  # ! Unexpected keyword argument
    Rule(answer="maybe")  # ! incompatible type
    Redis(connection_pool=ConnectionPool(connection_class=ResilientConnection, breaker=b))
    Redis.from_url("redis://", connection_class=ResilientConnection.bound_to(b), breaker=b)

    def observer(event: Event) -> None:
        match event:
            case StateChanged(old=old, new=new):
                reveal_type(old)  # -> str

    b.add_observer(observer)
    with track() as t:
        reveal_type(t.degraded)  # -> bool
        reveal_type(t.commands)  # -> list[str]
    try:
        pass
    except CommandRefused as refused:
        reveal_type(refused.retry_after)  # -> float | None
"""
RECEIPTS = """
from resilient_redis.asyncio import Queued

async def use(receipt: object) -> None:
    if isinstance(receipt, Queued):
        await receipt.outcome(1.0)
"""
TYPO = """
from resilient_redis.asyncio import ResilientRedis

async def use(r: ResilientRedis) -> None:
    await r.gett("k")
"""
FILES = {"user": CHECKED, "receipts": RECEIPTS, "typo": TYPO}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """mypy's words on each file, line by line; one run for all."""
    folder = tmp_path_factory.mktemp("typing")
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty"),
            *("--config-file=", f"--cache-dir={ROOT / '.mypy_cache' / 'surface'}"),
            *(f"{name}.py" for name in FILES),
        ],
        cwd=folder,
        env={"MYPYPATH": str(PACKAGE), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    return {
        name: [line for line in done.stdout.splitlines() if line.startswith(f"{name}.py:")]
        for name in FILES
    }


@pytest.mark.timeout(180)
@pytest.mark.skipif(
    int(redis.__version__.partition(".")[0]) < 8, reason="redis-py's own types say Any"
)
def test_the_types_are_redis_pys_and_ours(checked: dict[str, list[str]]) -> None:
    said: dict[int, list[str]] = {}
    for line in checked["user"]:
        _, place, text = line.split(":", 2)
        said.setdefault(int(place), []).append(text.strip())
    wrong: list[str] = []
    same: dict[str, str] = {}
    for number, line in enumerate(CHECKED.splitlines(), 1):
        here = _plain(" ".join(said.pop(number, [])))
        revealed = here.startswith('note: Revealed type is "')
        found = re.search(r"# (->|=|!) (.+)$", line)
        good = not here
        if found and found[1] == "=":
            good = revealed and same.setdefault(found[2], here) == here and "Any" not in here
        elif found:
            good = found[2] in here and revealed == (found[1] == "->")
        if not good:
            wrong.append(f"{line.strip()}\n    {here}")
    assert wrong == [], "\n".join(wrong)
    assert said == {}
    assert len(same) == 4


def _plain(text: str) -> str:
    text = re.sub(r"builtins\.(\w+)", r"\1", text)
    return re.sub(r"Union\[([^\[\]]+)\]", lambda found: found[1].replace(", ", " | "), text)


@pytest.mark.timeout(180)
def test_a_receipt_has_an_outcome(checked: dict[str, list[str]]) -> None:
    assert checked["receipts"] == []


@pytest.mark.timeout(180)
def test_a_misspelled_command_is_found(checked: dict[str, list[str]]) -> None:
    assert any('has no attribute "gett"' in line for line in checked["typo"])


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "resilient_redis" / "py.typed").exists()


@pytest.mark.parametrize(
    "code",
    [
        "import resilient_redis",
        "import resilient_redis.asyncio",
        "from resilient_redis.asyncio import *",
        "import asyncio\n"
        "from resilient_redis.asyncio import *\n"
        "async def main():\n"
        "    async with ResilientRedis.from_url('redis://127.0.0.1:1/0') as r:\n"
        "        assert await r.get('k') is None\n"
        "        assert await r.set('k', 'v') is True\n"
        "        await r.pipeline(transaction=False).get('a').set('b', 1).execute()\n"
        "        try:\n"
        "            await r.incr('n')\n"
        "        except CommandRefused:\n"
        "            pass\n"
        "asyncio.run(main())",
    ],
)
def test_nothing_warns(code: str) -> None:
    """Also in development mode, which shows what is left open."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        env={"PYTHONPATH": str(PACKAGE), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("redis: ") for line in lines), done.stderr
