"""Reductions with few results or along memory: rows of several loops, parts for threads, blocks of rows."""

from __future__ import annotations

import numpy as np
import pytest
from tests.schedule.programs import kernel_of

from tilewright import lang
from tilewright.codegen.llvm import emit
from tilewright.hw import Machine
from tilewright.ir import types as ty
from tilewright.ir.expr import intrinsic
from tilewright.ir.stmt import For, Kernel, LoopKind, loops
from tilewright.runtime import build, check
from tilewright.schedule import replay
from tilewright.space.rules import rows
from tilewright.space.space import Space
from tilewright.space.stages import stages


@pytest.fixture(scope="module")
def host() -> Machine:
    return Machine.host()


def verify(space: Space, points: np.ndarray) -> None:
    """Every point schedules without refusal and equals the reference."""
    for point in points:
        plan = space.plan(point)
        assert not plan.refused, f"{space.describe(point)}: {plan.refused}"
        check(build(plan.schedule, space.machine, threads=space.threads, cache=False), space.kernel, trials=1, seed=0)


def total(*shape: int) -> Kernel:
    """The sum of all elements."""
    x = lang.tensor("x", ty.f32, shape)
    axes = [lang.reduce_axis(0, n, f"a{d}") for d, n in enumerate(shape)]
    return lang.build("total", [x], [lang.compute("s", (), lambda: lang.sum(x[tuple(axes)], axes))])


def average_pool(channels: int, height: int, width: int) -> Kernel:
    """Means of whole images, NCHW."""
    x = lang.tensor("x", ty.f32, (1, channels, height, width))
    r, s = lang.reduce_axis(0, height, "r"), lang.reduce_axis(0, width, "s")
    t = lang.compute("t", (1, channels), lambda n, c: lang.sum(x[n, c, r, s], [r, s]))
    return lang.build("pool", [x], [lang.compute("y", (1, channels), lambda n, c: t[n, c] / float(height * width))])


def product(spec: str, *shapes: tuple[int, ...]) -> Kernel:
    operands = [lang.tensor(n, ty.f32, s) for n, s in zip("ab", shapes, strict=False)]
    return lang.build("product", operands, [lang.einsum(spec, *operands, name="y")])


# --- rows that several loops walk -------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 7), (5, 3), (2, 4), (13, 17), (3, 11)])
def test_whole_images_are_reduced_in_lanes(host: Machine, shape: tuple[int, int]) -> None:
    space = Space(average_pool(37, *shape), host, 1)
    verify(space, space.default()[None])
    kernel = space.plan(space.default()).schedule.kernel
    assert "gather" not in emit(kernel, host).text
    verify(space, space.sample(4, np.random.default_rng(0)))


def test_rows_of_several_loops(host: Machine) -> None:
    """Loops join where one begins where the other ends, in every operand."""

    def row(kernel: Kernel) -> tuple[str, ...]:
        return rows.horizontal_loops(next(s for s in stages(kernel) if s.is_reduction))

    assert row(total(4, 5, 6)) == ("a0", "a1", "a2")
    assert row(total(3, 2)) == ()  # too short for lanes
    assert len(row(product("ijk,jk->i", (4, 5, 6), (5, 6)))) == 2
    assert len(row(product("ijk,k->i", (4, 5, 60), (60,)))) == 1  # the vector begins anew with every j
    assert row(product("ijk,kj->i", (4, 5, 60), (60, 5))) == ()
    window = lang.tensor("x", ty.f32, (8, 20))
    r, s = lang.reduce_axis(0, 8, "r"), lang.reduce_axis(0, 16, "s")
    part = lang.build("part", [window], [lang.compute("t", (5,), lambda i: lang.sum(window[r, i + s], [r, s]))])
    assert row(part) == ("s",)  # a window narrower than the image is not contiguous


