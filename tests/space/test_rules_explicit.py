"""Blocks in memories that a program fills itself: every structure against the interpreter, on three machines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from tilewright.cost.explicit import counted
from tilewright.cost.formula import Tape
from tilewright.hw import Machine, Memory, Unit, load_machine
from tilewright.hw.axis import axes, upto
from tilewright.hw.instruction import instruction
from tilewright.hw.library.gemmini import gemmini
from tilewright.hw.transfer import transfer
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Call, Kernel
from tilewright.ir.types import f32, i8
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.schedule import replay
from tilewright.space.space import Points, Space
from tilewright.util.errors import SpaceError


def product(m: int, n: int, k: int) -> Kernel:
    """int8 product, saturated to int8."""
    return parse(f"""
@kernel
def product(a: i8[{m}, {k}], b: i8[{k}, {n}], c: i8[{m}, {n}]):
    acc = alloc(i32[{m}, {n}])
    for i in range({m}):
        for j in range({n}):
            acc[i, j] = 0
    for i in range({m}):
        for j in range({n}):
            for k in range({k}):
                acc[i, j] += a[i, k] * b[k, j]
    for i in range({m}):
        for j in range({n}):
            c[i, j] = i8(min(max(acc[i, j], -128), 127))
""")


def plain(m: int, n: int, k: int, narrow: str = "i8", wide: str = "i32") -> Kernel:
    """Product whose sums are the result."""
    return parse(f"""
@kernel
def product(a: {narrow}[{m}, {k}], b: {narrow}[{k}, {n}], c: {wide}[{m}, {n}]):
    for i in range({m}):
        for j in range({n}):
            c[i, j] = 0
    for i in range({m}):
        for j in range({n}):
            for k in range({k}):
                c[i, j] += a[i, k] * b[k, j]
