"""The estimate for machines of units inside units: by hand on a small program, bounds that hold for every point, better machines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tilewright import lang
from tilewright.cost import units
from tilewright.cost.units import LEAK, UnitsEstimator
from tilewright.hw import Machine, load_machine
from tilewright.hw.axis import axes
from tilewright.hw.instruction import instruction
from tilewright.hw.memory import Memory
from tilewright.hw.transfer import Transfer
from tilewright.hw.unit import Unit
from tilewright.ir import expr as ex
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import f16, f32
from tilewright.lang import parse
from tilewright.space.space import Space

OWN = "own"


@instruction(latency=10, per_cycle=0.5)
def step(c: f32[4] @ OWN, a: f32[4] @ OWN):  # type: ignore[valid-type,no-untyped-def]
    i = axes(4)
    c[i] += a[i]


SMALL = Machine(
    "small",
    memories=[
        Memory("dram", "main", None, level=1, bandwidth=8, latency=100),
        Memory(OWN, "scratchpad", 256, level=0, parent="dram", bandwidth=32, per="core"),
    ],
    units=[Unit("core", 2)],
    instructions=[step],
    transfers=[Transfer("dram", OWN, 4, None, 100), Transfer(OWN, "dram", 4, None, 50)],
)
PROGRAM = """
@kernel(params=("n",))
def sums(x: f32[6, 8, 4], y: f32[6, 4]):
    for b in bind("core", 0, 6):
        c = alloc(f32[4], "own")
        for i in range(4):
            c[i] = 0.0
        for k in range(8 // n):
            a = alloc(f32[n, 4], "own")
            for k_1 in range(n):
                for i_1 in range(4):
                    a[k_1, i_1] = x[b, k * n + k_1, i_1]
            for k_2 in range(n):
                for i_2 in unroll(4):
                    c[i_2] += a[k_2, i_2]
        for i_3 in range(4):
            y[b, i_3] = c[i_3]
"""


def by_hand(n: int, cores: int = 2, nbytes: int = 256) -> float:
    """Seconds of the program above, written out."""
    blocks = -(-6 // cores)
    resident = min(nbytes // (16 + 16 * n), blocks)
    arithmetic, waits = 8 / 0.5, 8 / n * 100 + 8 * 10 + 50
    dram = 6 * (8 * 16 + 16) / 8
    rounds = -(-blocks // resident)
    busiest = max(blocks * arithmetic, dram)
    return (max(busiest, rounds * (waits + arithmetic)) + LEAK * min(blocks * arithmetic, dram)) / SMALL.clock_hz


def test_a_small_program_by_hand() -> None:
    program = parse(PROGRAM)
    assert units.applies(program)
    got = UnitsEstimator(program, SMALL)({"n": np.array([1, 2, 4, 8])})
    np.testing.assert_allclose(got, [by_hand(n) for n in (1, 2, 4, 8)], rtol=1e-9)
    few = replace(SMALL, memories=(SMALL.memories[0], replace(SMALL.memories[1], bytes=100)))
    np.testing.assert_allclose(UnitsEstimator(program, few)({"n": np.array([4])}), [by_hand(4, nbytes=100)], rtol=1e-9)
    many = replace(SMALL, units=(Unit("core", 5),))
    assert UnitsEstimator(program, many)({"n": 2}) == pytest.approx(by_hand(2, cores=5))


SHARED = """
@kernel
def shared(x: f32[8, 4], w: f16[8, 4], z: f32[6, 4], y: f32[6, 4], t: f32[6, 4], u: f32[6, 4]):
    for b in bind("core", 0, 6):
        c = alloc(f32[4], "own")
        for i in range(4):
            c[i] = 0.0
        for k in range(4):
            a = alloc(f32[2, 4], "own")
            for k_1 in range(2):
                for i_1 in range(4):
                    a[k_1, i_1] = x[k * 2 + k_1, i_1]
            d = alloc(f32[2, 4], "own")
            for k_2 in range(2):
                for i_2 in range(4):
                    d[k_2, i_2] = f32(w[k * 2 + k_2, i_2])
            for k_3 in range(2):
                for i_3 in unroll(4):
                    c[i_3] += a[k_3, i_3]
        for i_4 in range(4):
            t[b, i_4] = c[i_4]
            y[b, i_4] = c[i_4] * z[b, i_4]
        for i_5 in range(4):
            u[b, i_5] += c[i_5]
"""


@pytest.mark.parametrize("holds", [128, 127, 0])
def test_arrays_that_all_blocks_read_pass_the_shared_cache(holds: int) -> None:
    """Six blocks read x and w whole, 128 bytes as they arrive: main memory gives them once where the cache holds such an array, the
    cache (if there is one) every time. What is neither moved nor an instruction costs main memory its bytes: the store to y, with
    two loads, and the sum in u. Loads side by side wait together, the elements of t one after the other.
    """
    dram, own = SMALL.memories
    cache = Memory("l2", "cache", holds, level=1, parent="dram", bandwidth=16) if holds else None
    memories = (replace(dram, level=2), cache, replace(own, parent="l2")) if cache else (dram, own)
    got = UnitsEstimator(parse(SHARED), replace(SMALL, memories=memories))({})
    waits = 4 * 100 + 8 * 10 + 4 * 50
    x, w, t, rest = 6 * 128, 6 * 128, 6 * 16, 6 * 4 * (4 + 4) + 6 * 4 * 4
    once = {128: (128, 64), 127: (x, 64), 0: (x, w)}[holds]
    parts = [3 * 8 / 0.5, (sum(once) + t + rest) / 8, *([(x + w + t) / 16] if cache else [])]
    most = max(parts)
    assert got == pytest.approx((max(most, waits + 8 / 0.5) + LEAK * (sum(parts) - most)) / SMALL.clock_hz, rel=1e-9)


LANES = """
@kernel
def lanes(x: f32[6, 2, 8, 4], y: f32[6, 2, 2, 4]):
    for b in bind("core", 0, 6):
        for l in bind("lane", 0, 2):
            c = alloc(f32[2, 4], "own")
            for j in range(2):
                for i in range(4):
                    c[j, i] = 0.0
            for k in range(8):
                a = alloc(f32[4], "own")
                for i_1 in range(4):
                    a[i_1] = x[b, l, k, i_1]
                for j_1 in range(2):
                    for i_2 in unroll(4):
                        c[j_1, i_2] += a[i_2]
            for j_2 in range(2):
                for i_3 in range(4):
                    y[b, l, j_2, i_3] = c[j_2, i_3]
"""


@pytest.mark.parametrize(("lanes", "resident"), [(5, 2), (2, 1), (1, 1), (4, 2), (99, 2)])
def test_inner_units_share_a_block_and_limit_how_many_are_there(lanes: int, resident: int) -> None:
    """Two lanes of a core make a block: each waits for its own eight loads and for eight additions to either of its sums; both need room
    and arithmetic of the core, which holds two blocks at most."""
    machine = replace(
        SMALL,
        units=(*SMALL.units, Unit("lane", lanes, parent="core")),
        memories=(replace(SMALL.memories[0], bandwidth=0), SMALL.memories[1]),  # counts as units.SLOW
    )
    got = UnitsEstimator(parse(LANES), machine)({})
    waits, arithmetic, dram = 8 * 100 + 8 * 10 + 50, 2 * 8 * 2 / 0.5, 6 * 2 * (8 * 16 + 2 * 16) / units.SLOW
    rounds = -(-3 // resident)
    assert got == pytest.approx((rounds * (waits + arithmetic) + LEAK * min(3 * arithmetic, dram)) / SMALL.clock_hz, rel=1e-9)


def test_a_nest_of_no_unit_waits_once_and_takes_the_port() -> None:
    copy = parse(
        "@kernel\ndef copy(x: f32[4, 4], y: f32[4, 4]):\n    for i in range(4):\n        for j in range(4):\n            y[i, j] = x[i, j]"
    )
    assert not units.applies(copy)
    assert UnitsEstimator(copy, SMALL)({}) == pytest.approx((64 / 8 + 100) / SMALL.clock_hz, rel=1e-9)


def product(m: int, n: int, k: int) -> Kernel:
    a, b, r = lang.tensor("a", f16, (m, k)), lang.tensor("b", f16, (k, n)), lang.reduce_axis(0, k, "k")
    c = lang.compute("c", (m, n), lambda i, j: lang.sum(ex.cast(a[i, r], f32) * ex.cast(b[r, j], f32), [r]), dtype=f32)
    return lang.build("matmul", [a, b], [c])


@pytest.fixture(scope="module")
def space() -> Space:
    return Space(product(512, 256, 384), load_machine("cuda.sm80"))


def test_no_point_is_faster_than_the_machine(space: Space) -> None:
    machine = space.machine
    seconds = space.estimate(space.sample(2000, np.random.default_rng(0)))
    rate = max(i.macs * i.per_cycle for i in machine.instructions if i.name.startswith(("wmma_f16", "mma_f16"))) * machine.unit("sm").count
    arithmetic = 512 * 256 * 384 / rate / machine.clock_hz
    memory = (512 * 384 * 2 + 256 * 384 * 2 + 512 * 256 * 4) / machine.memory("dram").bytes_per_second(machine.clock_hz)
    assert (seconds >= max(arithmetic, memory)).all() and np.isfinite(seconds).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: replace(m, units=(replace(m.units[0], count=2 * m.units[0].count), *m.units[1:])),
        lambda m: replace(m, memories=tuple(replace(x, bandwidth=2 * x.bandwidth) for x in m.memories)),
        lambda m: replace(m, memories=tuple(replace(x, bytes=2 * x.bytes) if x.per == "sm" else x for x in m.memories)),
        lambda m: replace(m, transfers=tuple(replace(t, latency=t.latency / 2) for t in m.transfers)),
    ],
    ids=["units", "bandwidth", "room", "latency"],
)
def test_a_better_machine_is_never_slower(space: Space, change) -> None:  # type: ignore[no-untyped-def]
    points = space.sample(500, np.random.default_rng(1))
    better, faster = change(space.machine), 0
    for number, rows in space.groups(points):
        env = space.environment(number, points[rows])
        program = space.sketches[number].program
        now, then = (UnitsEstimator(program, m)(env) for m in (space.machine, better))
        assert (then <= now * (1 + LEAK)).all(), "what is hidden behind the busiest resource counts a little"
        faster += int((then < now).sum())
    assert faster


def test_rounds_of_blocks_count() -> None:
    """Six blocks, of which a core has room for one: three rounds on two cores, two on three."""
    own = replace(SMALL.memories[1], bytes=40)
    small = [replace(SMALL, memories=(SMALL.memories[0], own), units=(Unit("core", c),)) for c in (2, 3)]
    two, three = (UnitsEstimator(parse(PROGRAM), m)({"n": 1}) for m in small)
    assert two == pytest.approx(three * 1.5, rel=0.02)
