from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import loops
from tilewright.lang import parse
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

GEMM = """
def gemm(a: f64[11, 7], b: f64[7, 13], c: f64[11, 13]):
    for i in range(11):
        for j in range(13):
            for k in range(7):
                c[i, j] += a[i, k] * b[k, j]
"""
FULL = """
def gemm(a: f64[11, 7], b: f64[7, 13], c: f64[11, 13]):
    for i in range(11):
        for j in range(13):
            c[i, j] = 0.0
            for k in range(7):
                c[i, j] += a[i, k] * b[k, j]
"""


@pytest.mark.parametrize("loop", [None, "i", "j", "k"])
@pytest.mark.parametrize("text", [GEMM, FULL])
def test_any_level_of_a_product(loop: str | None, text: str) -> None:
    k = kernel_of(text)
    s = Schedule(k)
    s.cache_write("c", loop, "reg")
    assert_same(k, s.kernel)
    assert parse(str(s.kernel)) == s.kernel


@pytest.mark.parametrize(("text", "loads"), [(GEMM, True), (FULL, False)])
def test_prior_contents_are_loaded_only_when_live(text: str, loads: bool) -> None:
    s = Schedule(kernel_of(text))
    s.cache_write("c", "j", "reg")
    assert ("c_reg[0, 0] = c[i, j]" in str(s.kernel)) == loads


@pytest.mark.parametrize("tail", ["guard", "peel"])
def test_tiles_with_tails(tail: str) -> None:
    k = kernel_of(GEMM)
    s = Schedule(k)
    io = s.split("i", 4, tail)[0]
    s.cache_write("c", io, "reg", layout="1/4 0 1")
    assert_same(k, s.kernel)


def test_partly_written_boxes_keep_the_rest() -> None:
    k = kernel_of("""
def f(x: f64[20], y: f64[7]):
    for i in range(2):
        for j in range(7):
            if y[j] > 1.5:
                x[3 * j + i] = y[j]
""")
    for loop in (None, "i", "j"):
        s = Schedule(k)
        s.cache_write("x", loop, "reg")
        assert_same(k, s.kernel)


def test_in_place_stencils_read_their_own_copy() -> None:
    k = kernel_of("""
def seidel(x: f64[6, 9]):
    for t in range(3):
        for i in range(1, 5):
            for j in range(1, 8):
                x[i, j] = (x[i - 1, j] + x[i + 1, j] + x[i, j - 1] + x[i, j + 1]) * 0.25
""")
    for loop in (None, "t", "i", "j"):
        s = Schedule(k)
        s.cache_write("x", loop, "l1")
        assert_same(k, s.kernel)


def test_write_back_that_races_is_refused() -> None:
    k = kernel_of("""
def f(x: f64[20]):
    for i in parallel(2):
        for j in range(10):
            x[2 * j + i] = 1.0
""")
    s = Schedule(k)
    with pytest.raises(ScheduleError, match="cache_write x, i"):
        s.cache_write("x", "i", "l1")
    s.cache_write("x", "j", "l1")
    assert_same(k, s.kernel)


def test_refusals() -> None:
    s = Schedule(kernel_of(GEMM))
    with pytest.raises(ScheduleError, match="only read there"):
        s.cache_write("a", "i", "reg")
    with pytest.raises(ScheduleError, match="does not use it"):
        s.cache_write("zz", "i", "reg")
    with pytest.raises(ScheduleError, match="no loop 'q'"):
        s.cache_write("c", "q", "reg")


def test_later_readers_may_read_the_buffer_itself() -> None:
    k = kernel_of("""
def f(x: f64[6], y: f64[6], z: f64[6]):
    for i in range(6):
        y[i] = x[i] * 2.0
    for i1 in range(6):
        z[i1] = y[i1] + 1.0
""")
    s = Schedule(k)
    name, out = s.cache_write("y", None, "l1", later_reads=False)
    assert [f.name for f in loops(s.kernel)] == ["i", out, "i1"]
    assert "z[i1] = y[i1]" in str(s.kernel)
    assert_same(k, s.kernel)
    both = Schedule(k)
    both.cache_write("y", None, "l1")
    assert f"z[i1] = {name}[i1]" in str(both.kernel)
