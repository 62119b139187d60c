"""The recursion over levels, against a simulation that runs every iteration of tiny nests and moves every word at its time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.cost.adjoint import Adjoint
from tilewright.cost.loopnest import Factor, Level, LoopNest, convolution, parse_nest
from tilewright.cost.nestcost import NestModel, Roofline
from tilewright.cost.tape import Tape
from tilewright.hw.hierarchy import Hierarchy, Storage
from tilewright.hw.library.gemmini import hierarchy
from tilewright.util.errors import MachineError

#: Tensors of a product O[p, k] = I[p, c] * W[k, c] by the dimensions that move them.
TENSORS = {"W": "KC", "I": "PC", "O": "PK"}


@dataclass
class Memory:
    """One level while a nest runs: what it keeps, its contents, what is being prepared for the next round, when its port is free."""

    storage: Storage
    keeps: str
    contents: dict[str, frozenset] = field(default_factory=dict)
    #: When each of the rounds so far was over, its results sent out.
    over: list[float] = field(default_factory=list)
    ready: float = 0.0
    port: float = 0.0


def simulated(nest: LoopNest, machine: Hierarchy) -> float:
    """Cycles until the last result is in the outermost level. A transfer takes its parent's port for words over words a cycle.

    A round's contents come once those of the level outside are there and there is room: when the round before is over, or the one before
    that if the level is double-buffered. Then results leave after the next contents were asked for.
    """
    memories = [Memory(s, v.keeps) for s, v in zip(machine.levels, nest.levels, strict=True)]
    loops = list(nest.loops())
    visited: set[tuple[int, tuple[int, ...]]] = set()
    step_over = 0.0

    def touched(tensor: str, depth: int, at: tuple[int, ...]) -> frozenset:
        spans = [range(int(p.factor.trips)) if p.depth <= depth else [i] for p, i in zip(loops, at, strict=True)]
        own = [n for n, p in enumerate(loops) if p.factor.dim in TENSORS[tensor]]
        return frozenset(product(*(spans[n] for n in own)))

    def parent(n: int, tensor: str) -> Memory:
        return next(m for m in reversed(memories[:n]) if tensor in m.keeps)

    def move(source: Memory, words: int, earliest: float) -> float:
        assert source.storage.words_per_cycle is not None
        source.port = max(source.port, earliest) + words / source.storage.words_per_cycle
        return source.port

    def leave(n: int, old: dict[str, frozenset], new: dict[str, frozenset], at: float) -> float:
        gone = old.get("O", frozenset()) - new.get("O", frozenset())
        return move(parent(n, "O"), len(gone), at) if gone else at

    for at in product(*(range(int(p.factor.trips)) for p in loops)):
        new = {n: {t: touched(t, len(memories) - 1 - n, at) for t in memories[n].keeps} for n in range(1, len(memories))}
        changed = [n for n in new if memories[n].contents != new[n]]
        waiting = [n for n in changed if not memories[n].storage.double_buffered]
        # Results leave from the inside out; before the next contents come where a level, or one outside it, waits for them.
        first = [n for n in reversed(changed) if waiting and n >= waiting[0]]
        sent = step_over
        for n in first:
            sent = leave(n, memories[n].contents, new[n], sent)
            memories[n].over.append(sent)
        for n in changed:
            m = memories[n]
            behind = 1 + int(m.storage.double_buffered) + int(n in first and m.storage.double_buffered)
            room = m.over[-behind] if len(m.over) >= behind else 0.0
            m.ready = max([room, *(parent(n, t).ready for t in m.keeps), *([sent] if n in first else [])])
            for t in m.keeps:
                fresh = new[n][t] - m.contents.get(t, frozenset())
                words = len({w for w in fresh if (n, w) in visited}) if t == "O" else len(fresh)
                m.ready = move(parent(n, t), words, m.ready) if words else m.ready
            visited |= {(n, w) for w in new[n]["O"]}
        sent = step_over
        for n in reversed(changed):
            if n not in first:
                sent = leave(n, memories[n].contents, new[n], sent)
                memories[n].over.append(sent)
            memories[n].contents = new[n]
        step_over = max([step_over, *(m.ready for m in memories[1:])]) + 1
    end = step_over
    for n in reversed(range(1, len(memories))):
        end = leave(n, memories[n].contents, {}, end)
    return end


def machine(rates: tuple[float, ...], double: tuple[bool, ...]) -> Hierarchy:
    """Levels whose ports are the limit only where they serve the level inside."""
    names = ("far", "near", "close")[: len(rates)]
    levels = (Storage(n, 1, words_per_cycle=r, double_buffered=d) for n, r, d in zip(names, rates, double, strict=True))
    return Hierarchy("test", (*levels,), arithmetic=1)


def cycles(nest: LoopNest, m: Hierarchy) -> float:
    return float(NestModel(convolution(), nest, m, rounded=False)({}).cycles)


@st.composite
def nests(draw: st.DrawFn) -> tuple[LoopNest, tuple[float, ...]]:
    """Products of up to three levels, each tensor in each; loops of 1 to 3 iterations in any order; ports, faster inside."""
    count = draw(st.integers(2, 3))
    levels = []
    for name in ("far", "near", "close")[:count]:
        dims = draw(st.permutations("PKC"))
        levels.append(Level(name, "WIO", tuple(Factor(d, t) for d in dims if (t := draw(st.integers(1, 3))) > 1)))
    rates = sorted(draw(st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0])) for _ in range(count - 1))
    return LoopNest(tuple(levels)), (*rates, 1e9)


@settings(max_examples=30, deadline=None)
@given(nests())
def test_without_double_buffers_the_recursion_is_the_simulated_time(case: tuple[LoopNest, tuple[float, ...]]) -> None:
    """Everything waits for everything: exchanges and steps add up. Ports inside are fast enough to wait for those outside."""
    nest, rates = case
    serial = machine(rates, (False,) * len(rates))
    assert cycles(nest, serial) == pytest.approx(simulated(nest, serial), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(nests(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_no_machine_is_faster_than_the_recursion(case: tuple[LoopNest, tuple[float, ...]], double: tuple[bool, ...]) -> None:
    """Ports inside take in as much as comes: the simulation does not count that."""
    nest, rates = case

    def receiving(which: tuple[bool, ...]) -> Hierarchy:
        m = machine(rates, which)
        return replace(m, levels=(m.levels[0], *(replace(s, writes_per_cycle=1e9) for s in m.levels[1:])))

    some = receiving(double[: len(rates)])
    serial, overlapped = receiving((False,) * len(rates)), receiving((True,) * len(rates))
    assert cycles(nest, overlapped) <= cycles(nest, some) <= cycles(nest, serial) * (1 + 1e-9)
    assert simulated(nest, some) >= cycles(nest, some) * (1 - 1e-6)


@pytest.mark.parametrize("rate", [0.25, 1.0, 1.5, 2.0, 8.0])
@pytest.mark.parametrize("order", ["P6 K6 C6", "C6 P6 K6"])
def test_double_buffers_overlap_but_for_the_first_and_last_round(rate: float, order: str) -> None:
    """Rounds that need about as many words each: time is that of the slower of the two, and of filling and emptying once."""
    nest = parse_nest(f"far[WIO] {order} - near[WIO] P2 K2 C2")
    double, single = machine((rate, 1e9), (True, True)), machine((rate, 1e9), (True, False))
    rounds = 6**3
    once = 3 * 4 / rate + 2**3
    assert cycles(nest, double) <= simulated(nest, double) <= 1.06 * cycles(nest, double) + 3 * once
    assert cycles(nest, single) == pytest.approx(simulated(nest, single), rel=1e-6) and simulated(nest, single) > simulated(nest, double)
    assert cycles(nest, double) == max(rounds * 2**3, (cycles(nest, single) - rounds * 2**3))


def test_a_machine_that_overlaps_has_a_roofline() -> None:
    """On Gemmini's hierarchy the general form is the maximum of the steps and of words over words a cycle."""
    nest = parse_nest("L3[WIO] K4 C2 P7 - L2[WI] N1 K4X - L1[O] K2 S3 R3 C4 Q14 P2 C8X - L0[W] N1")
    model = NestModel(convolution(("SH", "SW")), nest.structure(), hierarchy(), rounded=False)
    rng = np.random.default_rng(0)
    env = {k: v * rng.uniform(1, 3, 50) for k, v in nest.environment().items()}
    sizes = {"dim": rng.uniform(2, 128, 50), "scratchpad_bytes": 1 << 18, "accumulator_bytes": 1 << 16}
    cost = model({**env, **sizes, "SH": 1, "SW": 2})
    steps, operations = model.traffic({**env, "SH": 1, "SW": 2})[:2]
    by_hand = np.max(
        [steps, cost.words["L3"] / 8, cost.words["L2"] / (2 * sizes["dim"]), cost.words["L1"] / (2 * cost.instances["L1"])], axis=0
    )
    assert np.allclose(cost.cycles, by_hand, rtol=1e-12)
    again, _ = Roofline(hierarchy())(steps, operations, cost.words, cost.instances, sizes)
    assert np.allclose(again, by_hand, rtol=1e-12)


