"""Operators as ONNX models of one node, so that every runtime computes the same thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.graph.loading import LARGEST_TENSOR
from tilewright.mapping.operators import ALIASES
from tilewright.util.errors import MappingError

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, slots=True)
class OneNode:
    """A node of ``kind`` on operands x and w (float32) of the given shapes, with result shape and attributes."""

    kind: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    result: tuple[int, ...]
    attributes: Mapping[str, Any]

    def operands(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Random operands by name; MappingError for extents that no memory holds."""
        for name, shape in (("x", self.x), ("w", self.w)):
            if prod(shape) > LARGEST_TENSOR:
                raise MappingError(
                    f"operand {name} of {self.kind} has {prod(shape)} elements: {list(shape)}", hint="give smaller extents (--shape)"
                )
        rng = np.random.default_rng(seed)
        return {n: rng.uniform(-1, 1, shape).astype(np.float32) for n, shape in (("x", self.x), ("w", self.w))}

    def model(self, constant: np.ndarray | None = None) -> ModelProto:
        """The ONNX model; ``constant`` makes w an initializer, as the weights of a network are."""
        from onnx import TensorProto, helper, numpy_helper

        def value(name: str, shape: tuple[int, ...]) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        node = helper.make_node(self.kind, ["x", "w"], ["y"], name=self.kind, **self.attributes)
        inputs = [value("x", self.x)] + ([value("w", self.w)] if constant is None else [])
        weights = [] if constant is None else [numpy_helper.from_array(constant, "w")]
        graph = helper.make_graph([node], self.kind.lower(), inputs, [value("y", self.result)], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def matmul(i: int = 512, j: int = 512, k: int = 512) -> OneNode:
    """out[i, j] += a[i, k] * b[k, j]"""
    return OneNode("MatMul", (i, k), (k, j), (i, j), {})


def matvec(i: int = 4096, k: int = 4096) -> OneNode:
    """out[i] += a[i, k] * x[k]"""
    return OneNode("MatMul", (i, k), (k,), (i,), {})


def conv2d(
    n: int = 1, k: int = 64, p: int = 56, q: int = 56, c: int = 64, r: int = 3, s: int = 3,
    stride: int = 1, dilation: int = 1, groups: int = 1,
) -> OneNode:  # fmt: skip
    """Result p x q, no padding: the image is ((p-1)*stride + (r-1)*dilation + 1) high."""
    image = ((p - 1) * stride + (r - 1) * dilation + 1, (q - 1) * stride + (s - 1) * dilation + 1)
    attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "group": groups, "kernel_shape": [r, s]}
    return OneNode("Conv", (n, c, *image), (k, c // groups, r, s), (n, k, p, q), attributes)


def depthwise(n: int = 1, c: int = 144, m: int = 1, p: int = 56, q: int = 56, r: int = 3, s: int = 3, stride: int = 1) -> OneNode:
    """Each of c channels has m filters of its own."""
    return conv2d(n, c * m, p, q, c, r, s, stride, groups=c)


def grouped(n: int = 1, g: int = 4, k: int = 16, p: int = 56, q: int = 56, c: int = 16, r: int = 3, s: int = 3) -> OneNode:
    """g groups, each with k filters over its own c channels."""
    return conv2d(n, g * k, p, q, g * c, r, s, groups=g)


def dilated(n: int = 1, k: int = 64, p: int = 56, q: int = 56, c: int = 64, r: int = 3, s: int = 3) -> OneNode:
    """Convolution with dilation 2."""
    return conv2d(n, k, p, q, c, r, s, dilation=2)


#: By the names that ``tilewright map`` uses.
MODELS: Mapping[str, Callable[..., OneNode]] = {
    "gmm": matmul, "gmv": matvec, "c2d": conv2d, "dep": depthwise, "grp": grouped, "dil": dilated,
}  # fmt: skip


def one_node(name: str, extents: Mapping[str, int]) -> OneNode:
    """The operator called ``name`` with these extents; MappingError lists what there is."""
    from inspect import signature

    build = MODELS.get(ALIASES.get(name.lower(), name.lower()))
    if build is None:
        known = [alias for alias, short in ALIASES.items() if short in MODELS]
        raise MappingError(f"there is no operator {name!r} to time", hint=f"known: {', '.join(known)}; or give an .onnx file")
    allowed = list(signature(build).parameters)
    for extent, value in extents.items():
        if extent not in allowed or value < 1:
            raise MappingError(f"operator {name}: {extent}={value} does not fit", hint=f"extents, at least 1: {', '.join(allowed)}")
    return build(**extents)
