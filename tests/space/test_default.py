"""What the default schedule does to typical kernels, and that it never gives up on one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.ir.arguments import random_arguments
from tests.schedule.programs import kernel_of
from tests.space.programs import Generator

from tilewright.hw import Machine, load_machine
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, Var
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Alloc, Call, For, Kernel, LoopKind, Store, all_buffers, allocated, walk, written_buffers
from tilewright.ir.verify import verify
from tilewright.lang import Tensor, build, compute, einsum, parse, reduce_axis, tensor
from tilewright.lang import max as largest
from tilewright.lang import sum as total
from tilewright.schedule import replay
from tilewright.space.default import default_schedule, plan
from tilewright.space.prepare import prepared
from tilewright.util.errors import IRTypeError

TOY = Path(__file__).parents[2] / "examples" / "toy_accelerator.py"


@pytest.fixture(scope="module")
def avx512() -> Machine:
    return load_machine("x86.avx512")


def gemm(m: int = 64, n: int = 96, k: int = 80, spec: str = "ik,kj->ij") -> Kernel:
    extent = {"i": m, "j": n, "k": k}
    a, b = (tensor(name, ty.f32, [extent[c] for c in term]) for name, term in zip("ab", spec.partition("->")[0].split(","), strict=True))
    return build("gemm", [a, b], [einsum(spec, a, b, name="c")])


def convolution(channels: int, groups: int = 1, size: int = 16, last: bool = False) -> Kernel:
    """3x3 without padding, ``channels`` in and out."""
    each = channels // groups
    x = tensor("x", ty.f32, (1, size, size, channels) if last else (1, channels, size, size))
    w = tensor("w", ty.f32, (channels, each, 3, 3))
    c, r, s = (reduce_axis(0, n, name) for n, name in ((each, "c"), (3, "r"), (3, "s")))

    def at(n: Var, k: Var, p: Var, q: Var) -> object:
        channel = c if groups == 1 else k + c if each == 1 else k // each * each + c
        return total((x[n, p + r, q + s, channel] if last else x[n, channel, p + r, q + s]) * w[k, c, r, s], [c, r, s])

    if last:
        y = compute("y", (1, size - 2, size - 2, channels), lambda n, p, q, k: at(n, k, p, q))
    else:
        y = compute("y", (1, channels, size - 2, size - 2), lambda n, k, p, q: at(n, k, p, q))
    return build("conv", [x, w], [y])


def softmax(rows: int = 6, columns: int = 100) -> Kernel:
    x = tensor("x", ty.f32, (rows, columns))
    a, b = reduce_axis(0, columns, "a"), reduce_axis(0, columns, "b")
    top = compute("top", (rows,), lambda i: largest(x[i, a], a))
    e = compute("e", (rows, columns), lambda i, j: ex.intrinsic("exp", x[i, j] - top[i]))
    s = compute("s", (rows,), lambda i: total(e[i, b], b))
    return build("softmax", [x], [compute("y", (rows, columns), lambda i, j: e[i, j] / s[i])])


def updates(kernel: Kernel) -> list[tuple[list[For], Store]]:
    """Reduction stores with the loops around them, outermost first."""
    found: list[tuple[list[For], Store]] = []
    for s in walk(kernel.body):
        if isinstance(s, Store) and s.op is not None:
            around = [f for f in walk(kernel.body) if isinstance(f, For) and any(t is s for t in walk(f))]
            found.append((around, s))
    return found


# --- contractions -------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["ik,kj->ij", "ik,jk->ij", "ki,kj->ij", "ki,jk->ij"])
def test_products_accumulate_in_registers(avx512: Machine, spec: str) -> None:
    k = default_schedule(gemm(spec=spec), avx512).kernel
    main, store = updates(k)[0]
    assert store.buffer.memory == "reg"
    assert [f.kind for f in main[-3:]] == [LoopKind.SERIAL, LoopKind.UNROLL, LoopKind.VECTOR]
    assert main[-3].name.startswith("k"), "the reduction runs inside the tile, around rows and lanes"
    assert store.buffer.nbytes <= 32 * 64


def test_operands_across_memory_are_packed_once(avx512: Machine) -> None:
    """B^T is walked against its rows: it is copied into panels before the product."""
    k = default_schedule(gemm(spec="ik,jk->ij"), avx512).kernel
    panels = [b for b in all_buffers(k) if b.layout is not None and b.memory == "dram"]
    assert len(panels) == 1
    loads = {ld.buffer.name for _, s in updates(k) for ld in ex.loads(s.value)}
    assert panels[0].name in loads


def test_constants_change_their_layout_instead(avx512: Machine) -> None:
    k = default_schedule(gemm(spec="ik,jk->ij"), avx512, constants=["b"]).kernel
    assert next(b for b in k.args if b.name == "b").layout is not None
    assert not [s for s in walk(k.body) if isinstance(s, Alloc) and s.buffer.memory != "reg"]


def test_epilogues_run_on_the_tile(avx512: Machine) -> None:
    a, b, bias = tensor("a", ty.f32, (64, 32)), tensor("b", ty.f32, (32, 48)), tensor("bias", ty.f32, (48,))
    c = einsum("ik,kj->ij", a, b, name="c")
    y = compute("y", (64, 48), lambda i, j: ex.binary("max", c[i, j] + bias[j], 0.0))
    k = default_schedule(build("layer", [a, b, bias], [y]), avx512).kernel
    assert all(s.buffer.memory == "reg" for s in walk(k.body) if isinstance(s, Alloc))
    stored = [s for s in walk(k.body) if isinstance(s, Store) and s.buffer.name == "y"]
    assert len(stored) <= 2  # main and tail rows: no nest of its own for the epilogue
    assert all({ld.buffer.memory for ld in ex.loads(s.value) if ld.buffer.name != "bias"} == {"reg"} for s in stored)


def test_values_read_by_several_stages_are_tiled(avx512: Machine) -> None:
    a, b = tensor("a", ty.f32, (64, 32)), tensor("b", ty.f32, (32, 48))
    c = einsum("ik,kj->ij", a, b, name="c")
    y = compute("y", (64, 48), lambda i, j: c[i, j] + 1.0)
    z = compute("z", (48, 64), lambda i, j: c[j, i])
    k = default_schedule(build("two", [a, b], [y, z]), avx512).kernel
    assert all(s.buffer.memory == "reg" for _, s in updates(k))


def test_two_threads_share_the_tiles(avx512: Machine) -> None:
    assert not [f for f in walk(default_schedule(gemm(256, 256, 256), avx512, threads=1).kernel.body) if _parallel(f)]
    k = default_schedule(gemm(256, 256, 256), avx512, threads=2).kernel
    assert [f for f in k.body.stmts if _parallel(f)]


def _parallel(s: object) -> bool:
    return isinstance(s, For) and s.kind is LoopKind.PARALLEL


# --- convolutions -------------------------------------------------------------------------------


def lanes_of(kernel: Kernel, dimension: int) -> bool:
    """Whether the lanes of every reduction walk that dimension of the result."""
    return all(
        ex.free_vars(s.indices[dimension]) & {around[-1].name} for around, s in updates(kernel) if around[-1].kind is LoopKind.VECTOR
    )


def test_channels_last_keeps_channels_on_the_lanes(avx512: Machine) -> None:
    k = default_schedule(convolution(32, last=True), avx512, constants=["w"]).kernel
    assert updates(k) and lanes_of(k, 3)
    assert all(s.buffer.memory == "reg" for _, s in updates(k))


def test_depthwise_channels_last(avx512: Machine) -> None:
    k = default_schedule(convolution(32, groups=32, last=True), avx512, constants=["w"]).kernel
    assert updates(k) and lanes_of(k, 3)


@pytest.mark.parametrize(("channels", "groups"), [(32, 32), (32, 8), (32, 2)])
def test_groups_are_tiled_like_dense_convolutions(avx512: Machine, channels: int, groups: int) -> None:
    found = plan(convolution(channels, groups), avx512, constants=["w"])
    assert found.refused == ()
    assert updates(found.schedule.kernel)
    assert all(s.buffer.memory == "reg" for _, s in updates(found.schedule.kernel))


def test_pooling_runs_along_memory(avx512: Machine) -> None:
    x = tensor("x", ty.f32, (1, 32, 30, 30))
    r, s = reduce_axis(0, 2, "r"), reduce_axis(0, 2, "s")
    y = compute("y", (1, 32, 15, 15), lambda n, c, p, q: largest(x[n, c, 2 * p + r, 2 * q + s], [r, s]))
    assert lanes_of(default_schedule(build("pool", [x], [y]), avx512).kernel, 3)


# --- rows ---------------------------------------------------------------------------------------


def test_softmax_finishes_a_row_before_the_next(avx512: Machine) -> None:
    k = default_schedule(softmax(), avx512).kernel
    (row,) = [s for s in k.body.stmts if isinstance(s, For)]
    assert {"y"} <= written_buffers(row)
    inside = [s.buffer for s in walk(row) if isinstance(s, Alloc)]
    assert {b.name for b in inside} >= {"top", "s", "e"}
    assert all(b.nbytes <= 100 * 4 for b in inside)  # a row of them, not the matrix


def test_lanes_of_a_row_hold_partial_results(avx512: Machine) -> None:
    k = default_schedule(softmax(), avx512).kernel
    partial = [s for s in walk(k.body) if isinstance(s, Alloc) and s.buffer.name.endswith("_part")]
    assert len(partial) == 2 and all(s.buffer.memory == "reg" for s in partial)


def test_element_wise_nests_that_share_rows_have_lanes(avx512: Machine) -> None:
    """Beside a softmax, two nests without reductions are merged row by row too: both must still run in lanes."""
    x = tensor("x", ty.f32, (6, 100))
    z = tensor("z", ty.f32, (8, 10, 60))
    a = reduce_axis(0, 100, "a")
    s = compute("s", (6,), lambda i: total(x[i, a], a))
    u = compute("u", (8, 10, 60), lambda n, p, q: z[n, p, q] * 2.0)
    v = compute("v", (8, 10, 60), lambda n, p, q: u[n, p, q] + z[n, p, 59 - q])
    k = default_schedule(build("beside", [x, z], [s, u, v]), avx512).kernel
    innermost = [f for f in walk(k.body) if isinstance(f, For) and not any(isinstance(t, For) for t in walk(f.body))]
    assert all(f.kind is LoopKind.VECTOR for f in innermost)


def test_attention_runs_in_lanes_throughout(avx512: Machine) -> None:
    """Two products in tiles with a softmax between them: heads are merged, nothing in them stays scalar."""
    q, k, v = (tensor(n, ty.f32, (2, 49, 32)) for n in "qkv")
    d, t, u, w = (reduce_axis(0, n, name) for n, name in ((32, "d"), (49, "t"), (49, "u"), (49, "w")))
    scores = compute("scores", (2, 49, 49), lambda h, i, j: total(q[h, i, d] * k[h, j, d], d))
    top = compute("top", (2, 49), lambda h, i: largest(scores[h, i, t], t))
    e = compute("e", (2, 49, 49), lambda h, i, j: ex.intrinsic("exp", scores[h, i, j] - top[h, i]))
    s = compute("s", (2, 49), lambda h, i: total(e[h, i, u], u))
    p = compute("p", (2, 49, 49), lambda h, i, j: e[h, i, j] / s[h, i])
    o = compute("o", (2, 49, 32), lambda h, i, j: total(p[h, i, w] * v[h, w, j], w))
    for threads in (1, 2):
        found = plan(build("attention", [q, k, v], [o]), avx512, threads=threads)
        assert found.refused == ()
        innermost = [
            f for f in walk(found.schedule.kernel.body) if isinstance(f, For) and not any(isinstance(x, For) for x in walk(f.body))
        ]
        assert [f.name for f in innermost if f.kind is not LoopKind.VECTOR] == []


# --- the plan -----------------------------------------------------------------------------------


def test_decisions_read_well(avx512: Machine) -> None:
    found = plan(gemm(), avx512, estimated=True)
    (decision,) = found.decisions
    assert decision.output == "c" and "j_1:" in decision.tile
    assert found.seconds is not None and 0 < found.seconds < 1e-3
    assert str(decision).startswith("c: fma_outer: i<-i_1  j<-j_1, ")
    rows = plan(softmax(), avx512).decisions
    assert [str(d) for d in rows] == ["top: lanes along a", "s: lanes along b"]


@pytest.mark.parametrize("make", [gemm, softmax, lambda: convolution(16), lambda: convolution(16, 4)])
def test_traces_replay(avx512: Machine, make: Callable[[], Kernel]) -> None:
    kernel = make()
    sch = default_schedule(kernel, avx512, threads=2)
    assert len(sch.trace) > 5
    assert replay(kernel, sch.trace, avx512).kernel == sch.kernel


@pytest.mark.parametrize("name", ["x86.avx2", "arm.dotprod", "cuda.sm80", "mali.g76", "virtual.gemv"])
def test_no_machine_and_program_is_refused(name: str) -> None:
    machine = load_machine(name)
    for seed in range(8):
        program = Generator(seed).program()
        verify(default_schedule(program.kernel, machine, constants=program.constants).kernel)


def test_programs_outside_the_rules_keep_their_dependences(avx512: Machine) -> None:
    text = """
