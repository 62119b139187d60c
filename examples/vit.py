"""A small Vision Transformer as an ONNX model, with the operators a torch export uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """Geometry: square images, square patches, ``layers`` encoder blocks."""

    image: int = 32
    patch: int = 8
    width: int = 48
    heads: int = 4
    mlp: int = 96
    layers: int = 2
    classes: int = 10
    opset: int = 17

    @property
    def tokens(self) -> int:
        return (self.image // self.patch) ** 2 + 1


class _Builder:
    """Collects nodes and random weights; methods return the name of their result."""

    def __init__(self, config: ViTConfig, seed: int):
        self.config = config
        self.rng = np.random.default_rng(seed)
        self.nodes: list = []
        self.weights: list = []

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"{kind.lower()}_{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names[0]

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *shape: int) -> str:
        scale = 1.0 / np.sqrt(shape[0] if len(shape) == 2 else np.prod(shape[1:]) if len(shape) > 1 else 16.0)
        return self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.asarray(values, np.int64))

    def linear(self, x: str, rows: int, columns: int) -> str:
        return self.node("Add", self.node("MatMul", x, self.weight(rows, columns)), self.weight(columns))

    def layer_norm(self, x: str) -> str:
        width = self.config.width
        if self.config.opset >= 17:
            return self.node("LayerNormalization", x, self.weight(width), self.weight(width), epsilon=1e-6)
        mean = self.node("ReduceMean", x, axes=[-1])
        centred = self.node("Sub", x, mean)
        variance = self.node("ReduceMean", self.node("Pow", centred, self.constant(np.float32(2.0))), axes=[-1])
        deviation = self.node("Sqrt", self.node("Add", variance, self.constant(np.float32(1e-6))))
        return self.node("Add", self.node("Mul", self.node("Div", centred, deviation), self.weight(width)), self.weight(width))

    def gelu(self, x: str) -> str:
        inner = self.node("Erf", self.node("Div", x, self.constant(np.float32(np.sqrt(2.0)))))
        return self.node(
            "Mul", self.node("Mul", x, self.node("Add", inner, self.constant(np.float32(1.0)))), self.constant(np.float32(0.5))
        )

    def attention(self, x: str) -> str:
        c = self.config
        heads, size = c.heads, c.width // c.heads
        mixed = self.node("Reshape", self.linear(x, c.width, 3 * c.width), self.integers(0, c.tokens, 3, heads, size))
        mixed = self.node("Transpose", mixed, perm=[2, 0, 3, 1, 4])
        q, k, v = (self.node("Gather", mixed, self.constant(np.asarray(i, np.int64)), axis=0) for i in range(3))
        scores = self.node(
            "MatMul", self.node("Mul", q, self.constant(np.float32(size**-0.5))), self.node("Transpose", k, perm=[0, 1, 3, 2])
        )
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        merged = self.node("Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), self.integers(0, c.tokens, c.width))
        return self.linear(merged, c.width, c.width)

    def block(self, x: str) -> str:
        c = self.config
        x = self.node("Add", x, self.attention(self.layer_norm(x)))
        return self.node("Add", x, self.linear(self.gelu(self.linear(self.layer_norm(x), c.width, c.mlp)), c.mlp, c.width))


def vit(config: ViTConfig = ViTConfig(), seed: int = 0) -> ModelProto:
    """The model: input "image" [batch, 3, image, image] with symbolic batch, output "logits" [batch, classes]."""
    b = _Builder(config, seed)
    c = config
    patches = b.node("Conv", "image", b.weight(c.width, 3, c.patch, c.patch), b.weight(c.width), strides=[c.patch] * 2)
    tokens = b.node("Transpose", b.node("Reshape", patches, b.integers(0, c.width, -1)), perm=[0, 2, 1])
    batch = b.node("Slice", b.node("Shape", "image"), b.integers(0), b.integers(1), b.integers(0))
    cls = b.node("Expand", b.weight(1, 1, c.width), b.node("Concat", batch, b.integers(1, c.width), axis=0))
    x = b.node("Add", b.node("Concat", cls, tokens, axis=1), b.weight(1, c.tokens, c.width))
    for _ in range(c.layers):
        x = b.block(x)
    first = b.node("Gather", b.layer_norm(x), b.constant(np.asarray(0, np.int64)), axis=1)
    logits = b.node("Gemm", first, b.weight(c.classes, c.width), b.weight(c.classes), transB=1)
    b.nodes[-1].output[0] = "logits"
    assert logits
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, c.image, c.image])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", c.classes])
    graph = helper.make_graph(b.nodes, "vit", [image], [result], b.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", c.opset)], ir_version=8)
