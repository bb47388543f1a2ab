"""What an RQ worker does: a line in the file `DONE`."""

from __future__ import annotations

import os
from pathlib import Path


def work(number: int) -> None:
    with Path(os.environ["DONE"]).open("a") as file:
        file.write(f"{number}\n")
