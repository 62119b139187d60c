"""Tensor descriptors made by the host: the same programs take them, in place of arrays from which programs make their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.lang.block.agreement import agree
from tests.lang.block.test_tutorials import attend, attention

import tilewright as triton
import tilewright.language as tl
from tilewright.tools.tensor_descriptor import TensorDescriptor
from tilewright.util.errors import RuntimeFailure, TilewrightError


@triton.jit
def scaled(from_desc, to_desc, factor, B: tl.constexpr):
    at = [tl.program_id(0) * B, tl.program_id(1) * B]
    to_desc.store(at, from_desc.load(at) * factor)


def blocks(nargs: dict[str, Any]) -> None:
    """What a configuration of a public kernel does before the launch."""
    for name in ("from_desc", "to_desc"):
        nargs[name].block_shape = [nargs["B"], nargs["B"]]


tuned = triton.autotune([triton.Config({"B": b}, pre_hook=blocks) for b in (8, 16)], key=[])(scaled)


@pytest.mark.parametrize("stage", [1, 3])
def test_attention_of_the_hosts_descriptors(stage: int) -> None:
    program, grid, named, outputs = attention("descriptors", 2, 96, stage)
    arrays = {x: named[x] for x in ("desc_q", "desc_k", "desc_v", "desc_o")}
    for name, x in arrays.items():
        named[name] = TensorDescriptor.from_tensor(x.reshape(-1, 16), [32 if name in ("desc_q", "desc_o") else 16, 16])
    agree(program, grid, named, outputs, 1e-2)
    want, _ = attend(*(arrays[x] for x in ("desc_q", "desc_k", "desc_v")), stage == 3)
    np.testing.assert_allclose(arrays["desc_o"], want, atol=4e-3)


def test_a_part_of_an_array() -> None:
    """Shape and strides are the descriptor's: columns 0 to 9 of rows of 12."""
    x, out = np.arange(84, dtype=np.float32).reshape(7, 12), np.full((7, 12), -1, np.float32)
    parts = [TensorDescriptor(a, [7, 10], [12, 1], [8, 8]) for a in (x, out)]
    agree(scaled, (1, 2), {"from_desc": parts[0], "to_desc": parts[1], "factor": 2.0, "B": 8}, ["to_desc"])
    np.testing.assert_array_equal(out[:, :10], 2 * x[:, :10])
    assert (out[:, 10:] == -1).all()


def test_configurations_set_the_blocks() -> None:
    x, out = np.random.default_rng(0).standard_normal((20, 20), np.float32), np.zeros((20, 20), np.float32)
    made = [TensorDescriptor.from_tensor(a, [1, 1]) for a in (x, out)]
    tuned[lambda meta: (triton.cdiv(20, meta["B"]),) * 2](*made, 3.0)
    np.testing.assert_array_equal(out, 3 * x)
    assert made[0].block_shape in ([8, 8], [16, 16])
    assert len(scaled.launches) >= 2, "each configuration was read with blocks of its own"


X = np.zeros((6, 8), np.float32)


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (lambda: TensorDescriptor.from_tensor(X, [4]), "have 2, 2 and 1 entries", ""),
        (lambda: TensorDescriptor.from_tensor(X, [3, 4]), "not a power of two", "next_power_of_2"),
        (lambda: TensorDescriptor.from_tensor(X.T, [4, 4]), "the last stride of [1, 8] is not 1", "ascontiguousarray"),
        (lambda: TensorDescriptor(X, [7, 8], [8, 1], [4, 4]), "needs 56 elements, its array has 48", ""),
        (lambda: TensorDescriptor.from_tensor(X, [4, 4], padding="nan"), "padding 'nan' is not supported", "zero"),
        (lambda: TensorDescriptor.from_tensor(3, [4]), "it is no array", "NumPy"),
    ],
)
def test_descriptors_that_are_none(make: Any, message: str, hint: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        make()
    assert message in str(caught.value) and hint in (caught.value.hint or "")


def test_descriptors_are_checked_again_at_the_launch() -> None:
    d = TensorDescriptor.from_tensor(X, [4, 4])
    d.block_shape = [4, 5]
    with pytest.raises(TilewrightError, match="not a power of two"):
        scaled[(1, 1)](d, d, 1.0, B=4)


def test_pointers_are_no_descriptors() -> None:
    with pytest.raises(TilewrightError, match="is no tensor descriptor and has no store"):
        scaled[(1, 1)](X, X, 1.0, B=4)
