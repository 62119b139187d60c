"""Mapping spaces: published counts, and agreement of the algebraic tests with enumeration of slots."""

from __future__ import annotations

import time
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as hs

from tilewright.ir import stmt as st
from tilewright.ir.expr import Const
from tilewright.ir.types import i32
from tilewright.mapping import Iteration, Operand, Operator, find_mappings, operator_of, parse_mapping
from tilewright.mapping import operators as ops
from tilewright.mapping.target import Target
from tilewright.mapping.validity import boolean_test, pairs, violations
from tilewright.util.errors import MappingError

INTS = (i32, i32, i32)


# --- counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "instr", "amos", "complete"),
    [
        ("gmv", "mma", 1, 1), ("gmm", "mma", 1, 1), ("c1d", "mma", 6, 9), ("c2d", "mma", 35, 49), ("dep", "mma", 11, 21),
        ("grp", "mma", 35, 49), ("dil", "mma", 35, 49), ("c1d", "gemv", 3, 3), ("c2d", "gemv", 7, 7), ("c2d", "dot", 7, 7),
        ("c2d", "outer", 7, 7),
    ],
)  # fmt: skip
def test_counts_of_the_published_table(shapes, operator, instr, amos, complete):
    op = operator_of(ops.build_operator(operator, INTS))
    assert len(find_mappings(op, shapes[instr], space="amos")) == amos
    assert len(find_mappings(op, shapes[instr])) == complete


@pytest.mark.parametrize("name", sorted(ops.OPERATORS))
def test_published_space_is_part_of_the_complete_one_and_all_of_it_checks(shapes, name):
    op = operator_of(ops.build_operator(name, INTS))
    for instr in ("mma", "gemv", "dot", "outer"):
        complete = {str(m): m for m in find_mappings(op, shapes[instr])}
        assert complete and all(m.check() and not m.problems() for m in complete.values())
        assert {str(m) for m in find_mappings(op, shapes[instr], space="amos")} <= set(complete)


def test_counts_do_not_depend_on_extents_of_one(shapes):
    small = operator_of(ops.c2d(n=1, k=1, p=1, q=2, c=1, r=1, s=1, types=INTS))
    assert len(find_mappings(small, shapes["mma"])) == 49
    assert len(find_mappings(small, shapes["mma"], space="amos")) == 35


def test_operand_orders(shapes):
    op = operator_of(ops.c2d(types=INTS))
    both = find_mappings(op, shapes["mma"], orders="all")
    assert len(both) == 98
    assert {m.binding for m in both} == {(0, 1), (1, 0)}
    # a[i, k] * x[k] as x * a: only the exchanged order puts i and k on the matrix
    gmv = operator_of(ops.gmv(types=INTS))
    assert [str(m) for m in find_mappings(gmv, shapes["gemv"])] == ["i<-i  k<-k  [a=x, b=a]"]
    assert [str(m) for m in find_mappings(gmv, shapes["gemv"], orders="declared")] == ["i<-1  k<-k"]


def test_permutations_inside_fused_sets(shapes):
    op = operator_of(ops.c1d(types=INTS))
    found = {str(m) for m in find_mappings(op, shapes["dot"], permuted=True)}
    assert found == {"k<-c", "k<-s", "k<-c*s", "k<-s*c"}


def test_eleven_iterations_in_well_under_50_ms(shapes):
    extents = {"n": 2, "b": 2, "g": 2, "k": 16, "d": 8, "p": 14, "q": 14, "c": 16, "t": 3, "r": 3, "s": 3}
    v = {n: ops.Var(n) for n in extents}
    image = ops.element("image", i32, [v["n"], v["b"], v["g"], v["c"], v["d"] + v["t"], v["p"] + v["r"], v["q"] + v["s"]], extents)
    weight = ops.element("weight", i32, [v[n] for n in "gkctrs"], extents)
    op = operator_of(ops.contraction("conv3d", extents, ops.element("out", i32, [v[n] for n in "nbgkdpq"], extents), image, weight))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = find_mappings(op, shapes["mma"])
        seconds.append(time.perf_counter() - start)
        assert len(found) == 31 * 15  # {n b d p q} x {k} x {c t r s}
    assert min(seconds) < 0.025


def test_unknown_space_is_refused(shapes):
    with pytest.raises(MappingError, match=r"space='full' is unknown"):
        find_mappings(operator_of(ops.gmm(types=INTS)), shapes["mma"], space="full")


# --- brute force ------------------------------------------------------------------------------


def brute_force_valid(op: Operator, view: Operator, groups, binding) -> bool:
    """Fill every slot by walking all mapped iteration points: one element for each slot, one slot for each result."""
    mapped = [u for g in groups for u in g]
    if any(op.iterations[u].kind != view.iterations[t].kind for t, g in enumerate(groups) for u in g):
        return False
    contents: list[dict] = [{} for _ in view.operands]
    homes: dict = {}
    for digits in product(*(range(op.extents[u]) for u in mapped)):
        point = [0] * len(op.iterations)
        for u, d in zip(mapped, digits, strict=True):
            point[u] = d
        fused = []
        for g in groups:
            f = 0
            for u in g:
                f = f * op.extents[u] + point[u]
            fused.append(f)
        for n, (soft, hard) in enumerate(pairs(op, view, binding)):
            slot = tuple(sum(a * b for a, b in zip(r, fused, strict=True)) for r in hard.rows)
            element = tuple(sum(a * b for a, b in zip(r, point, strict=True)) for r in soft.rows)
            if contents[n].setdefault(slot, element) != element:
                return False
            if n == 0 and homes.setdefault(element, slot) != slot:
                return False
    return True


