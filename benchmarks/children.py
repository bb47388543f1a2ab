"""Processes of their own that do one job a line: JSON in, JSON out.

What is measured in one does not share a heap, an import or an event loop with another subject.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """What went wrong in the child, in one line."""


class Child:
    """The parent's end of a process that calls `serve`."""

    def __init__(self, process: subprocess.Popen[str], said: IO[str]) -> None:
        self._process = process
        self._said = said

    def tell(self, **job: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # `hear` says why

    def hear(self) -> Any:
        """Waits for the child's answer; raises `Failed` with the child's error."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["value"]

    def _last_words(self) -> str:
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return lines[-1] if lines else f"ended with exit code {self._process.returncode}"


@contextmanager
def child(module: str, *args: str) -> Iterator[Child]:
    """A process that runs `module`, until the block ends."""
    # Its stderr goes to a file, because nobody reads a pipe until the child has ended.
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", module, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=ROOT,
            # Hashes, and with them the number of collisions, are the same for all.
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        try:
            yield Child(process, said)
        finally:
            process.kill()
            process.communicate()


async def serve(handle: Callable[[dict[str, Any]], Awaitable[Any]]) -> None:
    """In the child: answers until standard input ends. Between jobs its event loop runs on."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = {"value": await handle(json.loads(line))}
        except Exception as error:  # noqa: BLE001 - it is told to the parent, which decides
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
