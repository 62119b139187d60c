from __future__ import annotations

import time

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import Kernel, allocated, loops
from tilewright.lang import parse
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

#: A matrix product with an element-wise epilogue, through a local buffer or in place.
PRODUCT = """
def gemm(a: f64[37, 23], b: f64[23, 29], bias: f64[29], {arg}: f64[37, 29]):
    {alloc}
    for i in range(37):
        for j in range(29):
            c[i, j] = 0.0
    for i1 in range(37):
        for j1 in range(29):
            for k in range(23):
                c[i1, j1] += a[i1, k] * b[k, j1]
    for i2 in range(37):
        for j2 in range(29):
            {arg}[i2, j2] = max(c[i2, j2] + bias[j2], 3.0)
"""
CONV = """
def conv(x: f64[3, 9, 11], w: f64[5, 3, 3, 3], bias: f64[5], y: f64[5, 9, 11]):
    xp = alloc(f64[3, 11, 13])
    acc = alloc(f64[5, 9, 11])
    for c in range(3):
        for h in range(11):
            for v in range(13):
                xp[c, h, v] = where(h >= 1 and h < 10 and v >= 1 and v < 12, x[c, h - 1, v - 1], 0.0)
    for k in range(5):
        for p in range(9):
            for q in range(11):
                acc[k, p, q] = 0.0
    for k1 in range(5):
        for p1 in range(9):
            for q1 in range(11):
                for c1 in range(3):
                    for r in range(3):
                        for s in range(3):
                            acc[k1, p1, q1] += xp[c1, p1 + r, q1 + s] * w[k1, c1, r, s]
    for k2 in range(5):
        for p2 in range(9):
            for q2 in range(11):
                y[k2, p2, q2] = max(acc[k2, p2, q2] + bias[k2], 0.0)
"""


def product(in_place: bool) -> Kernel:
    local = "pass" if in_place else "c = alloc(f64[37, 29])"
    return kernel_of(PRODUCT.format(arg="c" if in_place else "y", alloc=local).replace("    pass\n", ""))


def tiled(k: Kernel, tail: str) -> tuple[Schedule, list[str]]:
    """The epilogue in 8 x 16 tiles; the loops over tiles."""
    s = Schedule(k)
    j = s.split("j2", 16, tail)
    i = s.split("i2", 8, tail)
    if tail == "guard":
        s.reorder(i[0], j[0], i[1], j[1])
        return s, [j[0]]
    return s, [i[0], i[2]]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("tail", ["guard", "peel"])
def test_reduction_moves_into_the_tiles_of_its_epilogue(in_place: bool, tail: str) -> None:
    k = product(in_place)
    s, at = tiled(k, tail)
    s.compute_at("c", at)
    assert_same(k, s.kernel)
    assert parse(str(s.kernel)) == s.kernel
    shapes = [b.static_shape for b in allocated(s.kernel)]
    assert shapes == ([] if in_place else [(8, 16)] if tail == "guard" else [(8, 29), (1, 29)])