def cholesky_like(a: f32[8, 8]):
    for j in range(8):
        for i in range(j, 8):
            for k in range(j):
                a[i, j] -= a[i, k] * a[j, k]
"""
    kernel = kernel_of(text)
    found = plan(kernel, avx512)
    assert found.decisions == ()
    # Rows become outermost, so that columns may lie in lanes: a column needs those before it only.
    assert [f.name[0] for f in walk(found.schedule.kernel.body) if isinstance(f, For)] == ["i", "k", "j"]
    arguments = random_arguments(kernel, 5)
    expected, got = ({n: x.copy() for n, x in arguments.items()} for _ in range(2))
    interpret(kernel, expected)
    interpret(found.schedule.kernel, got)
    np.testing.assert_array_equal(got["a"], expected["a"])


def test_refusals_are_reported_and_undone(avx512: Machine) -> None:
    """A product whose result is also read while it is updated cannot be tiled: nothing of the attempt remains."""
    text = """
def f(a: f32[32, 32], b: f32[32, 32], c: f32[32, 32]):
    for i in range(32):
        for j in range(32):
            for k in range(32):
                c[i, j] += a[i, k] * b[k, j] * c[k, i]
"""
    kernel = kernel_of(text)
    found = plan(kernel, avx512)
    assert found.refused and found.decisions == ()
    arguments = random_arguments(kernel, 3)
    expected, got = ({n: x.copy() for n, x in arguments.items()} for _ in range(2))
    interpret(kernel, expected)
    interpret(found.schedule.kernel, got)
    np.testing.assert_array_equal(got["c"], expected["c"])


def test_symbolic_sizes(avx512: Machine) -> None:
    text = """
