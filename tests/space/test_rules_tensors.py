"""The levels, knobs and constraints that declared machines induce, and blocked instruction tiles against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tilewright import lang
from tilewright.hw import Machine, load_machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Call, For, Kernel, LoopKind
from tilewright.ir.types import DType, f16, f32, i8, i32
from tilewright.schedule.replay import replay
from tilewright.space.rules.tensors import memory_levels
from tilewright.space.space import Space


def matmul(m: int, n: int, k: int, dtype: DType, wide: DType) -> Kernel:
    a, b, r = lang.tensor("a", dtype, (m, k)), lang.tensor("b", dtype, (k, n)), lang.reduce_axis(0, k, "k")
    c = lang.compute("c", (m, n), lambda i, j: lang.sum(ex.cast(a[i, r], wide) * ex.cast(b[r, j], wide), [r]), dtype=wide)
    return lang.build("matmul", [a, b], [c])


@pytest.fixture(scope="module")
def gemmini() -> Space:
    return Space(matmul(128, 128, 128, i8, i32), load_machine("gemmini"))


@pytest.fixture(scope="module")
def gpu() -> Space:
    return Space(matmul(256, 128, 192, f16, f32), load_machine("cuda.sm80"))


def levels(machine: Machine, operands: dict[str, str]) -> list[tuple[str, tuple[str, ...], str | None]]:
    return [(x.memory.name, x.operands, x.unit and x.unit.name) for x in memory_levels(machine, operands, "c")]


def test_levels_are_read_off_the_machine() -> None:
    """Managed memories from outside in; the result stays in its own; blocks go to the unit that owns the memory."""
    assert levels(load_machine("gemmini"), {"c": "acc", "a": "spad", "b": "spad"}) == [("acc", ("c",), None), ("spad", ("a", "b"), None)]
    assert levels(load_machine("cuda.sm80"), {"c": "reg", "a": "reg", "b": "reg"}) == [
        ("smem", ("a", "b"), "sm"),
        ("reg", ("c", "a", "b"), "warp"),
    ]
    assert levels(load_machine("virtual.pointwise"), {"c": "local", "a": "local", "b": "local"}) == [("local", ("c", "a", "b"), "core")]


def test_a_gpu_has_blocks_warps_and_fragments(gpu: Space) -> None:
    """Two levels: blocks of an SM divide into blocks of warps; shared memory, registers and 64 warps bound them."""
    sketch = gpu.sketches[0]
    assert len(sketch.knobs) == 6
    for point in gpu.sample(300, np.random.default_rng(0)):
        s = gpu.sketch(point)
        values = list(gpu.values(point).values())
        if len(values) == 6:
            (bi, bj, bk), (wi, wj, wk) = values[:3], values[3:]
            assert bi % wi == bj % wj == bk % wk == 0, s.name
            assert (bi // wi) * (bj // wj) <= 64
    units = [f.unit for f in st.loops(sketch.program) if f.kind is LoopKind.BIND]
    assert units == ["sm", "sm", "warp", "warp"]
    memories = {b.memory for b in st.allocated(sketch.program)}
    assert {"smem", "reg"} <= memories


def test_mappings_are_alternatives(gpu: Space) -> None:
    """Each fragment shape is a sketch of its own."""
    assert len(gpu.sketches) > 3
    assert len({s.name for s in gpu.sketches}) == len(gpu.sketches)
    assert any("m16n16k16" in s.name for s in gpu.sketches) and any("m32n8k16" in s.name for s in gpu.sketches)


def trips(kernel: Kernel, env: dict[str, int], call: bool) -> list[int]:
    """Iterations of the loops around the instruction (or around its loops in the program), without those of one."""

    def visit(s: st.Stmt, around: list[For]) -> list[For] | None:
        if isinstance(s, Call) if call else isinstance(s, For) and s.kind is LoopKind.UNROLL:
            return around
        inside = [*around, s] if isinstance(s, For) else around
        return next((f for t in st.substmts(s) if (f := visit(t, inside)) is not None), None)

    found = visit(kernel.body, [])
    assert found is not None
    return [n for f in found if (n := int(ex.evaluate(f.extent, env))) > 1]


def test_the_program_has_the_loops_of_the_schedule() -> None:
    space = Space(matmul(32, 32, 32, f32, f32), load_machine("virtual.pointwise"))
    for point in space.sample(10, np.random.default_rng(4)):
        scheduled = trips(space.schedule(point).kernel, {}, call=True)
        assert trips(space.sketch(point).program, space.values(point), call=False) == scheduled, space.describe(point)


def test_blocked_tiles_compute_the_product() -> None:
    space = Space(matmul(32, 32, 32, f32, f32), load_machine("virtual.pointwise"))
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-4, 5, (32, 32)) for _ in range(2))
    for point in space.sample(3, rng):
        c = np.zeros((32, 32), np.float32)
        interpret(space.schedule(point).kernel, [a.astype(np.float32), b.astype(np.float32), c])
        np.testing.assert_array_equal(c, a @ b)


def test_the_default_point_is_the_mapped_kernel(gemmini: Space) -> None:
    plan = gemmini.plan(gemmini.default())
    assert plan.decisions[0].mapping.startswith("matmul: ")
    assert any(isinstance(s, Call) for s in st.walk(plan.schedule.kernel.body))


def test_a_kernel_without_contraction_stays_as_written() -> None:
    x = lang.tensor("x", f32, (16, 16))
    kernel = lang.build("double", [x], [lang.compute("y", (16, 16), lambda i, j: x[i, j] * 2.0)])
    space = Space(kernel, load_machine("gemmini"))
    assert space.size == 1
    assert space.schedule(space.default()).kernel.body == kernel.body


# --- defaults, and other contractions --------------------------------------------------------------


def convolution(dtype: DType, wide: DType) -> Kernel:
    x, w = lang.tensor("x", dtype, (1, 8, 6, 6)), lang.tensor("w", dtype, (16, 8, 3, 3))
    c, r, s = lang.reduce_axis(0, 8, "c"), lang.reduce_axis(0, 3, "r"), lang.reduce_axis(0, 3, "s")

    def body(n: ex.Expr, k: ex.Expr, p: ex.Expr, q: ex.Expr) -> ex.Expr:
        return lang.sum(ex.cast(x[n, c, p + r, q + s], wide) * ex.cast(w[k, c, r, s], wide), [c, r, s])

    return lang.build("conv", [x, w], [lang.compute("y", (1, 16, 4, 4), body, dtype=wide)])


def batched(dtype: DType, wide: DType) -> Kernel:
    a, b, r = lang.tensor("a", dtype, (3, 32, 16)), lang.tensor("b", dtype, (3, 16, 16)), lang.reduce_axis(0, 16, "k")
    c = lang.compute("c", (3, 32, 16), lambda n, i, j: lang.sum(ex.cast(a[n, i, r], wide) * ex.cast(b[n, r, j], wide), [r]), dtype=wide)
    return lang.build("batched", [a, b], [c])


def activated(dtype: DType, wide: DType) -> Kernel:
    a, b, bias = lang.tensor("a", dtype, (32, 32)), lang.tensor("b", dtype, (32, 32)), lang.tensor("bias", wide, (32,))
    r = lang.reduce_axis(0, 32, "k")
    c = lang.compute("c", (32, 32), lambda i, j: lang.sum(ex.cast(a[i, r], wide) * ex.cast(b[r, j], wide), [r]), dtype=wide)
    y = lang.compute("y", (32, 32), lambda i, j: ex.binary("max", c[i, j] + bias[j], ex.const(0.0, wide)), dtype=wide)
    return lang.build("activated", [a, b, bias], [y])


OTHERS = {"conv2d": convolution, "batched": batched, "epilogue": activated}


@pytest.mark.parametrize(("name", "machine"), [("conv2d", "cuda.sm80"), ("batched", "cuda.sm80"), ("epilogue", "cuda.sm70")])
def test_other_contractions_run_on_tensor_cores(name: str, machine: str) -> None:
    """The default and a drawn point, against the program as written; f16 products of small integers are exact."""
    kernel = OTHERS[name](f16, f32)
    space = Space(kernel, load_machine(machine))
    assert space.size > 1
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-3, 4, b.static_shape).astype(b.dtype.to_numpy()) for b in kernel.args]
    wanted = [a.copy() for a in arrays]
    interpret(kernel, wanted)
    for point in (space.default(), space.sample(1, rng)[0]):
        scheduled = space.schedule(point).kernel
        assert any(isinstance(s, Call) for s in st.walk(scheduled.body))
        assert any(f.kind is LoopKind.BIND for f in st.loops(space.sketch(point).program))
        got = [a.copy() for a in arrays]
        interpret(scheduled, got)
        np.testing.assert_array_equal(got[-1], wanted[-1])


@pytest.mark.parametrize(
    ("machine", "kernel"),
    [
        ("cuda.sm70", matmul(1024, 512, 768, f16, f32)),
        ("cuda.sm80", matmul(1024, 512, 768, f16, f32)),
        ("cuda.sm80", convolution(f16, f32)),
        ("cuda.sm80", batched(f16, f32)),
        ("virtual.gemv", matmul(128, 128, 128, f32, f32)),
        ("virtual.pointwise", matmul(64, 64, 64, f32, f32)),
    ],
    ids=["sm70", "sm80", "conv2d", "batched", "gemv", "pointwise"],
)
def test_the_default_is_near_the_best_of_the_space(machine: str, kernel: Kernel) -> None:
    """By the declared machine's estimate, of all points or 20,000 drawn ones; and better than one tile everywhere."""
    space = Space(kernel, load_machine(machine))
    every = space.enumerate(20_000) if space.size <= 20_000 else space.sample(20_000, np.random.default_rng(3))
    seconds = space.estimate(every)
    default = float(space.estimate(space.default()[None])[0])
    assert default <= seconds.min() * 1.1
    assert default <= np.median(seconds)


