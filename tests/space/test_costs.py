"""Costs of a space's sketches: shared and bounded formulas say what the plain ones of each program say."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import pytest
from benchmarks.workloads import batched, conv, gemm, softmax
from tests.space.test_epilogue import convolution
from tests.space.test_rules_tensors import matmul

from tilewright.cost.columns import COLUMN, PLAIN
from tilewright.cost.estimate import estimate
from tilewright.cost.features import features
from tilewright.hw import load_machine
from tilewright.ir import stmt as st
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import DType, f16, f32, i8, i32
from tilewright.space import Space

MACHINE = load_machine("x86.avx512")
KERNELS: dict[str, Callable[[], Kernel]] = {
    "gemm": gemm(97, 200, 300).kernel,
    "large gemm": gemm(1024, 1024, 1024).kernel,
    "batched": batched(3, 50, 30, 40).kernel,
    "conv": conv("3x3", 28, 32, 64).kernel,
    "softmax": softmax(64, 200).kernel,
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", KERNELS)
def test_formulas_of_a_space_agree_with_those_of_each_program(name: str, threads: int) -> None:
    space = Space(KERNELS[name](), MACHINE, threads)
    points = space.sample(200, np.random.default_rng(0))
    seconds, columns = space.estimate(points), space.features(points)
    for s, rows in space.groups(points):
        env, program = space.environment(s, points[rows]), space.sketches[s].program
        assert seconds[rows] == pytest.approx(estimate(program, MACHINE, env, threads), rel=1e-9)
        alone = features(program, MACHINE, env)
        assert np.allclose(columns[rows, : alone.shape[1]], alone, atol=1e-4)
        assert not columns[rows, alone.shape[1] :].any()
    together, spent = space.predict(points)
    assert np.array_equal(together, columns)
    assert spent == pytest.approx(seconds, rel=1e-9)


def test_points_of_all_sketches_together_cost_what_each_program_says() -> None:
    """Bit for bit, however few points a program has, and whichever sketches were asked for before."""
    space = Space(convolution(14, 32, 48), MACHINE, 2)
    points = space.sample(100, np.random.default_rng(1))
    assert any(s.structural for s in space.sketches)
    few = space.estimate(points[:3])
    seconds, columns = space.estimate(points), space.features(points)
    assert np.array_equal(seconds[:3], few)
    assert np.array_equal(space.predict(points)[0], columns)
    for s, rows in space.groups(points):
        env = space.environment(s, points[rows])
        structural = [k.name for k in space.sketches[s].structural]
        for n, row in enumerate(rows):
            variant = tuple(int(env[k][n]) for k in structural)
            (cycles,) = space.costs.tape(s, variant)({k: v[n : n + 1] for k, v in env.items()})
            assert seconds[row] == cycles[0] / MACHINE.clock_hz
        assert np.array_equal(space.costs.seconds(s, env), seconds[rows])
        alone = space.features(points[rows])
        assert np.array_equal(alone, columns[rows, : alone.shape[1]])


@pytest.mark.parametrize(
    ("name", "types"), [("gemmini", (i8, i32)), ("cuda.sm80", (f16, f32)), ("virtual.pointwise", (f32, f32))], ids=lambda x: str(x)
)
def test_instruction_columns_are_of_the_instruction_that_the_schedule_calls(name: str, types: tuple[DType, DType]) -> None:
    """On machines without vectors programs write its loops; operands, tile and types are compared with the declaration."""
    machine = load_machine(name)
    space = Space(matmul(64, 64, 64, *types), machine)
    points = space.sample(6, np.random.default_rng(0))
    columns, seconds = space.predict(points)
    assert seconds == pytest.approx(space.estimate(points), rel=1e-9)
    for point, rows in zip(points, columns, strict=True):
        called = {s.kernel.instruction for s in st.walk(space.schedule(point).kernel.body) if isinstance(s, st.Call)}
        (instruction,) = (i for i in machine.instructions if i.kernel.instruction in called and any(a.kind == "reduction" for a in i.axes))
        (row,) = rows[rows[:, COLUMN["instruction"]] == 1]

        def value(column: str, row: np.ndarray = row) -> float:
            v = float(row[COLUMN[column]])
            return v if column in PLAIN else round(2**v - 1, 2)

        assert value("instruction_result") == prod(a.extent for a in instruction.axes if a.kind != "reduction")
        assert value("instruction_sum") == prod(a.extent for a in instruction.axes if a.kind == "reduction")
        result, *sources = sorted(instruction.operands, key=lambda o: o.role == "in")
        assert value("instruction_bits_out") == result.dtype.bits and value("instruction_bits_in") == max(o.dtype.bits for o in sources)
        levels = [(machine.memory(o.memory), prod(o.shape), o.dtype.bits) for o in instruction.operands]
        expected = sorted((m.level, machine.memory(m.parent).level if m.parent else m.level, tile, bits) for m, tile, bits in levels)
        assert sorted(tuple(value(f"operand{n}_{c}") for c in ("level", "parent_level", "tile", "bits")) for n in range(3)) == expected
