from __future__ import annotations

import pytest
from tests.schedule.nests import NESTS
from tests.schedule.programs import assert_same, kernel_of

from tilewright.ir.stmt import LoopKind, find_loop
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


def test_all_lanes_at_once() -> None:
    kernel = kernel_of(
        "def f(a: i32[4, 16], b: i32[16]):\n    for i in range(4):\n        for j in range(16):\n            a[i, j] += b[j]"
    )
    sch = Schedule(kernel)
    assert sch.vectorize("j") == "j"
    assert find_loop(sch.kernel, "j").kind is LoopKind.VECTOR
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize("size", range(10))
def test_width_peels_the_rest(size: int) -> None:
    kernel = NESTS["trmm"]
    sch = Schedule(kernel)
    assert sch.vectorize("k", 4) == ("ko", "ki", "kt")
    assert find_loop(sch.kernel, "ki").kind is LoopKind.VECTOR
    assert_same(kernel, sch.kernel, {"N": size})


def test_reductions_are_allowed_in_lanes() -> None:
    kernel = kernel_of("def dot(a: i32[16], b: i32[16], c: i32[1]):\n    for k in range(16):\n        c[0] += a[k] * b[k]")
    sch = Schedule(kernel)
    sch.vectorize("k", 8)
    assert_same(kernel, sch.kernel)


def test_updates_of_shared_elements_are_not() -> None:
    text = "def f(a: i32[16], c: i32[16]):\n    for k in range(16):\n        c[{0}] += a[k]"
    Schedule(kernel_of(text.format("k"))).vectorize("k")
    with pytest.raises(ScheduleError, match=r"vectorize k: iterations \(k=0\) and \(k=1\) both update c\[0\]"):
        Schedule(kernel_of(text.format("k // 2"))).vectorize("k")
    with pytest.raises(ScheduleError, match="both update c"):
        Schedule(kernel_of(text.format("index(a[k])"))).vectorize("k")


def test_scatter_that_meets_only_across_inner_iterations() -> None:
    kernel = kernel_of(
        "def f(a: i32[8], w: i32[3], c: i32[10]):\n    for i in range(8):\n        for r in range(3):\n            c[i + r] += a[i] * w[r]"
    )
    sch = Schedule(kernel)
    sch.vectorize("i")
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "a[i] = a[i - 1] + 1",
            r"vectorize i: iteration \(i=1\) must run before \(i=2\) because of a: the first writes a\[1\], the second reads it",
        ),
        ("a[i] = a[i - 1] + a[i + 1]", "because of a"),
        ("s[0] = a[i]", "because of s: the first writes s.0., the second writes it"),
        ("for j in range(i):\n            a[j + 16] = 1", r"the range of the inner loop j, range\(i\), differs between lanes"),
        ("while a[i] < 3:\n            a[i] += 1", "a while loop, which has no lanes"),
    ],
)
def test_refusals(body: str, message: str) -> None:
    kernel = kernel_of(f"def f(a: i32[40], s: i32[1]):\n    for i in range(1, 16):\n        {body}")
    with pytest.raises(ScheduleError, match=message):
        Schedule(kernel).vectorize("i")


def test_symbolic_extent_needs_a_width() -> None:
    with pytest.raises(ScheduleError, match="extent N is not a positive constant") as e:
        Schedule(NESTS["gemm"]).vectorize("j")
    assert "give the width" in str(e.value)


def test_calls_have_no_lanes() -> None:
    text = "@kernel\ndef g(x: i32[1]):\n    x[0] = 1\n\n@kernel\ndef f(a: i32[8]):\n    for i in range(8):\n        g(a[i:i + 1])"
    with pytest.raises(ScheduleError, match="a call of g, which has no lanes"):
        Schedule(kernel_of(text)).vectorize("i")


def test_vector_loops_do_not_nest() -> None:
    kernel = kernel_of("def f(a: i32[8, 4]):\n    for i in range(8):\n        for j in range(4):\n            a[i, j] += 1")
    sch = Schedule(kernel)
    sch.vectorize("j")
    with pytest.raises(ScheduleError, match="vectorize i: j, inside it, runs in lanes already") as e:
        sch.vectorize("i")
    assert "fuse i and j first" in str(e.value)
    other = Schedule(kernel)
    other.vectorize("i")
    with pytest.raises(ScheduleError, match="vectorize j: i, around it"):
        other.vectorize("j")
    other = Schedule(kernel)
    other.vectorize(other.fuse("i", "j"))
    assert_same(kernel, other.kernel)