@kernel(params=("N",))
def f(a: f32[N, N], b: f32[N, N]):
    for i in range(N):
        for j in range(N):
            b[i, j] = a[i, j]
"""
    assert len(default_schedule(kernel_of(text), avx512).trace) <= 3  # simplifications only
    with pytest.raises(IRTypeError, match="specialize"):
        default_schedule(kernel_of(text.replace("range(N)", "range(4)")), avx512)


# --- machines of tiles ---------------------------------------------------------------------------


def test_a_users_accelerator_multiplies() -> None:
    """Nothing but its declaration is known of the machine; the kernel calls its instruction and computes the same."""
    machine = load_machine(TOY)

    def wide(t: Tensor, *at: Expr) -> Expr:
        return ex.cast(t[at], ty.i32)

    a, b = tensor("a", ty.i8, (16, 32)), tensor("b", ty.i8, (32, 16))
    k = reduce_axis(0, 32, "k")
    c = compute("c", (16, 16), lambda i, j: total(wide(a, i, k) * wide(b, k, j), k), dtype=ty.i32)
    kernel = build("product", [a, b], [c])
    found = plan(kernel, machine)
    calls = [s for s in walk(found.schedule.kernel.body) if isinstance(s, Call)]
    assert calls and all(s.kernel.instruction == "toy3/multiply" for s in calls)
    assert "multiply" in str(found.decisions[0])
    assert replay(kernel, found.schedule.trace, machine).kernel == found.schedule.kernel
    arguments = random_arguments(kernel, 1)
    expected, got = ({n: x.copy() for n, x in arguments.items()} for _ in range(2))
    interpret(kernel, expected)
    interpret(found.schedule.kernel, got)
    np.testing.assert_array_equal(got["c"], expected["c"])


GROUPS = """
@kernel
def grouped(x: buffer(f32[2, 8, 5], "dram", layout="{layout}"), w: f32[3], y: buffer(f32[2, 8, 5], "dram", layout="{layout}")):
    t = alloc(f32[2, 4, 2, 5])
    for n in range(2):
        for g in range(4):
            for m in range(2):
                for p in range(5):
                    t[n, g, m, p] = 0.0
    for a in range(2):
        for b in range(4):
            for c in range(2):
                for d in range(5):
                    for r in range(3):
                        t[a, b, c, d] += x[a, b * 2 + c, d] * w[r]
    for i in range(2):
        for k in range(8):
            for q in range(5):
                y[i, k, q] = t[i, k // 2, k % 2, q]
"""


@pytest.mark.parametrize(("layout", "want"), [("0 2 1", "0 3 1 2"), ("0 1 2", "0 1 2 3"), ("2 1 0", "3 1 2 0")])
def test_local_buffers_of_other_ranks_lie_as_what_is_made_of_them(layout: str, want: str) -> None:
    """Channels that a local buffer has in groups walk memory as those of the result do."""
    kernel = prepared(parse(GROUPS.format(layout=layout)), load_machine("gemmini")).sch.kernel
    (local,) = allocated(kernel)
    assert str(local.layout) == want
