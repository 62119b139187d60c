from __future__ import annotations

from itertools import permutations

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import If, LoopKind, find_loop, loops
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

TETRAHEDRON = """
def f(a: i32[8, 8, 8]):
    for i in range(1, 8):
        for j in range(i, min(i * 2, 8)):
            for k in range(j - i, 6):
                a[i, j, k] = a[i, j, k] * 2 + i32(i + j + k)
"""


@pytest.mark.parametrize("order", list(permutations("ijk")))
def test_every_order_of_a_reduction(order: tuple[str, ...]) -> None:
    kernel = kernel_of(
        "def f(a: i32[5, 4], b: i32[4, 6], c: i32[5, 6]):\n    for i in range(5):\n        for j in range(6):\n"
        "            for k in range(4):\n                c[i, j] += a[i, k] * b[k, j]"
    )
    sch = Schedule(kernel)
    assert sch.reorder(*order) == order
    assert [f.name for f in loops(sch.kernel)] == list(order)
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize("order", list(permutations("ijk")))
def test_every_order_of_a_triangular_nest(order: tuple[str, ...]) -> None:
    kernel = kernel_of(TETRAHEDRON)
    sch = Schedule(kernel)
    sch.reorder(*order)
    assert_same(kernel, sch.kernel)


def test_triangle_is_turned_without_guards() -> None:
    kernel = kernel_of("def f(a: i32[8, 8]):\n    for i in range(8):\n        for j in range(i + 1):\n            a[i, j] += 1")
    sch = Schedule(kernel)
    sch.reorder("j", "i")
    assert str(find_loop(sch.kernel, "i")).startswith("for i in range(j, 8)")
    assert_same(kernel, sch.kernel)


def test_loops_in_between_stay() -> None:
    sch = Schedule(kernel_of(TETRAHEDRON.replace("min(i * 2, 8)", "8").replace("range(i,", "range(").replace("range(j - i,", "range(")))
    sch.reorder("k", "i")
    assert [f.name for f in loops(sch.kernel)] == ["k", "j", "i"]


def test_guards_move_inwards() -> None:
    kernel = kernel_of("def f(a: i32[10, 6]):\n    for i in range(10):\n        for j in range(6):\n            a[i, j] += 1")
    sch = Schedule(kernel)
    io, ii = sch.split("i", 4, tail="guard")
    sch.reorder("j", io, ii)
    sch.reorder(io, ii, "j")
    assert isinstance(find_loop(sch.kernel, ii).body.stmts[0], If)  # the condition does not use j: it stays outside
    assert_same(kernel, sch.kernel)


def test_wavefront_of_seidel() -> None:
    kernel = NESTS["seidel"]
    sch = Schedule(kernel)
    j = sch.skew("i", "j", 2)
    sch.reorder(j, "i")
    sch.parallel("i")
    assert_same(kernel, sch.kernel, {"T": 2, "N": 9})


@pytest.mark.parametrize(
    ("nest", "order", "message"),
    [
        ("seidel", ("i", "t"), r"reorder i, t: iteration \(t=0, i=2, j=.\) must run before \(t=1, i=1, j=.\) because of A"),
        ("seidel", ("j", "t"), "must run before"),
        ("floyd_warshall", ("i", "k"), r"iteration \(k=0, i=1, j=.\) must run before \(k=1, i=0, j=.\) because of P"),
        ("floyd_warshall", ("j", "i", "k"), "because of P"),
        ("lu", ("j", "i"), "j is not perfectly nested|not perfectly nested around"),
    ],
)
def test_dependences_are_named(nest: str, order: tuple[str, ...], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Schedule(NESTS[nest]).reorder(*order)


def test_diagonal_dependence() -> None:
    kernel = kernel_of("def f(A: i32[6, 6]):\n    for i in range(1, 6):\n        for j in range(5):\n            A[i, j] = A[i - 1, j + 1]")
    with pytest.raises(ScheduleError) as e:
        Schedule(kernel).reorder("j", "i")
    assert (
        "reorder j, i: iteration (i=1, j=1) must run before (i=2, j=0) because of A: the first writes A[1, 1], the second reads it"
        in str(e.value)
    )


def test_data_dependent_index_is_not_trusted() -> None:
    kernel = kernel_of(
        "def f(A: i32[9], p: i32[4, 4]):\n    for i in range(4):\n        for j in range(4):\n            A[index(p[i, j])] = i32(i)"
    )
    with pytest.raises(ScheduleError, match="because of A"):
        Schedule(kernel).reorder("j", "i")
    histogram = kernel_of(
        "def f(A: i32[9], p: i32[4, 4]):\n    for i in range(4):\n        for j in range(4):\n            A[index(p[i, j])] += 1"
    )
    Schedule(histogram).reorder("j", "i")  # updates commute


def test_narrowing_reduction_does_not_commute() -> None:
    kernel = kernel_of("def f(s: i32[1], x: f32[4, 4]):\n    for i in range(4):\n        for j in range(4):\n            s[0] += x[i, j]")
    with pytest.raises(ScheduleError, match="because of s"):
        Schedule(kernel).reorder("j", "i")


def test_concurrent_loop_that_moves_out_is_checked_again() -> None:
    kernel = kernel_of(
        "def f(A: i32[8, 8]):\n    for i in range(1, 8):\n        for j in range(1, 8):\n            A[i, j] = A[i - 1, j - 1]"
    )
    sch = Schedule(kernel)
    sch.parallel("j")
    with pytest.raises(ScheduleError, match=r"reorder j, i \(j is parallel\): iteration"):
        sch.reorder("j", "i")
    assert find_loop(sch.kernel, "j").kind is LoopKind.PARALLEL


def test_lanes_do_not_move_around_a_range_that_differs_between_them() -> None:
    kernel = kernel_of("def f(a: i32[8, 12]):\n    for i in range(8):\n        for j in range(i, i + 4):\n            a[i, j] += 1")
    sch = Schedule(kernel)
    sch.vectorize("j")
    with pytest.raises(
        ScheduleError, match=r"reorder j, i \(j is vector\): the range of the inner loop i, range\(.*j.*\), differs between lanes"
    ):
        sch.reorder("j", "i")
    sch = Schedule(kernel)
    sch.reorder("j", "i")
    assert_same(kernel, sch.kernel)


def test_other_refusals() -> None:
    kernel = kernel_of(TETRAHEDRON)
    with pytest.raises(ScheduleError, match="name each loop once"):
        Schedule(kernel).reorder("i", "i")
    with pytest.raises(ScheduleError, match="no loop 'x'"):
        Schedule(kernel).reorder("i", "x")
    square = kernel_of("def f(a: i32[30]):\n    for i in range(5):\n        for j in range(i * i):\n            a[j] += 1")
    with pytest.raises(ScheduleError, match="cannot move outside: its bound i \\* i is not affine"):
        Schedule(square).reorder("j", "i")
    stepped = kernel_of("def f(a: i32[30]):\n    for i in range(5):\n        for j in range(i, 9, 2):\n            a[j] += 1")
    with pytest.raises(ScheduleError, match="it has step 2"):
        Schedule(stepped).reorder("j", "i")
    memory = kernel_of("def f(n: i32[5]):\n    for i in range(5):\n        for j in range(index(n[i])):\n            n[j] = 1")
    with pytest.raises(ScheduleError, match="read n, which the nest writes"):
        Schedule(memory).reorder("j", "i")
