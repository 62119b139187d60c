"""What a roofline leaves out of a real array: filling it, preloading weights, starting a tile, short bursts from main memory.

A systolic array of ``dim`` x ``dim`` units works through a layer tile by tile, where a tile is what its mapping keeps
on the chip. Two things overlap, and the slower one counts:

- arithmetic: for each tile a start; for each block of weights that fits the array a preload of its ``dim`` rows and a
  cycle for each row of inputs streamed through it;
- main memory: words of inputs and weights, and something for each contiguous row of them, however short.

Tiles are fetched again for each step of the outermost loops: that is what command streams in use do, also where the analytical model
sees a tile that could stay. Seven constants say how fast; they are fitted to measured cycles (:meth:`ArrayTime.fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np

from tilewright.cost.adjoint import Adjoint
from tilewright.cost.formula import Formula, Graph
from tilewright.cost.loopnest import LoopNest
from tilewright.cost.tape import Tape
from tilewright.util.errors import MappingError

#: Dimensions of a convolution layer (:func:`tilewright.cost.loopnest.convolution`).
_DIMS = "NKCPQRS"
_STEPS, _SMALLEST = 60, 1e-6


@dataclass(frozen=True, slots=True)
class Rates:
    """Cycles for a tile started, a row streamed, a row of weights preloaded; an input word and row, a weight word and row fetched."""

    tile: float
    row: float
    preload: float
    input_word: float
    input_row: float
    weight_word: float
    weight_row: float


@dataclass(frozen=True, slots=True)
class ArrayTime:
    """Cycles of convolution layers and matrix products on a square array, in the manner of an estimator: ``fit``, ``predict``.

    Inputs are environments as :func:`tile_environment` makes them, of numbers, arrays or tensors, with the strides ``SH``
    and ``SW`` and the side ``dim`` of the array.
    """

    rates: Rates

    def predict(self, env: Mapping[str, Any]) -> Any:
        """Cycles, as the environment's values: a number, an array or a tensor."""
        return _TAPE(self.bound(env))[0]

    def bound(self, env: Mapping[str, Any]) -> dict[str, Any]:
        """``env`` with the constants, as :meth:`smooth` takes it."""
        return {**{f"rate.{f.name}": getattr(self.rates, f.name) for f in fields(self.rates)}, **env}

    @staticmethod
    def smooth() -> Adjoint:
        """The same with parts of blocks (one or more) in place of whole ones, and its gradients: for searches that follow them."""
        return Adjoint(Tape([_formula(whole=False)]), (*(f"tile.{d}" for d in _DIMS), "tiles", "dim"))

    @staticmethod
    def fit(env: Mapping[str, np.ndarray], cycles: np.ndarray) -> ArrayTime:
        """Constants for which the relative errors are small; single large errors count less (soft L1 loss of logarithms).

        Levenberg-Marquardt on the logarithms of the constants. ``env`` has columns as long as ``cycles``.
        """
        target = np.log(np.asarray(cycles, dtype=np.float64))
        at = np.log(np.array(astuple(_START)))

        def residuals(logs: np.ndarray) -> np.ndarray:
            found = ArrayTime(Rates(*np.exp(logs).tolist())).predict(env)
            return np.log(np.maximum(found, 1.0)) - target

        r, damping = residuals(at), 1e-2
        for _ in range(_STEPS):
            jacobian = np.stack([(residuals(at + step) - r) / 1e-4 for step in 1e-4 * np.eye(len(at))], axis=1)
            weight = _weights(r)
            normal, slope = jacobian.T @ (weight[:, None] * jacobian), jacobian.T @ (weight * r)
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + _SMALLEST), slope)
            tried = np.maximum(at - np.clip(step, -1, 1), np.log(_SMALLEST))
            new = residuals(tried)
            better = _loss(new) < _loss(r)
            done = better and _loss(r) - _loss(new) < 1e-9 * _loss(r)
            damping = damping / 3 if better else damping * 4
            if better:
                at, r = tried, new
            if done or damping > 1e8:
                break
        return ArrayTime(Rates(*np.exp(at).tolist()))


#: Where fitting starts: a cycle for a row, eight words a cycle, a hundred cycles for a tile.
_START = Rates(tile=100.0, row=1.0, preload=1.0, input_word=0.125, input_row=1.0, weight_word=0.125, weight_row=1.0)
#: Size of a logarithm's error (about a third of the cycles) beyond which it counts linearly.
_SOFT = 0.3


def _weights(r: np.ndarray) -> np.ndarray:
    return 1 / np.sqrt(1 + (r / _SOFT) ** 2)


def _loss(r: np.ndarray) -> float:
    return float(np.sum(np.sqrt(1 + (r / _SOFT) ** 2) - 1))


def tile_environment(nest: LoopNest) -> dict[str, int]:
    """The trips of the outermost level together, and the tile inside it: ``tiles``, and ``tile.D`` for each dimension D.

    MappingError when a loop is over a dimension that convolution layers do not have.
    """
    env = {"tiles": 1, **{f"tile.{d}": 1 for d in _DIMS}}
    for p in nest.loops():
        if p.factor.dim not in _DIMS:
            raise MappingError(f"a tile has no dimension {p.factor.dim}", hint=f"dimensions of a convolution layer: {' '.join(_DIMS)}")
        outside = p.depth == len(nest.levels) - 1 and not p.spatial
        env["tiles" if outside else f"tile.{p.factor.dim}"] *= int(p.factor.trips)
    return env


def _formula(whole: bool = True) -> Formula:
    """The model of the module's head; blocks of the array's side count whole, or as what they are of one."""
    g = Graph()
    n, k, c, p, q, r, s = (g.var(f"tile.{d}", 1) for d in _DIMS)
    dim, tiles = g.var("dim", 1), g.var("tiles", 1)
    rate = {f.name: g.var(f"rate.{f.name}", 0) for f in fields(Rates)}
    rows, columns = ((o - 1) * g.var(stride, 1) + f for o, f, stride in ((p, r, "SH"), (q, s, "SW")))
    inner, outer = (g.ceildiv(x, dim) if whole else g.max(g.div(x, dim), 1) for x in (c, k))
    blocks = inner * outer * r * s
    arithmetic = rate["tile"] + blocks * (rate["row"] * n * p * q + rate["preload"] * dim)
    pixels, weights = n * rows * columns, r * s * c
    inputs = pixels * (rate["input_word"] * c + rate["input_row"] * inner)
    memory = inputs + weights * (rate["weight_word"] * k + rate["weight_row"] * outer)
    return tiles * g.max(arithmetic, memory)


_TAPE = Tape([_formula()])
