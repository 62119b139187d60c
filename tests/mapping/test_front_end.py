"""Nests written in the kernel language map like built ones."""

from __future__ import annotations

import numpy as np

from tilewright.ir.stmt import Kernel
from tilewright.lang import parse
from tilewright.mapping import find_mappings, operator_of

TEXT = """
@kernel
def layer(x: i32[2, 3, 6], w: i32[4, 3, 3], b: i32[4], y: i32[2, 4, 4]):
    for n in range(2):
        for k in range(4):
            for q in range(4):
                y[n, k, q] = b[k]
    for n in range(2):
        for k in range(4):
            for q in range(4):
                for c in range(3):
                    for s in range(3):
                        y[n, k, q] += x[n, c, q + s] * w[k, c, s]
    for n in range(2):
        for k in range(4):
            for q in range(4):
                y[n, k, q] = max(y[n, k, q], 0)
"""


def test_convolution_between_bias_and_relu(shapes, run):
    kernel = parse(TEXT)
    assert isinstance(kernel, Kernel)
    op = operator_of(kernel)  # the only reduction nest
    assert [i.kind for i in op.iterations] == ["spatial"] * 3 + ["reduction"] * 2
    direct = run(kernel)["y"]
    found = find_mappings(op, shapes["mma"])
    assert len(found) == 9
    for m in found:
        lowered = m.lower()
        assert parse(str(lowered), mma=shapes["mma"]) == lowered
        assert np.array_equal(run(lowered)["y"], direct), str(m)