@pytest.mark.parametrize("shape", [(100003,), (1000, 1001), (3, 5, 70), (9,)])
def test_sums_of_everything_run_in_lanes(host: Machine, shape: tuple[int, ...]) -> None:
    space = Space(total(*shape), host, 1)
    verify(space, space.default()[None])
    kernel = space.plan(space.default()).schedule.kernel
    assert any(f.kind is LoopKind.VECTOR for f in loops(kernel))
    innermost = [f for f in loops(kernel) if not any(isinstance(t, For) for t in f.body.stmts)]
    assert all(f.kind is LoopKind.VECTOR for f in innermost)


# --- the reduction outside rows of memory -----------------------------------------------------


def streams(space: Space) -> bool:
    return "blocks of" in space.sketch(space.default()).name


def streamed(space: Space) -> np.ndarray:
    """The best of the likely streams, by estimate."""
    n = next(n for n, s in enumerate(space.sketches) if "blocks of" in s.name)
    (values,) = space.sketches[n].likely() or ()
    points = np.zeros((len(next(iter(values.values()))), space.columns), np.int64)
    points[:, 0] = n
    for c, k in enumerate(space.sketches[n].knobs, 1):
        points[:, c] = values[k.name]
    return points[int(np.argmin(space.estimate(points)))]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("m", "n"), [(64, 512), (67, 1000), (129, 2049), (16, 531), (200, 488)])
def test_operands_used_once_are_read_along_their_rows(host: Machine, m: int, n: int, threads: int) -> None:
    """A product with a transposed matrix: a few rows are added to the sums in one go, from one end of the rows to the other."""
    space = Space(product("ij,i->j", (m, n), (m,)), host, threads)
    point = streamed(space)
    verify(space, np.stack([space.default(), point]))
    verify(space, space.sample(6, np.random.default_rng(m)))
    tile = next(f for f in loops(space.schedule(point).kernel) if f.kind is LoopKind.UNROLL)
    assert tile.name.startswith("i") and 4 <= tile.hi.value <= 16


@pytest.mark.parametrize("threads", [1, 2])
def test_large_operands_used_once_are_streamed_without_tuning(host: Machine, threads: int) -> None:
    space = Space(product("ij,i->j", (4096, 4096), (4096,)), host, threads)
    assert streams(space)
    assert space.values(space.default())["depth_blocks"] == 4096 // 8, (
        "eight rows side by side: more are not prefetched, fewer store more sums"
    )
    assert space.values(space.default())["width_blocks"] <= threads, "rows are read from one end to the other"


def channel_sums(batch: int, size: int, channels: int) -> Kernel:
    """Sums over images, NHWC."""
    x = lang.tensor("x", ty.f32, (batch, size, size, channels))
    p, q = lang.reduce_axis(0, size, "p"), lang.reduce_axis(0, size, "q")
    return lang.build("sums", [x], [lang.compute("t", (batch, channels), lambda n, c: lang.sum(x[n, p, q, c], [p, q]))])


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_of_two_reduction_loops(host: Machine, threads: int) -> None:
    space = Space(channel_sums(2, 7, 600), host, threads)
    verify(space, np.stack([space.default(), streamed(space)]))
    verify(space, space.sample(6, np.random.default_rng(1)))


def test_what_is_not_streamed(host: Machine) -> None:
    """Operands used again stay in tiles; constants are stored in panels, whose rows a tile covers; so it does short rows."""
    assert not streams(Space(product("ij,jk->ik", (64, 64), (64, 2048)), host, 1))
    assert not streams(Space(product("ij,i->j", (256, 2048), (256,)), host, 1, ["a"]))
    assert not streams(Space(product("ij,i->j", (256, 256), (256,)), host, 1))
    assert not streams(Space(product("ij,i->j", (8, 2048), (8,)), host, 1))
    assert not streams(Space(channel_sums(1, 64, 600), host, 1))  # 64 rows at once are more than prefetchers follow


def test_streams_are_estimated_faster_than_tiles_down_the_columns(host: Machine) -> None:
    space = Space(product("ij,i->j", (4096, 4096), (4096,)), host, 1)
    point = space.default()
    others = space.sample(200, np.random.default_rng(0))
    others = others[["blocks of" not in space.sketch(p).name for p in others]]
    assert space.estimate(point[None])[0] < 0.7 * space.estimate(others).min()


