"""Instructions that sum groups of steps in each lane: chosen by default, exact on odd shapes, left out where they do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from tests.space.test_space import verify

from tilewright import lang
from tilewright.codegen.llvm import compile_ir, emit
from tilewright.hw import Machine, instruction, load_machine
from tilewright.hw.axis import axes, vector
from tilewright.hw.constraint import require, stride
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import DType, bf16, f32, i8, i16, i32, u8
from tilewright.space.space import Space

#: Memories of the instruction below; its annotations are declarations, not Python types.
REG, L1 = "reg", "l1"


def matmul(m: int, n: int, k: int, types: tuple[DType, DType, DType], transposed: bool = False) -> Kernel:
    a, b = lang.tensor("a", types[0], (m, k)), lang.tensor("b", types[1], (n, k) if transposed else (k, n))
    r, wide = lang.reduce_axis(0, k, "k"), types[2]

    def product(i: ex.Var, j: ex.Var) -> ex.Expr:
        return lang.sum(ex.cast(a[i, r], wide) * ex.cast(b[j, r] if transposed else b[r, j], wide), [r])

    return lang.build("matmul", [a, b], [lang.compute("c", (m, n), product, dtype=wide)])


def conv(channels: int, size: int, out: int, kernel: int, step: int, types: tuple[DType, DType, DType]) -> Kernel:
    pad, wide = kernel // 2, types[2]
    x, w = lang.tensor("x", types[0], (2, channels, size, size)), lang.tensor("w", types[1], (out, channels, kernel, kernel))

    def bordered(n: ex.Var, c: ex.Var, i: ex.Var, j: ex.Var) -> ex.Expr:
        inside = (i >= pad) & (i < size + pad) & (j >= pad) & (j < size + pad)
        return ex.where(inside, x[n, c, i - pad, j - pad], ex.const(0, types[0]))

    y = lang.compute("xp", (2, channels, size + 2 * pad, size + 2 * pad), bordered, dtype=types[0]) if pad else x
    c, r, s = (lang.reduce_axis(0, e, name) for name, e in (("c", channels), ("r", kernel), ("s", kernel)))
    places = (size + 2 * pad - kernel) // step + 1

    def product(n: ex.Var, o: ex.Var, p: ex.Var, q: ex.Var) -> ex.Expr:
        return lang.sum(ex.cast(y[n, c, p * step + r, q * step + s], wide) * ex.cast(w[o, c, r, s], wide), [c, r, s])

    return lang.build("conv", [x, w], [lang.compute("y", (2, out, places, places), product, dtype=wide)])


BYTES = (u8, i8, i32)
KERNELS = {
    "bytes": (matmul(37, 83, 71, BYTES), ()),
    "bytes, constant": (matmul(33, 48, 64, BYTES), ("b",)),
    "bytes, transposed": (matmul(150, 40, 67, BYTES, transposed=True), ()),
    "bf16": (matmul(33, 50, 63, (bf16, bf16, f32)), ("b",)),
    "signed bytes": (matmul(37, 51, 70, (i8, i8, i32)), ()),
    "signed conv": (conv(9, 9, 33, 3, 1, (i8, i8, i32)), ("w",)),
    "conv": (conv(18, 9, 36, 3, 1, BYTES), ("w",)),
    "conv, dynamic weights": (conv(20, 9, 32, 3, 2, BYTES), ()),
    "pointwise conv": (conv(24, 7, 40, 1, 1, BYTES), ("w",)),
}


def calls(kernel: Kernel) -> set[str]:
    return {s.kernel.name for s in st.walk(kernel.body) if isinstance(s, st.Call)}


@pytest.fixture(scope="module")
def host() -> Machine:
    found = Machine.host()
    if not {"dpbusd", "dpbf16ps"} <= {i.name for i in found.instructions}:
        pytest.skip("this CPU has no dot products of bytes or bfloats")
    return found


@pytest.mark.parametrize("name", KERNELS)
def test_the_default_uses_the_instruction(name: str) -> None:
    kernel, constants = KERNELS[name]
    machine = load_machine("x86.zen4")
    space = Space(kernel, machine, 1, constants)
    plan = space.plan(space.default())
    wanted = "dpbf16ps" if name == "bf16" else "dpbusd"
    assert not plan.refused
    assert calls(plan.schedule.kernel) == {wanted}
    assert any(wanted in d.mapping for d in plan.decisions)
    text = str(compile_ir(emit(plan.schedule.kernel, machine).text, machine.target, emit="asm"))
    assert ("vdpbf16ps" if name == "bf16" else "vpdpbusd") in text
    if name != "bf16":  # its semantics rounds once more than f32 sums
        same(kernel, plan.schedule.kernel)


def same(kernel: Kernel, scheduled: Kernel) -> None:
    """Both kernels give the same bits in NumPy."""
    rng = np.random.default_rng(0)
    values = {}
    for b in kernel.args:
        low, high = b.dtype.range if b.dtype.bits == 8 else (-100, 100)
        values[b.name] = rng.integers(low, high, b.static_shape).astype(f"{'' if b.dtype.signed else 'u'}int{b.dtype.bits}")
    mine = {n: v.copy() for n, v in values.items()}
    reference(kernel, values)
    reference(scheduled, mine)
    out = kernel.args[-1].name
    np.testing.assert_array_equal(values[out], mine[out])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", KERNELS)
def test_sampled_points_with_the_instruction(host: Machine, name: str, threads: int) -> None:
    kernel, constants = KERNELS[name]
    space = Space(kernel, host, threads, constants)
    rng = np.random.default_rng(sum(map(ord, name)))
    drawn = space.sample(200, rng)
    points = np.array([p for p in drawn if " dp" in space.sketch(p).name])[:2]
    assert len(points) == 2
    verify(space, points)
    assert all(calls(space.schedule(p).kernel) for p in points)
    assert np.isfinite(space.estimate(points)).all() and np.isfinite(space.features(points)).all()


def test_products_of_signed_bytes_are_moved_to_unsigned_ones() -> None:
    """The instruction wants one unsigned operand: either may be moved by 128, and what that adds is taken off the sums."""
    space = Space(matmul(64, 64, 64, (i8, i8, i32)), load_machine("x86.vnni"), 1)
    names = {s.name.split(";")[0] for s in space.sketches}
    assert {"a recentred", "b recentred"} <= names and any(n.startswith("c: ") for n in names)
    trace = space.trace(space.default())
    assert "recenter" in str(trace) and "dpbusd" in str(trace)


@pytest.mark.parametrize(
    ("kernel", "constant"),
    [(matmul(256, 256, 256, BYTES), "b"), (conv(64, 28, 64, 3, 1, BYTES), "w"), (conv(64, 28, 128, 1, 1, BYTES), "w")],
)
def test_plain_multiply_adds_stay_beside_and_are_estimated_slower(kernel: Kernel, constant: str) -> None:
    space = Space(kernel, load_machine("x86.vnni"), 1, (constant,))
    best: dict[str, float] = {}
    points = space.sample(2000, np.random.default_rng(0))
    for p, seconds in zip(points, space.estimate(points), strict=True):
        kind = "dot" if "dpbusd" in space.sketch(p).name else "plain"
        best[kind] = min(best.get(kind, 1.0), seconds)
    assert best["dot"] < 0.6 * best["plain"]


@instruction(latency=4, per_cycle=1)
def pairs(c: i32[8] @ REG, a: i16[2] @ L1, b: i16[2, 8] @ REG):  # type: ignore[valid-type, no-untyped-def]
    k, j = axes(2, vector(8))
    require(stride(a, 0) == 1)
    c[j] += a[k] * b[k, j]


@pytest.mark.parametrize("transposed", [False, True])
def test_any_declared_instruction_of_this_kind(transposed: bool) -> None:
    """Another machine, pairs of 16-bit numbers, steps before lanes in its operand: no code knows its name."""
    base = load_machine("x86.avx2")
    machine = base.derive(name="toy", instructions=[*base.instructions, pairs])
    kernel = matmul(40 if transposed else 9, 27, 13, (i16, i16, i32), transposed)  # a copy that pays
    space = Space(kernel, machine, 1)
    schedule = space.schedule(space.default())
    assert calls(schedule.kernel) == {"pairs"}
    same(kernel, schedule.kernel)
    for point in [p for p in space.sample(60, np.random.default_rng(1)) if "pairs" in space.sketch(p).name][:3]:
        same(kernel, space.schedule(point).kernel)


@pytest.mark.parametrize(
    ("kernel", "machine"),
    [
        (matmul(32, 32, 32, BYTES), "x86.avx512"),  # not declared there
        (matmul(32, 32, 32, (i8, i8, i16)), "x86.vnni"),  # sums wrap earlier than the instruction's
        (matmul(32, 32, 32, (i16, i8, i32)), "x86.vnni"),  # elements of two bytes
        (matmul(32, 15, 32, BYTES), "x86.vnni"),  # rows shorter than a register
        (matmul(32, 32, 3, BYTES), "x86.vnni"),  # fewer steps than a group
        (conv(3, 8, 16, 3, 1, BYTES), "x86.vnni"),  # groups would span two loops
    ],
)
def test_where_it_does_not_fit_nothing_changes(kernel: Kernel, machine: str) -> None:
    space = Space(kernel, load_machine(machine), 1)
    assert not any(" dp" in s.name for s in space.sketches)
    assert not calls(space.schedule(space.default()).kernel)
