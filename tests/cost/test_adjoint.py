"""Gradients on arrays against differences and against tensors."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.cost.adjoint import Adjoint
from tilewright.cost.formula import Graph
from tilewright.cost.loopnest import convolution, parse_nest
from tilewright.cost.nestcost import NestModel
from tilewright.cost.tape import Tape
from tilewright.hw.library.gemmini import hierarchy
from tilewright.util.errors import IRTypeError


def test_every_operator_against_differences() -> None:
    g = Graph()
    x, y, z = g.var("x"), g.var("y"), g.var("z")
    outputs = [
        x * y * x + z * 3 - y,
        g.div(x * z, y + 1),
        g.max(x, y) * g.min(y, z),
        g.where(g.both(g.le(x, y), g.negate(g.le(y, z))), x * z, y / x),
        g.max(x * y, 4) + g.where(g.le(z, 2), 5, z),
    ]
    tape = Tape(outputs)
    rng = np.random.default_rng(0)
    env = {k: rng.uniform(1, 4, 50) for k in "xyz"}
    seeds = [rng.normal(size=50) for _ in outputs]
    adjoint = Adjoint(tape)
    slots = adjoint.forward(env)
    assert all(np.array_equal(a, b) for a, b in zip(adjoint.results(slots), tape(env), strict=True))
    found = adjoint.backward(slots, seeds)
    for k in "xyz":
        up, down = (tape({**env, k: env[k] + s * 1e-6}) for s in (1, -1))
        expected = sum(s * (u - d) / 2e-6 for s, u, d in zip(seeds, up, down, strict=True))
        assert np.allclose(found[k], expected, rtol=1e-5, atol=1e-6)


def test_rounding_passes_gradients_through() -> None:
    g = Graph()
    x, y = g.var("x"), g.var("y")
    adjoint = Adjoint(Tape([g.floordiv(x, y), g.ceildiv(x, y)]))
    slots = adjoint.forward({"x": np.array([7.0]), "y": np.array([2.0])})
    assert [float(v[0]) for v in adjoint.results(slots)] == [3.0, 4.0]
    assert {k: float(v[0]) for k, v in adjoint.backward(slots, [np.ones(1), None]).items()} == {"x": 0.5, "y": -1.75}


def test_a_cost_model_as_tensors_see_it() -> None:
    torch = pytest.importorskip("torch")
    nest = parse_nest("L3[WIO] K4 C2 R3 P7 - L2[WI] N1 K4X - L1[O] K2 S3 R3 C4 Q14 P2 C8X - L0[W] P2")
    tape = NestModel(convolution(("SH", "SW")), nest.structure(), hierarchy(), rounded=False).traffic
    rng = np.random.default_rng(1)
    env = {k: rng.uniform(1.1, 5, 40) for k in tape.variables}
    only = [k for k in tape.variables if k not in ("SH", "SW")]
    adjoint = Adjoint(tape, only)
    slots = adjoint.forward(env)
    seeds = [rng.normal(size=40) for _ in adjoint.results(slots)]
    found = adjoint.backward(slots, seeds)
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in env.items()}
    total = sum((torch.as_tensor(s) * r).sum() for s, r in zip(seeds, tape(tensors), strict=True))
    expected = torch.autograd.grad(total, [tensors[k] for k in only])
    assert set(found) == set(only)
    for k, e in zip(only, expected, strict=True):
        assert np.allclose(found[k], e.numpy(), rtol=1e-9)


def test_what_does_not_matter_has_gradient_zero_and_unknown_names_are_refused() -> None:
    g = Graph()
    x, y = g.var("x"), g.var("y")
    tape = Tape([x * 2, g.le(y, x)])
    adjoint = Adjoint(tape)
    slots = adjoint.forward({"x": np.ones(2), "y": np.ones(2)})
    found = adjoint.backward(slots, [np.ones(2), np.ones(2)])
    assert found["y"] == 0.0 and list(found["x"]) == [2.0, 2.0]
    with pytest.raises(IRTypeError, match="no variable 'w'"):
        Adjoint(tape, ["w"])
    with pytest.raises(IRTypeError, match="knob 'y' has no value"):
        adjoint.forward({"x": 1})