def test_long_reductions_are_cut_where_results_are_too_few_for_all_units() -> None:
    """Split-K: 4 tiles of 108 multiprocessors' work; the parts' sums are combined at the end, and the default takes it."""
    kernel = matmul(32, 32, 256, f16, f32)
    space = Space(kernel, load_machine("cuda.sm80"))
    cut = [n for n, s in enumerate(space.sketches) if "parts of k" in s.name]
    assert cut and len(cut) < len(space.sketches)
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-3, 4, s).astype(np.float16) for s in ((32, 256), (256, 32)))
    for point in (space.default(), next(p for p in space.sample(50, rng) if p[0] in cut)):
        assert point[0] in cut
        c = np.zeros((32, 32), np.float32)
        interpret(space.schedule(point).kernel, [a, b, c])
        np.testing.assert_array_equal(c, a.astype(np.float32) @ b.astype(np.float32))
    assert not any("parts of" in s.name for s in Space(matmul(256, 256, 256, f16, f32), load_machine("cuda.sm80")).sketches)


# --- what takes the result ------------------------------------------------------------------


def followed(m: int, n: int, k: int, dtype: DType, wide: DType, spread: int = 0) -> Kernel:
    """A product with bias, residual and ReLU; with ``spread``, a result that each of so many outputs takes."""
    a, b, r = lang.tensor("a", dtype, (m, k)), lang.tensor("b", dtype, (k, n)), lang.reduce_axis(0, k, "k")
    bias, more = lang.tensor("bias", wide, (n,)), lang.tensor("more", wide, (m, n))
    c = lang.compute("c", (m, n), lambda i, j: lang.sum(ex.cast(a[i, r], wide) * ex.cast(b[r, j], wide), [r]), dtype=wide)
    zero = ex.const(0, wide)
    if spread:
        scale = lang.tensor("scale", wide, (spread,))
        y = lang.compute("y", (spread, m, n), lambda s, i, j: ex.binary("max", c[i, j] * scale[s] + bias[j], zero))
        return lang.build("followed", [a, b, bias, scale], [y])
    y = lang.compute("y", (m, n), lambda i, j: ex.binary("max", c[i, j] + bias[j] + more[i, j], zero))
    return lang.build("followed", [a, b, bias, more], [y])


