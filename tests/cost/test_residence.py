"""Words moved between explicit memories against a simulation that runs every iteration and remembers what each unit holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as hs
from tests.cost.residence_simulation import first_visits, simulate, tensors

from tilewright.cost.loopnest import Factor, Level, LoopNest, convolution, mapping_program, parse_nest
from tilewright.cost.program import read
from tilewright.cost.residence import movements
from tilewright.cost.tape import Tape
from tilewright.hw.hierarchy import RESIDENT, STREAMED, Hierarchy, Storage
from tilewright.util.errors import MappingError

NAMES = ("L3", "L2", "L1", "L0")


def memories(reuse: str = RESIDENT, names: tuple[str, ...] = NAMES) -> Hierarchy:
    return Hierarchy("test", tuple(Storage(n, energy=1.0, reuse=reuse) for n in names), arithmetic=1.0)


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


def test_a_hierarchy_must_have_the_levels_of_the_mapping() -> None:
    nest = parse_nest("L1[WIO] C2 - L0[O] P2")
    program = read(mapping_program(convolution(), nest))
    with pytest.raises(MappingError, match="the mapping has levels L1 L0, test has L2 L1"):
        movements(program, nest, memories(names=("L2", "L1")))


def test_the_outermost_level_must_hold_every_tensor() -> None:
    nest = parse_nest("L1[WI] C2 - L0[O] P2")
    with pytest.raises(MappingError, match="level L1 does not keep O"):
        movements(read(mapping_program(convolution(), nest)), nest, memories(names=("L1", "L0")))
