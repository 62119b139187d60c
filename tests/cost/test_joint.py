"""Formulas of several programs evaluated together: bit for bit what each program's own tape computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from tests.cost.test_formula import Term, build, terms

from tilewright.cost.formula import Formula, Graph
from tilewright.cost.joint import Joint
from tilewright.cost.tape import Tape
from tilewright.util.errors import IRTypeError


def evaluated(joint: Joint, env: dict[str, np.ndarray], counts: list[int], chunk: int) -> list[list[np.ndarray]]:
    """Values of each program's formulas for all of its points."""
    found: list[list[list[np.ndarray]]] = [[[] for _ in p] for p in joint.programs]
    for part in joint(env, counts, chunk):
        for column, values in zip(found[part.program], part.values, strict=True):
            assert len(values) == part.rows.stop - part.rows.start
            column.append(values)
    return [[np.concatenate(c) if c else np.zeros(0) for c in columns] for columns in found]


@settings(max_examples=150, deadline=None)
@given(
    hs.lists(hs.tuples(hs.lists(terms, min_size=1, max_size=3), hs.integers(0, 7)), min_size=1, max_size=4),
    hs.lists(terms, max_size=2),
    hs.integers(1, 9),
    hs.integers(0, 2**32 - 1),
)
def test_programs_evaluated_together_agree_with_their_own_tapes(
    made: list[tuple[list[Term], int]], shared: list[Term], chunk: int, seed: int
) -> None:
    g = Graph()
    programs = [[build(g, t) for t in (*own, *shared)] for own, _ in made]
    counts = [count for _, count in made]
    rng = np.random.default_rng(seed)
    env = {n: rng.integers(1, 41, sum(counts)).astype(np.float64) for n in "xyz"}
    end = 0
    for formulas, found, count in zip(programs, evaluated(Joint(programs), env, counts, chunk), counts, strict=True):
        rows = slice(end, end + count)
        expected = Tape(formulas)({n: v[rows] for n, v in env.items()})
        for a, b in zip(found, expected, strict=True):
            assert np.array_equal(a, np.broadcast_to(b, count))
        end += count


def test_shared_formulas_are_evaluated_once() -> None:
    g = Graph()
    x, y = g.var("x"), g.var("y")
    shared = g.max(x * y, x + 3)
    joint = Joint([[shared * 2], [shared + y]])
    assert len(joint) == 5 and len(Joint([[shared * 2]])) == 4


def test_what_other_programs_divide_by_is_no_matter() -> None:
    """Rows between those of two programs are evaluated with knobs that their formulas were not made for."""
    g = Graph()
    x = g.var("x")
    tiles = g.floordiv(g.const(8), x)
    programs: list[list[Formula]] = [[g.div(x, tiles)], [x + 1], [g.div(x + 2, tiles)]]
    found = evaluated(Joint(programs), {"x": np.array([2.0, 100.0, 4.0])}, [1, 1, 1], 8)
    assert [float(c[0]) for (c,) in found] == [0.5, 101.0, 3.0]


def test_unbound_knobs_are_refused_where_a_program_has_points() -> None:
    g = Graph()
    joint = Joint([[g.var("x") + 1], [g.var("y") + 1]])
    env = {"x": np.array([1.0, 2.0])}
    assert evaluated(joint, env, [2, 0], 8)[0][0].tolist() == [2.0, 3.0]
    with pytest.raises(IRTypeError, match="knob 'y' has no value"):
        evaluated(joint, env, [1, 1], 8)
    assert evaluated(joint, {}, [0, 0], 8)[0][0].size == 0
