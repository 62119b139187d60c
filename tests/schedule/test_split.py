from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import If, LoopKind, find_loop, walk
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

COPY = "def copy(a: i32[{n}], b: i32[{n}]):\n    for i in range({lo}, {hi}, {step}):\n        b[i] = a[i] + b[i]"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(0, 20), st.integers(1, 3), st.integers(1, 9), st.sampled_from(["guard", "peel", "clip"]))
def test_every_extent_and_factor(lo: int, hi: int, step: int, factor: int, tail: str) -> None:
    kernel = kernel_of(COPY.format(n=20, lo=lo, hi=hi, step=step))
    sch = Schedule(kernel)
    sch.split("i", factor, tail=tail)
    assert_same(kernel, sch.kernel)


def test_exact_split_has_no_guard() -> None:
    kernel = kernel_of(COPY.format(n=20, lo=2, hi=20, step=1))
    sch = Schedule(kernel)
    assert sch.split("i", 6) == ("io", "ii")
    assert not any(isinstance(s, If) for s in walk(sch.kernel.body))
    assert_same(kernel, sch.kernel)


def test_peeled_tail_has_its_own_names() -> None:
    sch = Schedule(NESTS["gemm"])
    assert sch.split("i", 4, tail="peel") == ("io", "ii", "it")
    assert {"j", "j_1", "k", "k_1"} <= {s.name for s in walk(sch.kernel.body) if hasattr(s, "var")}


@pytest.mark.parametrize("size", range(7))
@pytest.mark.parametrize("tail", ["guard", "peel", "clip"])
def test_triangular_and_symbolic_loops(tail: str, size: int) -> None:
    kernel = NESTS["cholesky"]
    sch = Schedule(kernel)
    sch.split("j", 3, tail=tail)
    sch.split("k", 2, tail=tail)
    assert_same(kernel, sch.kernel, {"N": size})


def test_clipped_tiles_have_no_guard_and_no_second_copy() -> None:
    kernel = kernel_of(COPY.format(n=20, lo=0, hi=20, step=1))
    sch = Schedule(kernel)
    sch.split("i", 8, tail="clip")
    sch.split("ii", 3, tail="clip")
    assert not any(isinstance(s, If) for s in walk(sch.kernel.body))
    assert str(find_loop(sch.kernel, "iii").hi) == "min(3, min(8, 20 - io * 8) - iio * 3)"
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize("tail", ["peel", "clip"])
def test_bounds_that_cross_do_not_run_the_tail(tail: str) -> None:
    kernel = kernel_of("def f(a: i32[9]):\n    for i in range(9):\n        for j in range(i + 5, 9):\n            a[j] += 1")
    sch = Schedule(kernel)
    sch.split("j", 4, tail=tail)  # at i = 8, j would run from 13 to 9
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize("size", range(9))
def test_aligned_tiles(size: int) -> None:
    kernel = NESTS["lu_right"]
    sch = Schedule(kernel)
    sch.split("j", 3, tail="guard", align=True)
    assert_same(kernel, sch.kernel, {"N": size})
    with pytest.raises(ScheduleError, match="align needs tail='guard'"):
        sch.split("i", 3, tail="peel", align=True)


def test_bounds_that_the_body_overwrites_are_not_read_again() -> None:
    text = "def f(n: i32[1], a: i32[9]):\n    for i in range(index(n[0])):\n        {0}[0] = 9"
    with pytest.raises(ScheduleError, match="reads n, which its body writes"):
        Schedule(kernel_of(text.format("n"))).split("i", 2, tail="guard")
    Schedule(kernel_of(text.format("a"))).split("i", 2, tail="guard")


def test_names_in_use_and_words_of_the_language_are_avoided() -> None:
    kernel = kernel_of("def f(io: i32[8]):\n    for i in range(8):\n        io[i] = 1")
    assert Schedule(kernel).split("i", 2) == ("io_1", "ii")


def test_kinds_are_inherited_where_they_still_hold() -> None:
    sch = Schedule(kernel_of(COPY.format(n=20, lo=0, hi=20, step=1)))
    sch.vectorize("i")
    sch.split("i", 4)
    assert find_loop(sch.kernel, "io").kind is LoopKind.SERIAL
    assert find_loop(sch.kernel, "ii").kind is LoopKind.VECTOR
    sch.parallel("io")
    sch.split("io", 5)
    assert find_loop(sch.kernel, "ioo").kind is LoopKind.PARALLEL
    assert find_loop(sch.kernel, "ioi").kind is LoopKind.SERIAL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("i", 7), "split i: its extent 20 is not a multiple of 7"),
        (("i", 0), "factor 0 is not an int >= 1"),
        (("i", -2), "factor -2"),
        (("i", 4, "round"), "unknown tail 'round'"),
        (("x", 4), "no loop 'x'"),
    ],
)
def test_refusals(arguments: tuple[object, ...], message: str) -> None:
    sch = Schedule(kernel_of(COPY.format(n=20, lo=0, hi=20, step=1)))
    before = sch.kernel
    with pytest.raises(ScheduleError, match=message):
        sch.split(*arguments)
    assert sch.kernel is before
    assert len(sch.trace) == 0


def test_symbolic_extent_is_not_split_exactly() -> None:
    with pytest.raises(ScheduleError, match="N is not known to be a multiple of 4") as e:
        Schedule(NESTS["gemm"]).split("i", 4)
    assert "guard" in str(e.value)
