"""Convolutions of few channels a group as convolutions of more, with zeros among the weights, for accelerators that multiply matrices.

An array of multipliers takes as many input and output channels at once, whether a group has them or not: a depthwise convolution
leaves it to one row and column. Neighbouring groups together are one group whose weights between them are zero. Sums of integers
stay the same, and blocks of weights become fewer. It takes weights that are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tilewright.codegen.commands import has_words
from tilewright.graph.elements import tensor_array
from tilewright.graph.loading import ModelSource, read_model
from tilewright.hw import Machine
from tilewright.ir.expr import Expr, Var
from tilewright.space.stages import Stage, stages

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto


def wide_groups(source: ModelSource, machine: Machine) -> ModelProto:
    """The model in which groups of QLinearConv are as wide as ``machine`` multiplies at once, where whole numbers of them fit.

    Others, weights that are no constants, and every model for a machine without instruction words stay. ImportFailure for unreadable
    models.
    """
    from onnx import ModelProto, numpy_helper

    model, folder = read_model(source)
    width = multiplied(machine)
    constants = {t.name: t for t in model.graph.initializer}
    out = ModelProto()
    out.CopyFrom(model)
    for number, node in enumerate(out.graph.node):
        attribute = next((a for a in node.attribute if a.name == "group"), None)
        if node.op_type != "QLinearConv" or attribute is None or not {node.input[3], node.input[5]} <= constants.keys():
            continue
        weights, zero = (tensor_array(constants[node.input[n]], folder) for n in (3, 5))
        together = _together(attribute.i, weights.shape[1], weights.shape[0] // attribute.i, width)
        if together == 1:
            continue
        name = f"{node.output[0]}_wide_{number}"
        out.graph.initializer.append(numpy_helper.from_array(_spread(weights, zero, attribute.i, together), name))
        node.input[3] = name
        attribute.i //= together
    return out


def multiplied(machine: Machine) -> int:
    """Input and output channels, the fewer of the two, that an instruction word of ``machine`` multiplies at once; 1 without any."""
    best = 1
    for i in machine.instructions if has_words(machine) else ():
        for s in stages(i.kernel):
            factors = s.factors() if s.is_reduction else None
            if factors is not None:
                best = max(best, *(_taken(s, w.indices, o.indices) for w, o in (factors, factors[::-1])))
    return best


def _taken(s: Stage, weights: Sequence[Expr], other: Sequence[Expr]) -> int:
    """The least of the loops that sum over both operands and of those that only the results and ``weights`` have."""
    mine, others = ({e.name for e in indices if isinstance(e, Var)} for indices in (weights, other))
    depth = [n for name, n in s.loops.items() if name in mine & others and name not in s.spatial]
    across = [n for name, n in s.loops.items() if name in mine - others and name in s.spatial]
    return min(max(depth, default=1), max(across, default=1))


def _together(groups: int, depth: int, each: int, width: int) -> int:
    """How many neighbouring groups fill the array best, without a rest."""
    return max(n for n in range(1, max(1, width // max(depth, each)) + 1) if groups % n == 0)


def _spread(weights: NDArray[np.generic], zero: NDArray[np.generic], groups: int, together: int) -> NDArray[np.generic]:
    """Weights [K, C, ...] of ``groups`` as [K, C * together, ...]: those of the other groups are their zero point."""
    total, depth = weights.shape[:2]
    each = total // groups
    filler = np.broadcast_to(zero.reshape(-1, *[1] * (weights.ndim - 1)), (total, depth * together, *weights.shape[2:]))
    out = filler.astype(weights.dtype)
    for k in range(total):
        first = k // each % together * depth
        out[k, first : first + depth] = weights[k]
    return out
