"""Instructions per operation, counted by callgrind, and the verdict on them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.cost import healthy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STORED = HERE / "healthy.json"
SCRIPTS = {"asyncio": "healthy.py", "sync": "healthy_sync.py"}


def count(flavour: str, kind: str, url: str, scratch: Path) -> dict[str, list[float]]:
    """Instructions per operation of each workload, one figure a round."""
    out = scratch / f"{kind}.out"
    command = [
        "valgrind",
        "--tool=callgrind",
        "--dump-before=getppid",
        f"--callgrind-out-file={out}",
        sys.executable,
        str(HERE / SCRIPTS[flavour]),
        kind,
        url,
    ]
    # A fixed environment: hashes, and with them the number of collisions, do not vary.
    env = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr

    # File k holds what was counted between calls k - 1 and k: the even ones are the rounds.
    dumps = sorted(scratch.glob(f"{out.name}.*"), key=lambda path: int(path.suffix[1:]))
    rounds = [total(path) for path in dumps][1::2]
    assert len(rounds) == healthy.ROUNDS * len(healthy.WORKLOADS), f"{len(dumps)} dumps"
    per_operation = {}
    for i, (name, (number, _)) in enumerate(healthy.WORKLOADS.items()):
        mine = rounds[i * healthy.ROUNDS : (i + 1) * healthy.ROUNDS]
        per_operation[name] = [instructions / number for instructions in mine]
    return per_operation


def total(dump: Path) -> int:
    for line in dump.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise AssertionError(f"{dump} has no total")


def ratios(ours: Mapping[str, list[float]], stock: Mapping[str, list[float]]) -> dict[str, float]:
    return {
        name: round(statistics.median(ours[name]) / statistics.median(stock[name]), 4)
        for name in stock
    }


def setting() -> str:
    """What the ratio depends on; a figure is only compared with one from the same setting."""
    parts = [f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]}"]
    parts += [f"{name} {'.'.join(version(name).split('.')[:2])}" for name in ("redis", "hiredis")]
    return ", ".join([*parts, platform.machine()])


def stored() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return loaded


def store(flavour: str, figures: Mapping[str, float]) -> None:
    data = stored()
    data["figures"].setdefault(flavour, {})[setting()] = dict(figures)
    STORED.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def judge(
    measured: Mapping[str, float],
    before: Mapping[str, float] | None,
    tolerance: float,
    ceiling: Mapping[str, float],
) -> list[str]:
    """What is wrong with `measured`, in sentences; `before` is the stored figure, if any."""
    faults = []
    for name, ratio in measured.items():
        if ratio > ceiling[name]:
            faults.append(f"{name}: {ratio:.4f} times stock is above the ceiling {ceiling[name]}")
        if before is not None and ratio > before[name] + tolerance:
            faults.append(
                f"{name}: {ratio:.4f} times stock, was {before[name]:.4f}: "
                f"grew by more than {tolerance}; if it is worth it, `make cost UPDATE=1`"
            )
    return faults
