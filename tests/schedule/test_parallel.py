from __future__ import annotations

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import LoopKind, find_loop
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


@pytest.mark.parametrize(
    ("nest", "loop"),
    [
        ("lu_right", "i"),
        ("lu_right", "i2"),
        ("lu_right", "j"),
        ("trmm", "j"),
        ("jacobi", "i"),
        ("jacobi", "j2"),
        ("gemm", "i"),
        ("gemm", "j"),
    ],
)
def test_independent_loops(nest: str, loop: str) -> None:
    kernel = NESTS[nest]
    sch = Schedule(kernel)
    assert sch.parallel(loop) == loop
    assert find_loop(sch.kernel, loop).kind is LoopKind.PARALLEL
    assert_same(kernel, sch.kernel, {"T": 2, "N": 6} if nest == "jacobi" else {"N": 6})


@pytest.mark.parametrize(
    ("nest", "loop", "buffer"),
    [
        *(("lu_right", "k", "A"), ("lu", "i", "A"), ("lu", "j", "A"), ("cholesky", "i", "A"), ("cholesky", "j", "A"), ("trmm", "i", "B")),
        *(("seidel", "t", "A"), ("seidel", "i", "A"), ("seidel", "j", "A"), ("floyd_warshall", "k", "P"), ("nussinov", "d", "table")),
        *(("jacobi", "t", "A|B"), ("floyd_warshall", "i", "P"), ("floyd_warshall", "j", "P")),
    ],
)
def test_dependent_loops_are_refused(nest: str, loop: str, buffer: str) -> None:
    with pytest.raises(ScheduleError, match=rf"parallel {loop}: iterations? \(.*{loop}=.*because of ({buffer})"):
        Schedule(NESTS[nest]).parallel(loop)


def test_reduction_is_refused_with_a_way_out() -> None:
    with pytest.raises(ScheduleError, match="both update C") as e:
        Schedule(NESTS["gemm"]).parallel("k")
    assert "k is a reduction of C" in str(e.value)
    assert 'rfactor("k")' in str(e.value)


def test_private_buffers_are_no_conflict() -> None:
    text = "def f(a: i32[8], b: i32[8]):\n    {0}\n    for i in range(8):\n        {1}\n        t[0] = a[i]\n        b[i] = t[0] * 2"
    inside = kernel_of(text.format("a[0] = 1", "t = alloc(i32[1])"))
    sch = Schedule(inside)
    sch.parallel("i")
    assert_same(inside, sch.kernel)
    with pytest.raises(ScheduleError, match="because of t"):
        Schedule(kernel_of(text.format("t = alloc(i32[1])", "a[i] = 1"))).parallel("i")


def test_disjoint_halves_are_independent() -> None:
    kernel = kernel_of("def f(a: i32[16]):\n    for i in range(8):\n        a[i] = a[i + 8]")
    sch = Schedule(kernel)
    sch.parallel("i")
    assert_same(kernel, sch.kernel)
    with pytest.raises(ScheduleError, match=r"iteration \(i=0\) must run before \(i=7\) because of a"):
        Schedule(kernel_of("def f(a: i32[16]):\n    for i in range(8):\n        a[i] = a[i + 7]")).parallel("i")


def test_parity_is_exact() -> None:
    even = "def f(a: i32[40]):\n    for i in range(10):\n        a[2 * i] = a[2 * i + {0}]"
    Schedule(kernel_of(even.format(5))).parallel("i")
    with pytest.raises(ScheduleError, match="because of a"):
        Schedule(kernel_of(even.format(4))).parallel("i")


def test_calls_are_seen_through_their_windows() -> None:
    text = """
@kernel
def twice(x: i32[4], y: i32[4]):
    for u in range(4):
        y[u] = x[u] * 2

@kernel
def f(a: i32[20], b: i32[20]):
    for i in range(4):
        twice(a[i * 4:i * 4 + 4], b[{0}:{0} + 4])
"""
    kernel = kernel_of(text.format("i * 4"))
    sch = Schedule(kernel)
    sch.parallel("i")
    assert_same(kernel, sch.kernel)
    with pytest.raises(ScheduleError, match=r"parallel i: iteration \(i=0\) must run before \(i=1\) because of b: the first writes b\[3\]"):
        Schedule(kernel_of(text.format("i * 3"))).parallel("i")


def test_unknown_loop() -> None:
    with pytest.raises(ScheduleError, match="no loop 'z'"):
        Schedule(NESTS["gemm"]).parallel("z")
