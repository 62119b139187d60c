"""Reductions with few results or along memory: rows of several loops, parts for threads, blocks of rows."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import lang
from tilewright.codegen.llvm import emit
from tilewright.hw import Machine
from tilewright.ir import types as ty
from tilewright.ir.stmt import For, Kernel, LoopKind, loops
from tilewright.runtime import build, check
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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("m", "n"), [(64, 512), (67, 1000), (129, 2049), (16, 531), (200, 488)])
def test_operands_used_once_are_read_along_their_rows(host: Machine, m: int, n: int, threads: int) -> None:
    """A product with a transposed matrix: a few rows are added to the sums in one go, from one end of the rows to the other."""
    space = Space(product("ij,i->j", (m, n), (m,)), host, threads)
    assert streams(space)
    verify(space, space.default()[None])
    verify(space, space.sample(6, np.random.default_rng(m)))
    tile = next(f for f in loops(space.schedule(space.default()).kernel) if f.kind is LoopKind.UNROLL)
    assert tile.name.startswith("i") and tile.hi.value == 8


def channel_sums(batch: int, size: int, channels: int) -> Kernel:
    """Sums over images, NHWC."""
    x = lang.tensor("x", ty.f32, (batch, size, size, channels))
    p, q = lang.reduce_axis(0, size, "p"), lang.reduce_axis(0, size, "q")
    return lang.build("sums", [x], [lang.compute("t", (batch, channels), lambda n, c: lang.sum(x[n, p, q, c], [p, q]))])


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_of_two_reduction_loops(host: Machine, threads: int) -> None:
    space = Space(channel_sums(2, 7, 600), host, threads)
    assert streams(space)
    verify(space, space.default()[None])
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
