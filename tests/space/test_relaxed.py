"""Knobs as real numbers: gradients against differences, and only valid points come back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from tests.space.test_rules_explicit import convolution, gemmini, plain, product, toy

from tilewright import lang
from tilewright.cost.adam import Adam
from tilewright.cost.formula import Graph
from tilewright.cost.tape import Tape
from tilewright.hw import load_machine
from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr, Logical, Not, compare
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import f32
from tilewright.space.knob import Knob
from tilewright.space.relaxed import PENALTY, Relaxed
from tilewright.space.space import Space
from tilewright.util.errors import SpaceError


def matmul(m: int, n: int, k: int) -> Kernel:
    a, b = lang.tensor("a", f32, (m, k)), lang.tensor("b", f32, (k, n))
    return lang.build("gemm", [a, b], [lang.einsum("ik,kj->ij", a, b, name="c")])


SPACES: dict[str, Callable[[], Space]] = {
    "avx512": lambda: Space(matmul(48, 96, 64), load_machine("x86.avx512"), threads=2),
    "gemmini": lambda: Space(product(96, 64, 80), gemmini(dim=4, scratchpad_bytes=4096)),
    "gemmini conv": lambda: Space(convolution((8, 8), 8, 8, 3, 1, 1, True), gemmini(dim=4)),
    "toy": lambda: Space(plain(60, 48, 36, "f32", "f32"), toy()),
    "cuda": lambda: Space(matmul(128, 256, 64), load_machine("cuda.sm80")),
}


@cache
def space_of(name: str) -> Space:
    return SPACES[name]()


@pytest.fixture(scope="module", params=SPACES)
def space(request: pytest.FixtureRequest) -> Space:
    return space_of(request.param)


def passing(tape: Tape, at: dict[str, float], env: dict[str, float]) -> list[float]:
    """Results at ``env`` where what is rounded moves with what it was made of; choices stay those made at ``at`` (of equals, the first)."""
    size, names, constants, results = tape.places
    here: list[float] = [0.0] * size
    there: list[float] = [0.0] * size
    for slot, value in constants:
        here[slot] = there[slot] = value
    for name, slot in names.items():
        here[slot], there[slot] = float(at[name]), float(env[name])
    for op, apply, slot, args in tape.steps:
        a = [here[x] for x in args]
        b = [there[x] for x in args]
        here[slot] = apply(*a)
        if op in ("floordiv", "ceildiv"):
            there[slot] = here[slot] + b[0] / b[1] - a[0] / a[1]
        elif op in ("min", "max"):
            there[slot] = b[0] if (a[0] <= a[1] if op == "min" else a[0] >= a[1]) else b[1]
        elif op == "where":
            there[slot] = b[1] if a[0] else b[2]
        else:
            there[slot] = here[slot] if op in ("le", "and", "not") else apply(*b)
    return [there[s] for s in results]


def test_gradients_of_estimates_are_differences_of_formulas_without_rounding(space: Space) -> None:
    rng, compared = np.random.default_rng(0), 0
    for form in [f for f in space.relaxed() if f.moving][:4]:
        points = space.sample(400, rng)
        points = points[form.holds(points)][:6]
        _, slope = form(form.logs(points))
        tape = space.costs.tape(form.number, tuple(form.fixed[k.name] for k in space.sketches[form.number].structural))
        for point, found in zip(points, slope, strict=True):
            at = {k.name: float(v) for k, v in zip(form.knobs, point[1:], strict=False)}
            for c, n in enumerate(form.moving):
                name = form.knobs[n].name
                up, down = (np.log(passing(tape, at, {**at, name: at[name] * np.exp(s)})[0]) for s in (1e-6, -1e-6))
                assert found[c] == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-6), (form.number, name, at)
                compared += 1
    assert compared >= 20


def test_values_at_points_are_their_estimates_without_penalty(space: Space) -> None:
    rng = np.random.default_rng(1)
    points = space.sample(200, rng)
    covered = np.zeros(len(points), bool)
    for form in space.relaxed():
        own = points[form.holds(points)]
        covered |= form.holds(points)
        if len(own):
            assert np.array_equal(form.nearest(form.logs(own)), own)
            value, slope = form(form.logs(own))
            np.testing.assert_allclose(np.exp(value) / space.machine.clock_hz, space.estimate(own), rtol=1e-9)
            assert slope.shape == (len(own), len(form.moving)) and np.isfinite(slope).all()
    assert covered.all()


@given(hs.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_only_valid_points_come_back_from_anywhere(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    forms = space.relaxed()
    form = forms[rng.integers(len(forms))]
    logs = rng.normal(1.5, 3.0, (12, len(form.moving)))
    wild = form.nearest(form.clipped(logs))
    found = space.nearest(wild)
    assert space.valid(found).all() and (found[:, 0] == form.number).all()
    good = space.valid(wild)
    distance = np.abs(np.log(np.maximum(found[:, 1:], 1)) - np.log(np.maximum(wild[:, 1:], 1))).sum(axis=1)
    assert (distance[good] == 0).all()
    inside = form.logs(wild)
    assert np.array_equal(form.nearest(inside), wild)


X, Y = Knob("x", (1, 2, 3, 4, 6, 8, 12, 16)), Knob("y", (1, 2, 4, 8, 16))


def form_of(*constraints: Expr) -> Relaxed:
    g = Graph()
    return Relaxed(0, (X, Y), constraints, {}, 3, lambda: Tape([100 / g.var("x") + g.var("y")]))


@pytest.mark.parametrize(
    "constraint, excess",
    [
        (compare("<=", X.var * Y.var, 32), 2.0),
        (compare("<", X.var * Y.var, 32), 65 / 32),
        (compare(">=", ex.idx(16), X.var), 1.0),
        (compare("==", X.var, 4), 4.0),
        (compare("!=", X.var, 16), 1.0),
        (Logical("and", compare("<=", X.var, 4), compare("<=", Y.var, 2)), 4.0),
        (Logical("or", compare("<=", X.var, 4), compare("<=", Y.var, 2)), 2.0),
        (Logical("or", compare("!=", ex.idx(1), 1), compare("<=", Y.var, 2)), 2.0),
        (Not(compare("<=", X.var, 4)), 1.0),
    ],
)
def test_violated_constraints_are_penalties(constraint: Expr, excess: float) -> None:
    at = np.log([[16.0, 4.0]])
    free, bound = form_of()(at)[0], form_of(constraint)(at)[0]
    assert bound - free == pytest.approx(PENALTY * np.log(excess))


def test_penalties_lead_back_to_what_is_valid() -> None:
    form = form_of(compare("<=", X.var * 2, 12))
    logs = np.log([[16.0, 16.0], [1.0, 1.0]])
    adam = Adam(logs.shape, 0.2, 40)
    for _ in range(40):
        logs = form.clipped(logs - adam.step(form(logs)[1]))
    found = form.nearest(logs)
    assert found[:, 2].tolist() == [1, 1] and set(found[:, 1]) <= {4, 6}  # unbound, 16 is best


def test_forms_within_points_have_only_their_values() -> None:
    form = form_of().within(np.array([[0, 3, 2], [0, 12, 2], [1, 1, 1]]))
    assert [k.values for k in form.knobs] == [(3, 12), (2,)] and form.moving == (0,)
    assert form.nearest(np.log([[5.0], [7.0]])).tolist() == [[0, 3, 2], [0, 12, 2]]


def test_sketches_without_points_have_no_forms_and_nothing_near() -> None:
    host = load_machine("x86.avx512")
    space = Space(matmul(8, 32, 8), host, 1)
    empty = next(iter(space.sketches))
    impossible = type(empty)("none", empty.knobs, (compare("<=", empty.knobs[0].var, 0),), empty.source, empty.steps)
    mixed = Space(matmul(8, 32, 8), host, 1, rules=[lambda context: [impossible, empty]])
    assert {f.number for f in mixed.relaxed()} == {1}
    with pytest.raises(SpaceError, match="none has no valid point"):
        mixed.nearest(np.zeros((1, mixed.columns), np.int64))
