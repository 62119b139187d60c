"""A residual network in int8 on the simulated Gemmini: the array does the convolutions and the dense layer, the host does the rest.

The network is built here with random weights, in the two forms in which ONNX files come: operators on integers ("qoperator"), or
operators on floats between conversions from and to integers ("qdq"). Results are compared with the reference semantics bit for bit.

    python examples/quantised_resnet.py
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tilewright.graph import load
from tilewright.graph.integers import integer_form
from tilewright.graph.offloading import offloaded
from tilewright.hw import load_machine
from tilewright.sim.gemmini.offload import Offload

#: Of every activation: one scale, so that sums of two need no multiplication.
SCALE = 1 / 32


@dataclass
class Builder:
    """Nodes on int8 tensors with one scale each, as integer operators or between conversions (``qdq``)."""

    qdq: bool
    seed: int = 0
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def constant(self, array: np.ndarray | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def node(self, kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def scaled(self, tensor: str, scale: float, dtype: type = np.int8) -> list[str]:
        return [tensor, self.constant(np.float32(scale)), self.constant(dtype(0))]

    def quantised(self, x: str) -> str:
        return self.node("QuantizeLinear", self.scaled(x, SCALE))

    def real(self, x: str, scale: float = SCALE, dtype: type = np.int8) -> str:
        return self.node("DequantizeLinear", self.scaled(x, scale, dtype))

    def floats(self, kind: str, *inputs: str, **attributes: object) -> str:
        """An operator on floats between conversions."""
        return self.quantised(self.node(kind, [self.real(x) for x in inputs], **attributes))

    def same(self, kind: str, x: str, **attributes: object) -> str:
        """An operator that means the same on floats and on integers."""
        return self.floats(kind, x, **attributes) if self.qdq else self.node(kind, [x], **attributes)

    def weights(self, *shape: int, depth: int) -> tuple[str, float, str, float]:
        """Weights and bias of ``depth`` products, and their scales."""
        scale = 1 / (73 * depth**0.5)
        weights = self.constant(self.rng.integers(-127, 128, shape).astype(np.int8))
        bias = self.constant(self.rng.integers(-3000, 3000, shape[0]).astype(np.int32))
        return weights, scale, bias, float(np.float32(SCALE) * np.float32(scale))

    def conv(self, x: str, channels: int, filters: int, window: int, stride: int = 1, relu: bool = True, group: int = 1) -> str:
        each = channels // group
        w, scale, bias, bias_scale = self.weights(filters, each, window, window, depth=each * window**2)
        shape = {"pads": [window // 2] * 4, "strides": [stride] * 2, "group": group}
        if self.qdq:
            operands = [self.real(x), self.real(w, scale), self.real(bias, bias_scale, np.int32)]
            y = self.quantised(self.node("Conv", operands, **shape))
        else:
            y = self.node("QLinearConv", [*self.scaled(x, SCALE), *self.scaled(w, scale), *self.scaled("", SCALE)[1:], bias], **shape)
        return self.same("Relu", y) if relu else y

    def dense(self, x: str, depth: int, width: int) -> str:
        w, scale, bias, bias_scale = self.weights(width, depth, depth=depth)
        if self.qdq:
            operands = [self.real(x), self.real(w, scale), self.real(bias, bias_scale, np.int32)]
            return self.quantised(self.node("Gemm", operands, transB=1))
        transposed = self.constant(numpy_helper.to_array(self.constants[int(w[1:])]).T.copy())
        return self.node("QLinearMatMul", [*self.scaled(x, SCALE), *self.scaled(transposed, scale), *self.scaled("", SCALE)[1:]])

    def block(self, x: str, channels: int, filters: int, stride: int) -> str:
        """Two convolutions beside a shortcut."""
        inner = self.conv(self.conv(x, channels, filters, 3, stride), filters, filters, 3, relu=False)
        shortcut = x if channels == filters and stride == 1 else self.conv(x, channels, filters, 1, stride, relu=False)
        return self.same("Relu", self.floats("Add", inner, shortcut))


def resnet(size: int, widths: tuple[int, ...], blocks: int, classes: int, qdq: bool, seed: int = 0) -> ModelProto:
    """A residual network for ``size`` x ``size`` images: a convolution and a pool, ``blocks`` blocks of each width, a dense layer.

    ResNet-18 is ``resnet(224, (64, 128, 256, 512), 2, 1000, ...)``.
    """
    b = Builder(qdq, seed)
    x = b.conv(b.quantised("image"), 3, widths[0], 7, 2)
    x = b.same("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    before = widths[0]
    for n, width in enumerate(widths):
        for k in range(blocks):
            x = b.block(x, before, width, 2 if n and not k else 1)
            before = width
    x = b.same("Flatten", b.floats("GlobalAveragePool", x))
    y = b.real(b.dense(x, before, classes))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, size, size))
    result = helper.make_tensor_value_info(y, TensorProto.FLOAT, (1, classes))
    graph = helper.make_graph(b.nodes, "resnet", [image], [result], b.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=16, help="height and width of the images")
    parser.add_argument("--form", choices=("qoperator", "qdq"), default="qdq")
    options = parser.parse_args()
    model = resnet(options.size, (8, 16), 1, 10, options.form == "qdq")
    machine = load_machine("gemmini")
    offload = Offload(machine)
    network = offloaded(load(integer_form(model)), machine, offload.prepare)
    image = {"image": np.random.default_rng(1).normal(0, 1, (1, 3, options.size, options.size)).astype(np.float32)}
    outputs, wanted = network.executed(image, offload), network.reference(image)
    for name, value in wanted.items():
        np.testing.assert_array_equal(outputs[name], value)
    total = 0
    for step in network.steps:
        cycles = offload.cycles(step.call.kernel, network.constants(step))
        total += cycles
        print(f"{'+'.join(step.operators):40} {f'{cycles:>10,} cycles' if cycles else 'host'}")
    there = sum((s.call.kernel, network.constants(s)) in offload.programs for s in network.steps)
    print(f"{there} of {len(network.steps)} kernels on the array, {total:,} cycles of it")


if __name__ == "__main__":
    main()
