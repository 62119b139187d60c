"""A maximum over windows of a convolution's results is taken on their way out of the accumulator: against NumPy, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as hs
from tests.codegen.commands.pooled_conv import Pooled

from tilewright.codegen.commands import Host, Program, check, generate, parse_program, stream, walk
from tilewright.cost.explicit import counted
from tilewright.cost.tape import Tape
from tilewright.hw.library.gemmini import gemmini
from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.generated import execute
from tilewright.sim.gemmini.words import decode
from tilewright.space.space import Space
from tilewright.util.errors import CodegenError

MACHINE = gemmini(dim=4)
#: Examples are small already; to shrink them further takes minutes.
PHASES = (Phase.explicit, Phase.generate)
#: Blocks that cannot be shown to be inside, or to fill their rows, are refused: other schedules do it.
BLOCKS = ("may lie outside", "ends before its rows")
#: So are programs that compute what no window reads (the last row of an odd number of them).
UNREAD = "that nothing has read"
PADDED = Pooled((9, 8), 3, 6, 2, 1, 0, 3, 2, 1)


def programs(case: Pooled, draws: int, seed: int) -> list[Program]:
    """Programs of drawn schedules, pipelined and not, checked."""
    space = Space(case.kernel(), MACHINE)
    out = []
    for point in space.sample(draws, np.random.default_rng(seed)):
        kernel = space.schedule(point).kernel
        out += [generate(kernel, MACHINE, pipeline=pipeline) for pipeline in (False, True)]
    for p in out:
        assert parse_program(str(p)) == p
        check(p, MACHINE)
    return out


def agrees(case: Pooled, program: Program, seed: int) -> None:
    arrays = case.arrays(seed)
    want = case.result(arrays)
    execute(program, MACHINE, arrays)
    np.testing.assert_array_equal(arrays["z"], want)


def by_store(program: Program) -> bool:
    return "mvout_pooled" in str(program) and not any(isinstance(i, Host) for i in walk(program.body))


@settings(max_examples=4, deadline=None, phases=PHASES)
@given(
    hs.tuples(hs.integers(5, 8), hs.integers(5, 8)),
    hs.integers(2, 5),
    hs.integers(1, 6),
    hs.sampled_from([(1, 1, 0), (2, 1, 0), (3, 2, 1), (2, 2, 0)]),
    hs.sampled_from([(2, 2, 0), (2, 1, 0), (2, 1, 1), (3, 2, 1), (3, 3, 1), (3, 1, 0)]),
    hs.integers(0, 2**32 - 1),
)
@example((7, 7), 2, 1, (2, 2, 0), (3, 3, 1), 197630)  # one window, which does not reach the last row and column
def test_any_shape(
    size: tuple[int, int], channels: int, filters: int, conv: tuple[int, int, int], pool: tuple[int, int, int], seed: int
) -> None:
    case = Pooled(size, channels, filters, *conv, *pool)
    if min(case.convolved) + 2 * case.pool_pad < case.pool:
        case = replace(case, window=1, step=1, pad=0)
    try:
        found = programs(case, 1, seed)
    except CodegenError as error:
        refused = (*BLOCKS, *((UNREAD,) if case.unread else ()))
        assert any(reason in error.message for reason in refused)
        return
    for program in found:
        assert by_store(program)
        agrees(case, program, seed)


def test_pixels_that_no_window_reaches_need_not_be_there() -> None:
    """A block of rows at the edge of the image computes only those that its windows read, and the lines of the others hold nothing."""
    case = Pooled((6, 6), 2, 3, 1, 1, 0, 3, 2, 1)
    for program in programs(case, 1, 1768):
        assert by_store(program)
        agrees(case, program, 5)


def test_blocks_with_and_without_an_edge_of_the_image() -> None:
    """Pads and rows of the store change from block to block, and programs that load ahead store with those of their block."""
    for program in programs(PADDED, 2, 1):
        assert by_store(program)
        agrees(PADDED, program, 2)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (replace(PADDED, relu=False), "pads of -128 and numbers below 0"),
        (replace(PADDED, pool=4, pool_pad=0), "windows of 4"),
        (replace(PADDED, pool=2, pool_step=3, pool_pad=0), "windows that skip rows"),
    ],
)
def test_what_the_store_cannot_do_the_host_does(case: Pooled, why: str) -> None:
    for program in programs(case, 1, 0):
        assert not by_store(program), why
        agrees(case, program, 3)


def test_numbers_below_zero_are_pooled_where_nothing_is_padded() -> None:
    case = replace(PADDED, relu=False, pool_pad=0)
    for program in programs(case, 1, 0):
        assert by_store(program)
        agrees(case, program, 4)


@pytest.fixture(scope="module")
def text() -> str:
    space = Space(PADDED.kernel(), MACHINE)
    whole = next(p for p in space.enumerate(4000) if all(v >= w.values[-1] for w, v in zip(space.sketch(p).knobs, p[1:], strict=False)))
    return str(generate(space.schedule(whole).kernel, MACHINE))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("lpad=1", "lpad=3", r"a window of 3 pixels lies outside the image"),
        (", orows=", ", orows=1 + ", r"its \d+ lines are not \d rows of 8 pixels"),
        ("ocols=8", "ocols=5", r"its \d+ lines are not \d rows of 5 pixels"),
        ("pool_size=3", "pool_size=0", r"axis s has 0 iterations"),
        ("pocols=4", "pocols=9", r"pixels over the edges|lies outside the image|overlap|lie outside z"),
        ("pool_stride=2", "pool_stride=1", r"state st has pool_stride = 1, it needs 2"),
        ("mvout_pooled2_scaled_relu", "mvout_pooled2_scaled", r"it needs 0"),
    ],
)
def test_check_refuses(text: str, old: str, new: str, rule: str) -> None:
    assert old in text
    with pytest.raises(CodegenError, match=rule):
        check(parse_program(text.replace(old, new)), MACHINE)


def test_zeros_beyond_the_image_are_refused_where_numbers_may_be_less(text: str) -> None:
    changed = text.replace("mvout_pooled2_scaled_relu", "mvout_pooled2_scaled").replace("activation=1", "activation=0")
    with pytest.raises(CodegenError, match=r"windows reach 1 pixels over the edges of the image along dimension \d"):
        check(parse_program(changed), MACHINE)


def test_the_estimate_counts_what_blocks_compute_again() -> None:
    """Rows that windows of two blocks share are computed in both; nothing is the host's, and what leaves is pooled."""
    space = Space(PADDED.kernel(), MACHINE)
    for point in space.sample(6, np.random.default_rng(5)):
        counts = counted(space.sketch(point).program, MACHINE)
        issues, host, written = Tape([counts.issues, counts.host, counts.written])(space.values(point))
        program = generate(space.schedule(point).kernel, MACHINE, pipeline=False)
        words = stream(program, MACHINE, {b.name: n << 20 for n, b in enumerate(program.arrays, 1)})
        computed = sum(isinstance(decode(*w), isa.Compute) for w in words if w is not None)
        assert host == 0 and computed <= issues <= 1.5 * computed, space.describe(point)
        assert written <= 1.5 * PADDED.filters * np.prod(PADDED.reduced), space.describe(point)
