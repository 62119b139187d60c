"""Map spaces: every point is a factorisation, rounding is what the definition says, text and arrays are the same."""

from __future__ import annotations

from itertools import product
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.codesign.divisors import factors_of, prime_factors
from tilewright.codesign.layer import DIMS, Layer, unique
from tilewright.codesign.mapspace import MapSpace
from tilewright.hw.family import Family, Parameter
from tilewright.hw.library.gemmini import family
from tilewright.util.errors import MachineError, SpaceError

CONV = Layer("conv", {"K": 12, "C": 6, "P": 7, "Q": 4, "R": 3, "S": 3}, {"SH": 2}, count=2)
GEMM = Layer.gemm("gemm", 512, 768, 256)
SPACE = MapSpace((CONV, GEMM), family())


def test_samples_and_their_changes_are_points_of_the_space() -> None:
    rng = np.random.default_rng(0)
    points = SPACE.sample(200, rng)
    assert SPACE.check(points).all()
    moved = SPACE.mutate(points, rng, moves=3)
    assert SPACE.check(moved).all() and (moved != points).any(axis=(1, 2)).mean() > 0.9
    assert len(np.unique(points[:, 1], axis=0)) > 150
    broken = points.copy()
    broken[:, 0, 0] *= 2
    assert not SPACE.check(broken)[:, 0].any() and SPACE.check(broken)[:, 1].all()


def test_no_sample_has_more_units_than_the_family() -> None:
    space = MapSpace((Layer.gemm("wide", 2, 4096, 4096),), family(dim=8))
    spatial = [n for n, c in enumerate(space.columns) if c.spatial]
    points = space.sample(300, np.random.default_rng(1))
    assert points[..., spatial].max() == 8
    assert space.check(points).all()


def test_text_and_arrays_say_the_same() -> None:
    for point in SPACE.sample(20, np.random.default_rng(2)):
        nests = SPACE.nests(point)
        again = SPACE.encode(nests)
        assert SPACE.nests(again) == nests
        assert (again[:, :-1] == point[:, :-1]).all()
        for layer, nest in zip(SPACE.layers, nests, strict=True):
            assert {d: n for d, n in layer.sizes.items() if n > 1} == nest.sizes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-3, 1e4), min_size=2 * len(SPACE.columns), max_size=2 * len(SPACE.columns)))
def test_rounding_takes_the_nearest_divisor_of_what_is_left(values: list[float]) -> None:
    factors = np.array(values).reshape(1, 2, -1)
    point = SPACE.round(factors, np.array([[1, 2]]))[0]
    assert SPACE.check(point[None]).all() and list(point[:, -1]) == [1, 2]
    for x, layer in enumerate(SPACE.layers):
        for d in DIMS:
            left = layer.sizes[d]
            for n in SPACE.by_dim[d][:-1]:
                most = SPACE.columns[n].most or left
                best = min(abs(log(factors[0, x, n] / v)) for v in range(1, left + 1) if left % v == 0 and v <= most)
                assert abs(log(factors[0, x, n] / point[x, n])) == pytest.approx(best)
                left //= int(point[x, n])
            assert point[x, SPACE.by_dim[d][-1]] == left


def test_neighbours_are_all_single_moves() -> None:
    space = MapSpace((Layer("small", {"K": 4, "C": 2}),), family())
    row = space.sample(1, np.random.default_rng(3))[0, 0]
    found = {tuple(r) for r in space.neighbours(row, 0)}
    assert space.check(np.array(list(found))[:, None]).all()
    expected = set()
    places = [space.by_dim[d] for d in DIMS]
    for own in places:
        for a, b in product(own, own):
            for d in range(2, int(row[a]) + 1):
                if a != b and row[a] % d == 0:
                    moved = list(row)
                    moved[a], moved[b] = moved[a] // d, moved[b] * d
                    expected.add(tuple(moved))
    expected |= {(*row[:-1], n) for n in range(len(space.variants)) if n != row[-1]}
    assert found == expected


def test_the_number_of_points_is_counted() -> None:
    space = MapSpace((Layer("small", {"K": 4, "C": 2}),), family())
    sizes = {d: len(space.by_dim[d]) for d in "KC"}  # 4 = 2 * 2: combinations with repetition
    assert space.size == len(space.variants) * (sizes["K"] * (sizes["K"] + 1) / 2) * sizes["C"]


def test_divisors() -> None:
    for n in (1, 7, 12, 360, 1024):
        assert factors_of(n) == tuple(d for d in range(1, n + 1) if n % d == 0)
        assert np.prod([float(p) ** k for p, k in prime_factors(n)]) == n


def test_layers_of_one_shape_are_one() -> None:
    again = Layer("again", CONV.sizes, CONV.parameters, count=3)
    assert [(x.name, x.count) for x in unique((CONV, GEMM, again))] == [("conv", 5), ("gemm", 1)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layer("x", {"K": 0}), "layer x has K = 0"),
        (lambda: Layer("x", {"K": 4}, count=-1), "layer x has count = -1"),
        (lambda: Layer("x", {"K": 4}, {"SH": 0}), "layer x has SH = 0"),
        (lambda: Layer("x", {"K": 4.5}), "layer x has K = 4.5"),  # type: ignore[dict-item]
        (lambda: Layer("x", {"Z": 4}), "layer x has an unknown dimension 'Z'"),
        (lambda: unique(()), "no layers to search for"),
        (lambda: MapSpace((), family()), "no layers to map"),
    ],
)
def test_bad_layers_are_named(make: object, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()  # type: ignore[operator]


def test_mappings_of_other_machines_are_refused() -> None:
    from tilewright.cost.loopnest import parse_nest

    space = MapSpace((Layer("small", {"K": 4}),), family())
    for text in ("L3[WIO] K2 - L2[WI] K2 - L1[O] N1 - L0[W] N1", "L3[WIO] K2 - L2[WI] N1 - L1[O] N1 - L0[W] N1"):
        with pytest.raises(SpaceError):
            space.encode([parse_nest(text)])


def test_families_are_checked() -> None:
    f = family()
    good = {s: getattr(f, s) for s in ("name", "hierarchy", "keeps", "orders", "spatial", "fanout", "parameters")}
    for change, message in (
        ({"keeps": (("WIO",),)}, "1 entries of keeps"),
        ({"orders": (("KC", "K"), *f.orders[1:])}, "orders of level L3"),
        ({"parameters": f.parameters[:2]}, "infers dim, scratchpad_bytes"),
    ):
        with pytest.raises(MachineError, match=message):
            Family(**{**good, **change})
    with pytest.raises(MachineError, match="parameter p has 0 needs"):
        Parameter("p", ())
    partial = Family(**{**good, "orders": (("KCR",), *f.orders[1:])})
    with pytest.raises(SpaceError, match="no loop over N at its outermost level"):
        MapSpace((CONV,), partial)
