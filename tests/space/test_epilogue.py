"""Where an element-wise nest takes the result of a reduction: on its tiles, or on blocks of them that have all their sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from benchmarks.workloads import conv, gemm, padded
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.space.programs import Generator

from tilewright import lang
from tilewright.cost.estimate import estimate
from tilewright.cost.features import features
from tilewright.cost.traffic import analyse
from tilewright.hw import Machine, load_machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.interpreter import interpret
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import f32
from tilewright.runtime import build, check
from tilewright.schedule.replay import replay
from tilewright.space import Space

MACHINE = load_machine("x86.avx512")


def dense(m: int, n: int, k: int, residual: bool = True) -> Kernel:
    """A product with bias, residual and ReLU."""
    a, b, r = lang.tensor("a", f32, (m, k)), lang.tensor("b", f32, (k, n)), lang.reduce_axis(0, k, "r")
    bias, more = lang.tensor("bias", f32, (n,)), lang.tensor("more", f32, (m, n))
    c = lang.compute("c", (m, n), lambda i, j: lang.sum(a[i, r] * b[r, j], [r]))

    def last(i: Any, j: Any) -> ex.Expr:
        value = c[i, j] + bias[j] + more[i, j] if residual else c[i, j] + bias[j]
        return ex.binary("max", value, ex.const(0.0, f32))

    return lang.build("dense", [a, b, bias, *([more] if residual else [])], [lang.compute("y", (m, n), last)])


def convolution(size: int, channels: int, filters: int) -> Kernel:
    """A padded 3x3 convolution with bias and ReLU."""
    x, w = lang.tensor("x", f32, (1, channels, size, size)), lang.tensor("w", f32, (filters, channels, 3, 3))
    bias, source = lang.tensor("bias", f32, (filters,)), padded(x, 1)
    c, r, s = (lang.reduce_axis(0, e, n) for n, e in (("c", channels), ("r", 3), ("s", 3)))
    shape = (1, filters, size, size)
    z = lang.compute("z", shape, lambda n, o, p, q: lang.sum(source[n, c, p + r, q + s] * w[o, c, r, s], [c, r, s]))
    y = lang.compute("y", shape, lambda n, o, p, q: ex.binary("max", z[n, o, p, q] + bias[o], ex.const(0.0, f32)))
    return lang.build("convolution", [x, w, bias], [y])


def places(space: Space) -> dict[str, tuple[int, ...]]:
    """The values of the knob, by sketch."""
    return {s.name: k.values for s in space.sketches for k in s.structural}


def verify(space: Space, points: np.ndarray, run: Callable[..., object] = interpret) -> None:
    """Points schedule without refusal, traces replay, and what they compute is what the kernel computes, to the bit."""
    rng, kernel = np.random.default_rng(0), space.kernel
    data = {b.name: rng.integers(-3, 4, b.static_shape).astype(np.float32) for b in kernel.args}
    want = {n: v.copy() for n, v in data.items()}
    run(kernel, want)
    for point in points:
        plan = space.plan(point)
        assert not plan.refused, f"{space.describe(point)}: {plan.refused}"
        assert replay(kernel, plan.schedule.trace, space.machine).kernel == plan.schedule.kernel
        got = {n: v.copy() for n, v in data.items()}
        run(plan.schedule.kernel, got)
        np.testing.assert_array_equal(got["y"], want["y"], err_msg=space.describe(point))


def at(space: Space, sketch: str, place: int, **knobs: int) -> np.ndarray:
    """The point of ``sketch`` with the result consumed outside ``place`` levels."""
    return space.decode({"sketch": sketch, "knobs": {**knobs, "epilogue": place}})


def test_every_level_of_tiles_with_complete_sums_is_a_place() -> None:
    """On the register tile and on blocks of tiles; with the reduction in blocks, outside of those and at the very end."""
    found = places(Space(dense(64, 96, 1024), MACHINE, 1))
    assert found["c: i_1 x j_1"] == (0, 2)
    assert found["c: i_1 x j_1, blocks of r"] == (4, 5)


def test_results_that_nothing_consumes_leave_no_choice() -> None:
    assert places(Space(gemm(64, 96, 1024).kernel(), MACHINE, 1)) == {}
    assert places(Space(conv("c", 14, 32, 32).kernel(), MACHINE, 2)) == {}


def test_the_default_consumes_tiles() -> None:
    for threads in (1, 2):
        space = Space(dense(128, 128, 128), MACHINE, threads)
        assert space.values(space.default())["epilogue"] == 0


@settings(max_examples=12, deadline=None)
@given(
    m=some.integers(1, 20), n=some.integers(1, 40), k=some.sampled_from([1, 7, 260]), threads=some.sampled_from([1, 2]),
    residual=some.booleans(), seed=some.integers(0, 9),
)  # fmt: skip
def test_any_place_computes_the_same(m: int, n: int, k: int, threads: int, residual: bool, seed: int) -> None:
    space = Space(dense(m, n, k, residual), MACHINE, threads)
    verify(space, space.sample(2, np.random.default_rng(seed)))


@pytest.mark.parametrize("threads", [1, 2])
def test_all_places_of_all_structures(threads: int) -> None:
    """One point with several blocks of each structure and place; the reduction is short, but in blocks where a structure has them."""
    space = Space(dense(21, 70, 260), MACHINE, threads)
    rng = np.random.default_rng(1)
    drawn = space.sample(4000, rng)
    chosen: dict[tuple[int, int], np.ndarray] = {}
    for p in drawn:
        values = space.values(p)
        if values.get("width_blocks", 1) > 1:
            chosen.setdefault((int(p[0]), values.get("epilogue", 0)), p)
    several = list(chosen.values())
    assert len({space.values(p).get("epilogue", 0) for p in several}) >= 4
    verify(space, np.array(several[:: max(len(several) // 6, 1)]), reference)


def test_convolutions() -> None:
    space = Space(convolution(6, 3, 20), MACHINE, 2)
    points = space.sample(60, np.random.default_rng(2))
    outside = [p for p in points if space.values(p).get("epilogue", 0) > 0]
    verify(space, np.array(outside[:3]), reference)


def test_a_block_of_the_result_is_all_there_is_of_it() -> None:
    """The consumer stands behind the tiles of a block; the result has the size of the block, in schedule and program."""
    space = Space(dense(64, 128, 64), MACHINE, 1)
    point = at(space, "c: i_1 x j_1", 2, width=32, rows=8, width_blocks=2, rows_blocks=2)
    kernel = space.schedule(point).kernel
    shapes = {b.static_shape for b in st.allocated(kernel) if b.memory != "reg"}
    assert shapes == {(32, 64)}
    values = space.values(point)
    program = space.sketch(point).program_of((2,))
    (block,) = [b for b in st.allocated(program) if b.memory != "reg"]
    assert tuple(int(ex.evaluate(e, values)) for e in block.shape) == (32, 64)


def test_costs_see_where_the_result_is_consumed() -> None:
    """A result of 8 MiB that sums in blocks add to: taken from blocks that stay in a cache, it never comes from main memory again."""
    space = Space(dense(256, 8192, 256), MACHINE, 1)
    knobs = {"width": 32, "rows": 8, "width_blocks": 64, "rows_blocks": 1, "depth_blocks": 2}
    blocks, end = (at(space, "c: i_1 x j_1, copy b, blocks of r", place, **knobs) for place in (4, 5))
    assert space.values(blocks) == {**knobs, "epilogue": 4} and space.values(end) == {**knobs, "epilogue": 5}
    points = np.array([blocks, end])
    seconds = space.estimate(points)
    assert seconds[0] < 0.98 * seconds[1]
    described = space.features(points)
    assert not np.allclose(described[0], described[1])

    def taken(point: np.ndarray) -> float:
        """Bytes of the result that the consumer brings into the second cache."""
        place = space.values(point)["epilogue"]
        reports = analyse(space.sketch(point).program_of((place,)), space.values(point), MACHINE)
        last = max(r.statement for r in reports)
        return sum(r.traffic["l2"] for r in reports if r.statement == last and r.buffer.startswith("c"))

    assert taken(end) >= 256 * 8192 * 4
    assert taken(blocks) <= taken(end) / 8


def test_costs_are_those_of_the_program_for_the_place() -> None:
    space = Space(dense(97, 130, 520), MACHINE, 2)
    points = space.sample(60, np.random.default_rng(0))
    seconds, columns = space.estimate(points), space.features(points)
    for p, own, rows in zip(points, seconds, columns, strict=True):
        values = space.values(p)
        env = {n: np.array([v]) for n, v in values.items()}
        program = space.sketch(p).program_of(tuple(values[k.name] for k in space.sketch(p).structural))
        assert own == pytest.approx(estimate(program, MACHINE, env, 2)[0], rel=1e-9)
        alone = features(program, MACHINE, env)[0]
        assert np.allclose(rows[: len(alone)], alone, atol=1e-4) and not rows[len(alone) :].any()
    together, spent = space.predict(points)
    assert np.array_equal(together, columns)
    assert spent == pytest.approx(seconds, rel=1e-9)


def test_points_do_not_repeat_each_other() -> None:
    """A block of one tile is that tile: there it is consumed in one place only."""
    space = Space(dense(40, 64, 32), MACHINE, 1)
    number = next(n for n, s in enumerate(space.sketches) if s.name == "c: i_1 x j_1")
    for p in (p for p in space.sample(2000, np.random.default_rng(3)) if p[0] == number and space.values(p)["epilogue"]):
        v = space.values(p)
        tiles = -(-64 // v["width"]) / v.get("width_blocks", 1) * (-(-40 // v["rows"]) / v.get("rows_blocks", 1))
        assert tiles > 1, v


def test_points_recorded_without_the_choice_are_found_again() -> None:
    """Schedules of before consumed results on tiles."""
    space = Space(dense(64, 64, 64), MACHINE, 1)
    point = space.default()
    old = space.encode(point)
    del old["knobs"]["epilogue"]
    assert np.array_equal(space.decode(old), point)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(50_000, 50_400, 100))
def test_random_programs_with_results_consumed_outside_of_tiles(first: int) -> None:
    """Points whose results are consumed outside of tiles are built and checked against the program; no structure is refused."""
    host = Machine.host()
    for seed in range(first, first + 100):
        program = Generator(seed).program()
        space = Space(program.kernel, host, program.threads, program.constants)
        for point in space.sample(8, np.random.default_rng(seed)):
            if all(space.values(point)[k.name] == k.values[0] for k in space.sketch(point).structural):
                continue
            plan = space.plan(point)
            assert not any(r.startswith("tiles") for r in plan.refused), f"seed {seed}, {space.describe(point)}: {plan.refused}"
            check(build(plan.schedule, host, threads=program.threads, cache=False), program.kernel, trials=1, seed=seed)