def computed(space: Space, points: np.ndarray) -> None:
    """Traces of points replay, and make kernels that compute what the program does."""
    rng, kernel = np.random.default_rng(0), space.kernel
    data = {b.name: rng.integers(-3, 4, b.static_shape).astype(b.dtype.to_numpy()) for b in kernel.args}
    want = {n: v.copy() for n, v in data.items()}
    interpret(kernel, want)
    for point in points:
        made = space.schedule(point)
        assert replay(kernel, made.trace, space.machine).kernel == made.kernel
        got = {n: v.copy() for n, v in data.items()}
        interpret(made.kernel, got)
        np.testing.assert_array_equal(got["y"], want["y"], err_msg=space.describe(point))


def in_main_memory(kernel: Kernel, machine: Machine) -> set[str]:
    """Buffers of the kernel's own in main memory."""
    return {b.name for b in st.allocated(kernel) if b.memory == machine.main_memory.name}


@pytest.mark.parametrize("spread", [0, 3])
def test_what_follows_a_product_runs_on_fragments(spread: int) -> None:
    """Sums begin, grow and are consumed in registers: of the result nothing is stored but what is made of it."""
    machine = load_machine("cuda.sm80")
    space = Space(followed(32, 32, 32, f16, f32, spread), machine)
    points = np.array([space.default(), *space.sample(3, np.random.default_rng(5))])
    for point in points:
        made, program = space.schedule(point).kernel, space.sketch(point).program
        assert in_main_memory(made, machine) == in_main_memory(program, machine) == {"a_packed", "b_packed"}
        stores = [s for s in st.walk(program.body) if isinstance(s, st.Store) and s.buffer.name == "y"]
        (read,) = {ld.buffer.name for ld in ex.loads(stores[0].value)} - {"bias", "more", "scale"}
        assert len(stores) == 1 and {b.name: b.memory for b in st.allocated(program)}[read] == "reg"
    computed(space, points)


