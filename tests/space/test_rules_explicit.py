"""Blocks in memories that a program fills itself: every structure against the interpreter, on three machines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as hs

from tilewright.cost.explicit import counted
from tilewright.cost.tape import Tape
from tilewright.hw import Machine, Memory, Unit, load_machine
from tilewright.hw.axis import axes, upto
from tilewright.hw.instruction import instruction
from tilewright.hw.library.gemmini import gemmini
from tilewright.hw.transfer import transfer
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.interpreter import interpret
from tilewright.ir.printer import kernel_text
from tilewright.ir.stmt import Call, Kernel
from tilewright.ir.types import f32, i8
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.schedule import replay
from tilewright.space.blocks import counts
from tilewright.space.space import Points, Space
from tilewright.util.errors import SpaceError

#: Examples are small already; to shrink them further takes minutes.
PHASES = (Phase.explicit, Phase.generate)


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


@settings(max_examples=10, deadline=None, phases=PHASES)
@given(hs.integers(1, 22), hs.integers(1, 22), hs.integers(2, 22), hs.integers(0, 2**32 - 1))
def test_products_of_any_shape_on_a_systolic_array(m: int, n: int, k: int, seed: int) -> None:
    """Tails are clipped, nothing is packed in main memory, and the saturation happens on the way out."""
    rng = np.random.default_rng(seed)
    kernel = product(m, n, k)
    space = Space(kernel, gemmini(dim=4))
    points = space.sample(3, rng)
    check(kernel, space, points, rng, saturated=True)
    assert not any(packed(space.schedule(p).kernel) for p in points)


@settings(max_examples=8, deadline=None, phases=PHASES)
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
    every = np.array(np.meshgrid(*[[1, 2, 4]] * 3)).reshape(3, -1)
    assert len(i) == ((every[0] + every[1]) * every[2] * 16 <= 256).sum()


def test_blocks_are_as_even_as_they_can_be() -> None:
    assert counts(16, whole=False) == (1, 2, 3, 4, 6, 8, 16)
    assert counts(7, whole=False) == (1, 2, 3, 4, 7)
    assert counts(12, whole=True) == (1, 2, 3, 4, 6, 12)


def test_a_short_last_tile_is_evened_out() -> None:
    """17 rows are 16 and 1, or 9 and 8. Columns lie side by side in lines of 16, which stay."""
    kernel = product(17, 17, 20)
    space = Space(kernel, gemmini())
    even = [n for n, s in enumerate(space.sketches) if s.name.endswith("i_1 evenly")]
    assert 2 * len(even) == len(space.sketches)
    points = space.enumerate(100000)
    points = points[np.isin(points[:, 0], even)][::23]
    check(kernel, space, points, np.random.default_rng(0), saturated=True)
    texts = [kernel_text(space.schedule(p).kernel) for p in points]
    assert all("9" in next(x for x in text.splitlines() if "matmul(" in x) for text in texts)
    assert not any("evenly" in s.name for s in Space(product(24, 17, 20), gemmini()).sketches), "8 rows are not short"


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


def convolution(size: tuple[int, int], c: int, k: int, window: int, step: int, pad: int, channels_last: bool) -> Kernel:
    """int8 convolution, the input padded with zeros, a bias added, the sums scaled and rectified to int8."""
    h, w = size
    p, q = ((n + 2 * pad - window) // step + 1 for n in size)
    hp, wp = h + 2 * pad, w + 2 * pad

    def at(n: str, ch: str, y: str, x: str) -> str:
        return ", ".join((n, y, x, ch) if channels_last else (n, ch, y, x))

    weights = f"{window}, {window}, {c}, {k}" if channels_last else f"{k}, {c}, {window}, {window}"
    weight = "r, s, c, k" if channels_last else "k, c, r, s"
    padded = f"""
    xp = alloc(i8[{at("1", str(c), str(hp), str(wp))}])
    for h in range({hp}):
        for w in range({wp}):
            for c in range({c}):
                inside = h >= {pad} and h < {h + pad} and w >= {pad} and w < {w + pad}
                xp[{at("0", "c", "h", "w")}] = where(inside, x[{at("0", "c", f"h - {pad}", f"w - {pad}")}], i8(0))
"""
    inside = f"h >= {pad} and h < {h + pad} and w >= {pad} and w < {w + pad}"
    padded = padded.replace(f"                inside = {inside}\n", "").replace("where(inside,", f"where({inside},")
    source = "xp" if pad else "x"
    loops = f"""
    for p in range({p}):
        for q in range({q}):
            for k in range({k}):
                """
    return parse(f"""
