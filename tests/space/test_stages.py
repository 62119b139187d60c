"""Which nests are read as stages, and what they say about themselves."""

from __future__ import annotations

import pytest
from tests.schedule.programs import kernel_of

from tilewright.schedule import Schedule
from tilewright.space.stages import Stage, stages
from tilewright.util.errors import ScheduleError

LAYER = """
def layer(a: f32[6, 5], b: f32[5, 7], bias: f32[7], c: f32[6, 7]):
    t = alloc(f32[6, 7])
    for i in range(6):
        for j in range(7):
            t[i, j] = 0.0
    for i1 in range(6):
        for j1 in range(7):
            for k in range(5):
                t[i1, j1] += a[i1, k] * b[k, j1]
    for i2 in range(6):
        for j2 in range(7):
            c[i2, j2] = max(t[i2, j2] + bias[j2], 0.0)
"""


def of(text: str) -> list[Stage]:
    return stages(kernel_of(text))


def one(body: str, arguments: str = "a: f32[8, 8], c: f32[8]") -> Stage:
    lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
    (stage,) = of(f"def f({arguments}):\n{lines}")
    return stage


def test_a_layer_has_three_stages() -> None:
    init, update, epilogue = of(LAYER)
    assert (init.is_init, update.is_init, epilogue.is_init) == (True, False, False)
    assert (init.is_reduction, update.is_reduction, epilogue.is_reduction) == (False, True, False)
    assert update.reduction == ("k",) and update.spatial == ("i1", "j1")
    assert (update.volume, epilogue.volume) == (210, 42)
    assert update.name == "i1" and update.output.name == "t"


def test_inputs_do_not_count_the_accumulator() -> None:
    _, update, epilogue = of(LAYER)
    assert update.inputs() == {"a", "b"}
    assert epilogue.inputs() == {"t", "bias"}


def test_factors_of_a_contraction() -> None:
    _, update, epilogue = of(LAYER)
    factors = update.factors()
    assert factors is not None and [f.buffer.name for f in factors] == ["a", "b"]
    assert epilogue.factors() is None


def test_factors_look_through_casts() -> None:
    stage = one("for i in range(4):\n    for k in range(8):\n        c[i] += i32(a[i, k]) * i32(b[k])", "a: i8[4, 8], b: u8[8], c: i32[4]")
    factors = stage.factors()
    assert factors is not None and [f.buffer.name for f in factors] == ["a", "b"]


@pytest.mark.parametrize(
    "body",
    [
        "for i in range(8):\n    for j in range(i, 8):\n        c[i] += a[i, j]",  # a triangle
        "for i in range(8):\n    c[i] = 0.0\n    for j in range(8):\n        c[i] += a[i, j]",  # not perfect
        "for i in range(1, 8):\n    c[i] = a[i, 0]",  # does not start at zero
        "for i in range(0, 8, 2):\n    c[i] = a[i, 0]",  # in steps
        "for i in range(8):\n    if i < 4:\n        c[i] = a[i, 0]",  # guarded
    ],
)
def test_other_nests_are_opaque(body: str) -> None:
    stage = one(body)
    assert stage.opaque and stage.reads() == [] and not stage.is_reduction
    with pytest.raises(ScheduleError, match="no single output"):
        _ = stage.output


def test_loops_that_select_the_result_are_spatial() -> None:
    stage = one("for i in range(4):\n    for j in range(2):\n        for k in range(8):\n            c[i * 2 + j] += a[i, k]")
    assert stage.spatial == ("i", "j") and stage.reduction == ("k",)


def test_an_update_without_reduction_is_none() -> None:
    assert not one("for i in range(8):\n    c[i] += a[i, 0]").is_reduction


def test_scheduled_stages_say_so() -> None:
    s = Schedule(kernel_of(LAYER))
    s.vectorize("j")
    assert [x.is_scheduled for x in stages(s.kernel)] == [True, False, False]


def test_reads_are_listed_once() -> None:
    stage = one("for i in range(8):\n    c[i] = a[i, 0] * a[i, 0] + a[0, i]")
    assert [(r.buffer.name, r.stride("i")) for r in stage.reads()] == [("a", 8), ("a", 1)]
