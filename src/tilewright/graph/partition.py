"""The cheapest division of a graph into kernels, by dynamic programming over ending sets.

Thesis section 3.4.1, Algorithm 1: ``dp[V] = min over ending sets V' of dp[V - V'] + cost(V')``, where an
ending set has edges coming in from the rest and none going back, so groups can never wait for one
another. This module knows nodes and edges only; what a group may be and what it costs is the caller's.

Sets of nodes are bits of an integer; nodes are numbered in a topological order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

#: States of equal size kept at once before the least promising are dropped.
WIDTH = 2000


@dataclass(frozen=True)
class Problem:
    """A graph to divide.

    ``successors[i]`` are the nodes that read node i (all numbered above i). ``joins(i, j)`` says whether the
    edge i -> j may be inside a group; ``admits(group)`` whether nodes may be part of one group, and has to
    hold for every subset of a group it holds for; ``cost(group)`` the seconds of a connected, admitted
    group as one kernel (infinite: it cannot be one). A single node always can.
    """

    successors: Sequence[int]
    joins: Callable[[int, int], bool]
    admits: Callable[[int], bool]
    cost: Callable[[int], float]

    @cached_property
    def predecessors(self) -> list[int]:
        """For each node the nodes it reads, as a set of bits."""
        out = [0] * len(self.successors)
        for i, after in enumerate(self.successors):
            for j in bits(after):
                out[j] |= 1 << i
        return out

    @cached_property
    def descendants(self) -> list[int]:
        """For each node all that depend on it, directly or not, as a set of bits."""
        out = list(self.successors)
        for i in reversed(range(len(out))):
            for j in bits(self.successors[i]):
                out[i] |= out[j]
        return out

    @cached_property
    def joined(self) -> list[int]:
        """Neighbours of each node along edges that may be inside a group."""
        out = [0] * len(self.successors)
        for i, after in enumerate(self.successors):
            for j in bits(after):
                if self.joins(i, j):
                    out[i] |= 1 << j
                    out[j] |= 1 << i
        return out

    @cached_property
    def mates(self) -> list[int]:
        """Nodes that could share a group with each node: along edges that join, as long as the two are admitted together."""
        out = []
        for start in range(len(self.successors)):
            found, pending, refused = 1 << start, self.joined[start], 0
            while pending:
                low = pending & -pending
                if self.admits(1 << start | low):
                    found |= low
                    pending |= self.joined[low.bit_length() - 1]
                else:
                    refused |= low
                pending &= ~found & ~refused
            out.append(found)
        return out


@dataclass(frozen=True, slots=True)
class Partition:
    """Groups in execution order and what they cost together.

    ``states`` were visited; ``exact`` is False when more than the width limit were open at once and some
    were dropped: the result is then the best of those that were kept.
    """

    groups: tuple[tuple[int, ...], ...]
    cost: float
    states: int
    exact: bool


def bits(mask: int) -> Iterator[int]:
    """Positions of the set bits, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def partition(problem: Problem, *, width: int = WIDTH) -> Partition:
    """The cheapest division into groups; exact unless more than ``width`` states of one size are open (then a beam).

    States are visited from the whole graph downwards, largest first, so every state is final when its turn
    comes. Cut vertices need no special treatment: behind one there is a single state.
    """
    full = (1 << len(problem.successors)) - 1
    alone = [problem.cost(1 << i) for i in range(len(problem.successors))]
    best: dict[int, tuple[float, int]] = {full: (0.0, 0)}  # state -> cost of what was removed, the group removed last
    open_states: list[set[int]] = [set() for _ in range(len(alone) + 1)]
    open_states[-1].add(full)
    states, exact = 0, True
    for level in range(len(alone), 0, -1):
        here = list(open_states[level])
        if len(here) > width:
            exact = False
            here = sorted(here, key=lambda s: best[s][0] + sum(alone[i] for i in bits(s)))[:width]
        states += len(here)
        for state in here:
            spent = best[state][0]
            for group in ending_groups(problem, state):
                rest, total = state & ~group, spent + problem.cost(group)
                if rest not in best or total < best[rest][0]:
                    best[rest] = (total, group)
                    open_states[rest.bit_count()].add(rest)
    groups: list[tuple[int, ...]] = []
    state = 0
    while state != full:
        group = best[state][1]
        groups.append(tuple(bits(group)))
        state |= group
    return Partition(tuple(groups), best[0][0], states, exact)


def ending_groups(problem: Problem, state: int) -> Iterator[int]:
    """Groups that may be removed next from ``state``: connected, admitted, read by nobody in the rest.

    Divisions that differ only in the order of independent groups are tried once: the group of the highest
    node goes first, unless another one waits for it, directly or through further groups.
    """
    last = 1 << (state.bit_length() - 1)
    waiting = _waiting(problem, last, state)
    for group in _upper_sets(problem, state):
        if group & waiting and _connected(problem, group):
            yield group


def _waiting(problem: Problem, start: int, state: int) -> int:
    """Nodes of ``state`` that may have to run after a group with the node of ``start``: mates, what depends on them, its mates .."""
    found, pending = 0, start
    while pending:
        found |= pending
        grown = 0
        for i in bits(pending):
            grown |= problem.mates[i] | problem.descendants[i]
        pending = grown & state & ~found
    return found


def _upper_sets(problem: Problem, state: int) -> Iterator[int]:
    """Admitted sets that nobody in the rest of ``state`` reads, with all edges inside allowed to be."""
    ends = [i for i in bits(state) if not problem.successors[i] & state]
    seen: set[int] = set()
    pending = [1 << i for i in ends]
    while pending:
        group = pending.pop()
        if group in seen:
            continue
        seen.add(group)
        yield group
        near = 0
        for i in bits(group):
            near |= problem.predecessors[i]
        for i in bits((near | _side_by_side(problem, group, ends)) & state & ~group):
            inside = problem.successors[i] & state
            if inside & ~group or inside & ~problem.joined[i]:
                continue
            if problem.admits(group | 1 << i):
                pending.append(group | 1 << i)


def _side_by_side(problem: Problem, group: int, ends: Sequence[int]) -> int:
    """Those of ``ends`` that could become connected with ``group`` through common producers."""
    mates = 0
    for i in bits(group):
        mates |= problem.mates[i]
    return sum(1 << e for e in ends if mates >> e & 1)


def _connected(problem: Problem, group: int) -> bool:
    found = frontier = group & -group
    while frontier:
        grown = 0
        for i in bits(frontier):
            grown |= problem.joined[i]
        frontier = grown & group & ~found
        found |= frontier
    return found == group