# --- parts for threads ------------------------------------------------------------------------


def parallel_loops(space: Space) -> list[For]:
    return [f for f in loops(space.schedule(space.default()).kernel) if f.kind is LoopKind.PARALLEL]


def in_parts(space: Space) -> bool:
    return "parts of" in space.sketch(space.default()).name


FEW_RESULTS = {
    "sum": lambda: total(600_001),
    "sum of a matrix": lambda: total(901, 700),
    "five rows": lambda: product("ij,j->i", (5, 90_001), (90_001,)),
    "one row": lambda: product("ij,j->i", (1, 400_003), (400_003,)),
    "narrow columns": lambda: product("ij,i->j", (50_001, 12), (50_001,)),
    "small product": lambda: product("ik,kj->ij", (5, 20_010), (20_010, 16)),
    "batched": lambda: product("bik,bkj->bij", (1, 3, 9_000), (1, 9_000, 24)),
}


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("name", FEW_RESULTS)
def test_few_results_are_summed_by_all_threads(host: Machine, name: str, threads: int) -> None:
    space = Space(FEW_RESULTS[name](), host, threads)
    assert in_parts(space), space.sketch(space.default()).name
    (loop,) = parallel_loops(space)
    assert loop.hi.value in (threads, 4 * threads)
    verify(space, space.default()[None])
    named = [n for n, s in enumerate(space.sketches) if "parts of" in s.name]
    assert {space.sketches[n].name.split(" parts")[0].split()[-1] for n in named} == {str(threads), str(4 * threads)}
    points = space.sample(200, np.random.default_rng(threads))
    verify(space, points[np.isin(points[:, 0], named)][:3])


def test_parts_that_keep_an_operand_from_being_packed_are_not_the_default(host: Machine) -> None:
    """Five chunks on two threads leave one idle, but weights cut along the reduction would be gathered: four times as slow."""
    space = Space(product("pqc,kc->pqk", (7, 7, 1024), (352, 1024)), host, 2, ["b"])
    assert not in_parts(space)


def test_of_nearly_equal_tiles_the_one_that_divides_evenly_is_taken(host: Machine) -> None:
    """On one thread 80 or 96 of 256 columns are best, three chunks with a rest: two threads take 64."""
    kernel = product("ik,kj->ij", (196, 1024), (1024, 256))
    alone, both = (Space(kernel, host, threads, ["b"]) for threads in (1, 2))
    assert not in_parts(both) and 256 % (2 * both.values(both.default())["width"]) == 0
    assert 256 % (2 * alone.values(alone.default())["width"]) != 0, "or this shows nothing"


def softmax_row(n: int) -> Kernel:
    """The softmax of one long row: a maximum, then a sum."""
    x = lang.tensor("x", ty.f32, (1, n))
    a, b = lang.reduce_axis(0, n, "a"), lang.reduce_axis(0, n, "b")
    top = lang.compute("top", (1,), lambda i: lang.max(x[i, a], a))
    e = lang.compute("e", (1, n), lambda i, j: intrinsic("exp", x[i, j] - top[i]))
    s = lang.compute("s", (1,), lambda i: lang.sum(e[i, b], b))
    return lang.build("softmax", [x], [lang.compute("y", (1, n), lambda i, j: e[i, j] / s[i])])


def test_all_reductions_of_a_row_are_cut(host: Machine) -> None:
    space = Space(softmax_row(600_001), host, 2)
    assert in_parts(space) and space.sketch(space.default()).name.count("2 parts of") == 2
    verify(space, space.default()[None])


def test_what_is_not_cut(host: Machine) -> None:
    """One thread; enough rows for all; short sums; sums in an order that matters."""
    assert not in_parts(Space(total(200_000), host, 1))
    for kernel in (product("ij,j->i", (64, 2000), (2000,)), total(900), product("ik,kj->ij", (64, 600), (600, 256))):
        assert not in_parts(Space(kernel, host, 2))
        assert not any("64" in s.name.split("parts")[0] for s in Space(kernel, host, 2).sketches)
    narrow = kernel_of("def f(x: i32[100000], s: i8):\n    for i in range(100000):\n        s += cast(x[i], i8)")
    reads = kernel_of("def f(x: f32[100000], s: f32):\n    for i in range(100000):\n        s += x[i] * s")
    for kernel in (reads, narrow):
        space = Space(kernel, host, 2)
        space.plan(space.default())
    assert not any("parts" in s.name for s in Space(reads, host, 2).sketches)


