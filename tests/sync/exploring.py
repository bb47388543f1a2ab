"""All interleavings of a few threads, each up to what nobody can tell apart.

What a thread does from one point where others may run to the next is a *piece*; its *footprint* is
what it has read and written (see `sharing`). Two pieces of different threads that do not conflict
may change places, and nothing is different: so of all schedules that come from one another in this
way one is enough. Which others there are is found by races: two pieces that conflict, and that
nothing between them keeps in their order, are run in the other order as well. That is source-DPOR
with sleep sets (Abdulla, Aronis, Jonsson and Sagonas, "Optimal dynamic partial order reduction",
POPL 2014, algorithm 1). It is exhaustive: there is no bound on preemptions, nor on anything else.

Of locks: what is done under a lock without a point in between is one piece, and conflicts with
another such piece only if their footprints do: whoever comes second finds what the first has left,
and neither could have come into the midst of the other. Where there is a point in between, all
pieces of that *section* write the lock, those of one piece read it: the section may not be torn.
Who is to come before a piece of a section, and needs the lock, has to come before all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Footprint(NamedTuple):
    """Sets of places, as bits. `adds`: what commutes with itself, as a sum does."""

    reads: int = 0
    writes: int = 0
    adds: int = 0

    def conflicts(self, other: Footprint) -> bool:
        changes, seen = other.writes | other.adds, other.reads | other.writes
        return bool(self.writes & (seen | other.adds) or self.reads & changes or self.adds & seen)


@dataclass
class Node:
    """A state, and the piece that was run from it."""

    enabled: tuple[int, ...]  # threads that could go on
    #: Threads whose next piece has been tried from here, or makes no difference.
    asleep: dict[int, Footprint]
    chosen: int
    todo: set[int] = field(default_factory=set)
    footprint: Footprint = field(default_factory=Footprint)
    section: int | None = None  # where the section that it is part of begins
    clock: tuple[int, ...] = ()  # of each thread: one more than the place of what came before this


class Redundant(BaseException):
    """Every way on has been tried from another state."""


class Explorer:
    """`reduced` False: really all schedules, to see whether this finds less; with `preemptions`
    those in which so many times at most a thread is stopped that could go on.
    """

    def __init__(
        self, threads: int, *, reduced: bool = True, preemptions: int | None = None
    ) -> None:
        self.nodes: list[Node] = []
        self._threads = threads
        self._reduced = reduced
        self._preemptions = preemptions
        self._known = 0  # so many nodes are as in the run before

    def choose(self, at: int, enabled: tuple[int, ...], last: int | None) -> int:
        """Who goes on at step `at`. Raises `Redundant`."""
        nodes = self.nodes
        if at < len(nodes):
            assert nodes[at].enabled == enabled, "it was another world the last time"
            return nodes[at].chosen
        asleep = {}
        if at:
            before = nodes[at - 1]
            asleep = {
                thread: footprint
                for thread, footprint in before.asleep.items()
                if thread != before.chosen and not footprint.conflicts(before.footprint)
            }
        awake = [thread for thread in enabled if thread not in asleep]
        if not awake:
            raise Redundant
        chosen = last if last in awake else awake[0]
        assert chosen is not None
        todo = {chosen}
        if not self._reduced and not (last in enabled and self._preempted() == self._preemptions):
            todo = set(enabled)
        nodes.append(Node(enabled, asleep, chosen, todo))
        return chosen

    def _preempted(self) -> int:
        pairs = zip(self.nodes, self.nodes[1:], strict=False)
        return sum(one.chosen != two.chosen and one.chosen in two.enabled for one, two in pairs)

    def ran(self, at: int, footprint: Footprint, section: int | None) -> None:
        """What step `at` turned out to be."""
        node = self.nodes[at]
        if at < self._known:
            assert (node.footprint, node.section) == (footprint, section), "it went another way"
        node.footprint, node.section = footprint, section

    def another(self, ran: int) -> bool:
        """Prepares the next run, after one of `ran` steps; False if that was the last."""
        nodes = self.nodes
        del nodes[ran:]
        if self._reduced:
            for at in range(self._known, ran):
                self._races_of(at)
        while nodes:
            node = nodes[-1]
            node.todo.discard(node.chosen)
            if self._reduced:
                node.asleep[node.chosen] = node.footprint
            left = [thread for thread in sorted(node.todo) if thread not in node.asleep]
            if left:
                node.chosen = left[0]
                self._known = len(nodes) - 1
                return True
            nodes.pop()
        return False

    def _races_of(self, second: int) -> None:
        nodes = self.nodes
        node = nodes[second]
        mine = node.chosen
        clock = [0] * self._threads
        for at in range(second - 1, -1, -1):
            if nodes[at].chosen == mine:
                clock = list(nodes[at].clock)
                break
        footprint = node.footprint
        for first in range(second - 1, -1, -1):
            other = nodes[first]
            if other.chosen == mine or clock[other.chosen] > first:
                continue
            if not footprint.conflicts(other.footprint):
                continue
            start = first
            if other.section is not None and node.section is not None:
                start = other.section
            if clock[other.chosen] <= start:
                self._reverse(start, second, clock)
            clock = [max(pair) for pair in zip(clock, other.clock, strict=True)]
        clock[mine] = second + 1
        node.clock = tuple(clock)

    def _reverse(self, first: int, second: int, clock: Sequence[int]) -> None:
        """From the state before `first` there must be a way in which `second` comes before it.
        `clock`: what `second` comes after in any case.
        """
        nodes = self.nodes
        start = nodes[first]
        come_first: list[int] = []  # threads whose next piece such a way may begin with
        seen: set[int] = set()
        between = [at for at in range(first + 1, second) if nodes[at].clock[start.chosen] <= first]
        for place, at in enumerate([*between, second]):
            thread = nodes[at].chosen
            if thread in seen:
                continue
            seen.add(thread)
            after = clock if at == second else nodes[at].clock
            if not any(after[nodes[k].chosen] > k for k in between[:place]):
                come_first.append(thread)
        able = [thread for thread in come_first if thread in start.enabled]
        if able and not start.todo.intersection(able) and not start.asleep.keys() & set(able):
            start.todo.add(nodes[second].chosen if nodes[second].chosen in able else able[0])


def explore(
    once: Callable[[Explorer], int],
    threads: int,
    *,
    reduced: bool = True,
    preemptions: int | None = None,
) -> tuple[int, int]:
    """Runs `once`, which says how many steps it took, with each schedule. Returns how many
    schedules there were, and how many more were begun.
    """
    explorer = Explorer(threads, reduced=reduced, preemptions=preemptions)
    whole = begun = 0
    while True:
        try:
            ran = once(explorer)
            whole += 1
        except Redundant:
            ran = len(explorer.nodes)
            begun += 1
        if not explorer.another(ran):
            return whole, begun
