"""Several subjects, one process each, measured by turns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Any

from .children import Failed, child
from .subjects_sync import OURS_SYNC, PLAIN_SYNC, STOCK
from .work import Work


def worker_of(subject: str) -> str:
    return f"benchmarks.worker{'_sync' if subject in (PLAIN_SYNC, *OURS_SYNC) else ''}"


class Contest:
    """A process for each subject; only one of them works at a time.

    A subject that cannot be measured goes to `absent`, with the reason.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        self.absent: dict[str, str] = {}
        self.cpu: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.wall: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._stack = ExitStack()
        self._children = {
            subject: self._stack.enter_context(child(worker_of(subject), subject, url))
            for subject, url in urls.items()
        }

    def rounds(self, number: int, column: str, works: Mapping[str, Work]) -> None:
        """Each subject does its work once a round; every other round backwards."""
        order = list(works)
        for subject in order:
            self._do(subject, asdict(works[subject].shorter()))
        for _ in range(number):
            for subject in order:
                found = self._do(subject, asdict(works[subject]))
                if found is not None:
                    self.cpu[subject, column].append(found["cpu"])
                    self.wall[subject, column].append(found["wall"])
            order.reverse()

    def trip(self, subjects: Iterable[str]) -> None:
        """Makes them all call at the same time, until their breakers are open."""
        there = [subject for subject in subjects if subject not in self.absent]
        for subject in there:
            self._children[subject].tell(trip=True)
        for subject in there:
            self._hear(subject)

    def _do(self, subject: str, job: dict[str, Any]) -> Any:
        if subject in self.absent:
            return None
        self._children[subject].tell(**job)
        return self._hear(subject)

    def _hear(self, subject: str) -> Any:
        try:
            return self._children[subject].hear()
        except Failed as error:
            if subject in STOCK:
                raise  # all others are measured beside it
            missing = str(error).startswith("ModuleNotFoundError")
            told = "NOT INSTALLED" if missing else "DOES NOT WORK HERE"
            self.absent[subject] = f"{told}: {error}"
            return None

    def __enter__(self) -> Contest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
