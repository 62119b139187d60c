from __future__ import annotations

import numpy as np
import pytest
from tests.schedule.programs import assert_same, kernel_of

from tilewright.hw import load_machine
from tilewright.hw.machine import Machine
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Call, walk
from tilewright.schedule import Schedule, replay
from tilewright.util.errors import MachineError, ScheduleError

GEMM = """
def gemm(a: f32[28, 23], b: f32[23, 64], c: f32[28, 64]):
    for i in range(28):
        for j in range(64):
            for k in range(23):
                c[i, j] += a[i, k] * b[k, j]
"""


@pytest.fixture(scope="module")
def machine() -> Machine:
    return load_machine("x86.avx512")


def calls(s: Schedule) -> list[Call]:
    return [t for t in walk(s.kernel.body) if isinstance(t, Call)]


def same_floats(s: Schedule, original) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    args = [rng.uniform(-1, 1, b.static_shape).astype("f4") for b in original.args]
    expected, found = [x.copy() for x in args], [x.copy() for x in args]
    interpret(original, expected)
    interpret(s.kernel, found)
    for want, got in zip(expected, found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def tiled(machine: Machine, rows: int, columns: int, text: str = GEMM) -> tuple[Schedule, str]:
    """The product in register tiles; the loop over the rows of a tile."""
    s = Schedule(kernel_of(text), machine)
    io, ii = s.split("i", rows)
    jo, ji = s.split("j", columns)
    s.reorder(io, jo, "k", ii, ji)
    s.cache_write("c", jo, "reg")
    s.cache_read("b", "k", "reg")
    return s, ii


@pytest.mark.parametrize(("rows", "columns"), [(14, 32), (7, 32), (4, 16), (1, 16)])
def test_outer_product(machine: Machine, rows: int, columns: int) -> None:
    s, loop = tiled(machine, rows, columns)
    s.tensorize(loop, "fma_outer")
    (call,) = calls(s)
    assert call.kernel.instruction == "x86.avx512/fma_outer"
    assert str(call.args[0]) == f"c_reg[:{rows}, :{columns}]"
    same_floats(s, kernel_of(GEMM))


def test_columns_before_rows(machine: Machine) -> None:
    s, loop = tiled(machine, 14, 32)
    s.reorder("ji", loop)
    s.tensorize("ji", "fma_outer")
    same_floats(s, kernel_of(GEMM))


def test_one_row_of_lanes(machine: Machine) -> None:
    s, _ = tiled(machine, 4, 16)
    s.tensorize("ji", "fma")
    assert str(calls(s)[0].args[1]) == "a[io * 4 + ii, k]"
    same_floats(s, kernel_of(GEMM))


def test_operands_may_be_written_in_either_order(machine: Machine) -> None:
    text = GEMM.replace("a[i, k] * b[k, j]", "b[k, j] * a[i, k]")
    s, loop = tiled(machine, 14, 32, text)
    s.tensorize(loop, "fma_outer")
    same_floats(s, kernel_of(GEMM))


def test_integer_dot_product_of_packed_bytes() -> None:
    text = """
def dot(a: u8[3, 12], b: i8[3, 16, 4], c: i32[3, 16]):
    for i in range(3):
        for ko in range(3):
            for j in range(16):
                for ki in range(4):
                    c[i, j] += i32(a[i, ko * 4 + ki]) * i32(b[ko, j, ki])
"""
    k = kernel_of(text)
    s = Schedule(k, load_machine("x86.vnni"))
    s.cache_write("c", "i", "reg")
    s.cache_read("b", "ko", "reg")
    s.tensorize("j", "dpbusd")
    assert calls(s)
    assert_same(k, s.kernel)


def refused(s: Schedule, loop: str, instruction: str, message: str) -> None:
    before = s.kernel
    with pytest.raises(ScheduleError, match=message):
        s.tensorize(loop, instruction)
    assert s.kernel is before


def test_wrong_extents(machine: Machine) -> None:
    s, loop = tiled(machine, 28, 16)
    refused(s, loop, "fma_outer", r"axis i takes upto\(14\) iterations, loop ii runs 28")
    s, loop = tiled(machine, 14, 8)
    refused(s, loop, "fma_outer", r"axis j takes step\(16, 32\) iterations, loop ji runs 8")
    refused(s, loop, "fma", "the nest has 2 loops, the instruction 1")


def test_wrong_memory(machine: Machine) -> None:
    s = Schedule(kernel_of(GEMM), machine)
    s.split("j", 16)
    s.reorder("i", "jo", "k", "ji")
    refused(s, "ji", "fma", "operand c must be in reg, but c is in dram")


def test_wrong_access(machine: Machine) -> None:
    s, _ = tiled(machine, 1, 16, GEMM.replace("b[k, j]", "b[k, 63 - j]"))
    refused(s, "ji", "fma", r"b_reg\[.*\] does not move like operand b\[j\]")


def test_wrong_arithmetic_type_and_reduction(machine: Machine) -> None:
    s, _ = tiled(machine, 1, 16, GEMM.replace("* b", "+ b"))
    refused(s, "ji", "fma", "the nest computes")
    s, _ = tiled(machine, 1, 16, GEMM.replace("f32", "f64"))
    refused(s, "ji", "fma", r"\(f64\) where the instruction computes .* \(f32\)")
    s, _ = tiled(machine, 1, 16, GEMM.replace("c[i, j] += a[i, k] * b[k, j]", "c[i, j] = max(c[i, j], a[i, k] * b[k, j])"))
    refused(s, "ji", "fma", "stores with 'max=', the instruction with '[+]='")


def test_unproven_requirement(machine: Machine) -> None:
    s, _ = tiled(machine, 4, 16, GEMM.replace("c[i, j]", "c[j, i]").replace("c: f32[28, 64]", "c: f32[64, 28]"))
    refused(s, "ji", "fma", r"it demands require\(stride\(c, 0\) == 1\), which is not proven")


def test_guards_and_several_statements(machine: Machine) -> None:
    s = Schedule(kernel_of(GEMM), machine)
    s.split("j", 24, "guard")
    refused(s, "ji", "fma", "not loops around one store")


def test_data_that_may_saturate() -> None:
    text = """
def dot(a: u8[4], b: i8[16, 4], c: i32[16]):
    for one in range(1):
        for j in range(16):
            for k in range(4):
                c[j] += i32(a[k]) * i32(b[j, k])
"""
    s = Schedule(kernel_of(text), load_machine("x86.avx512"))
    s.cache_write("c", "one", "reg")
    s.cache_read("b", "one", "reg")
    assert s.machine is not None
    with pytest.raises(ScheduleError, match="maddubs"):
        s.tensorize("j", "maddubs")


def test_no_machine_no_instruction(machine: Machine) -> None:
    refused(Schedule(kernel_of(GEMM)), "j", "fma", "the schedule has no machine")
    s, loop = tiled(machine, 14, 32)
    with pytest.raises(MachineError, match="no instruction 'mul'"):
        s.tensorize(loop, "mul")


def test_aliased_operands(machine: Machine) -> None:
    text = """
def f(c: f32[32], a: f32[1]):
    for one in range(1):
        for j in range(16):
            c[j] += a[0] * c[j + 16]
"""
    s = Schedule(kernel_of(text), machine)
    s.cache_write("c", "one", "reg")
    refused(s, "j", "fma", "c_reg is written and is also operand b")


def test_a_layer_from_loops_to_instructions(machine: Machine) -> None:
    """Product, bias and relu: register tiles, packed weights, main tiles by the instruction, tails by loops."""
    k = kernel_of("""
def layer(a: f32[37, 23], b: f32[23, 45], bias: f32[45], c: f32[37, 45]):
    for i in range(37):
        for j in range(45):
            c[i, j] = 0.0
    for i1 in range(37):
        for j1 in range(45):
            for k in range(23):
                c[i1, j1] += a[i1, k] * b[k, j1]
    for i2 in range(37):
        for j2 in range(45):
            c[i2, j2] = max(c[i2, j2] + bias[j2], 0.0)
""")
    s = Schedule(k, machine)
    packed, *_ = s.cache_read("b", None, "dram", "1/32 0 1", padded=True)
    jo, ji = s.split("j2", 32, "guard")
    io, ii = s.split("i2", 14, "guard")
    s.reorder(io, jo, ii, ji)
    s.compute_at("c", jo)
    s.cache_write("c", jo, "reg")
    s.reorder("k", "i1", "j1")
    s.peel(io)
    s.peel(jo)
    s.simplify(tighten=True)
    s.cache_read(packed, "k", "reg")
    s.tensorize("i1", "fma_outer")
    s.parallel(io)
    assert [str(w.spans[0].extent.value) for w in calls(s)[0].args] == ["14", "14", "32"]  # type: ignore[attr-defined]
    same_floats(s, k)
    again = replay(k, s.trace, machine)
    assert again.kernel == s.kernel


ARRAY = """
def product(a: i8[20, 40] @ "spad", b: i8[40, 24] @ "spad", c: i32[20, 24] @ "acc"):
    for i in range(20):
        for j in range(24):
            for k in range(40):
                c[i, j] += a[i, k] * b[k, j]
"""


def clipped(block: int, tile: int) -> Schedule:
    """A product in blocks that are cut into tiles, the last block and the last tile smaller."""
    sch = Schedule(kernel_of(ARRAY), load_machine("gemmini"))
    for buffer in "abc":  # rows of 16 elements
        sch.layout(buffer, "1/16 0 1")
    io, ii = sch.split("i", block, "clip")
    tiles = [sch.split(loop, tile, "clip") for loop in (ii, "j", "k")]
    sch.reorder(io, *(outer for outer, _ in tiles), *(inner for _, inner in tiles))
    sch.tensorize(tiles[0][1], "matmul")
    return sch


def test_an_axis_of_any_extent_takes_clipped_tiles() -> None:
    """The instruction is called with the extents as sizes: what they are at the end is computed there."""
    sch = clipped(12, 16)
    (call,) = calls(sch)
    assert [v.name for v in call.kernel.sizes] == ["i_n", "j_n", "k_n"]
    assert_same(kernel_of(ARRAY), sch.kernel)
    assert replay(kernel_of(ARRAY), sch.trace, load_machine("gemmini")).kernel == sch.kernel


def test_clipped_tiles_may_not_exceed_the_axis() -> None:
    with pytest.raises(ScheduleError, match=r"takes upto\(16\) iterations, loop .* runs min"):
        clipped(20, 17)