""")


def toy(local_bytes: int = 256, dim: int = 3) -> Machine:
    """Rows of ``dim`` floats; a product of up to ``dim`` rows by a square. Declared here and nowhere else."""

    dram, local, sums = "dram", "local", "sums"

    @instruction(latency=4, per_cycle=1 / dim)
    def rank(c: f32[dim, dim] @ sums, a: f32[dim, dim] @ local, b: f32[dim, dim] @ local):  # type: ignore[valid-type, no-untyped-def]
        i, j, k = axes(upto(dim), upto(dim), upto(dim))
        c[i, j] += a[i, k] * b[k, j]

    @transfer(granularity=4, latency=10, bandwidth=4)
    def fill(dst: f32[dim, dim] @ local, src: f32[dim, dim] @ dram):  # type: ignore[valid-type, no-untyped-def]
        i, j = axes(upto(dim), upto(dim))
        dst[i, j] = src[i, j]

    @transfer(granularity=4, latency=10, bandwidth=4)
    def drain(dst: f32[dim, dim] @ dram, src: f32[dim, dim] @ sums):  # type: ignore[valid-type, no-untyped-def]
        i, j = axes(upto(dim), upto(dim))
        dst[i, j] = src[i, j]

    return Machine(
        "toy",
        memories=[
            Memory("dram", "main", None, level=1, bandwidth=4),
            Memory("local", "scratchpad", local_bytes, 0, "dram", line=4 * dim),
            Memory("sums", "scratchpad", 4 * dim * dim * 4, 0, "dram", line=4 * dim),
        ],
        units=[Unit("core", 1)],
        instructions=[rank],
        transfers=[fill, drain],
    )


def numbers(k: Kernel, rng: np.random.Generator) -> list[np.ndarray]:
    def one(dtype: object, shape: tuple[int, ...]) -> np.ndarray:
        narrow = dtype == i8
        drawn = rng.integers(-128 if narrow else -9, 128 if narrow else 10, shape)
        return drawn.astype("i1" if narrow else "f4" if dtype == f32 else "i4")

    return [one(b.dtype, b.static_shape) for b in k.args]


def check(k: Kernel, space: Space, points: Points, rng: np.random.Generator, saturated: bool = False) -> None:
    """Scheduled kernels are well formed, replay, and multiply as NumPy does."""
    for p in points:
        sch = space.schedule(p)
        verify(sch.kernel)
        a, b, c = numbers(k, rng)
        interpret(sch.kernel, [a, b, c])
        exact = a.astype(np.int64) @ b.astype(np.int64)
        np.testing.assert_array_equal(c, np.clip(exact, -128, 127) if saturated else exact, err_msg=space.describe(p))
        assert replay(k, sch.trace, space.machine).kernel == sch.kernel


def packed(k: Kernel) -> list[str]:
    """Arrays in main memory besides the arguments."""
    return [b.name for b in st.allocated(k) if b.memory == "dram"]


@settings(max_examples=15, deadline=None)
@given(hs.integers(1, 22), hs.integers(1, 22), hs.integers(2, 22), hs.integers(0, 2**32 - 1))
def test_products_of_any_shape_on_a_systolic_array(m: int, n: int, k: int, seed: int) -> None:
    """Tails are clipped, nothing is packed in main memory, and the saturation happens on the way out."""
    rng = np.random.default_rng(seed)
    kernel = product(m, n, k)
    space = Space(kernel, gemmini(dim=4))
    points = space.sample(3, rng)
    check(kernel, space, points, rng, saturated=True)
    assert not any(packed(space.schedule(p).kernel) for p in points)


@settings(max_examples=8, deadline=None)
@given(hs.integers(1, 12), hs.integers(1, 12), hs.integers(2, 12), hs.integers(0, 2**32 - 1))
def test_products_on_a_machine_declared_in_a_test(m: int, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = plain(m, n, k, "f32", "f32")
    space = Space(kernel, toy())
    points = space.sample(3, rng)
    check(kernel, space, points, rng)
    for p in points:
        held = {"local": 0, "sums": 0}
        for b in st.allocated(space.schedule(p).kernel):
            held[b.memory] += int(np.prod([int(e.value) for e in b.physical_shape()])) * 4  # type: ignore[attr-defined]
        assert held["local"] <= 256 and held["sums"] <= 144, "what is allocated fits together"


def test_products_on_vta() -> None:
    """Another instruction, three scratchpads, fixed tiles: the same rule. Weights lie as the instruction sees them."""
    rng = np.random.default_rng(2)
    kernel = plain(5, 32, 48)
    space = Space(kernel, load_machine("vta.pynq"))
    check(kernel, space, space.sample(6, rng), rng)
    scheduled = space.schedule(space.default()).kernel
    weights = next(b for b in st.allocated(scheduled) if b.memory == "wgt")
    assert str(weights.layout) == "0/16 1/16 0 1"


def test_tails_that_hardware_cannot_take_are_padded_in_main_memory() -> None:
    kernel = plain(5, 17, 48)
    space = Space(kernel, load_machine("vta.pynq"))
    rng = np.random.default_rng(2)
    scheduled = space.schedule(space.default()).kernel
    assert packed(scheduled)
    a, b, c = numbers(kernel, rng)
    interpret(scheduled, [a, b, c])
    np.testing.assert_array_equal(c, a.astype(int) @ b.astype(int))


def test_structures_differ_in_order_and_in_what_stays() -> None:
    space = Space(product(40, 40, 40), gemmini(dim=4))
    names = [s.name for s in space.sketches]
    assert len(set(names)) == len(names) == 12
    assert any("blocks i_1 j_1" in n for n in names) and any("blocks j_1 i_1" in n for n in names)
    kept = next(p for p in space.enumerate(100000) if "a at i_1" in space.describe(p) and "b at" not in space.describe(p) and p[3] == 1)
    kernel = space.schedule(kept).kernel
    panel = next(b for b in st.allocated(kernel) if b.name.startswith("a_spad"))
    assert panel.shape[1] == ex.idx(40), "the whole rows of a block stay while the columns pass"


def test_points_obey_the_memories() -> None:
    """In 64 lines of 4 bytes only small blocks fit; all that fit are in the space."""
    space = Space(product(16, 16, 16), gemmini(dim=4, scratchpad_bytes=256))
    streamed = next(n for n, s in enumerate(space.sketches) if not s.extras)
    points = space.enumerate(100000)
    i, j, k = points[points[:, 0] == streamed].T[1:4]
    assert ((i + j) * k * 16 <= 256).all()
    every = np.array(np.meshgrid(*[[1, 2, 3, 4]] * 3)).reshape(3, -1)
    assert len(i) == ((every[0] + every[1]) * every[2] * 16 <= 256).sum()


def test_larger_blocks_move_less_and_are_estimated_cheaper_where_transfers_bound() -> None:
    space = Space(product(256, 256, 64), gemmini())
    points = space.enumerate(100000)
    streamed = next(n for n, s in enumerate(space.sketches) if not s.extras)
    small, large = (next(p for p in points if p[0] == streamed and tuple(p[1:4]) == (n, n, 1)) for n in (1, 4))
    cost = space.estimate(np.stack([small, large]))
    assert cost[1] < cost[0] / 2


def test_the_default_is_near_the_array() -> None:
    """512 x 512 x 512 on 16 x 16 units: at least 524,288 cycles, a few thousand more for the first and the last block."""
    space = Space(product(512, 512, 512), gemmini())
    cycles = space.estimate(space.default()[None])[0] * 1e9
    assert 524_288 <= cycles < 1.05 * 524_288


def test_a_memory_too_small_for_one_tile_is_named() -> None:
    kernel = parse("""
