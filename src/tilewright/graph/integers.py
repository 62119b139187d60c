"""Quantised models of floats between conversions ("QDQ") as operators on integers.

``DequantizeLinear -> Conv -> QuantizeLinear`` says what a quantised convolution computes, up to how the sum of products is rounded on
its way. The integer operator sums exactly, which is what accelerators and inference libraries do: ONNX Runtime replaces these
patterns too. Operators that only move or compare elements work on the integers as they are, and so do bounds (Relu, Clip): where they
stand between the product and its quantisation, the quantisation comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tilewright.graph.elements import tensor_array
from tilewright.graph.loading import ModelSource, read_model
from tilewright.graph.opsets import versions_of
from tilewright.graph.transposed import Transposed
from tilewright.graph.zero_points import fold_zero_points

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

#: Operators that choose or move elements; with the same scale and zero point before and after, they do so with integers.
CHOOSING = {"MaxPool", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
#: Operators that keep elements within bounds: with integers, within the integers of these.
BOUNDING = {"Relu", "Clip"}
#: The version of ONNX's operators that has Clip of integers, whose bounds are operands.
INTEGER_CLIP = 12
#: The domain of integer operators that ONNX does not define, as ONNX Runtime's quantisation tools write them.
VENDOR = "com.microsoft"
OF_VENDOR = {"QGemm", "QLinearAdd", "QLinearGlobalAveragePool"}


def integer_form(source: ModelSource) -> ModelProto:
    """The model with quantised operators in place of patterns of floats: QLinearConv, QLinearMatMul, QGemm, QLinearAdd,
    QLinearGlobalAveragePool, and those that only choose elements, on integers; transposed convolutions of constant weights as convolutions
    whose results are interleaved. Patterns whose scales are no constants, or whose
    values are used elsewhere, stay. Zero points of inputs become part of a bias where that is exact.

    ImportFailure for unreadable models. Weights in external files have to be in the folder of the model.
    """
    from onnx import ModelProto, helper

    model, folder = read_model(source)
    out = ModelProto()
    out.CopyFrom(model)
    patterns = _Patterns(out, folder)
    nodes = [new for n in out.graph.node for new in patterns.rewritten(n)]
    used = {name for n in nodes for name in n.input} | {v.name for v in out.graph.output}
    while len(kept := [n for n in nodes if used & set(n.output)]) < len(nodes):
        nodes = kept
        used = {name for n in nodes for name in n.input} | {v.name for v in out.graph.output}
    del out.graph.node[:]
    out.graph.node.extend(kept)
    if any(n.domain == VENDOR for n in kept) and VENDOR not in {o.domain for o in out.opset_import}:
        out.opset_import.append(helper.make_opsetid(VENDOR, 1))
    fold_zero_points(out, folder)
    return out


@dataclass(frozen=True, slots=True)
class _Quantised:
    """The names of an integer tensor, its scale and its zero point."""

    tensor: str
    scale: str
    zero: str

    @property
    def names(self) -> tuple[str, str, str]:
        return self.tensor, self.scale, self.zero


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The least and the largest integer that an operator leaves."""

    low: np.integer
    high: np.integer

    @property
    def whole(self) -> bool:
        """Whether these are all integers of the type."""
        info = np.iinfo(self.low.dtype)
        return bool(self.low == info.min and self.high == info.max)

    @property
    def positive(self) -> bool:
        """Whether only integers below 0 are left out."""
        return bool(self.low == 0 and self.high == np.iinfo(self.high.dtype).max)


