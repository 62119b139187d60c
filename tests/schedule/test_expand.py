from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.hw import load_machine
from tilewright.ir.stmt import allocated
from tilewright.lang import parse
from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError

DOT = kernel_of("""
def dot(a: i32[5, 7], b: i32[7, 4], c: i32[5, 4]):
    for i in range(5):
        for j in range(4):
            s: i32 = 0
            for k in range(7):
                s += a[i, k] * b[k, j]
            c[i, j] = s + 1
""")


def test_scalar_expansion_lets_fission_pass() -> None:
    sch = Schedule(DOT)
    with pytest.raises(ScheduleError, match="allocated in the first part"):
        sch.fission("j", 3)
    assert sch.expand("s", "j") == "s"
    assert sch.expand("s", "i") == "s"
    assert allocated(sch.kernel)[0].static_shape == (5, 4)
    sch.fission("j", 2)
    assert_same(DOT, sch.kernel)


def test_localize_undoes_it() -> None:
    sch = Schedule(DOT)
    sch.expand("s", "j")
    sch.localize("s", "j")
    assert allocated(sch.kernel)[0].static_shape == (1,)
    assert_same(DOT, sch.kernel)


def test_steps_and_offsets() -> None:
    kernel = kernel_of("""
def f(x: i32[20], y: i32[20]):
    for i in range(3, 20, 4):
        t = alloc(i32[2])
        t[0] = x[i]
        t[1] = x[i] * 2
        y[i] = t[0] + t[1]
""")
    sch = Schedule(kernel)
    sch.expand("t", "i")
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize(
    ("text", "buffer", "loop", "message"),
    [
        (None, "c", "j", "does not declare c"),
        (None, "s", "i", "does not declare s"),
        (None, "s", "nowhere", "no loop"),
        (
            "def f(y: i32[9]):\n    for i in range(9):\n        t = alloc(i32[i + 1])\n        t[i] = 1\n        y[i] = t[i]",
            "t",
            "i",
            "depends on i",
        ),
    ],
)
def test_refusals(text: str | None, buffer: str, loop: str, message: str) -> None:
    sch = Schedule(kernel_of(text) if text else DOT)
    before = sch.kernel
    with pytest.raises(ScheduleError, match=message):
        sch.expand(buffer, loop)
    assert sch.kernel is before


@pytest.mark.parametrize("first", [3, 5, 7])
def test_places_are_counted_from_the_first_iteration(first: int) -> None:
    kernel = kernel_of(f"""
def f(x: i32[20], y: i32[20]):
    for i in range({first}, 20, 4):
        t = alloc(i32[1])
        t[0] = x[i]
        y[i] = t[0]
""")
    sch = Schedule(kernel)
    sch.expand("t", "i")
    assert allocated(sch.kernel)[0].static_shape[0] == len(range(first, 20, 4))
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('for i in range(8):\n        t = alloc(i32[8], layout="0/4 0")\n        t[0] = x[0]', "it has a layout"),
        ("for i in range(0, n[0]):\n        t = alloc(i32[8])\n        t[0] = x[0]", "number of iterations is not known"),
        ("for i in vector(8):\n        t = alloc(i32[8])\n        t[0] = x[0]", "number of iterations is not known"),
    ],
)
def test_buffers_that_cannot_be_expanded(text: str, message: str) -> None:
    kernel = kernel_of(f"def f(x: i32[5], n: i64[1]):\n    {text}")
    with pytest.raises(ScheduleError, match=message):
        Schedule(kernel).expand("t", "i")


def test_buffers_of_calls_stay() -> None:
    kernel = parse(
        """
@kernel
def f(a: f32[6], b: f32[6, 8], c: f32[6, 8]):
    for i in range(6):
        t = alloc(f32[8])
        for j in range(8):
            t[j] = 0.0
        fma(t[0:8], a[i], b[i, 0:8])
        for j_1 in range(8):
            c[i, j_1] = t[j_1]
""",
        fma=load_machine("x86.avx2").instruction("fma"),
    )
    with pytest.raises(ScheduleError, match="it is passed to a call"):
        Schedule(kernel).expand("t", "i")
