"""README's examples run, and the first does what README says when the server is killed."""

import asyncio
import re
import sys
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis

from tests.support.servers import Rig

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def example(port: int, rounds: int, pause: float) -> str:
    code = blocks()[0].replace("localhost:6379", f"127.0.0.1:{port}")
    assert "range(60)" in code
    assert "sleep(0.5)" in code
    return code.replace("range(60)", f"range({rounds})").replace("sleep(0.5)", f"sleep({pause})")


@pytest.mark.server
async def test_the_example_goes_through_a_kill(valkey_rig: Rig, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(example(valkey_rig.port, rounds=60, pause=0.05))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", str(script),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    async for line in process.stdout:
        lines.append(line.decode().rstrip())
        if len(lines) == 10:
            valkey_rig.kill()
        if len(lines) == 30:
            valkey_rig.restart()
    err = await process.stderr.read()
    await process.wait()
    assert process.returncode == 0, err.decode()
    # Nothing but the log: one line per transition.
    said = err.decode().splitlines()
    assert said
    assert all(line.startswith("redis: ") for line in said)
    assert len(said) <= 4
    assert len(lines) == 60
    assert lines[0].startswith("CLOSED b'hello 0' 1 ")
    away = [line for line in lines if not line.startswith("CLOSED")]
    assert away
    assert all(" None " in line for line in away)
    assert lines[-1].startswith("CLOSED b'hello 59' ")
    assert lines[-1].endswith(" 0 queued")
    assert valkey_rig.admin.get("greeting") == "hello 59"


@pytest.mark.parametrize("code", blocks()[1:])
async def test_the_other_examples_run(code: str) -> None:
    assert "resilient_redis" in code
    if "celery" in code:
        pytest.importorskip("celery")
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), names)
    client = names.get("r")
    if isinstance(client, Redis):
        await client.aclose()
    elif isinstance(client, redis.Redis):
        client.close()
