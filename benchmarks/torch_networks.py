"""ONNX networks as PyTorch modules, written as PyTorch's users write them.

Nodes become calls of ``torch.nn.functional``. Groups of nodes that stand for one function there become that function: a
product with known weights and its bias ``linear``, ``softmax(q k / s) v`` ``scaled_dot_product_attention``, the form with erf
``gelu``. What depends on shapes only is computed beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import fx
from torch.nn import functional as F


class Unsupported(Exception):
    """The network has a node that is not translated here."""


def torch_module(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> fx.GraphModule:
    """The network as a module that takes its inputs in order and returns a tuple; ``shapes`` are those of the inputs."""
    return _Translation(model, shapes).module()


class _Translation:
    """``known`` are arrays by name; ``values`` what has been translated; ``maker`` the node that makes a value."""

    def __init__(self, model: ModelProto, shapes: Mapping[str, Sequence[int]]):
        self.model = model
        self.opset = max(o.version for o in model.opset_import if not o.domain)
        self.known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.inputs = [v.name for v in model.graph.input if v.name not in self.known]
        self.shapes = dict(shapes)
        self.maker: dict[str, NodeProto] = {n.output[0]: n for n in model.graph.node}
        self.uses = Counter(name for n in model.graph.node for name in n.input)
        self.root = torch.nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}

    def module(self) -> fx.GraphModule:
        for n, name in enumerate(self.inputs):
            self.values[name] = self.graph.placeholder(f"x{n}")
        for node in self.model.graph.node:
            if not self._folded(node):
                self.values[node.output[0]] = self._translated(node)
        self.graph.output(tuple(self.values[v.name] for v in self.model.graph.output))
        self.graph.eliminate_dead_code()
        made = fx.GraphModule(self.root, self.graph)
        made.delete_all_unused_submodules()
        return made.eval()

    # --- values -----------------------------------------------------------------------------

    def value(self, name: str) -> fx.Node:
        """A value, or a known array as a parameter."""
        if name not in self.values:
            self.values[name] = self.parameter(name, self.known[name])
        return self.values[name]

    def parameter(self, name: str, array: np.ndarray) -> fx.Node:
        label = "p_" + "".join(c if c.isalnum() else "_" for c in name)
        if not hasattr(self.root, label):
            self.root.register_parameter(label, torch.nn.Parameter(torch.from_numpy(np.array(array)), requires_grad=False))
        return self.graph.get_attr(label)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_function(function, args, kwargs)

    def scalar(self, name: str) -> float | None:
        a = self.known.get(name)
        return float(a.reshape(())) if a is not None and a.size == 1 else None

    def _folded(self, node: NodeProto) -> bool:
        """Compute a node of known inputs (shapes of the network's inputs are known)."""
        if node.op_type == "Shape" and node.input[0] in self.shapes:
            self.known[node.output[0]] = np.array(self.shapes[node.input[0]], np.int64)
            return True
        if not all(n in self.known for n in node.input if n):
            return False
        names = [n for n in dict.fromkeys(node.input) if n]
        values = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(self.known[n].dtype), None) for n in names]
        outputs = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in node.output]
        graph = helper.make_graph([node], "folded", values, outputs)
        found = ReferenceEvaluator(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)]),
        ).run(None, {n: self.known[n] for n in names})
        self.known.update(zip(node.output, found, strict=True))
        return True

    # --- groups of nodes that are one function ------------------------------------------------

    def _translated(self, node: NodeProto) -> fx.Node:
        special = {"Add": self._linear, "Mul": self._gelu, "MatMul": self._attention}.get(node.op_type)
        found = special(node) if special else None
        if found is not None:
            return found
        translate = _NODES.get(node.op_type)
        if translate is None:
            raise Unsupported(f"{node.op_type} ({node.name})")
        return translate(self, node, {a.name: helper.get_attribute_value(a) for a in node.attribute})

    def _made(self, name: str, kind: str) -> NodeProto | None:
        """The node of ``kind`` that makes ``name`` for this user only."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type == kind and self.uses[name] == 1 else None

    def _either(self, node: NodeProto, kind: str) -> tuple[NodeProto, str] | None:
        """An operand made by a node of ``kind``, and the name of the other."""
        for mine, other in (node.input, tuple(reversed(node.input))):
            if (made := self._made(mine, kind)) is not None:
                return made, other
        return None

    def _linear(self, add: NodeProto) -> fx.Node | None:
        found = self._either(add, "MatMul")
        if found is None:
            return None
        product, bias = found
        weights = self.known.get(product.input[1])
        if weights is None or weights.ndim != 2 or bias not in self.known or self.known[bias].ndim != 1:
            return None
        transposed = self.parameter(product.input[1] + "_t", np.ascontiguousarray(weights.T))
        return self.call(F.linear, self.value(product.input[0]), transposed, self.value(bias))

    def _gelu(self, half: NodeProto) -> fx.Node | None:
        scaled = self._either(half, "Mul")
        if scaled is None or self.scalar(scaled[1]) != 0.5 or (shifted := self._either(scaled[0], "Add")) is None:
            return None
        (add, x) = shifted
        erf = self._either(add, "Erf")
        if erf is None or self.scalar(erf[1]) != 1.0 or (inner := self._made(erf[0].input[0], "Div")) is None or inner.input[0] != x:
            return None
        return self.call(F.gelu, self.value(x)) if np.isclose(self.scalar(inner.input[1]) or 0.0, np.sqrt(2.0)) else None

    def _attention(self, mix: NodeProto) -> fx.Node | None:
        softmax = self._made(mix.input[0], "Softmax")
        if softmax is None:
            return None
        scores, scale = softmax.input[0], 1.0
        divided = self._made(scores, "Div")
        if divided is not None and (by := self.scalar(divided.input[1])):
            scores, scale = divided.input[0], 1.0 / by
        product = self._made(scores, "MatMul")
        if product is None:
            return None
        queries = product.input[0]
        multiplied = self._made(queries, "Mul")
        if multiplied is not None and (factor := self.scalar(multiplied.input[1])):
            queries, scale = multiplied.input[0], scale * factor
        keys = self.call(torch.transpose, self.value(product.input[1]), -1, -2)
        return self.call(F.scaled_dot_product_attention, self.value(queries), keys, self.value(mix.input[1]), scale=scale)


# --- single nodes -----------------------------------------------------------------------------

Attributes = dict[str, Any]


def _plain(function: Callable[..., Any]) -> Callable[[_Translation, NodeProto, Attributes], fx.Node]:
    return lambda t, n, a: t.call(function, *(t.value(x) for x in n.input))


def _conv(t: _Translation, n: NodeProto, a: Attributes) -> fx.Node:
    padding = _padding(n, a)
    bias = t.value(n.input[2]) if len(n.input) > 2 else None
    stride, dilation = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return t.call(F.conv2d, t.value(n.input[0]), t.value(n.input[1]), bias, stride, padding, dilation, a.get("group", 1))


def _padding(n: NodeProto, a: Attributes) -> list[int]:
    pads = a.get("pads", [0] * 4)
    if pads[:2] != pads[2:] or a.get("ceil_mode", 0) or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise Unsupported(f"{n.op_type} ({n.name}) with uneven padding")
    return list(pads[:2])


def _pool(function: Callable[..., Any]) -> Callable[[_Translation, NodeProto, Attributes], fx.Node]:
    def translate(t: _Translation, n: NodeProto, a: Attributes) -> fx.Node:
        return t.call(function, t.value(n.input[0]), a["kernel_shape"], a.get("strides", [1, 1]), _padding(n, a))

    return translate


def _gemm(t: _Translation, n: NodeProto, a: Attributes) -> fx.Node:
    if a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0 or a.get("transA", 0) or len(n.input) < 3:
        raise Unsupported(f"Gemm ({n.name}) that is not a linear layer")
    weights = t.value(n.input[1])
    return t.call(F.linear, t.value(n.input[0]), weights if a.get("transB", 0) else t.call(torch.t, weights), t.value(n.input[2]))


def _gather(t: _Translation, n: NodeProto, a: Attributes) -> fx.Node:
    table, index, axis = n.input[0], n.input[1], a.get("axis", 0)
    if index in t.known and t.known[index].ndim == 0:
        return t.call(torch.select, t.value(table), axis, int(t.known[index]))
    if axis != 0 or table not in t.known:
        raise Unsupported(f"Gather ({n.name}) along axis {axis}")
    return t.call(F.embedding, t.value(index), t.value(table))


def _reshape(t: _Translation, n: NodeProto, a: Attributes) -> fx.Node:
    shape = [int(v) for v in t.known[n.input[1]]]
    x = t.value(n.input[0])
    return t.call(torch.reshape, x, tuple(t.call(torch.Tensor.size, x, d) if v == 0 else v for d, v in enumerate(shape)))


def _layer_norm(t: _Translation, n: NodeProto, a: Attributes) -> fx.Node:
    x, *weights = (t.value(v) for v in n.input)
    return t.call(F.layer_norm, x, t.known[n.input[1]].shape, *weights, eps=a.get("epsilon", 1e-5))


def _batch_norm(t: _Translation, n: NodeProto, a: Attributes) -> fx.Node:
    x, scale, shift, mean, variance = (t.value(v) for v in n.input)
    return t.call(F.batch_norm, x, mean, variance, scale, shift, False, 0.0, a.get("epsilon", 1e-5))


def _summed(t: _Translation, n: NodeProto, a: Attributes) -> fx.Node:
    total, *others = (t.value(v) for v in n.input)
    for x in others:
        total = t.call(torch.add, total, x)
    return total


_NODES: Mapping[str, Callable[[_Translation, NodeProto, Attributes], fx.Node]] = {
    "Add": _plain(torch.add),
    "Sum": _summed,
    "Mul": _plain(torch.mul),
    "Div": _plain(torch.div),
    "Erf": _plain(torch.erf),
    "Relu": _plain(F.relu),
    "MatMul": _plain(torch.matmul),
    "Conv": _conv,
    "Gemm": _gemm,
    "MaxPool": _pool(F.max_pool2d),
    "AveragePool": _pool(F.avg_pool2d),
    "GlobalAveragePool": lambda t, n, a: t.call(F.adaptive_avg_pool2d, t.value(n.input[0]), 1),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Softmax": lambda t, n, a: t.call(F.softmax, t.value(n.input[0]), a.get("axis", -1)),
    "Clip": lambda t, n, a: t.call(torch.clamp, t.value(n.input[0]), *(t.scalar(v) for v in n.input[1:])),
    "Flatten": lambda t, n, a: t.call(torch.flatten, t.value(n.input[0]), a.get("axis", 1)),
    "Reshape": _reshape,
    "Transpose": lambda t, n, a: t.call(torch.permute, t.value(n.input[0]), a["perm"]),
    "Concat": lambda t, n, a: t.call(torch.cat, [t.value(v) for v in n.input], a["axis"]),
    "Gather": _gather,
}
