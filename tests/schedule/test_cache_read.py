from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.hw import load_machine
from tilewright.ir.buffer import Layout
from tilewright.ir.stmt import all_buffers
from tilewright.lang import parse
from tilewright.schedule import Schedule
from tilewright.util.errors import IRTypeError, MachineError, ScheduleError

GEMM = """
def gemm(a: f64[11, 7], b: f64[7, 13], c: f64[11, 13]):
    for i in range(11):
        for j in range(13):
            for k in range(7):
                c[i, j] += a[i, k] * b[k, j]
"""
BLUR = """
def blur(x: f64[19], y: f64[19]):
    for i in range(19):
        y[i] = where(i >= 1, x[i - 1], 0.0) + x[i] + where(i < 18, x[i + 1], 0.0)
"""


@pytest.mark.parametrize("loop", [None, "i", "j", "k"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("buffer", ["a", "b"])
def test_any_level_of_a_product(loop: str | None, padded: bool, buffer: str) -> None:
    k = kernel_of(GEMM)
    s = Schedule(k)
    s.cache_read(buffer, loop, "l1", padded=padded)
    assert_same(k, s.kernel)
    assert parse(str(s.kernel)) == s.kernel


def test_packed_copy_is_padded_to_whole_blocks() -> None:
    k = kernel_of(GEMM)
    s = Schedule(k)
    name, *loops = s.cache_read("b", None, "dram", "1/8 0 1", padded=True)
    new = next(b for b in all_buffers(s.kernel) if b.name == name)
    assert (new.static_shape, new.layout, len(loops)) == ((7, 16), Layout.parse("1/8 0 1"), 2)
    assert_same(k, s.kernel)


@pytest.mark.parametrize("tail", ["guard", "peel"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_window_with_halo_at_the_borders(tail: str, padded: bool) -> None:
    k = kernel_of(BLUR)
    s = Schedule(k)
    outer = s.split("i", 4, tail)[0]
    name = s.cache_read("x", outer, "l1", padded=padded)[0]
    new = next(b for b in all_buffers(s.kernel) if b.name == name)
    assert new.static_shape == (6,)
    assert_same(k, s.kernel)


def test_only_the_region_of_one_iteration_is_kept() -> None:
    s = Schedule(kernel_of(GEMM))
    io, _ = s.split("i", 4, "guard")
    name = s.cache_read("a", io, "l1")[0]
    assert next(b for b in all_buffers(s.kernel) if b.name == name).static_shape == (4, 7)


def test_data_dependent_indices_copy_the_whole_dimension() -> None:
    k = kernel_of("""
def gather(table: f64[9, 4], at: i32[5], y: f64[5, 4]):
    for i in range(5):
        for j in range(4):
            y[i, j] = table[min(max(at[i], 0), 8), j]
""")
    s = Schedule(k)
    name = s.cache_read("table", "j", "l1")[0]
    assert next(b for b in all_buffers(s.kernel) if b.name == name).static_shape == (9, 1)
    assert_same(k, s.kernel)


def test_symbolic_sizes() -> None:
    k = kernel_of("""
@kernel(params=("N",))
def f(x: f64[N], y: f64[N]):
    for i in range(N):
        y[i] = x[i] * x[N - 1 - i]
""")
    s = Schedule(k)
    s.cache_read("x", None, "l1")
    assert_same(k, s.kernel, {"N": 7})


def test_writes_before_the_first_read_are_seen() -> None:
    k = kernel_of("""
def f(x: f64[8], y: f64[8]):
    for i in range(8):
        x[i] = x[i] + 1.0
    for j in range(8):
        y[j] = x[j] * x[7 - j]
""")
    s = Schedule(k)
    s.cache_read("x", "j", "l1")
    assert_same(k, s.kernel)
    with pytest.raises(ScheduleError, match="writes the buffer where the copy would be read"):
        s.cache_read("x", None, "l1")


def test_a_condition_that_bounds_a_loop_by_itself() -> None:
    """i < 2 + i // 2 says nothing of i that can be said without it."""
    k = kernel_of("""
def f(x: i32[8], y: i32[8]):
    for i in range(8):
        if i < 2 + i // 2:
            y[i] = x[i]
""")
    s = Schedule(k)
    copy = s.apply("cache_read", "x", None, "l1")[0]
    assert next(b for b in all_buffers(s.kernel) if b.name == copy).static_shape == (3,)
    assert_same(k, s.kernel)


def test_refusals() -> None:
    s = Schedule(kernel_of(GEMM), load_machine("x86.avx512"))
    before = s.kernel
    with pytest.raises(ScheduleError, match="loop 'z'"):
        s.cache_read("a", "z", "l1")
    with pytest.raises(ScheduleError, match="does not use it"):
        s.cache_read("q", "i", "l1")
    with pytest.raises(ScheduleError, match=r"cache_read c, k: .* writes the buffer"):
        s.cache_read("c", "k", "l1")
    with pytest.raises(MachineError, match="no memory 'l7'"):
        s.cache_read("a", "i", "l7")
    with pytest.raises(IRTypeError, match="dimension 0"):
        s.cache_read("a", "i", "l1", "1")
    big = Schedule(kernel_of("def f(x: f32[9999], y: f32[9999]):\n    for i in range(9999):\n        y[i] = x[i]"), s.machine)
    with pytest.raises(ScheduleError, match="takes 39996 bytes"):
        big.cache_read("x", None, "reg")
    assert s.kernel is before
