"""The networks of the benchmarks as ONNX models with random weights, batch 1.

ViT-B/16, BERT-base (128 tokens), the encoder-decoder part of DETR (width 256, 1050 image tokens,
100 queries), ResNet-18 and -50, MobileNetV2. Nodes are those that PyTorch's exporter writes, in
the order it writes them; weights are scaled so that activations keep their size from layer to layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from examples.light import light_model
from examples.vit import ViTConfig, vit
from onnx import ModelProto, TensorProto, helper, numpy_helper

_OPSET = 17


class _Model:
    """Collects nodes and weights; methods that add a node return the name of its result."""

    def __init__(self, seed: int = 0):
        self._rng = np.random.default_rng(seed)
        self._nodes: list = []
        self._weights: list = []

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.asarray(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(np.float32(value))

    def weight(self, *shape: int, fan_in: int = 16, gain: float = 1.0) -> str:
        """Normal weights of deviation sqrt(gain / fan_in)."""
        deviation = np.float32(np.sqrt(gain / fan_in))
        return self.constant(self._rng.standard_normal(shape, np.float32) * deviation)

    def scale(self, width: int) -> str:
        return self.constant(self._rng.uniform(0.8, 1.2, width).astype(np.float32))

    # --- transformers ---------------------------------------------------------------------

    def linear(self, x: str, rows: int, columns: int) -> str:
        return self.node("Add", self.node("MatMul", x, self.weight(rows, columns, fan_in=rows)), self.weight(columns))

    def layer_norm(self, x: str, width: int, epsilon: float = 1e-5) -> str:
        return self.node("LayerNormalization", x, self.scale(width), self.weight(width), axis=-1, epsilon=epsilon)

    def gelu(self, x: str) -> str:
        inner = self.node("Add", self.node("Erf", self.node("Div", x, self.scalar(np.sqrt(2.0)))), self.scalar(1.0))
        return self.node("Mul", self.node("Mul", x, inner), self.scalar(0.5))

    def attention(self, queries: str, keys: str, values: str, tokens: tuple[int, int], width: int, heads: int) -> str:
        """Multi-head attention of ``tokens`` = (queries, keys), all projections of ``width``."""
        size = width // heads
        q, k, v = (
            self.node("Reshape", self.linear(x, width, width), self.integers(1, n, heads, size))
            for x, n in ((queries, tokens[0]), (keys, tokens[1]), (values, tokens[1]))
        )
        scores = self.node("MatMul", self.node("Transpose", q, perm=[0, 2, 1, 3]), self.node("Transpose", k, perm=[0, 2, 3, 1]))
        weights = self.node("Softmax", self.node("Div", scores, self.scalar(np.sqrt(size))), axis=-1)
        mixed = self.node("MatMul", weights, self.node("Transpose", v, perm=[0, 2, 1, 3]))
        merged = self.node("Reshape", self.node("Transpose", mixed, perm=[0, 2, 1, 3]), self.integers(1, tokens[0], width))
        return self.linear(merged, width, width)

    # --- convolutions ---------------------------------------------------------------------

    def conv(self, x: str, channels: int, filters: int, size: int, *, stride: int = 1, groups: int = 1) -> str:
        """Convolution with the padding that keeps the image's size, and batch normalisation."""
        fan_in = channels // groups * size * size
        weights = self.weight(filters, channels // groups, size, size, fan_in=fan_in, gain=2.0)
        y = self.node("Conv", x, weights, strides=[stride] * 2, pads=[size // 2] * 4, kernel_shape=[size] * 2, group=groups)
        variance = self.constant(self._rng.uniform(0.8, 1.2, filters).astype(np.float32))
        return self.node("BatchNormalization", y, self.scale(filters), self.weight(filters), self.weight(filters), variance)

    def finish(self, name: str, inputs: Mapping[str, tuple[int, Sequence[int]]], output: str, shape: Sequence[int]) -> ModelProto:
        """The model: ``inputs`` by name with element type and shape; ``output`` is renamed "output"."""
        next(n for n in self._nodes if n.output[0] == output).output[0] = "output"
        values = [helper.make_tensor_value_info(n, kind, s) for n, (kind, s) in inputs.items()]
        result = helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, name, values, [result], self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def vit_base(layers: int = 12) -> ModelProto:
    """ViT-B/16: 197 tokens of width 768, 12 heads, 1000 classes; input "image" with symbolic batch."""
    return vit(ViTConfig(image=224, patch=16, width=768, heads=12, mlp=3072, layers=layers, classes=1000))


def bert_base(tokens: int = 128, layers: int = 12, width: int = 768, heads: int = 12, vocabulary: int = 30522) -> ModelProto:
    """BERT's encoder from token numbers ("tokens", "segments": int64 [1, tokens]) to hidden states [1, tokens, width]."""
    m = _Model()
    words = m.node("Gather", m.weight(vocabulary, width), "tokens", axis=0)
    segments = m.node("Gather", m.weight(2, width), "segments", axis=0)
    x = m.node("Add", m.node("Add", words, segments), m.weight(1, tokens, width))
    x = m.layer_norm(x, width, 1e-12)
    for _ in range(layers):
        x = m.layer_norm(m.node("Add", m.attention(x, x, x, (tokens, tokens), width, heads), x), width, 1e-12)
        inner = m.gelu(m.linear(x, width, 4 * width))
        x = m.layer_norm(m.node("Add", m.linear(inner, 4 * width, width), x), width, 1e-12)
    inputs = dict.fromkeys(("tokens", "segments"), (TensorProto.INT64, (1, tokens)))
    return m.finish("bert", inputs, x, (1, tokens, width))


def detr_transformer(
    encoders: int = 6, decoders: int = 6, tokens: int = 1050, queries: int = 100, width: int = 256, heads: int = 8, mlp: int = 2048
) -> ModelProto:
    """DETR's encoder-decoder: "features" and "positions" [1, tokens, width] to the decoded queries [1, queries, width]."""
    m = _Model()

    def feed_forward(x: str) -> str:
        return m.linear(m.node("Relu", m.linear(x, width, mlp)), mlp, width)

    def joined(x: str, y: str) -> str:
        return m.layer_norm(m.node("Add", x, y), width)

    memory = "features"
    for _ in range(encoders):
        placed = m.node("Add", memory, "positions")
        memory = joined(memory, m.attention(placed, placed, memory, (tokens, tokens), width, heads))
        memory = joined(memory, feed_forward(memory))
    placed_memory = m.node("Add", memory, "positions")
    embedding = m.weight(1, queries, width, fan_in=1)
    x = m.constant(np.zeros((1, queries, width), np.float32))
    for _ in range(decoders):
        placed = m.node("Add", x, embedding)
        x = joined(x, m.attention(placed, placed, x, (queries, queries), width, heads))
        asked = m.node("Add", x, embedding)
        x = joined(x, m.attention(asked, placed_memory, memory, (queries, tokens), width, heads))
        x = joined(x, feed_forward(x))
    shape = (1, tokens, width)
    return m.finish("detr", {"features": (TensorProto.FLOAT, shape), "positions": (TensorProto.FLOAT, shape)}, x, (1, queries, width))


def _classified(m: _Model, name: str, x: str, channels: int) -> ModelProto:
    flat = m.node("Flatten", m.node("GlobalAveragePool", x), axis=1)
    logits = m.node("Gemm", flat, m.weight(1000, channels, fan_in=channels), m.weight(1000), transB=1)
    return m.finish(name, {"image": (TensorProto.FLOAT, (1, 3, 224, 224))}, logits, (1, 1000))


def resnet18() -> ModelProto:
    """ResNet-18 for 224 x 224 images."""
    m = _Model()
    x = m.node("Relu", m.conv("image", 3, 64, 7, stride=2))
    x = m.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for filters in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and filters != 64 else 1
            y = m.conv(m.node("Relu", m.conv(x, channels, filters, 3, stride=stride)), filters, filters, 3)
            shortcut = x if stride == 1 else m.conv(x, channels, filters, 1, stride=stride)
            x, channels = m.node("Relu", m.node("Add", y, shortcut)), filters
    return _classified(m, "resnet18", x, channels)


def resnet50() -> ModelProto:
    """ResNet-50 for 224 x 224 images, as the onnx wheel has it."""
    return light_model("resnet50")


#: MobileNetV2's stages: expansion, filters, blocks, stride of the first.
_MOBILE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2() -> ModelProto:
    """MobileNetV2 (width 1.0) for 224 x 224 images."""
    m = _Model()
    low, high = m.scalar(0.0), m.scalar(6.0)

    def clipped(x: str) -> str:
        return m.node("Clip", x, low, high)

    x = clipped(m.conv("image", 3, 32, 3, stride=2))
    channels = 32
    for expansion, filters, blocks, first in _MOBILE:
        for block in range(blocks):
            stride, wide = first if block == 0 else 1, channels * expansion
            y = x if expansion == 1 else clipped(m.conv(x, channels, wide, 1))
            y = m.conv(clipped(m.conv(y, wide, wide, 3, stride=stride, groups=wide)), wide, filters, 1)
            x = m.node("Add", x, y) if stride == 1 and channels == filters else y
            channels = filters
    return _classified(m, "mobilenet_v2", clipped(m.conv(x, channels, 1280, 1)), 1280)


#: Builders by the name the tables use.
MODELS: Mapping[str, Callable[[], ModelProto]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "vit_b16": vit_base,
    "bert_base": bert_base,
    "detr": detr_transformer,
}


def random_inputs(values: Mapping[str, tuple[np.dtype, tuple[int, ...]]], seed: int = 1) -> dict[str, np.ndarray]:
    """Normal floats; whole numbers 0 and 1 where the network wants integers (any vocabulary has them)."""
    rng = np.random.default_rng(seed)
    return {
        n: rng.standard_normal(s).astype(d) if np.issubdtype(d, np.floating) else rng.integers(0, 2, s).astype(d)
        for n, (d, s) in values.items()
    }