class _Patterns:
    def __init__(self, model: ModelProto, folder: str):
        nodes = model.graph.node
        self.model, self.folder = model, folder
        self.clips = versions_of(model.opset_import).get("", 0) >= INTEGER_CLIP
        self.constants = {t.name: t for t in model.graph.initializer}
        self.producer = {name: n for n in nodes for name in n.output}
        self.uses = Counter(name for n in nodes for name in n.input) + Counter(v.name for v in model.graph.output)
        self.arrays = {t.name: tensor_array(t, folder) for t in model.graph.initializer if t.name in self._small(nodes)}

    def _small(self, nodes: Sequence[NodeProto]) -> set[str]:
        """Scales and zero points."""
        return {name for n in nodes if n.op_type in ("QuantizeLinear", "DequantizeLinear") for name in n.input[1:]}

    def rewritten(self, node: NodeProto) -> Iterator[NodeProto]:
        """``node``, or what computes its integers where it ends a pattern (what the pattern no longer needs is removed later)."""
        inner = self.producer.get(node.input[0]) if node.op_type == "QuantizeLinear" and self._known(node) else None
        yield from (self._integers(inner, node) if inner is not None and self.uses[node.input[0]] == 1 else []) or [node]

    def _known(self, n: NodeProto) -> bool:
        return len(n.input) == 3 and all(name in self.arrays for name in n.input[1:])

    def _source(self, name: str) -> _Quantised | None:
        """What ``name`` is the float of."""
        n = self.producer.get(name)
        return _Quantised(*n.input) if n is not None and n.op_type == "DequantizeLinear" and self._known(n) else None

    def _integers(self, inner: NodeProto, end: NodeProto) -> list[NodeProto]:
        """What computes the integers of ``end`` in place of the pattern; nothing where it is none.

        Quantisation never falls: what bounds or chooses elements of a result may as well do so with its integers.
        """
        result = _Quantised(end.output[0], end.input[1], end.input[2])
        after: list[tuple[NodeProto, _Bounds]] = []
        while inner.op_type in CHOOSING | BOUNDING and self._source(inner.input[0]) is None:
            bounds, before = self._bounds(inner, result), self.producer.get(inner.input[0])
            if bounds is None or before is None or self.uses[inner.input[0]] > 1:
                return []
            if inner.op_type in BOUNDING and not (bounds.whole or bounds.positive or self.clips):
                return []
            if inner.op_type in CHOOSING or not bounds.whole:
                after.insert(0, (inner, bounds))
            inner = before
        first = replace(result, tensor=f"{inner.output[0]}_integers") if after else result
        new = self._transposed(inner, first) if inner.op_type == "ConvTranspose" else self._integer(inner, first)
        for number, (node, bounds) in enumerate(after if new else ()):
            own = result if node is after[-1][0] else replace(result, tensor=f"{result.tensor}_step{number}")
            new.append(self._after(node, bounds, new[-1].output[0], own))
        return new

    def _bounds(self, n: NodeProto, result: _Quantised) -> _Bounds | None:
        """The integers of ``result`` that ``n`` leaves; None where they are not known, or ``n`` is nothing to do with integers."""
        zero = self.arrays[result.zero]
        if len(n.output) > 1 or not self._is_one(result) or zero.dtype.kind not in "iu":
            return None
        low, high = (0.0, np.inf) if n.op_type == "Relu" else (-np.inf, np.inf)
        if n.op_type == "Clip":
            given = {a.name: a.f for a in n.attribute}
            low, high = given.get("min", low), given.get("max", high)
            names = [name for name in n.input[1:] if name]
            if any(name not in self.constants or self._array(name).size != 1 for name in names):
                return None
            values = [self._array(name).item() if name else None for name in n.input[1:]]
            low, high = (v if v is not None else x for v, x in zip((*values, None, None), (low, high), strict=False))
        info = np.iinfo(zero.dtype)
        units = np.rint(np.array([low, high], np.float32) / self.arrays[result.scale].reshape(())) + zero.reshape(())
        return _Bounds(*np.clip(units, info.min, info.max).astype(zero.dtype))

    def _after(self, node: NodeProto, bounds: _Bounds, before: str, result: _Quantised) -> NodeProto:
        """``node`` on the integers ``before``."""
        if node.op_type in CHOOSING:
            return self._node(node.op_type, [before, *node.input[1:]], node, result)
        from onnx import helper

        if bounds.positive:
            return helper.make_node("Relu", [before], [result.tensor], node.name)
        limits = [self._constant(f"{result.tensor}_{n}", v) for n, v in (("low", bounds.low), ("high", bounds.high))]
        return helper.make_node("Clip", [before, *limits], [result.tensor], node.name)

    def _transposed(self, inner: NodeProto, result: _Quantised) -> list[NodeProto]:
        given = [self._source(name) for name in inner.input]
        if any(s is None or s.tensor not in self.constants for s in given[1:]) or given[0] is None:
            return []
        x, w, *bias = (s for s in given if s is not None)
        weights, scale, zero = self._array(w.tensor), self.arrays[w.scale], self.arrays[w.zero]
        found = Transposed.of(inner, weights.shape[2:])
        axis = next((a.i for a in self.producer[inner.input[1]].attribute if a.name == "axis"), 1)
        # Scales for each output channel go with one group: they lie along its weights' second dimension.
        fits = scale.size == 1 or (found is not None and found.group == 1 and axis == 1)
        if found is None or not fits or not self._is_bias(x, w, bias) or any(self._array(b.tensor).ndim != 1 for b in bias):
            return []
        y = result.tensor
        spread = [found.weights(weights, zero), found.for_phases(scale), found.for_phases(zero)]
        spread += [np.repeat(self._array(b.tensor), found.stride**2) for b in bias]
        names = [self._constant(f"{y}_{n}", v) for n, v in zip(("weights", "scales", "zeros", "bias"), spread, strict=False)]
        inputs = [*x.names, *names[:3], *result.names[1:], *names[3:]]
        return found.nodes(inputs, inner.name, y, self._constant)

    def _array(self, name: str) -> NDArray[np.generic]:
        return tensor_array(self.constants[name], self.folder)

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        """``value`` as a constant of the model, called ``name`` or nearly so."""
        from onnx import numpy_helper

        while name in self.constants:
            name += "_"
        self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        self.model.graph.initializer.append(self.constants[name])
        return name

    def _integer(self, inner: NodeProto, result: _Quantised) -> list[NodeProto]:
        sources = [self._source(name) for name in inner.input]
        given = [s for s in sources if s is not None]
        if inner.op_type in CHOOSING or inner.op_type == "Relu":
            return self._chosen(inner, sources[0], result)
        if len(given) != len(sources) or inner.domain not in ("", "ai.onnx"):
            return []
        units = result.names[1:]
        match inner.op_type, given:
            case "Conv", [x, w, *bias] if self._is_bias(x, w, bias):
                return [self._node("QLinearConv", [*x.names, *w.names, *units, *(b.tensor for b in bias)], inner, result)]
            case "MatMul", [a, b]:
                return [self._node("QLinearMatMul", [*a.names, *b.names, *units], inner, result)]
            case "Gemm", [a, b, *bias] if self._is_bias(a, b, bias) and _factor(inner, "beta") == 1:
                return [self._node("QGemm", [*a.names, *b.names, *([c.tensor for c in bias] or [""]), *units], inner, result)]
            case "Add", [a, b] if self._is_one(a, b, result):
                return [self._node("QLinearAdd", [*a.names, *b.names, *units], inner, result)]
            case "GlobalAveragePool", [x] if self._is_one(x, result):
                return [self._node("QLinearGlobalAveragePool", [*x.names, *units], inner, result)]
        return []

    def _is_one(self, *tensors: _Quantised) -> bool:
        """Whether each has one scale and one zero point."""
        return all(self.arrays[n].size == 1 for t in tensors for n in t.names[1:])

    def _chosen(self, inner: NodeProto, source: _Quantised | None, result: _Quantised) -> list[NodeProto]:
        if source is None or len(inner.output) != 1 or not self._same(source, result):
            return []
        if inner.op_type == "Relu" and self.arrays[result.zero].any():
            return []
        return [self._node(inner.op_type, [source.tensor, *inner.input[1:]], inner, result)]

    def _same(self, a: _Quantised, b: _Quantised) -> bool:
        pairs = [(self.arrays[x], self.arrays[y]) for x, y in ((a.scale, b.scale), (a.zero, b.zero))]
        return all(x.dtype == y.dtype and x.size == y.size == 1 and (x.reshape(()) == y.reshape(())) for x, y in pairs)

    def _is_bias(self, x: _Quantised, w: _Quantised, bias: Sequence[_Quantised]) -> bool:
        """Whether the bias, if any, is in units of the products."""
        if not bias:
            return True
        product = self.arrays[x.scale].astype(np.float32) * self.arrays[w.scale].astype(np.float32)
        same = np.allclose(self.arrays[bias[0].scale], product, rtol=1e-6, atol=0)
        return same and self.arrays[bias[0].zero].dtype == np.int32 and not self.arrays[bias[0].zero].any()

    def _node(self, kind: str, inputs: Sequence[str], inner: NodeProto, result: _Quantised) -> NodeProto:
        from onnx import helper

        new = helper.make_node(kind, inputs, [result.tensor], inner.name, domain=VENDOR if kind in OF_VENDOR else "")
        new.attribute.extend(a for a in inner.attribute if kind != "QGemm" or a.name != "beta")
        return new


def _factor(n: NodeProto, name: str) -> float:
    return next((a.f for a in n.attribute if a.name == name), 1.0)
