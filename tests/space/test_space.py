"""The schedule space: its points are valid, schedule as described, and compute what the kernel says."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from benchmarks.workloads import conv, gemm, gemv, softmax
from tests.space.operators import OPERATORS, matmul_gelu

from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import compare
from tilewright.ir.stmt import Kernel, LoopKind
from tilewright.runtime import build, check
from tilewright.schedule.nest import trip_count
from tilewright.schedule.replay import replay
from tilewright.schedule.schedule import Schedule
from tilewright.space.context import Context
from tilewright.space.knob import Knob
from tilewright.space.sketch import Sketch
from tilewright.space.space import Space
from tilewright.util.errors import SpaceError


@pytest.fixture(scope="module")
def host() -> Machine:
    return Machine.host()


def space_of(name: str, machine: Machine, threads: int = 2) -> Space:
    make, constants = OPERATORS[name]
    return Space(make(), machine, threads, constants)


def verify(space: Space, points: np.ndarray) -> None:
    """Every point schedules without refusal and equals the reference."""
    for point in points:
        plan = space.plan(point)
        assert not plan.refused, f"{space.describe(point)}: {plan.refused}"
        module = build(plan.schedule, space.machine, threads=space.threads, cache=False)
        try:
            check(module, space.kernel, trials=1, seed=0)
        except Exception as error:
            raise AssertionError(f"{space.describe(point)}\n{plan.schedule.kernel}") from error


@pytest.mark.parametrize("name", OPERATORS)
def test_sampled_points_schedule_and_compute_the_kernel(host: Machine, name: str) -> None:
    space = space_of(name, host)
    verify(space, space.sample(2, np.random.default_rng(sum(map(ord, name)))))
    verify(space, space.default()[None])


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", OPERATORS)
def test_many_points(host: Machine, name: str, threads: int) -> None:
    space = space_of(name, host, threads)
    verify(space, space.sample(60, np.random.default_rng(7)))


@pytest.mark.parametrize("name", OPERATORS)
def test_samples_neighbours_and_children_are_valid(host: Machine, name: str) -> None:
    space, rng = space_of(name, host), np.random.default_rng(1)
    points = space.sample(500, rng)
    assert points.shape == (500, space.columns) and points.dtype == np.int64
    assert space.valid(points).all()
    near = space.neighbours(points, rng)
    assert space.valid(near).all()
    if space.size > 1:
        assert (near != points).any(axis=1).mean() > 0.9
    children = space.crossover(points, np.roll(points, 1, axis=0), rng)
    assert space.valid(children).all()
    assert set(children[:, 0]) <= set(points[:, 0])


def test_invalid_points_are_seen_and_refused(host: Machine) -> None:
    space = space_of("gemm", host, 1)
    point = space.default()
    for column, value in ((0, -1), (0, len(space.sketches)), (1, 7), (1, 0), (2, 1000)):
        bad = point.copy()
        bad[column] = value
        assert not space.valid(bad[None])[0]
        with pytest.raises(SpaceError, match="not of the space"):
            space.schedule(bad)
    assert not space.valid(point[None, :-1])[0]


def test_enumeration_lists_every_point_once(host: Machine) -> None:
    space = Space(gemm(8, 32, 8).kernel(), host, 1)
    every = space.enumerate(10**6)
    assert len(every) == space.size == len(np.unique(every, axis=0))
    assert space.valid(every).all()
    np.testing.assert_array_equal(space.enumerate(10), every[:10])
    drawn = space.sample(2000, np.random.default_rng(0))
    assert set(map(tuple, drawn.tolist())) <= set(map(tuple, every.tolist()))


def test_size_agrees_with_the_constraints(host: Machine) -> None:
    """Counted with the constraints' own words, one point at a time."""
    space = Space(gemm(6, 32, 4).kernel(), host, 1)
    total = 0
    for sketch in space.sketches:
        grids = np.meshgrid(*(k.values for k in sketch.knobs), indexing="ij")
        env = {k.name: g.reshape(-1) for k, g in zip(sketch.knobs, grids, strict=True)}
        holds = np.ones(prod(len(k.values) for k in sketch.knobs), bool)
        for c in sketch.constraints:
            holds &= ex.evaluate(c, env)
        total += int(holds.sum())
    assert space.size == total


# --- the symbolic program -------------------------------------------------------------------


