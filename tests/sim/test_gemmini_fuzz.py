"""Random legal programs: the functional model against the element-by-element one, all memories compared."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from tests.sim.naive import Naive
from tests.sim.naive_numbers import Floats, Integers
from tests.sim.programs import BASE, CONFIGURATION, DIM, Programs

from tilewright.ir.types import DType, bf16, f16, f32, i16, i32
from tilewright.sim.gemmini import Configuration, Functional, MainMemory, isa

#: Arrays of floats, and whether random elements are plain numbers (else any bits, infinities and what is no number among them).
FLOATS = [(f32, f32), (bf16, bf16), (bf16, f32), (f16, f16), (f16, f32)]


def typed(inputs: DType, sums: DType, column_bits: int) -> Configuration:
    return replace(CONFIGURATION, inputs=inputs, sums=sums, array_bits=column_bits)


def compare(seed: int, c: Configuration = CONFIGURATION, tame: bool = False) -> list[isa.Command]:
    """``tame`` floats are small numbers of few bits, whose sums cancel and meet half way; else any bits, infinities among them."""
    drawn = Programs(seed, c)
    program = drawn.program()
    memory = MainMemory(drawn.size, BASE)
    memory.data[:] = np.frombuffer(random.Random(seed).randbytes(drawn.size), np.uint8)
    if tame:
        small = np.random.default_rng(seed).integers(-12, 13, drawn.size // c.input_bytes) * 0.125
        memory.data[:] = (
            (small.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
            if c.inputs == bf16
            else (small.astype(c.inputs.to_numpy()).view(np.uint8))
        )
    numbers = Floats(c.inputs, c.column) if c.inputs.is_float else Integers(c.inputs.bits, c.array_bits)
    naive = Naive(DIM, c.spad_rows, c.acc_rows, bytearray(memory.data.tobytes()), BASE, numbers)
    model = Functional(c, memory)
    model.run(program)
    naive.run(program)
    listing = "\n".join(map(str, program))
    assert memory.data.tobytes() == bytes(naive.memory), listing
    for mine, theirs, size in ((model.spad, naive.spad, c.input_bytes), (model.acc, naive.acc, c.acc_bytes)):
        assert mine.tobytes() == b"".join(numbers.encoded(v, size) for row in theirs for v in row), listing
    return program


def test_some_hundred_random_programs() -> None:
    drawn = [c for seed in range(300) for c in compare(seed)]
    named = {"ConfigEx", "ConfigLd", "ConfigSt", "Mvin", "Mvout", "Preload", "Compute", "LoopWs", "LoopConvWs", "Flush", "Fence"}
    assert named <= {type(c).__name__ for c in drawn} and any(c.strides_only for c in drawn if isinstance(c, isa.ConfigEx))
    loops = [c for c in drawn if isinstance(c, isa.LoopConvWs)]
    forms = ("wrot180", "trans_output_1203", "trans_weight_1203", "trans_weight_0132", "trans_input_3120", "downsample")
    forms += ("input_dilated", "depthwise")
    assert all(any(getattr(c, form) for c in loops) for form in forms) and any(not c.no_pool for c in loops)
    assert any(c.pixels > 1 for c in loops)


@pytest.mark.parametrize(("inputs", "column"), FLOATS, ids=lambda t: str(t))
@pytest.mark.parametrize("tame", [False, True], ids=["any bits", "small numbers"])
def test_random_programs_of_floats(inputs: DType, column: DType, tame: bool) -> None:
    for seed in range(12):
        compare(seed, typed(inputs, f32, column.bits), tame)


def test_random_programs_of_int16() -> None:
    for seed in range(40):
        compare(seed, typed(i16, i32, 2 * 16 + 2))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("inputs", "column"), FLOATS, ids=lambda t: str(t))
def test_a_thousand_random_programs_of_floats(inputs: DType, column: DType) -> None:
    for seed in range(100, 1100):
        compare(seed, typed(inputs, f32, column.bits), seed % 2 == 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("hundred", range(100))
def test_ten_thousand_random_programs(hundred: int) -> None:
    for seed in range(1000 + 100 * hundred, 1100 + 100 * hundred):
        compare(seed)
