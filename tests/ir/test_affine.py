"""The isl views against plain enumeration of the program."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import islpy as isl
import pytest
from tests.ir.execution import instances
from tests.schedule.programs import RandomKernel, kernel_of

from tilewright.ir import affine
from tilewright.ir.affine import IslText, access_relation, domain, is_exact, reassociable, region, schedule_map
from tilewright.ir.stmt import Kernel, Store, loops, walk


def _at(view: isl.Set | isl.Map, sizes: dict[str, int]) -> isl.Set | isl.Map:
    for name, value in sizes.items():
        if (n := view.find_dim_by_name(isl.dim_type.param, name)) >= 0:
            view = view.fix_val(isl.dim_type.param, n, value)
    return view


def _points(s: isl.Set) -> set[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    n = s.dim(isl.dim_type.set)
    s.foreach_point(lambda p: found.append(tuple(p.get_coordinate_val(isl.dim_type.set, d).to_python() for d in range(n))))
    return set(found)


@pytest.mark.parametrize("seed", range(60))
def test_views_of_random_kernels_are_exact(seed: int) -> None:
    kernel = RandomKernel(Random(seed)).build()
    sizes = {v.name: 4 for v in kernel.sizes}
    executed = instances(kernel, sizes)
    order: list[tuple[tuple[int, ...], int]] = []
    statements = [s for s in region(kernel.body).statements if isinstance(s.node, Store)]
    length = max(len(s.time) for s in statements) if statements else 0
    for s in statements:
        mine = [(n, i) for n, i in enumerate(executed) if i.node is s.node]
        assert _points(_at(domain(s), sizes)) == {tuple(i.iteration.values()) for _, i in mine}
        reached: dict[tuple[str, str], set[tuple[int, ...]]] = {}
        for a in s.accesses:
            assert is_exact(s, a)
            reached.setdefault((a.buffer.name, a.op), set()).update(_points(_at(access_relation(s, a), sizes).range()))
        touched: dict[tuple[str, str], set[tuple[int, ...]]] = {}
        for _, i in mine:
            for element, op in i.touched:
                touched.setdefault((element[0], op), set()).add(element[2])
        assert {k: v for k, v in reached.items() if v} == touched
        times = _at(schedule_map(s, length), sizes)
        for n, i in mine:
            here = isl.Set(f"{{ [{', '.join(map(str, i.iteration.values()))}] }}")
            moment = times.intersect_domain(here.align_params(times.get_space())) if i.iteration else times
            (when,) = _points(moment.range())
            order.append((when, n))
    assert [n for _, n in sorted(order)] == list(range(len(executed)))


def statement(text: str) -> affine.Statement:
    return next(s for s in region(kernel_of(text).body).statements if isinstance(s.node, Store))


def test_names_are_those_of_the_program() -> None:
    s = statement("@kernel(params=('N',))\ndef f(a: i32[N]):\n    for i in range(1, N):\n        a[i - 1] = a[i]")
    assert domain(s).is_equal(isl.Set("[N] -> { [i] : 1 <= i < N }"))
    write = next(a for a in s.accesses if a.op == "write")
    assert access_relation(s, write).is_equal(isl.Map("[N] -> { [i] -> a[i - 1] : 1 <= i < N }"))


@pytest.mark.parametrize(
    ("bound", "condition", "expected"),
    [
        ("range(0, 20, 3)", "i % 2 == 0", {0, 6, 12, 18}),
        ("range(min(3, 7), max(5, 9))", "i // 2 != 2", {3, 6, 7, 8}),
        ("range(10)", "not (i < 3 or i >= 6)", {3, 4, 5}),
        ("range(10)", "i >= 2 and i * 2 <= 9", {2, 3, 4}),
    ],
)
def test_quasi_affine_forms(bound: str, condition: str, expected: set[int]) -> None:
    s = statement(f"def f(a: i32[20]):\n    for i in {bound}:\n        if {condition}:\n            a[i] = 1")
    assert _points(domain(s)) == {(v,) for v in expected}


def test_else_branch_is_the_complement() -> None:
    body = "if i < 4:\n            a[i] = 1\n        else:\n            b[i] = 1"
    text = f"def f(a: i32[9], b: i32[9]):\n    for i in range(9):\n        {body}"
    first, second = (s for s in region(kernel_of(text).body).statements if isinstance(s.node, Store))
    assert domain(first).is_disjoint(domain(second))
    assert domain(first).union(domain(second)).is_equal(isl.Set("{ [i] : 0 <= i < 9 }"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a[index(p[i])] = 1", "{ [i] -> a[e] : 0 <= i < 8 }"),
        ("a[i * i] = 1", "{ [i] -> a[e] : 0 <= i < 8 }"),
        ("if p[i] > 2:\n            a[i] = 1", "{ [i] -> a[i] : 0 <= i < 8 }"),
        ("if i < 3 and p[i] > 2:\n            a[i] = 1", "{ [i] -> a[i] : 0 <= i < 3 }"),
    ],
)
def test_what_is_not_affine_is_over_approximated(body: str, expected: str) -> None:
    s = statement(f"def f(a: i32[64], p: i32[8]):\n    for i in range(8):\n        {body}")
    write = next(a for a in s.accesses if a.op == "write")
    assert not is_exact(s, write)
    assert access_relation(s, write).is_equal(isl.Map(expected))


def test_calls_touch_what_the_callee_touches() -> None:
    text = """
