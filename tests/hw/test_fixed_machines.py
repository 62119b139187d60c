"""Eyeriss and NVDLA as families: what mappings need of them, and that published sizes run layers within their limits."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.codesign.baselines.mapper import elite_mutation
from tilewright.codesign.layer import Layer
from tilewright.codesign.mapspace import MapSpace
from tilewright.codesign.problem import Budget, Problem, Run
from tilewright.cost.loopnest import parse_nest
from tilewright.hw.library import eyeriss, gemmini, nvdla
from tilewright.hw.library.picojoules import accumulator, shared
from tilewright.hw.load import load_family

LAYER = Layer("window", {"K": 64, "C": 32, "P": 28, "Q": 28, "R": 3, "S": 3})
MACHINES = [("nvdla", nvdla.SMALL, 64), ("nvdla", nvdla.LARGE, 2048), ("eyeriss", eyeriss.CHIP, 168)]


@pytest.mark.parametrize("name, sizes, units", MACHINES)
def test_published_machines_run_a_layer_within_their_limits(name: str, sizes: dict[str, int], units: int) -> None:
    problem = Problem(MapSpace((LAYER,), load_family(name)), hardware=sizes)
    run = Run(problem, Budget(evaluations=6000))
    elite_mutation(run)
    assert run.point is not None
    e = problem.evaluate(run.point[None])
    needed, _ = problem.evaluator.infer(problem.evaluator.usage(run.point[None]))
    assert e.fits[0] and all(needed[k][0] <= v for k, v in sizes.items())
    cycles = e.cycles[0, 0]
    assert LAYER.operations / units <= cycles <= 4 * LAYER.operations / units
    (nest,) = problem.space.nests(run.point)
    assert np.prod([f.trips for level in nest.levels for f in level.spatial]) <= units


def test_one_energy_basis() -> None:
    """NVDLA's memories cost what Gemmini's of the same size do."""
    ours = gemmini.hierarchy()
    machine = {"dim": 16, "scratchpad_bytes": 128 << 10, "accumulator_bytes": 64 << 10}
    pad, sums = (ours.rate(level.energy, machine) for level in ours.levels[1:3])
    assert pad == pytest.approx(shared(128)) and sums == pytest.approx(accumulator(64 / 16))


def test_an_element_of_eyeriss_holds_a_part_of_the_filter() -> None:
    space = MapSpace((LAYER,), load_family("eyeriss"))
    nest = parse_nest("L4[WIO] P7 - L3[IO] C4 Q28 R3X P4X K8X - L2[I] N1 - L1[W] C8 S3 - L0[O] K8")
    evaluator = Problem(space).evaluator
    needs, fits = evaluator.infer(evaluator.usage(space.encode([nest])[None]))
    found = {k: int(v[0]) for k, v in needs.items()}
    assert fits[0] and found["elements"] == 96
    assert (found["input_words"], found["weight_words"], found["sum_words"]) == (24, 192, 8)


@pytest.mark.parametrize("name, sizes, units", MACHINES)
def test_units_are_what_the_parameters_give(name: str, sizes: dict[str, int], units: int) -> None:
    own = load_family(name)
    assert np.prod([own.units(s.name, sizes) for s, dims in zip(own.hierarchy.levels, own.spatial, strict=True) if dims]) == units