def _operator(extents, rows, name) -> Operator:
    kinds = ["spatial" if any(r[u] for r in rows[0]) else "reduction" for u in range(len(extents))]
    iterations = tuple(Iteration(f"{name}{u}", e, k) for u, (e, k) in enumerate(zip(extents, kinds, strict=True)))
    operands = [Operand(f"{name}_{n}", i32, Const(0, i32), tuple(r)) for n, r in enumerate(rows)]
    empty = st.Kernel(name, (), st.block())
    return Operator(name, iterations, operands[0], tuple(operands[1:]), "+", "*", i32, None, "", empty)


@hs.composite
def affine_operators(draw, name, most, coefficient):
    n = draw(hs.integers(1, most))
    row = hs.tuples(*[coefficient] * n).filter(any)
    rows = [draw(hs.lists(row, max_size=3, unique=True)) for _ in range(3)]
    extents = draw(hs.tuples(*[hs.integers(2, 3)] * n))
    return _operator(extents, rows, name)


SOFTWARE = affine_operators("s", 4, hs.sampled_from([0, 0, 0, 1, 1, 2, 3, -1]))
HARDWARE = affine_operators("t", 3, hs.sampled_from([0, 0, 1, 1, 2]))


@given(SOFTWARE, HARDWARE, hs.data())
@settings(max_examples=300, deadline=None)
def test_exact_test_equals_enumeration_of_slots(op, view, data):
    axis_of = data.draw(hs.lists(hs.integers(-1, len(view.iterations) - 1), min_size=len(op.extents), max_size=len(op.extents)))
    groups = tuple(tuple(u for u, t in enumerate(axis_of) if t == axis) for axis in range(len(view.iterations)))
    binding = data.draw(hs.permutations(range(2)).map(tuple))
    same_kind = all(op.iterations[u].kind == view.iterations[t].kind for t, g in enumerate(groups) for u in g)
    valid = same_kind and next(violations(op, view, groups, binding), None) is None
    assert valid == brute_force_valid(op, view, groups, binding)
    for v in violations(op, view, groups, binding):  # witnesses are points of the box that really collide
        assert all(abs(d) < e for d, e in zip(v.difference, op.extents, strict=True)) and any(v.difference)


@given(SOFTWARE, HARDWARE)
@settings(max_examples=150, deadline=None)
def test_complete_space_is_exactly_the_valid_candidates(op, view):
    target = Target("t", view, tuple((n,) for n in view.names))
    found = {m.groups for m in find_mappings(op, target, orders="declared") if m.target == target}
    valid = set()
    for axis_of in product(range(-1, len(view.iterations)), repeat=len(op.extents)):
        groups = tuple(tuple(u for u, t in enumerate(axis_of) if t == axis) for axis in range(len(view.iterations)))
        if any(groups) and brute_force_valid(op, view, groups, (0, 1)):
            valid.add(groups)
    assert found <= valid
    # an axis stays empty only where no iteration could ride on it even alone
    alone = {t for g in valid if sum(map(len, g)) == 1 for t, group in enumerate(g) if group}
    assert found == {g for g in valid if {t for t, group in enumerate(g) if group} == alone}


@hs.composite
def unit_rows(draw, name, most, sources):
    """An operator whose output indices (and with ``sources`` all indices) are one iteration each."""
    n = draw(hs.integers(1, most))
    single = hs.integers(0, n - 1).map(lambda u: tuple(int(v == u) for v in range(n)))
    row = single if sources else hs.tuples(*[hs.sampled_from([0, 0, 1, 2])] * n).filter(any)
    rows = [draw(hs.lists(single, max_size=3, unique=True)), *(draw(hs.lists(row, max_size=3, unique=True)) for _ in range(2))]
    return _operator((2,) * n, rows, name)


@given(unit_rows("s", 4, sources=False), unit_rows("t", 3, sources=True), hs.data())
@settings(max_examples=300, deadline=None)
def test_boolean_test_agrees_where_it_must(op, view, data):
    """Where no index is compound and nothing is copied along an axis, the two tests are one."""
    axes = [[-1, *(t for t, a in enumerate(view.iterations) if a.kind == i.kind)] for i in op.iterations]
    axis_of = [data.draw(hs.sampled_from(a)) for a in axes]
    groups = tuple(tuple(u for u, t in enumerate(axis_of) if t == axis) for axis in range(len(view.iterations)))
    assume(any(groups))
    exact = next(violations(op, view, groups, (0, 1)), None) is None
    boolean = boolean_test(op, view, groups, (0, 1))
    assert not boolean or exact
    copies = any(hard.uses(t) and not soft.uses(u) for soft, hard in pairs(op, view, (0, 1)) for t, g in enumerate(groups) for u in g)
    assert boolean == (exact and not copies)


def test_boolean_test_accepts_wrong_mappings_of_compound_indices_and_the_exact_one_does_not(shapes):
    """`x[c, q + s]`: p and s do not slide over each other, q and s do."""
    op = operator_of(ops.c2d(n=1, k=2, p=3, q=3, c=2, r=2, s=2, types=INTS))
    wrong = parse_mapping(op, shapes["row"], "k<-k q<-p c<-c s<-s")
    right = parse_mapping(op, shapes["row"], "k<-k q<-q c<-c s<-s")
    assert wrong.boolean_check() and right.boolean_check()
    assert not wrong.check() and right.check()
    assert not brute_force_valid(op, wrong.target.view, wrong.groups, (0, 1))
    assert "image would need two elements in slot (q=0, c=0, s=1)" in wrong.explain() and "p and s share a row" in wrong.explain()
    texts = {str(m) for m in find_mappings(op, shapes["row"])}
    assert "k<-k  q<-p  c<-c  s<-r" in texts and str(right) in texts
    assert str(wrong) not in texts