def test_parts_are_estimated_faster(host: Machine) -> None:
    space = Space(total(4_000_000), host, 2)
    whole = next(n for n, s in enumerate(space.sketches) if "parts of" not in s.name)
    points = space.sample(200, np.random.default_rng(0))
    costs = space.estimate(points)
    assert costs[points[:, 0] != whole].min() < 0.7 * costs[points[:, 0] == whole].min()


def test_parts_replay(host: Machine) -> None:
    space = Space(product("ij,j->i", (3, 10_000), (10_000,)), host, 2)
    point = space.default()
    assert replay(space.kernel, space.trace(point), host).kernel == space.schedule(point).kernel
    np.testing.assert_array_equal(space.decode(space.encode(point)), point)


# --- the loop that is divided -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("bik,bkj->bij", ((3, 64, 64), (3, 64, 96))),  # three matrices on two threads: their rows or columns are divided
        ("bik,kj->bij", ((3, 64, 64), (64, 96))),
        ("ik,kj->ij", ((36, 256), (256, 512))),
        ("bcik,bckj->bcij", ((1, 5, 40, 64), (1, 5, 64, 96))),
    ],
)
def test_no_thread_waits_for_a_third_chunk(host: Machine, spec: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    space = Space(product(spec, *shapes), host, 2)
    kernel = space.schedule(space.default()).kernel
    first = next(f for f in kernel.body.stmts if isinstance(f, For) and any(isinstance(t, For) for t in f.body.stmts))
    parallel = [f for f in loops(first) if f.kind is LoopKind.PARALLEL]
    assert parallel and all((f.hi.value - f.lo.value) % 2 == 0 or f.hi.value > 8 for f in parallel), str(kernel)
    verify(space, space.default()[None])


@pytest.mark.parametrize("shape", [(3, 64, 400), (5, 1, 7, 3000), (3, 5, 2, 3001)])
def test_loops_of_few_rows_are_divided_together(host: Machine, shape: tuple[int, ...]) -> None:
    x, a = lang.tensor("x", ty.f32, shape), lang.reduce_axis(0, shape[-1], "a")
    sums = lang.build("sums", [x], [lang.compute("t", shape[:-1], lambda *at: lang.sum(x[(*at, a)], a))])
    space = Space(sums, host, 2)
    whole = next(n for n, s in enumerate(space.sketches) if s.name == "t: along a")
    point = space.default() if int(space.default()[0]) == whole else space.enumerate(10**4)[0]
    (loop,) = [f for f in loops(space.schedule(point).kernel) if f.kind is LoopKind.PARALLEL]
    assert loop.hi.value >= 8 or loop.hi.value % 2 == 0
    verify(space, point[None])
    program = space.sketches[whole].program
    assert [f.hi.value for f in loops(program) if f.kind is LoopKind.PARALLEL] == [loop.hi.value]


def test_enough_rows_stay_a_loop_of_their_own(host: Machine) -> None:
    x, a = lang.tensor("x", ty.f32, (9, 4, 900)), lang.reduce_axis(0, 900, "a")
    sums = lang.build("sums", [x], [lang.compute("t", (9, 4), lambda i, j: lang.sum(x[i, j, a], a))])
    space = Space(sums, host, 2)
    assert [f.hi.value for f in parallel_loops(space)] == [9]


def test_a_reduction_that_reads_no_array(host: Machine) -> None:
    kernel = kernel_of("""
@kernel
def count(y: f32[16, 64]):
    for i in range(16):
        for j in range(64):
            for k in range(8):
                y[i, j] += 1.0
""")
    space = Space(kernel, host, threads=1)
    verify(space, space.sample(2, np.random.default_rng(0)))
