"""Short programs in other orders: right to the bit, in other places, never slower."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from tests.codegen.commands.scheduled_gemm import Gemm
from tests.space.test_rules_explicit import convolution

from tilewright.codegen.commands import Program, check, generate
from tilewright.codegen.commands.unfolding import unfold
from tilewright.hw import load_machine
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel
from tilewright.sim.gemmini.generated import execute, timed
from tilewright.sim.gemmini.memory_timing import Timing
from tilewright.sim.gemmini.reordering import Order, _Search, reordered
from tilewright.sim.gemmini.tuning import tuned
from tilewright.space import Space

MACHINE = load_machine("gemmini")


def assert_right(program: Program, kernel: Kernel) -> None:
    check(program, MACHINE)
    rng = np.random.default_rng(1)
    arrays = {b.name: rng.integers(-99, 99, b.static_shape).astype(b.dtype.to_numpy()) for b in kernel.args}
    expected = {n: a.copy() for n, a in arrays.items()}
    reference(kernel, expected)
    execute(program, MACHINE, arrays)
    for name, a in arrays.items():
        np.testing.assert_array_equal(a, expected[name])


@pytest.mark.parametrize(
    ("size", "tile", "init"),
    [((17, 40, 50), (32, 64, 32), "0"), ((50, 17, 16), (64, 32, 16), "bias[j]"), ((3, 40, 33), (16, 16, 64), "d[i, j]")],
)
def test_any_order_is_right(size: tuple[int, int, int], tile: tuple[int, int, int], init: str) -> None:
    gemm = Gemm(*size, tile, init=init)
    program = generate(gemm.scheduled(MACHINE), MACHINE)
    found = reordered(program, MACHINE, trials=12)
    assert found is not None
    assert found.tried == 12
    assert found.cycles == timed(found.program, MACHINE).cycles <= timed(program, MACHINE).cycles
    assert_right(found.program, gemm.kernel())


def test_an_order_that_is_too_slow_is_left_early_and_no_other() -> None:
    """An order is told to be slower than a limit only where it is."""
    program = generate(Gemm(40, 33, 70, (32, 48, 32)).scheduled(MACHINE), MACHINE)
    unfolded = unfold(program, MACHINE, 500)
    assert unfolded is not None
    search = _Search(program, MACHINE, unfolded, Timing())
    rng = np.random.default_rng(3)
    for _ in range(12):
        order = Order(tuple(search.plain.legal([int(n) for n in rng.permutation(len(search.plain.computes))])))
        cycles = search.cycles(order)
        assert search.cycles(order, cycles) == cycles
        assert search.cycles(order, cycles / 2) == inf


def test_convolutions_with_zeros_around_them() -> None:
    """Zeros are laid into the scratchpad first, the input over them. The last iteration of the loop over rows is ordered too: where
    its loads put their blocks is set before the loop.
    """
    kernel = convolution((7, 6), 20, 18, 3, 1, 1, True)
    space = Space(kernel, MACHINE)
    point = np.unique(space.sample(4, np.random.default_rng(0)), axis=0)[3]
    assert "a at p_1 (p_1_tiles=3" in space.describe(point)
    program = generate(space.schedule(point).kernel, MACHINE)
    assert_right(program, kernel)
    found = reordered(program, MACHINE, trials=4)
    assert found is not None
    assert found.cycles < timed(program, MACHINE).cycles
    assert_right(found.program, kernel)


def test_moves_cut_narrower_move_the_same() -> None:
    gemm = Gemm(20, 70, 70, (64, 64, 64))
    program = generate(gemm.scheduled(MACHINE), MACHINE)
    plain = unfold(program, MACHINE, 1000)
    assert plain is not None
    moves = {n.move for n in plain.nodes} - {-1}
    cut = unfold(program, MACHINE, 1000, {move: 1 + move % 3 for move in moves})
    assert cut is not None
    for kind, more in (("load", True), ("store", True), ("compute", False)):
        assert (len(cut.of(kind)) > len(plain.of(kind))) == more
    assert {n.move for n in cut.nodes} - {-1} == moves
    search = _Search(program, MACHINE, plain, Timing())
    order = Order(tuple(range(len(plain.of("compute")))), cut=tuple((move, 1 + move % 3) for move in sorted(moves)))
    judge = search.judge(order)
    assert judge is not None
    cycles = judge.run(order)
    narrow = judge.u.issued(judge.items)
    assert cycles == timed(narrow, MACHINE).cycles
    assert_right(narrow, gemm.kernel())


def test_what_is_loaded_twice_is_loaded_once() -> None:
    program = generate(Gemm(32, 64, 16, (32, 16, 16)).scheduled(MACHINE), MACHINE)
    unfolded = unfold(program, MACHINE, 1000)
    assert unfolded is not None
    loads = [tuple(unfolded.nodes[n].operands.items()) for n in unfolded.of("load")]
    assert sum(name == "src" and o.base == "a" for load in loads for name, o in load) == 2  # type: ignore[union-attr]


def test_long_programs_and_host_work_stay_as_they_are() -> None:
    long = generate(Gemm(512, 512, 64, (64, 64, 64)).scheduled(MACHINE), MACHINE)
    assert reordered(long, MACHINE, trials=4) is None


def test_orders_make_short_programs_faster() -> None:
    kernel = Gemm(64, 64, 64).kernel()
    plain, better = (tuned(kernel, MACHINE, measured=6, orders=orders) for orders in (0, 60))
    assert (plain.orders, better.orders) == (0, 60)
    assert better.cycles < plain.cycles
    assert_right(better.program, kernel)
