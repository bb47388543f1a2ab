"""What a queued write holds of memory."""

from __future__ import annotations

from contextlib import ExitStack

from .children import child
from .figures import Figure, Result

SIZES = (1_000, 10_000, 100_000)
QUICK = (100, 1_000)
ROWS = {"ours, MemoryJournal": True, "a deque of calls": False}


def run(quick: bool) -> Result:
    result = Result("memory", "Memory: bytes per queued SET of 100 B")
    result.notes = [
        "RSS: what the process has grown by; traced: what Python allocated (tracemalloc). The "
        "payload is 100 B and a key of 5 to 9 B. One process a measurement; the RSS of few writes "
        "hides in memory that the process had before.",
    ]
    sizes = QUICK if quick else SIZES
    for number in sizes:
        result.figures += _measure(number)
    result.figures.sort(key=lambda figure: figure.row, reverse=True)
    if not any("RSS" in figure.row for figure in result.figures):
        result.absent["RSS"] = "NOT MEASURED: this system has no /proc/self/statm"
    return result


def _measure(number: int) -> list[Figure]:
    """All at the same time: nothing here depends on speed."""
    figures = []
    with ExitStack() as stack:
        processes = {
            (row, traced): stack.enter_context(child("benchmarks.holder"))
            for row in ROWS
            for traced in (False, True)
        }
        for (row, traced), process in processes.items():
            process.tell(number=number, journal=ROWS[row], traced=traced)
        for (row, traced), process in processes.items():
            found = process.hear()
            if found is not None:
                unit = "traced" if traced else "RSS"
                figures.append(Figure(f"{row}, {unit}", f"{number:,}", found, "B"))
    return figures