@kernel
def conv(x: i8[{at("1", str(c), str(h), str(w))}], f: i8[{weights}], bias: i32[{k}], y: i8[{at("1", str(k), str(p), str(q))}]):
    {padded if pad else ""}
    acc = alloc(i32[{at("1", str(k), str(p), str(q))}])
    {loops}acc[{at("0", "k", "p", "q")}] = 0
    {loops}for r in range({window}):
                    for s in range({window}):
                        for c in range({c}):
                            acc[{at("0", "k", "p", "q")}] += {source}[{at("0", "c", f"p * {step} + r", f"q * {step} + s")}] * f[{weight}]
    {loops}y[{at("0", "k", "p", "q")}] = i8(min(max(round(f32(i32(acc[{at("0", "k", "p", "q")}] + bias[k])) * 0.05), 0.0), 127.0))
""")


@settings(max_examples=8, deadline=None, phases=PHASES)
@given(
    hs.tuples(hs.integers(3, 7), hs.integers(3, 7)),
    hs.integers(2, 6),
    hs.integers(2, 6),
    hs.sampled_from([(1, 1, 0), (3, 1, 0), (3, 1, 1), (3, 2, 1), (2, 2, 0)]),
    hs.booleans(),
    hs.integers(0, 2**32 - 1),
)
def test_convolutions(size: tuple[int, int], c: int, k: int, window: tuple[int, int, int], channels_last: bool, seed: int) -> None:
    """Windows, strides, padding, either order of dimensions: each structure that is drawn equals the program as written."""
    rng = np.random.default_rng(seed)
    kernel = convolution(size, c, k, *window, channels_last)
    space = Space(kernel, gemmini(dim=4))
    for p in space.sample(2, rng):
        sch = space.schedule(p)
        verify(sch.kernel)
        args = [rng.integers(-128, 128, b.static_shape).astype("i1" if b.dtype == i8 else "i4") for b in kernel.args]
        want = [a.copy() for a in args]
        interpret(kernel, want)
        interpret(sch.kernel, args)
        np.testing.assert_array_equal(args[-1], want[-1], err_msg=space.describe(p))
        if channels_last:
            assert not packed(sch.kernel), "operands are loaded from where they lie, and padded on the way"


def test_what_follows_the_sums_happens_on_the_way_out() -> None:
    """Bias is what the sums start from; scale, activation and saturation are the transfer's."""
    space = Space(convolution((8, 8), 8, 8, 3, 1, 1, True), gemmini(dim=4))
    text = str(space.schedule(space.default()).kernel)
    assert "= bias[" in text and "acc[" in text.split("y[")[-1] and "f32(" in text.split("y[")[-1]
    assert "dram" not in text


def test_what_transfers_cannot_do_the_host_does_afterwards() -> None:
    """No store of this machine squares: sums leave the accumulator as they are, another nest follows."""
    kernel = product(9, 9, 9)
    kernel = parse(str(kernel).replace("i8(min(max(acc[i_2, j_2], -128), 127))", "i8(acc[i_2, j_2] * acc[i_2, j_2])"))
    space = Space(kernel, gemmini(dim=4))
    for p in space.sample(3, np.random.default_rng(0)):
        scheduled = space.schedule(p).kernel
        assert packed(scheduled) == ["acc"]
        rng = np.random.default_rng(1)
        args = numbers(kernel, rng)
        want = [a.copy() for a in args]
        interpret(kernel, want)
        interpret(scheduled, args)
        np.testing.assert_array_equal(args[-1], want[-1])


def test_weights_known_ahead_of_time_are_stored_as_transfers_want_them() -> None:
    kernel = convolution((6, 6), 5, 6, 3, 1, 0, False)
    ahead, copied = (Space(kernel, gemmini(dim=4), constants=c) for c in (("f",), ()))
    assert ahead.schedule(ahead.default()).kernel.arg("f").layout is not None
    # With channels first the host adds the bias, from sums in main memory.
    assert packed(ahead.schedule(ahead.default()).kernel) == ["acc"]
    assert packed(copied.schedule(copied.default()).kernel) == ["acc", "f_dram"]
    assert ahead.estimate(ahead.default()[None])[0] < copied.estimate(copied.default()[None])[0]


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


@settings(max_examples=6, deadline=None, phases=PHASES)
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
