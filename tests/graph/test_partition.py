"""Dynamic programming over ending sets against enumeration of every division."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.graph.partition import Problem, bits, partition


def divisions(nodes: list[int]) -> Iterator[list[int]]:
    """Every division of ``nodes`` into sets (as masks)."""
    if not nodes:
        yield []
        return
    first, rest = nodes[0], nodes[1:]
    for others in divisions(rest):
        yield [1 << first, *others]
        for k in range(len(others)):
            yield [*others[:k], others[k] | 1 << first, *others[k + 1 :]]


def acyclic(problem: Problem, groups: list[int]) -> bool:
    """Whether groups can run one after the other: repeatedly one whose producers are all done."""
    done, pending = 0, list(groups)
    while pending:
        ready = [g for g in pending if not any(problem.predecessors[i] & ~(done | g) for i in bits(g))]
        if not ready:
            return False
        done |= ready[0]
        pending.remove(ready[0])
    return True


def connected(problem: Problem, group: int) -> bool:
    seen = {next(bits(group))}
    while grown := {j for i in seen for j in bits(group) if (problem.successors[i] | problem.predecessors[i]) >> j & 1} - seen:
        seen |= grown
    return len(seen) == group.bit_count()


def allowed(problem: Problem, group: int) -> bool:
    edges = [(i, j) for i in bits(group) for j in bits(problem.successors[i] & group)]
    return group.bit_count() == 1 or (problem.admits(group) and all(problem.joins(i, j) for i, j in edges) and connected(problem, group))


@st.composite
def problems(draw: st.DrawFn, most: int = 7) -> Problem:
    n = draw(st.integers(1, most))
    edges = {(i, j) for j in range(1, n) for i in draw(st.sets(st.integers(0, j - 1), max_size=3))}
    apart = draw(st.sets(st.sampled_from(sorted(edges)), max_size=3)) if edges else set()
    heavy = draw(st.sets(st.integers(0, n - 1), max_size=4))
    prices = draw(st.lists(st.integers(1, 60), min_size=16, max_size=16))
    largest = draw(st.integers(2, 5))

    def cost(group: int) -> float:
        return math.inf if group.bit_count() > 1 and group % 11 == 3 else float(prices[group * 7 % 16] + group.bit_count())

    def admits(group: int) -> bool:
        return group.bit_count() <= largest and sum(1 for i in heavy if group >> i & 1) <= 2

    return Problem([sum(1 << j for i, j in edges if i == k) for k in range(n)], lambda i, j: (i, j) not in apart, admits, cost)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_cost_is_the_best_of_all_divisions(problem: Problem) -> None:
    legal = (d for d in divisions(list(range(len(problem.successors)))) if all(allowed(problem, g) for g in d) and acyclic(problem, d))
    optimum = min(sum(map(problem.cost, d)) for d in legal)
    found = partition(problem)
    assert found.exact
    assert found.cost == optimum
    masks = [sum(1 << i for i in g) for g in found.groups]
    assert sum(map(problem.cost, masks)) == optimum
    assert all(allowed(problem, g) for g in masks)
    assert sorted(i for g in found.groups for i in g) == list(range(len(problem.successors)))
    done = 0
    for m in masks:  # in execution order
        assert not any(problem.predecessors[i] & ~(done | m) for i in bits(m))
        done |= m


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 2))
def test_a_narrow_beam_gives_a_legal_division_and_says_what_it_did(problem: Problem, width: int) -> None:
    full, narrow = partition(problem), partition(problem, width=width)
    assert narrow.cost >= full.cost
    assert narrow.states <= full.states
    assert narrow.exact or narrow.states < full.states


def chain_of_branches(layers: int, branches: int, length: int) -> Problem:
    """Layers of parallel chains that meet in one node: node 0 of a layer fans out."""
    successors: list[int] = []
    first = 0
    for _ in range(layers):
        end = first + 1 + branches * length
        heads = [first + 1 + b * length for b in range(branches)]
        successors.append(sum(1 << h for h in heads))
        for h in heads:
            successors += [1 << (k + 1 if k + 1 < h + length else end) for k in range(h, h + length)]
        first = end
    successors.append(0)
    return Problem(successors, lambda i, j: True, lambda g: g.bit_count() <= 3, lambda g: 1.0 + 0.1 * g.bit_count())


def test_cut_vertices_keep_states_linear_in_the_length_of_a_network() -> None:
    short, long = (partition(chain_of_branches(n, 3, 2)).states for n in (4, 16))
    assert long < 4.5 * short


@pytest.mark.parametrize("branches", [8, 14])
def test_independent_branches_do_not_multiply(branches: int) -> None:
    # 3 ** branches sets are closed; ordering the groups canonically leaves a few for each branch.
    problem = chain_of_branches(1, branches, 2)
    problem = Problem(problem.successors, lambda i, j: i != 0 and j != len(problem.successors) - 1, problem.admits, problem.cost)
    found = partition(problem)
    assert found.exact
    assert found.states < 6 * branches
    assert len(found.groups) == branches + 2
