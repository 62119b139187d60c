"""Words moved between explicit memories against a simulation that runs every iteration and remembers what each unit holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as hs

from tilewright.cost.formula import Tape
from tilewright.cost.loopnest import Factor, Level, LoopNest, convolution, mapping_program, parse_nest
from tilewright.cost.program import read
from tilewright.cost.residence import movements
from tilewright.hw.hierarchy import RESIDENT, STREAMED, Hierarchy, Storage
from tilewright.util.errors import MappingError

NAMES = ("L3", "L2", "L1", "L0")


def memories(reuse: str = RESIDENT, names: tuple[str, ...] = NAMES) -> Hierarchy:
    return Hierarchy("test", tuple(Storage(n, energy=1.0, reuse=reuse) for n in names), arithmetic=1.0)


# --- the simulation: it knows mappings and tensors, and nothing of the algebra -----------------

#: A loop: dimension, trips, depth of its level, whether its iterations run side by side.
Loop = tuple[str, int, int, bool]
Tensor = Callable[[dict[str, int]], tuple[int, ...]]


def tensors(stride: tuple[int, int], dilation: tuple[int, int]) -> dict[str, Tensor]:
    def window(v: dict[str, int]) -> tuple[int, ...]:
        return v["N"], v["C"], v["P"] * stride[0] + v["R"] * dilation[0], v["Q"] * stride[1] + v["S"] * dilation[1]

    return {"W": lambda v: (v["K"], v["C"], v["R"], v["S"]), "I": window, "O": lambda v: (v["N"], v["K"], v["P"], v["Q"])}


def loops_of(nest: LoopNest) -> list[Loop]:
    out: list[Loop] = []
    for depth, level in zip(range(len(nest.levels) - 1, -1, -1), nest.levels, strict=True):
        out += [(f.dim, int(f.trips), depth, False) for f in level.temporal] + [(f.dim, int(f.trips), depth, True) for f in level.spatial]
    return out


def counters(loops: list[Loop], chosen: list[int]) -> Iterator[dict[int, int]]:
    for values in product(*(range(loops[n][1]) for n in chosen)):
        yield dict(zip(chosen, values, strict=True))


def dimensions(loops: list[Loop], at: dict[int, int]) -> dict[str, int]:
    values = dict.fromkeys("NKCPQRS", 0)
    for n, (dim, trips, _, _) in enumerate(loops):
        values[dim] = values[dim] * trips + at[n]
    return values


def simulate(nest: LoopNest, access: Tensor, tensor: str, reuse: str) -> dict[int, list[int]]:
    """[words served inwards, words taken in] for each depth that keeps the tensor."""
    loops, everything = loops_of(nest), range(len(loops_of(nest)))
    chain = [d for d, level in enumerate(reversed(nest.levels)) if tensor in level.keeps]
    out: dict[int, list[int]] = {d: [0, 0] for d in chain}
    for child, parent in zip([-1, *chain], [*chain, None], strict=True):
        if parent is None:
            break
        inside = [n for n in everything if loops[n][2] <= child]
        steps = [n for n in everything if loops[n][2] > child and not loops[n][3]]
        near = [n for n in everything if loops[n][3] and child < loops[n][2] <= parent]
        far = [n for n in everything if loops[n][3] and loops[n][2] > parent]
        for group in counters(loops, far):
            held: dict[tuple[int, ...], frozenset[Any]] = {}
            before: dict[int, int] | None = None
            for step in counters(loops, steps):
                deliveries = set()
                for unit in counters(loops, near):
                    touched = [access(dimensions(loops, {**group, **step, **unit, **inner})) for inner in counters(loops, inside)]
                    now = bounding_box(touched)
                    key = tuple(unit.values())
                    old = held.get(key, frozenset()) if child >= 0 else frozenset()
                    if reuse == STREAMED and before is not None and old != now and not only_the_innermost(loops, steps, before, step):
                        old = frozenset()
                    if reuse == STREAMED and before is not None and old == now and moved(loops, steps, before, step, access):
                        old = frozenset()
                    if child >= 0:
                        out[child][1] += len(now - old)
                    held[key] = now
                    deliveries.add((now, old))
                out[parent][0] += sum(len(now - old) for now, old in deliveries)
                before = step
    return out


def bounding_box(points: list[tuple[int, ...]]) -> frozenset[Any]:
    return frozenset(product(*(range(min(c), max(c) + 1) for c in zip(*points, strict=True))))


def advanced(steps: list[int], before: dict[int, int], now: dict[int, int]) -> int:
    """The loop that went on; those inside it started again."""
    return next(n for n in steps if before[n] != now[n])


def only_the_innermost(loops: list[Loop], steps: list[int], before: dict[int, int], now: dict[int, int]) -> bool:
    return all(loops[n][1] == 1 for n in steps[steps.index(advanced(steps, before, now)) + 1 :])


def moved(loops: list[Loop], steps: list[int], before: dict[int, int], now: dict[int, int], access: Tensor) -> bool:
    """Whether, coming back to the same place, the tensor was elsewhere in between (and the step is not the innermost loop's)."""
    if only_the_innermost(loops, steps, before, now):
        return False
    zero = dict.fromkeys(range(len(loops)), 0)
    origin = access(dimensions(loops, zero))
    changed = steps[steps.index(advanced(steps, before, now)) :]
    return any(access(dimensions(loops, {**zero, n: 1})) != origin for n in changed if loops[n][1] > 1)


# --- random mappings ----------------------------------------------------------------------------

KEEPS = (
    {"L3": "WIO", "L2": "WI", "L1": "O", "L0": "W"},
    {"L3": "WIO", "L2": "WIO", "L1": "IO", "L0": "O"},
    {"L3": "WIO", "L2": "I", "L1": "", "L0": "WO"},
)


@hs.composite
def mappings(draw: Any) -> LoopNest:
    """Up to seven loops of 2 or 3 iterations anywhere, in any order; at most one runs side by side in each window."""
    keeps = draw(hs.sampled_from(KEEPS))
    placed: dict[tuple[str, bool], list[Factor]] = {(n, s): [] for n in NAMES for s in (False, True)}
    side: set[str] = set()
    for dim in draw(hs.lists(hs.sampled_from("NKCPQRSPQRS"), min_size=1, max_size=7)):
        window = {"R": "P", "S": "Q"}.get(dim, dim)
        spatial = window not in side and draw(hs.integers(0, 3)) == 0
        loops = placed[draw(hs.sampled_from(NAMES)), spatial]
        if all(f.dim != dim for f in loops):
            loops.append(Factor(dim, draw(hs.integers(2, 3))))
            side |= {window} if spatial else set()
    return LoopNest(tuple(Level(n, keeps[n], tuple(placed[n, False]), tuple(placed[n, True])) for n in NAMES))


#: Rows of both windows come back while a loop outside goes on: displacements forward, back, and none.
REENTERED = parse_nest("L3[WIO] K2 P3 Q2 R2 S3 - L2[WI] K2X - L1[O] Q2 - L0[W] P2")


@pytest.mark.parametrize("reuse", [RESIDENT, STREAMED])
@settings(max_examples=60, deadline=None)
@given(nest=mappings(), stride=hs.tuples(hs.integers(1, 3), hs.integers(1, 3)), dilation=hs.tuples(hs.integers(1, 2), hs.integers(1, 2)))
@example(nest=REENTERED, stride=(1, 2), dilation=(1, 1))
def test_words_moved_are_what_running_finds(reuse: str, nest: LoopNest, stride: tuple[int, int], dilation: tuple[int, int]) -> None:
    program = read(mapping_program(convolution(stride, dilation), nest))
    symbolic = read(mapping_program(convolution(("SH", "SW"), ("DH", "DW")), nest.structure()))
    env = {**nest.environment(), "SH": stride[0], "SW": stride[1], "DH": dilation[0], "DW": dilation[1]}
    for p, n in ((program, nest), (symbolic, nest.structure())):
        found = movements(p, n, memories(reuse))
        values = iter(Tape([f for m in found for f in (m.reads, m.fills, m.updates, m.held)])(env))
        simulated = {t: simulate(nest, access, t, reuse) for t, access in tensors(stride, dilation).items()}
        for m in found:
            served, taken = simulated[m.tensor][len(NAMES) - 1 - NAMES.index(m.level)]
            reads, fills, updates, _ = (next(values) for _ in range(4))
            assert fills == taken
            assert (updates if m.tensor == "O" else reads) == served
            if m.tensor == "O":
                assert reads == updates - first_visits(nest, NAMES.index(m.level))


def first_visits(nest: LoopNest, level: int) -> int:
    """Results that each instance of a level sees for the first time, summed: its reads there need no old value."""
    loops, depth = loops_of(nest), len(NAMES) - 1 - level
    seen = set()
    for at in counters(loops, list(range(len(loops)))):
        instance = tuple(v for n, v in at.items() if loops[n][3] and loops[n][2] > depth)
        v = dimensions(loops, at)
        seen.add((instance, v["N"], v["K"], v["P"], v["Q"]))
    return len(seen)


def test_a_hierarchy_must_have_the_levels_of_the_mapping() -> None:
    nest = parse_nest("L1[WIO] C2 - L0[O] P2")
    program = read(mapping_program(convolution(), nest))
    with pytest.raises(MappingError, match="the mapping has levels L1 L0, test has L2 L1"):
        movements(program, nest, memories(names=("L2", "L1")))


def test_the_outermost_level_must_hold_every_tensor() -> None:
    nest = parse_nest("L1[WI] C2 - L0[O] P2")
    with pytest.raises(MappingError, match="level L1 does not keep O"):
        movements(read(mapping_program(convolution(), nest)), nest, memories(names=("L1", "L0")))