@settings(max_examples=4, deadline=None)
@given(m=some.sampled_from([16, 20, 48]), n=some.sampled_from([8, 24, 33]), k=some.sampled_from([8, 24]), seed=some.integers(0, 5))
def test_products_with_what_follows_are_exact(m: int, n: int, k: int, seed: int) -> None:
    """Where tiles do not divide the result, it is unpacked before anything takes it."""
    space = Space(followed(m, n, k, f16, f32), load_machine("cuda.sm80"))
    computed(space, space.sample(1, np.random.default_rng(seed)))


def test_only_memories_that_compute_take_what_follows() -> None:
    """A scratchpad's sums leave by transfers; the host takes them from main memory."""
    machine = load_machine("virtual.pointwise")
    space = Space(followed(16, 16, 16, f32, f32), machine)
    assert "c" in in_main_memory(space.sketch(space.default()).program, machine)
    computed(space, space.default()[None])


def test_the_estimate_counts_what_is_stored_less() -> None:
    """A short product with a large result: without storing and fetching sums, it takes less than the product alone and a pass over it."""
    machine = load_machine("cuda.sm80")
    alone, fused = (Space(k, machine) for k in (matmul(2048, 2048, 32, f16, f32), followed(2048, 2048, 32, f16, f32)))
    points = alone.sample(50, np.random.default_rng(0))
    number = {s.name: n for n, s in enumerate(fused.sketches)}
    same = np.array([p for p in points if alone.sketch(p).name in number and len(alone.sketch(p).knobs) == 6])
    there = np.array([fused.decode(alone.encode(p)) for p in same])
    assert len(same) > 10 and (fused.estimate(there) < alone.estimate(same)).all()