def test_reads_and_writes_may_have_ports_of_their_own() -> None:
    nest = parse_nest("far[WIO] C4 P4 K4 - near[WIO] P2")
    base = machine((1.0, 1e9), (True, True))
    own = replace(base, levels=(replace(base.levels[0], writes_per_cycle=0.5), base.levels[1]))
    weights, inputs, results = 4**3, 2 * 4 * 4, 2 * 4**3  # results leave each round, and come back for three in four
    assert NestModel(convolution(), nest, base)({}).words["far"] == weights + inputs + results + results * 3 / 4
    assert cycles(nest, own) == results / 0.5 > weights + inputs + results * 3 / 4
    assert cycles(nest, base) == weights + inputs + results * 7 / 4
    assert cycles(nest, replace(base, step_cycles=100)) == 100 * 2 * 4**3


def test_gradients_of_machines_that_wait_are_differences() -> None:
    nest = parse_nest("far[WIO] P4 K3 C5 - near[WIO] K2 C3 P2 - close[WIO] P3 K2")
    m = machine((0.7, 3.0, 9.0), (True, False, False))
    model = NestModel(convolution(), nest.structure(), m, rounded=False)
    start = {k: v * 1.13 for k, v in nest.environment().items()}
    tape: Tape = model._tape
    adjoint = Adjoint(tape)
    found = adjoint.backward(adjoint.forward(start), [1.0, *[None] * (len(model._outputs) - 1)])
    for name, value in start.items():
        up, down = (model({**start, name: value * (1 + sign * 1e-6)}).cycles for sign in (1, -1))
        assert found[name] == pytest.approx((up - down) / (2e-6 * value), rel=1e-4)


def test_searches_refuse_machines_that_do_not_overlap() -> None:
    for change, message in (({"double_buffered": False}, "is not double-buffered"), ({"writes_per_cycle": 1}, "has a port for writes")):
        base = machine((1.0, 1.0), (True, True))
        with pytest.raises(MachineError, match=f"storage near of test {message}"):
            Roofline(replace(base, levels=(base.levels[0], replace(base.levels[1], **change))))
