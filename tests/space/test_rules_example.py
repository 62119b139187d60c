"""The example of docs/write_a_rule.md runs, and what it makes is right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilewright.ir.interpreter import interpret

GUIDE = Path(__file__).parents[2] / "docs" / "write_a_rule.md"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S):
        exec(compile(code, str(GUIDE), "exec"), names)
    return names


def test_the_rule_of_the_guide_makes_right_schedules(example: dict[str, Any]) -> None:
    space = example["space"]
    assert space.sketches[0].name == "blocks"
    points = space.sample(400, np.random.default_rng(1))
    x = np.random.default_rng(0).standard_normal((512, 384), dtype=np.float32)
    point = points[points[:, 0] == 0][0]
    y = np.zeros((384, 512), np.float32)
    interpret(space.schedule(point).kernel, [x, y])
    np.testing.assert_array_equal(y, x.T)


def test_its_constraint_bounds_the_blocks(example: dict[str, Any]) -> None:
    """Blocks divide 512 and 384; two of 8 bytes an element pair fit half of 32 KiB up to 32 x 32."""
    space = example["space"]
    blocks = [p[1] for p in space.enumerate(100) if p[0] == 0]
    assert blocks == [1, 2, 4, 8, 16, 32]


def test_it_stands_aside_for_other_kernels(example: dict[str, Any]) -> None:
    from benchmarks.workloads import gemm

    from tilewright.space import Context

    context = Context.of(gemm(8, 8, 8).kernel(), example["machine"], 1, ())
    assert list(example["blocked_transposition"](context)) == []