@kernel
def window(x: f32[11, 3], w: f32[7, 3, 3], y: f32[3, 3]):
    for i in range(3):
        for j in range(3):
            y[i, j] = 0.0
    for i in range(3):
        for j in range(3):
            for r in range(7):
                for k in range(3):
                    y[i, j] += x[i * 2 + r, k] * w[r, k, j]
""")
    with pytest.raises(SpaceError, match=r"blocks of one tile of rank take 96 bytes of memory local, which has 80"):
        Space(kernel, toy(local_bytes=80))


def executed(kernel: Kernel) -> tuple[int, int, int]:
    """Calls made, bytes copied from main memory, bytes copied to it."""
    calls, read, written = 0, 0, 0

    def visit(s: st.Stmt, env: dict[str, int]) -> None:
        nonlocal calls, read, written
        match s:
            case st.For():
                for v in range(int(ex.evaluate(s.lo, env)), int(ex.evaluate(s.hi, env))):
                    visit(s.body, {**env, s.name: v})
            case st.Call():
                calls += 1
            case st.Store():
                read += sum(ld.buffer.dtype.nbytes for ld in ex.loads(s.value) if ld.buffer.memory == "dram")
                written += s.buffer.dtype.nbytes * (s.buffer.memory == "dram")
            case _:
                for t in st.substmts(s):
                    visit(t, env)

    visit(kernel.body, {})
    return calls, read, written


@settings(max_examples=10, deadline=None)
@given(hs.integers(2, 15), hs.integers(2, 15), hs.integers(2, 15), hs.integers(0, 2**32 - 1))
def test_the_estimate_counts_what_the_schedule_does(m: int, n: int, k: int, seed: int) -> None:
    """Issues and bytes of the symbolic program, clipped tails included, are those of the scheduled kernel."""
    kernel = plain(m, n, k, "f32", "f32")
    space = Space(kernel, toy())
    for p in space.sample(4, np.random.default_rng(seed)):
        calls, read, written = executed(space.schedule(p).kernel)
        counts = counted(space.sketch(p).program, space.machine)
        found = Tape([counts.issues, counts.read, counts.written])(space.values(p))
        np.testing.assert_allclose(found, [calls, read, written], rtol=1e-9, err_msg=space.describe(p))


def test_calls_are_of_the_declared_instruction() -> None:
    kernel = Space(product(9, 9, 9), gemmini(dim=4))
    calls = [s for s in st.walk(kernel.schedule(kernel.default()).kernel.body) if isinstance(s, Call)]
    assert {c.kernel.instruction for c in calls} == {"gemmini/matmul"}
