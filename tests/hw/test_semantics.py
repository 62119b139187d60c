"""Every declared instruction means what an independent NumPy formula says it means."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tilewright.hw import Instruction, ValueRange, list_machines, load_machine
from tilewright.ir.interpreter import interpret
from tilewright.ir.types import DType

#: Instruction (by the name of its declaration) -> the einsum of its inputs that is added to the output.
CONTRACTIONS = {
    "fma": ",j->j",
    "fma_lanes": "j,j->j",
    "fma_outer": "i,j->ij",
    "maddubs": "k,jk->j",
    "maddubs_u7": "k,jk->j",
    "dpbusd": "k,jk->j",
    "dpbf16ps": "k,jk->j",
    "tdpbssd": "ikl,kjl->ij",
    "tdpbf16ps": "ikl,kjl->ij",
    "sdot": "jk,jk->j",
    "sdot_lane": "k,jk->j",
    "dot": "k,k->",
    "matmul": "ik,kj->ij",
    "matmul_bt": "ik,jk->ij",
    "gemm": "ik,jk->ij",
    "gemv": "ik,k->i",
    "axpy": ",i->i",
    "pointwise": "kc,cpq->kpq",
}
COPIES = ("mvin", "mvin_acc", "mvout_full", "mvout_spad", "load_inp", "load_wgt", "load_acc", "store")
#: The interpreter walks element by element: larger members of a family share their declaration with a smaller one.
LARGEST = 20_000


def smaller(i: Instruction) -> Instruction:
    """``i`` with its longest axis cut where the hardware takes any number of iterations and there are too many to walk."""
    longest = max(i.axes, key=lambda a: a.extent, default=None)
    if longest is None or i.macs <= LARGEST or longest.rule.rule != "upto":
        return i
    axes = tuple(replace(a, rule=replace(a.rule, extent=5)) if a is longest else a for a in i.axes)
    kernel = i.kernel_for({longest.name: 5})
    operands = tuple(replace(o, shape=b.static_shape) for o, b in zip(i.operands, kernel.args, strict=True))
    return replace(i, axes=axes, kernel=kernel, operands=operands)


def declarations() -> list[Instruction]:
    found = {}
    for name in list_machines():
        for i in map(smaller, load_machine(name).all_instructions):
            if i.axes and i.macs <= LARGEST:
                found.setdefault(str(i.kernel.with_(instruction=None)) + i.name, i)
    return list(found.values())


def random_operand(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...], bounds: tuple[int, int] | None) -> np.ndarray:
    if dtype.is_float:
        values = rng.standard_normal(shape).astype(np.float32)
        if dtype.kind == "bfloat":
            return (values.view(np.uint32) >> 16).astype(np.uint16).reshape(shape)
        return values.astype(dtype.to_numpy()).reshape(shape)
    lo, hi = bounds or (dtype.range if dtype.bits <= 8 else (-1000, 1000))
    return np.asarray(rng.integers(lo, hi + 1, shape), dtype.to_numpy())


def as_numbers(array: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype.kind == "bfloat":
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64 if dtype.is_float else np.int64)


def expected(i: Instruction, values: dict[str, np.ndarray]) -> np.ndarray:
    out, *inputs = (values[o.name] for o in i.operands)
    base = (i.family or i.name).removesuffix("_f64")
    base = re.sub("^mvin[23]", "mvin", base)
    if base in COPIES:
        return inputs[0]
    if base.startswith("mvout_pooled"):
        return np.maximum(out, pooled(base, i.operands[0].dtype, *inputs))
    match base:
        case "alu_add":
            return out + inputs[0]
        case "alu_max":
            return np.maximum(out, inputs[0])
        case "alu_min":
            return np.minimum(out, inputs[0])
        case "mvout" | "mvout_relu" | "mvout_scaled" | "mvout_scaled_relu":
            return leaving(base, i.operands[0].dtype, *inputs)
        case "mvin_zero":
            return np.zeros_like(out)
        case "mvin_acc_row":
            return np.broadcast_to(inputs[0], out.shape)
        case "mvin_acc_add" | "mvin_acc_shrunk_add":
            return out + inputs[0]
        case "mvin_acc_shrunk":
            return inputs[0]
        case "mvin_acc_shrunk_scaled" | "mvin_acc_shrunk_scaled_add":
            product = inputs[0].astype(np.float32) * inputs[1].astype(np.float32)
            return np.clip(np.rint(product), -128, 127) + (out if base.endswith("add") else 0)
        case "narrow":
            return inputs[0].astype(np.int8)
        case "wmma_b1":
            return out + np.bitwise_xor(inputs[0][:, :, None], inputs[1][None]).sum(1)
    spec = "ik,kj->ij" if i.family else CONTRACTIONS[base]
    return out + np.einsum(spec, *inputs)


def leaving(name: str, dtype: DType, sums: np.ndarray, scale: np.ndarray = np.float32(1)) -> np.ndarray:
    """Sums times a scale as ``dtype``: integers are rounded and limited; without what is negative where the name says so."""
    product = sums.astype(np.float32) * np.float32(scale)
    least, most = (-np.inf, np.inf) if dtype.is_float else dtype.range
    return np.clip(product if dtype.is_float else np.rint(product), 0 if name.endswith("relu") else least, most)


def pooled(name: str, dtype: DType, *inputs: np.ndarray) -> np.ndarray:
    """Rows of windows of 3 x 3, as far apart as the name says."""
    out = leaving(name, dtype, *inputs)
    seen = np.lib.stride_tricks.sliding_window_view(out, (3, 3), (0, 1))[0]
    return seen[:: int(name.removeprefix("mvout_pooled")[0])].max((-2, -1))


@pytest.mark.parametrize("i", declarations(), ids=lambda i: i.kernel.instruction)
def test_kernel_equals_numpy(i: Instruction) -> None:
    rng = np.random.default_rng(len(i.name))
    ranges = {c.operand: (c.lo, c.hi) for c in i.constraints if isinstance(c, ValueRange)}
    arrays = {o.name: random_operand(rng, o.dtype, o.shape, ranges.get(o.name)) for o in i.operands}
    want = expected(i, {o.name: as_numbers(arrays[o.name], o.dtype) for o in i.operands})
    interpret(i.kernel, arrays)
    out = i.operands[0]
    got = as_numbers(arrays[out.name], out.dtype)
    if out.dtype.is_float:
        tolerance = {16: 2e-2, 32: 1e-5, 64: 1e-12}[out.dtype.bits]
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 16)
    else:
        np.testing.assert_array_equal(got, want)


def test_every_family_has_a_member_small_enough_to_interpret() -> None:
    checked = {i.family or i.name for i in declarations()}
    for name in list_machines():
        assert {i.family or i.name for i in load_machine(name).all_instructions if i.axes} <= checked


@pytest.mark.parametrize("name", list_machines())
def test_output_comes_first_and_is_the_only_operand_written(name: str) -> None:
    for i in load_machine(name).all_instructions:
        assert [o.role for o in i.operands][1:] == ["in"] * (len(i.operands) - 1)
        if i.operands:
            assert i.operands[0].role in ("out", "inout")
