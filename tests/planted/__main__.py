"""`python -m tests.planted [NAME …]`: which test catches which bug, as a table in Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .planting import GREEN, Plant, Run, harvest
from .plants import PLANTS


def main(every: Sequence[Plant], words: list[str]) -> int:
    """Tries those of `every` whose names have one of `words`; 0 if each is caught."""
    plants = [plant for plant in every if not words or any(word in plant.name for word in words)]
    found = harvest(plants)
    survivors = 0
    print("| bug | caught by | seconds |\n|---|---|---|")
    for plant in plants:
        run = found.runs[plant.name]
        if isinstance(run, Run) and run.caught:
            print(f"| {plant.name} | `{run.by}` | {run.seconds:.1f} |")
            continue
        survivors += 1
        print(f"| {plant.name} | **{'nobody' if isinstance(run, Run) else 'does not fit'}** | |")
        print(run.output[-3000:] if isinstance(run, Run) else run, file=sys.stderr)
    green = found.control.code == GREEN
    said = "green" if green else "NOT GREEN"
    print(f"\n{len(plants) - survivors} of {len(plants)} caught; without them the same tests are")
    print(f"{said} ({found.control.seconds:.0f} s).")
    if not green:
        print(found.control.output[-3000:], file=sys.stderr)
    return 0 if green and not survivors else 1


if __name__ == "__main__":
    sys.exit(main(PLANTS, sys.argv[1:]))
