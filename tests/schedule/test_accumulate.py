from __future__ import annotations

import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.schedule import Schedule
from tilewright.util.errors import ScheduleError


@pytest.mark.parametrize("update", ["c[i, j] += a[i, k] * b[k, j]", "c[i, j] = max(c[i, j], a[i, k])", "c[i, 0] += a[i, k] - b[k, j]"])
def test_old_contents_are_combined_once(update: str) -> None:
    kernel = kernel_of(f"""
def f(a: i32[5, 7], b: i32[7, 4], c: i32[5, 4]):
    for i in range(5):
        for j in range(4):
            for k in range(7):
                {update}
""")
    sch = Schedule(kernel)
    partial, *roots = sch.accumulate("i")
    assert len(roots) == 3
    assert partial == "c_part"
    assert_same(kernel, sch.kernel)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("c[i] = a[i, k]", "not in a perfect nest around one reduction"),
        ("c[i] += a[i, k] * c[k]", "reads c"),
        ("c[i] += 1.5", "order of the updates"),
    ],
)
def test_refusals(body: str, message: str) -> None:
    kernel = kernel_of(f"def f(a: i32[5, 5], c: i32[5]):\n    for i in range(5):\n        for k in range(5):\n            {body}")
    sch = Schedule(kernel)
    with pytest.raises(ScheduleError, match=message):
        sch.accumulate("i")
    assert sch.kernel is kernel
