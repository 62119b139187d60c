"""Random legal programs: the functional model against the element-by-element one, all memories compared."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tests.sim.naive import Naive
from tests.sim.programs import BASE, CONFIGURATION, DIM, SIZE, Programs

from tilewright.sim.gemmini import Functional, MainMemory, isa


def compare(seed: int) -> list[isa.Command]:
    program = Programs(seed).program()
    memory = MainMemory(SIZE, BASE)
    memory.data[:] = np.frombuffer(random.Random(seed).randbytes(SIZE), np.uint8)
    naive = Naive(DIM, CONFIGURATION.spad_rows, CONFIGURATION.acc_rows, bytearray(memory.data.tobytes()), BASE)
    model = Functional(CONFIGURATION, memory)
    model.run(program)
    naive.run(program)
    listing = "\n".join(map(str, program))
    assert memory.data.tobytes() == bytes(naive.memory), listing
    assert model.spad.tolist() == naive.spad, listing
    assert model.acc.tolist() == naive.acc, listing
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


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("hundred", range(100))
def test_ten_thousand_random_programs(hundred: int) -> None:
    for seed in range(1000 + 100 * hundred, 1100 + 100 * hundred):
        compare(seed)
