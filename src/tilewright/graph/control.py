"""Control flow of static extent: If takes a known branch, Loop and Scan are unrolled.

The importer gives two callbacks: ``run(graph, tensors)`` imports a body with formal inputs bound to
tensors and returns its outputs; ``apply(lowering function, operands)`` adds one small operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tilewright.graph.lowering import Lowering
from tilewright.graph.model import Tensor
from tilewright.ir.expr import idx

if TYPE_CHECKING:
    from onnx import GraphProto

Run = Callable[["GraphProto", Mapping[str, Tensor]], list[Tensor]]
Apply = Callable[[Callable[[Lowering], Tensor], Sequence[Tensor]], Tensor]

#: Iterations unrolled at most: beyond it the kernels would not fit any cache.
_LARGEST_TRIP = 1024


def branch(op: Lowering, inputs: Sequence[Tensor | None], run: Run, apply: Apply) -> list[Tensor]:
    """The outputs of the branch that a known condition takes."""
    if not inputs or inputs[0] is None:
        raise op.refuse("it has no condition")
    taken = bool(op.known(inputs[0], "condition").reshape(()))
    return run(op.attribute("then_branch" if taken else "else_branch"), {})


def loop(op: Lowering, inputs: Sequence[Tensor | None], run: Run, apply: Apply) -> list[Tensor]:
    """A Loop whose trip count and conditions are known: carried values, then stacked scan outputs."""
    padded: list[Tensor | None] = [*inputs, None, None]
    limit, condition, carried = padded[0], padded[1], inputs[2:]
    trips = _LARGEST_TRIP + 1 if limit is None else int(op.known(limit, "trip count").reshape(()))
    going = condition is None or bool(op.known(condition, "condition").reshape(()))
    body: GraphProto = op.attribute("body")
    formal = [v.name for v in body.input]
    state = [t for t in carried if t is not None]
    collected: list[list[Tensor]] = [[] for _ in range(len(body.output) - 1 - len(state))]
    done = 0
    while going and done < trips:
        if done == _LARGEST_TRIP:
            raise op.refuse(f"more than {_LARGEST_TRIP} iterations are not unrolled")
        actual = [op.array(np.asarray(done, np.int64)), op.array(np.asarray(True)), *state]
        results = run(body, dict(zip(formal, actual, strict=True)))
        going = bool(op.known(results[0], "loop condition").reshape(()))
        state = results[1 : 1 + len(state)]
        for values, r in zip(collected, results[1 + len(state) :], strict=True):
            values.append(r)
        done += 1
    if collected and not done:
        raise op.refuse("it runs no iteration, so the shapes of its scan outputs are unknown")
    return [*state, *(stacked(values, 0, apply) for values in collected)]


def scan(op: Lowering, inputs: Sequence[Tensor | None], run: Run, apply: Apply) -> list[Tensor]:
    """A Scan over the known extent of its inputs: final states, then stacked outputs."""
    if op.opset < 9:
        raise op.refuse("the batched form (opset 8) is not supported", hint="convert the model to opset 9 or newer")
    number = op.attribute("num_scan_inputs")
    operands = [t for t in inputs if t is not None]
    state, scanned = operands[: len(operands) - number], operands[len(operands) - number :]
    body: GraphProto = op.attribute("body")
    axes = [op.axis(a, t.rank) for a, t in zip(op.attribute("scan_input_axes") or [0] * number, scanned, strict=True)]
    backward = op.attribute("scan_input_directions") or [0] * number
    trips = scanned[0].shape[axes[0]]
    if not 0 < trips <= _LARGEST_TRIP:
        raise op.refuse(f"{trips} iterations: between 1 and {_LARGEST_TRIP} are unrolled")
    outputs = len(body.output) - len(state)
    collected: list[list[Tensor]] = [[] for _ in range(outputs)]
    for t in range(trips):
        parts = [sliced(x, a, trips - 1 - t if b else t, apply) for x, a, b in zip(scanned, axes, backward, strict=True)]
        results = run(body, dict(zip((v.name for v in body.input), [*state, *parts], strict=True)))
        state = results[: len(state)]
        for values, r in zip(collected, results[len(state) :], strict=True):
            values.append(r)
    turned = op.attribute("scan_output_directions") or [0] * outputs
    places = op.attribute("scan_output_axes") or [0] * outputs
    return [*state, *(stacked(v[::-1] if b else v, a, apply) for v, a, b in zip(collected, places, turned, strict=True))]


def sliced(x: Tensor, axis: int, position: int, apply: Apply) -> Tensor:
    """``x`` at one position of ``axis``, which disappears."""
    shape = [s for d, s in enumerate(x.shape) if d != axis]
    return apply(lambda op: op.compute(shape, lambda *i: x[(*i[:axis], idx(position), *i[axis:])], x.dtype, "slice"), [x])


def stacked(values: Sequence[Tensor], axis: int, apply: Apply) -> Tensor:
    """Tensors of one shape joined along a new ``axis``."""
    first = values[0]
    at = axis + first.rank + 1 if axis < 0 else axis
    shape = [*first.shape[:at], len(values), *first.shape[at:]]

    def build(op: Lowering) -> Tensor:
        out = op.tensor(shape, first.dtype, "stack")
        for k, x in enumerate(values):
            op.assign(out, lambda *i, x=x: x[i], x.shape, at=lambda *i, k=k: (*i[:at], idx(k), *i[at:]))
        return out

    return apply(build, values)


CONTROL_FLOW: dict[str, Callable[[Lowering, Sequence[Tensor | None], Run, Apply], list[Tensor]]] = {
    "If": branch,
    "Loop": loop,
    "Scan": scan,
}