@kernel
def even(x: i32[8], y: i32[4]):
    for u in range(4):
        y[u] += x[u * 2]

@kernel
def f(a: i32[40], b: i32[4, 9]):
    for i in range(4):
        even(a[i * 8:i * 8 + 8], b[i, 2:6])
"""
    (s,) = region(kernel_of(text).body).statements
    views = {(a.buffer.name, a.op): access_relation(s, a) for a in s.accesses}
    assert set(views) == {("a", "read"), ("b", "+")}
    assert views["a", "read"].is_equal(isl.Map("{ [i] -> a[e] : 0 <= i < 4 and 8i <= e < 8i + 8 and e mod 2 = 0 }"))
    assert views["b", "+"].is_equal(isl.Map("{ [i] -> b[i, e] : 0 <= i < 4 and 2 <= e < 6 }"))


def test_conditions_and_while_loops_are_statements() -> None:
    text = """
def f(a: i32[9]):
    for i in range(9):
        while a[i] < 3:
            a[i] += 1
        if a[0] > 1:
            a[i] = 0
"""
    found = region(kernel_of(text).body).statements
    assert [[a.op for a in s.accesses] for s in found] == [["read"], ["+"], ["read"], ["write"]]
    for before, after in pairwise(found):  # siblings differ first in a static component
        x, y = next((x, y) for x, y in zip(before.time, after.time, strict=False) if x != y)
        assert isinstance(x, int)
        assert isinstance(y, int)
        assert x < y
    assert not is_exact(found[1], found[1].accesses[0])


def test_private_buffers_and_surroundings() -> None:
    text = """
def f(a: i32[9, 9]):
    for i in range(9):
        t = alloc(i32[1])
        for j in range(i):
            t[0] = 1
            a[i, j] = t[0]
"""
    kernel = kernel_of(text)
    outer, inner = loops(kernel)
    part = region(inner, (kernel.body, outer, outer.body))
    assert part.around == {"i"}
    assert region(kernel.body).private == {"t": frozenset({"i"})}
    assert domain(part.statements[0]).is_equal(isl.Set("{ [i, j] : 0 <= i < 9 and 0 <= j < i }"))


def _reduction(target: str, value: str, op: str = "s[0] += x[0]") -> Store:
    kernel: Kernel = kernel_of(f"def f(s: {target}[1], x: {value}[1]):\n    {op}")
    return next(s for s in walk(kernel.body) if isinstance(s, Store))


@pytest.mark.parametrize(
    ("target", "value", "op", "expected"),
    [
        ("f32", "f32", "s[0] += x[0]", True),
        ("i8", "i32", "s[0] += x[0]", True),  # wrapping addition is a homomorphism
        ("i32", "f32", "s[0] += x[0]", False),
        ("i8", "i32", "s[0] = max(s[0], x[0])", False),  # the narrowed maximum depends on the order
        ("i32", "i8", "s[0] = max(s[0], x[0])", True),
        ("i32", "i32", "s[0] = x[0]", False),
    ],
)
def test_which_reductions_commute(target: str, value: str, op: str, expected: bool) -> None:
    assert reassociable(_reduction(target, value, op)) is expected


def test_text_of_sizes_and_unknown_forms() -> None:
    kernel = kernel_of("@kernel(params=('N', 'M'))\ndef f(a: i32[N]):\n    for i in range(N * 2 + M // 3):\n        a[i] = 1")
    text = IslText({})
    assert text.expr(loops(kernel)[0].hi) == "((p0 * 2) + floor((p1)/3))"
    assert text.parameters == {"N": "p0", "M": "p1"}