@pytest.mark.parametrize("loop", ["i2", "j2"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shrink", [False, True])
def test_any_loop_of_the_consumer(loop: str, in_place: bool, shrink: bool) -> None:
    k = product(in_place)
    s = Schedule(k)
    assert s.compute_at("i1", loop, shrink=shrink) == ("i", "i1")
    assert_same(k, s.kernel)


def test_a_chain_of_stages_with_halo() -> None:
    k = kernel_of(CONV)
    s = Schedule(k)
    po, pi = s.split("p2", 4, "guard")
    qo, qi = s.split("q2", 3, "guard")
    s.reorder("k2", po, qo, pi, qi)
    s.compute_at("acc", qo)
    s.compute_at("xp", qo)
    assert [b.static_shape for b in allocated(s.kernel)] == [(3, 6, 5), (1, 4, 3)]
    assert_same(k, s.kernel)


def test_register_tile_product_end_to_end() -> None:
    k = product(in_place=False)
    s, (at,) = tiled(k, "guard")
    s.compute_at("c", at)
    s.set_memory("c", "reg")
    s.reorder("k", "i1", "j1")
    s.cache_read("b", None, "dram", "1/16 0 1", padded=True)
    s.peel("i2o")
    s.simplify()
    s.unroll("i")
    assert "min" not in str(s.kernel).split("for i2ol")[0].replace("min(29", "")
    assert_same(k, s.kernel)


def test_register_tile_product_with_cached_accumulators() -> None:
    k = product(in_place=True)
    s, (at,) = tiled(k, "guard")
    s.compute_at("c", at)
    s.cache_write("c", at, "reg")
    packed = s.cache_read("b", None, "dram", "1/16 0 1", padded=True)[0]
    s.reorder("k", "i1", "j1")
    s.cache_read(packed, "k", "reg")
    s.vectorize("j1", 4)
    s.parallel("i2o")
    assert_same(k, s.kernel)


def test_convolution_register_tile_with_packing() -> None:
    k = kernel_of(CONV)
    s = Schedule(k)
    s.inline("xp")
    ko, ki = s.split("k2", 4, "guard")
    qo, qi = s.split("q2", 3, "guard")
    s.reorder(ko, "p2", qo, ki, qi)
    s.compute_at("acc", qo)
    s.set_memory("acc", "reg")
    s.reorder("c1", "r", "s", "k1", "p1", "q1")
    s.cache_read("w", ko, "l1", "0/4 1 2 3 0", padded=True)
    s.cache_read("x", "p2", "l1", padded=True)
    s.parallel(ko)
    assert_same(k, s.kernel)


def test_triangular_consumers_and_producers() -> None:
    k = kernel_of("""
def f(x: f64[9], y: f64[9, 9]):
    t = alloc(f64[9, 9])
    for i in range(9):
        for j in range(i + 1):
            t[i, j] = x[i] * x[j]
    for i1 in range(9):
        for j1 in range(i1 + 1):
            y[i1, j1] = t[i1, j1] + t[i1, i1]
""")
    for loop in ("i1", "j1"):
        s = Schedule(k)
        s.compute_at("t", loop)
        assert_same(k, s.kernel)


def test_rows_computed_at_a_constant_index_are_guarded() -> None:
    k = kernel_of("""
def f(x: f64[4], y: f64[4]):
    t = alloc(f64[4])
    for i in range(3):
        t[i] = x[i]
    t[3] = x[0] * 2.0
    for j in range(4):
        y[j] = t[j]
""")
    s = Schedule(k)
    assert s.compute_at("t", "j") == "i"
    assert allocated(s.kernel)[0].static_shape == (1,)
    assert_same(k, s.kernel)


def test_symbolic_sizes() -> None:
    k = kernel_of("""
@kernel(params=("N",))
def f(x: f64[N], y: f64[N]):
    t = alloc(f64[N])
    for i in range(N):
        t[i] = x[i] * 2.0
    for j in range(N):
        y[j] = t[j] + 1.0
""")
    s = Schedule(k)
    jo, _ = s.split("j", 4, "guard")
    s.compute_at("t", jo)
    assert allocated(s.kernel)[0].static_shape == (4,)
    for n in (0, 1, 7, 8):
        assert_same(k, s.kernel, {"N": n})


def test_parallel_loops_need_disjoint_regions_or_their_own_tile() -> None:
    text = """
def f(x: f64[12], t: f64[12], y: f64[10]):
    for i in range(12):
        t[i] = x[i] * 2.0
    for j in {kind}(10):
        y[j] = t[j] + t[j + 1] + t[j + 2]
"""
    k = kernel_of(text.format(kind="parallel"))
    with pytest.raises(ScheduleError, match=r"iterations .[01]. and .[01]. of the loop need the same element of t"):
        Schedule(k).compute_at("t", "j")
    serial = kernel_of(text.format(kind="range"))
    s = Schedule(serial)
    s.compute_at("t", "j")
    assert_same(serial, s.kernel)
    local = kernel_of(
        text.format(kind="parallel").replace(", t: f64[12]", "").replace("    for i in", "    t = alloc(f64[12])\n    for i in")
    )
    s = Schedule(local)
    s.compute_at("t", "j")
    assert_same(local, s.kernel)


REFUSED = {
    "an argument element would be lost": (
        """
def f(x: f64[9], t: f64[9], y: f64[7]):
    for i in range(9):
        t[i] = x[i] * 2.0
    for j in range(7):
        y[j] = t[j]
""",
        "t",
        "j",
        r"element t\[[78]\] is computed by the stage but needed by no iteration",
    ),
    "accumulation into live contents twice": (
        """
def f(x: f64[9], t: f64[9], y: f64[8]):
    for i in range(9):
        t[i] += x[i]
    for j in range(8):
        y[j] = t[j] + t[j + 1]
""",
        "t",
        "j",
        "may only be computed once",
    ),
    "elements that depend on each other": (
        """
def f(x: f64[9], y: f64[9]):
    t = alloc(f64[9])
    for z in range(1):
        t[0] = x[0]
    for i in range(1, 9):
        t[i] = t[i - 1] + x[i]
    for j in range(9):
        y[j] = t[j]
""",
        "t",
        "j",
        r"t\[i\] is computed from t\[i - 1\]",
    ),
    "an input that changes on the way": (
        """
def f(x: f64[9], y: f64[9]):
    t = alloc(f64[9])
    for i in range(9):
        t[i] = x[i]
    for j in range(9):
        x[j] = t[8 - j]
""",
        "t",
        "j",
        "the stage reads x, which 'for j in range.9.:' writes",
    ),
    "another use on the way": (
        """
def f(x: f64[9], y: f64[9], z: f64[9]):
    t = alloc(f64[9])
    for i in range(9):
        t[i] = x[i]
    for h in range(9):
        z[h] = t[h]
    for j in range(9):
        y[j] = t[j]
""",
        "t",
        "j",
        "'for h in range.9.:' uses t before",
    ),
    "a use outside the loop": (
        """
def f(x: f64[9], y: f64[9], z: f64[9]):
    t = alloc(f64[9])
    for i in range(9):
        t[i] = x[i]
    for h in range(9):
        z[h] = t[h]
        for j in range(9):
            y[j] = t[j]
""",
        "t",
        "j",
        "uses t outside the loop",
    ),
    "iterations that change what others need": (
        """
def f(x: f64[9], t: f64[9]):
    for i in range(9):
        t[i] = x[i]
    for j in range(8):
        t[j] = t[j + 1] * 2.0
""",
        "t",
        "j",
        "may only be computed once|needed by no iteration",
    ),
    "a temporary shared by elements": (
        """
def f(x: f64[9], y: f64[9]):
    t = alloc(f64[9])
    for w in range(1):
        s = alloc(f64)
        s = 0.0
        for i in range(9):
            s += x[i]
            t[i] = s
    for j in range(9):
        y[j] = t[j]
""",
        "t",
        "j",
        "the temporary s is declared outside its loop i",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    text, stage, loop, message = REFUSED[case]
    s = Schedule(kernel_of(text))
    before = s.kernel
    with pytest.raises(ScheduleError, match=message):
        s.compute_at(stage, loop)
    assert s.kernel is before


def test_unknown_names() -> None:
    s = Schedule(product(in_place=False))
    with pytest.raises(ScheduleError, match="no loop or buffer 'zz'"):
        s.compute_at("zz", "i2")
    with pytest.raises(ScheduleError, match="no loop 'zz'"):
        s.compute_at("c", "zz")
    with pytest.raises(ScheduleError, match="nothing before the loop"):
        s.compute_at("c", "i")


def test_milliseconds() -> None:
    s, at = tiled(product(in_place=True), "guard")
    best = 1.0
    for _ in range(5):
        copy = s.copy()
        start = time.perf_counter()
        copy.compute_at("c", at)
        best = min(best, time.perf_counter() - start)
    assert best < 0.05
    assert [f.name for f in loops(copy.kernel)][:2] == ["i2o", "j2o"]


def test_loops_that_may_never_run_cannot_be_the_only_place() -> None:
    """What is computed for the loop inside the while is also needed after it."""
    kernel = kernel_of("""
def f(x: i32[5], n: i32[1]):
    t = alloc(i32[5])
    for i in range(5):
        t[i] = x[i]
    while n[0] < 5:
        n[0] += 1
        for j in range(5):
            n[0] += t[j]
    for k in range(5):
        x[k] += t[k]
""")
    with pytest.raises(ScheduleError, match="which iterations of j run is not an affine condition"):
        Schedule(kernel).compute_at("t", "j")


def test_two_consumers_must_not_both_compute_what_one_changes() -> None:
    kernel = kernel_of("""
def f(x: i32[8], y: i32[8]):
    t = alloc(i32[8])
    for i in range(8):
        t[i] = x[i]
    for j in range(8):
        t[j] = t[j] + 1
        y[j] = t[j]
    for k in range(8):
        y[k] += t[k]
""")
    with pytest.raises(ScheduleError, match="iterations of j and of k of the loop need the same element of t"):
        Schedule(kernel).compute_at("t", ["j", "k"])