def tile_loops(kernel: Kernel, env: dict[str, int]) -> list[tuple[LoopKind, int]]:
    """Kind and extent of the loops around the first update of a register tile; loops of one iteration left out."""

    def visit(s: st.Stmt, around: list[st.For]) -> list[st.For] | None:
        if isinstance(s, st.Store) and s.op and s.buffer.memory == "reg":
            return around
        inside = [*around, s] if isinstance(s, st.For) else around
        return next((found for t in st.substmts(s) if (found := visit(t, inside)) is not None), None)

    found = visit(kernel.body, [])
    assert found is not None
    extents = [(f.kind, int(ex.evaluate(f.extent, env)) if env else trip_count(f) or 0) for f in found]
    return [(kind, n) for kind, n in extents if n > 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_symbolic_program_has_the_loops_of_the_schedule(host: Machine, threads: int) -> None:
    """Where tiles and blocks divide the extents there is only the main tile, and its loops are those of the program."""
    space = Space(gemm(96, 192, 40).kernel(), host, threads)
    compared = 0
    for point in space.sample(60, np.random.default_rng(threads)):
        values = space.values(point)
        kernel = space.schedule(point).kernel
        updates = [s for s in st.walk(kernel.body) if isinstance(s, st.Store) and s.op and s.buffer.memory == "reg"]
        if len(updates) == 1:
            compared += 1
            assert tile_loops(space.sketch(point).program, values) == tile_loops(kernel, {}), space.describe(point)
    assert compared >= 8


def volume(kernel: Kernel, env: dict[str, int]) -> int:
    """Iterations of all updates of register tiles."""

    def visit(s: st.Stmt, n: int) -> int:
        if isinstance(s, st.Store):
            return n if s.op and s.buffer.memory == "reg" else 0
        if isinstance(s, st.For):
            n *= int(ex.evaluate(s.extent, env)) if env else trip_count(s) or 0
        return sum(visit(t, n) for t in st.substmts(s))

    return visit(kernel.body, 1)


@pytest.mark.parametrize("name", ["gemm", "linear", "conv", "conv 7x7", "conv strided", "batched", "einsum"])
def test_the_symbolic_program_does_the_work_of_the_schedule(host: Machine, name: str) -> None:
    """Remainders are rounded up: never less work than the schedule, and not more than full tiles and blocks."""
    space = space_of(name, host)
    for point in space.sample(12, np.random.default_rng(3)):
        exact, rounded = volume(space.schedule(point).kernel, {}), volume(space.sketch(point).program, space.values(point))
        assert exact <= rounded, space.describe(point)
        sizes = {k: v for k, v in space.values(point).items() if not k.endswith("blocks")}
        waste = prod(1 + v / 7 for v in sizes.values())
        assert rounded <= exact * max(waste, 9 / 8) ** 2


@pytest.mark.parametrize("name", OPERATORS)
def test_symbolic_programs_are_ordinary_kernels(host: Machine, name: str) -> None:
    """Bound to values they verify; their sizes are the knobs."""
    from tilewright.ir.verify import verify as well_formed

    space = space_of(name, host)
    for number, sketch in enumerate(space.sketches):
        assert [v.name for v in sketch.program.sizes] == [k.name for k in sketch.knobs]
        well_formed(sketch.program)
        point = space.sample(200, np.random.default_rng(number))
        chosen = point[point[:, 0] == number][:1]
        for p in chosen:
            well_formed(st.specialize(sketch.program, **space.values(p)))


# --- points as data -------------------------------------------------------------------------


def test_traces_replay(host: Machine) -> None:
    space = space_of("conv", host)
    for point in space.sample(3, np.random.default_rng(5)):
        assert replay(space.kernel, space.trace(point), space.machine).kernel == space.schedule(point).kernel


def test_points_survive_encoding(host: Machine) -> None:
    space = space_of("conv", host)
    for point in space.sample(50, np.random.default_rng(2)):
        np.testing.assert_array_equal(space.decode(space.encode(point)), point)
    assert space.describe(space.default()).startswith(space.sketches[int(space.default()[0])].name)


def test_points_carry_over_to_another_shape(host: Machine) -> None:
    small, large = Space(gemm(37, 50, 29).kernel(), host, 1), Space(gemm(197, 768, 96).kernel(), host, 1)
    for point in small.sample(50, np.random.default_rng(2)):
        data = small.encode(point)
        moved = large.decode(data)
        assert large.valid(moved[None])[0]
        assert large.encode(moved)["sketch"] == data["sketch"]
        # A legal tile size stays what it was.
        if data["knobs"].get("rows", 0) in {k.name: k.values for k in large.sketch(moved).knobs}.get("rows", ()):
            assert abs(large.values(moved)["rows"] - data["knobs"]["rows"]) <= data["knobs"]["rows"]


def test_what_cannot_be_decoded_is_refused(host: Machine) -> None:
    space = space_of("gemm", host)
    with pytest.raises(SpaceError, match="no sketch 'other'"):
        space.decode({"sketch": "other", "knobs": {}})
    for damaged in ({}, {"sketch": "x"}, {"sketch": "x", "knobs": 3}, {"sketch": "x", "knobs": {"rows": "many"}}):
        with pytest.raises(SpaceError, match="not an encoded point"):
            space.decode(damaged)


# --- spaces without points, and default -----------------------------------------------------


def test_a_space_without_points_names_the_constraint(host: Machine) -> None:
    def impossible(context: Context) -> list[Sketch]:
        rows = Knob("rows", (8, 16))
        too_small = compare("<=", rows.var, 4)
        return [Sketch("tall", (rows,), (too_small,), context.kernel, lambda values: Schedule(context.kernel))]

    space = Space(gemm(8, 8, 8).kernel(), host, rules=[impossible])
    with pytest.raises(SpaceError, match=r"no valid schedule on .*: tall: no values of rows satisfy rows <= 4"):
        space.sample(1, np.random.default_rng(0))


@pytest.mark.parametrize(("sketches", "hint"), [(1, None), (2, "second: no point")])
def test_what_has_no_hint_gets_none(host: Machine, monkeypatch: pytest.MonkeyPatch, sketches: int, hint: str | None) -> None:
    def refuse(*unused: object) -> None:
        raise SpaceError("no point")

    def two(context: Context) -> list[Sketch]:
        return [Sketch(name, (), (), context.kernel, lambda values: Schedule(context.kernel)) for name in ("first", "second")[:sketches]]

    monkeypatch.setattr("tilewright.space.space.Diagram", refuse)
    with pytest.raises(SpaceError, match="no valid schedule on host: first: no point") as refused:
        Space(gemm(8, 8, 8).kernel(), host, rules=[two]).sample(1, np.random.default_rng(0))
    assert refused.value.hint == hint


def test_a_space_without_rules_says_so(host: Machine) -> None:
    with pytest.raises(SpaceError, match="no rule has a schedule for gemm"):
        Space(gemm(8, 8, 8).kernel(), host, rules=[])


def test_defaults_do_not_need_the_whole_space(host: Machine) -> None:
    """A default builds no diagram and few symbolic programs, and none at all where there is nothing to decide: it has to be quick."""
    space = Space(conv("c", 14, 64, 64).kernel(), host, 2)
    space.plan(space.default())
    assert "diagrams" not in vars(space)
    assert 0 < sum("program" in vars(s) for s in space.sketches) < len(space.sketches) / 2
    rows = Space(softmax(768, 197).kernel(), host, 1)
    rows.plan(rows.default())
    assert not any("program" in vars(s) for s in rows.sketches)


def test_defaults_are_the_best_of_the_likely_points(host: Machine) -> None:
    for kernel in (gemm(64, 96, 80).kernel(), conv("c", 14, 32, 48).kernel()):
        space = Space(kernel, host, 1)
        least = np.inf
        for n, s in enumerate(space.sketches):
            groups = s.likely() if s.likely else None
            for g in groups or []:
                points = np.zeros((len(next(iter(g.values()))), space.columns), np.int64)
                points[:, 0] = n
                for c, k in enumerate(s.knobs, 1):
                    points[:, c] = g.get(k.name, 1)
                assert space.valid(points).all()
                least = min(least, space.estimate(points).min())
        assert space.estimate(space.default()[None])[0] <= least * 1.05


@pytest.mark.parametrize("threads", [1, 2])
def test_no_likely_point_is_estimated_below_its_bound(host: Machine, threads: int) -> None:
    several = [gemm(64, 96, 80), gemm(197, 40, 33), gemv(300), gemv(300, transposed=True)]
    for w in (*several, conv("c", 14, 32, 48), conv("d", 9, 24, 24, groups=24)):
        space = Space(w.kernel(), host, threads)
        for n, s in enumerate(space.sketches):
            for g in (s.likely() if s.likely else None) or []:
                count = len(next(iter(g.values())))
                values = {k.name: g.get(k.name, np.full(count, k.values[0])) for k in s.knobs}
                least = np.min(space.costs.seconds(n, values))
                assert least >= 0.999 * host.seconds(s.bound), f"{w.name} {s.name}: {least} {host.seconds(s.bound)}"


def test_epilogues_are_part_of_the_tile(host: Machine) -> None:
    """The matrix product with gelu has no pass of its own for the gelu, in the program and in the schedule."""
    space = Space(matmul_gelu(32, 64, 16), host, 1)
    kernel = space.schedule(space.default()).kernel
    assert "product" not in {b.name for b in st.allocated(kernel) if b.memory != "reg"}
    for sketch in space.sketches:
        if "along" not in sketch.name:
            assert "product" not in {b.name for b in st.all_buffers(sketch.program)}
