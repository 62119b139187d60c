"""Orders that cost the same: representatives cost what the mappings do, and there are few of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tilewright.cost.loopnest import Factor, Level, LoopNest, convolution, parse_nest
from tilewright.cost.nestcost import NestModel, Population
from tilewright.cost.orders import Orders
from tilewright.hw.hierarchy import RESIDENT
from tilewright.hw.library.gemmini import hierarchy

LAYER = convolution((1, 2))
ENV = {"dim": 16, "scratchpad_bytes": 256 << 10, "accumulator_bytes": 64 << 10}


def drawn(count: int, outer: int = 7, middle: int = 2, inner: int = 5) -> list[LoopNest]:
    """Mappings with random loops in random orders."""
    rng = np.random.default_rng(0)

    def some(most: int) -> tuple[Factor, ...]:
        dims = rng.permutation(list("NKCPQRS"))[: rng.integers(0, most + 1)]
        return tuple(Factor(str(d), int(rng.integers(2, 5))) for d in dims)

    across = (Factor("K", 4),), (Factor("C", 2),)
    levels = [(("L3", "WIO"), outer, ()), (("L2", "WI"), middle, across[0]), (("L1", "O"), inner, across[1]), (("L0", "W"), 1, ())]
    return [LoopNest(tuple(Level(*name, some(most), side) for name, most, side in levels)) for _ in range(count)]


def costs(nests: list[LoopNest]) -> list[tuple[float, float, dict[str, float]]]:
    found = [NestModel(LAYER, nest, hierarchy())(ENV) for nest in nests]
    return [(float(c.cycles), float(c.energy), {k: float(v) for k, v in c.words.items()}) for c in found]


def test_representatives_cost_what_their_mappings_do() -> None:
    nests = drawn(150)
    orders = Orders.of(LAYER, hierarchy())
    chosen = [orders.canonical(n) for n in nests]
    assert sum(a != b for a, b in zip(nests, chosen, strict=True)) > 75
    assert costs(nests) == costs(chosen)
    assert [orders.canonical(n) for n in chosen] == chosen
    for a, b in zip(nests, chosen, strict=True):
        assert a.environment() == b.environment()


def test_all_orders_of_seven_loops_are_few() -> None:
    rng = np.random.default_rng(1)
    level = parse_nest("L3[WIO] N2 K2 C2 P2 Q2 R2 S2 - L2[WI] N1 - L1[O] N1 - L0[W] P2").levels
    orders = Orders.of(LAYER, hierarchy())
    shuffled = [replace(level[0], temporal=tuple(level[0].temporal[i] for i in rng.permutation(7))) for _ in range(2000)]
    assert len({orders.canonical(LoopNest((top, *level[1:]))) for top in shuffled}) <= 25


def test_completed_mappings_share_structures_and_costs() -> None:
    nests = drawn(2000, middle=0)
    whole = Orders.of(LAYER, hierarchy()).completed(nests)
    structures = [len({n.structure() for n in some}) for some in (nests, whole)]
    assert structures[1] < 0.5 * structures[0]
    columns = {k: np.full(40, float(v)) for k, v in ENV.items()}
    cycles, energy = Population(LAYER, hierarchy()).evaluate(whole[:40], columns)
    alone = costs(nests[:40])
    assert list(cycles) == [c for c, _, _ in alone] and list(energy) == pytest.approx([e for _, e, _ in alone], rel=1e-12)


def test_resident_windows_keep_their_order() -> None:
    machine = hierarchy()
    resident = replace(machine, levels=tuple(replace(s, reuse=RESIDENT) for s in machine.levels))
    nest = parse_nest("L3[WIO] S2 K2 P2 C2 Q2 - L2[WI] N1 - L1[O] C3 R2 Q2 - L0[W] P2")
    kept = Orders.of(LAYER, resident).canonical(nest)
    assert kept.levels[0] == nest.levels[0] and str(kept.levels[2]) == "L1[O] R2 C3 Q2"
