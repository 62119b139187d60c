"""An instruction at smaller extents computes the corner of what it computes at its largest."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.hw import Instruction, load_machine
from tilewright.hw.library.gemmini import gemmini
from tilewright.ir.interpreter import interpret

FLEXIBLE = [
    load_machine("x86.avx2").instruction("fma_outer"),
    load_machine("x86.amx").instruction("tdpbssd"),
    gemmini("small", dim=4).instruction("matmul"),
    gemmini("small", dim=4).instruction("mvin"),
]


@hs.composite
def uses(draw: hs.DrawFn) -> tuple[Instruction, dict[str, int]]:
    i = draw(hs.sampled_from(FLEXIBLE))
    accepted = {a.name: [n for n in range(1, min(a.extent, 6) + 1) if a.rule.accepts(n)] or [a.extent] for a in i.axes}
    return i, {name: draw(hs.sampled_from(ns)) for name, ns in accepted.items()}


@settings(max_examples=30, deadline=None)
@given(uses(), hs.integers(0, 2**32 - 1))
def test_partial_use_equals_the_corner_of_zero_padded_full_use(use: tuple[Instruction, dict[str, int]], seed: int) -> None:
    i, extents = use
    rng = np.random.default_rng(seed)
    small = i.kernel_for(extents)
    part = {b.name: rng.integers(-4, 5, b.static_shape).astype(b.dtype.to_numpy()) for b in small.args}
    full = {}
    for b in i.kernel.args:
        full[b.name] = np.zeros(b.static_shape, b.dtype.to_numpy())
        full[b.name][tuple(slice(n) for n in part[b.name].shape)] = part[b.name]
    interpret(small, part)
    interpret(i.kernel, full)
    out = i.operands[0].name
    np.testing.assert_array_equal(part[out], full[out][tuple(slice(n) for n in part[out].shape)])
