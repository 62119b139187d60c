"""Quantised transposed convolutions as convolutions: against sums element by element, by ONNX Runtime, and on the array."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs

from tilewright.codegen.commands import Host, walk
from tilewright.graph import Network, load
from tilewright.graph.integers import integer_form
from tilewright.graph.offloading import offloaded
from tilewright.hw import load_machine
from tilewright.sim.gemmini.offload import Offload


class Case:
    """A transposed convolution of floats between conversions, with random integers; ``zeros`` are other than 0, scales one a channel."""

    def __init__(self, seed: int, size: tuple[int, int], channels: tuple[int, int], kernel: tuple[int, int], stride: int, **said: object):
        rng = np.random.default_rng(seed)
        self.stride, self.group = stride, int(said.pop("group", 1))  # type: ignore[call-overload]
        self.several, self.zeros, self.biased = bool(said.pop("several", False)), bool(said.pop("zeros", False)), said.pop("biased", True)
        self.pads, self.extra = list(said.pop("pads", [0] * 4)), list(said.pop("extra", [0, 0]))  # type: ignore[call-overload]
        self.x = rng.integers(-128, 128, (2, channels[0], *size)).astype(np.int8)
        self.w = rng.integers(-127, 128, (channels[0], channels[1] // self.group, *kernel)).astype(np.int8)
        self.bias = rng.integers(-3000, 3000, channels[1]).astype(np.int32)
        self.w_scale = rng.uniform(0.005, 0.02, channels[1]).astype(np.float32) if self.several else np.float32(0.01)
        self.y_scale = np.float32(0.02 * (channels[0] / self.group * kernel[0] * kernel[1]) ** 0.5 / stride)
        self.x_zero, self.y_zero = (np.int8(5), np.int8(-9)) if self.zeros else (np.int8(0), np.int8(0))
        self.out = [
            (n - 1) * stride + k + e - p - q for n, k, e, p, q in zip(size, kernel, self.extra, self.pads[:2], self.pads[2:], strict=True)
        ]

    def model(self) -> ModelProto:
        w_zero = np.zeros_like(self.w_scale, np.int8)
        values = {"xs": np.float32(0.05), "xz": self.x_zero, "w": self.w, "ws": self.w_scale, "wz": w_zero, "ys": self.y_scale}
        values |= {"yz": self.y_zero, "b": self.bias, "bs": np.float32(0.05) * self.w_scale, "bz": np.zeros_like(self.w_scale, np.int32)}
        across = {"axis": 1} if self.several else {}
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "xs", "xz"], ["xf"]),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], **across),
            helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bf"], axis=0),
        ]
        inputs = ["xf", "wf", *(["bf"] if self.biased else [])]
        said = {"strides": [self.stride] * 2, "pads": self.pads, "output_padding": self.extra, "group": self.group}
        nodes.append(helper.make_node("ConvTranspose", inputs, ["yf"], **said))
        nodes.append(helper.make_node("QuantizeLinear", ["yf", "ys", "yz"], ["y"]))
        shape = (len(self.x), len(self.bias), *self.out)
        ends = [helper.make_tensor_value_info(n, TensorProto.INT8, s) for n, s in (("x", self.x.shape), ("y", shape))]
        constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()]
        graph = helper.make_graph(nodes if self.biased else [n for n in nodes if n.input[0] != "b"], "g", ends[:1], ends[1:], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def result(self) -> np.ndarray:
        """Each input element adds its scaled kernel, as integers; then one scale for each channel."""
        n, channels, rows, cols = self.x.shape
        each, depth = self.w.shape[1], channels // self.group
        full = np.zeros(
            (n, self.group * each, *(o + p + q for o, p, q in zip(self.out, self.pads[:2], self.pads[2:], strict=True))), np.int64
        )
        full += self.bias[:, None, None] if self.biased else 0
        for c, i, j, r, s in product(range(channels), range(rows), range(cols), *map(range, self.w.shape[2:])):
            at = slice(c // depth * each, c // depth * each + each)
            value = (self.x[:, c, i, j].astype(np.int64) - int(self.x_zero))[:, None] * self.w[c, :, r, s].astype(np.int64)
            full[:, at, i * self.stride + r, j * self.stride + s] += value
        sums = full[:, :, self.pads[0] : self.pads[0] + self.out[0], self.pads[1] : self.pads[1] + self.out[1]]
        factor = (np.float32(0.05) * np.asarray(self.w_scale) / self.y_scale).astype(np.float32).reshape(-1, 1, 1)
        return np.clip(np.rint(sums.astype(np.float32) * factor) + int(self.y_zero), -128, 127).astype(np.int8)


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
    st.tuples(*[st.integers(0, 3)] * 4),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(*[st.booleans()] * 4),
    st.integers(0, 99),
)
def test_any_geometry(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    pads: tuple[int, ...],
    extra: tuple[int, int],
    flags: tuple[bool, ...],
    seed: int,
) -> None:
    """Also what stays a pattern of floats has the right numbers then, up to how floats are rounded on the way."""
    several, zeros, biased, grouped = flags
    extra = tuple(min(e, stride - 1) for e in extra)  # type: ignore[assignment]
    said = {"pads": pads, "extra": extra, "zeros": zeros, "biased": biased, "several": several and not grouped}
    case = Case(seed, size, (4, 6), kernel, stride, group=2 if grouped else 1, **said)
    if min(case.out) < 1:
        case = Case(seed, size, (4, 6), kernel, stride, group=2 if grouped else 1, **{**said, "pads": (0, 0, 0, 0)})
    form = integer_form(case.model())
    (got,) = onnxruntime_outputs(form, {"x": case.x}).values()
    kinds = {n.op_type for n in form.graph.node}
    tolerance = 0 if "QLinearConv" in kinds else 1
    assert np.abs(got.astype(int) - case.result().astype(int)).max() <= tolerance
    assert "QLinearConv" in kinds or max(extra) > 0


@pytest.mark.parametrize(
    ("kernel", "stride", "said", "kinds"),
    [
        ((2, 2), 2, {}, ["QLinearConv", "DepthToSpace"]),
        ((4, 4), 2, {"pads": (1, 1, 1, 1)}, ["QLinearConv", "DepthToSpace", "Slice"]),
        ((3, 3), 1, {"pads": (1, 1, 1, 1)}, ["QLinearConv"]),
        ((3, 3), 2, {"pads": (1, 1, 1, 1), "extra": (1, 1)}, ["QLinearConv", "DepthToSpace", "Slice"]),
    ],
)
def test_the_array_computes_the_convolution(
    kernel: tuple[int, int], stride: int, said: dict[str, tuple[int, ...]], kinds: list[str]
) -> None:
    case = Case(3, (5, 4), (6, 5), kernel, stride, **said)
    form = integer_form(case.model())
    assert [n.op_type for n in form.graph.node] == kinds
    machine = load_machine("gemmini")
    offload = Offload(machine)
    network = offloaded(load(form), machine, offload.prepare)
    (got,) = network.executed({"x": case.x}, offload).values()
    np.testing.assert_array_equal(got, case.result())
    step = next(s for s in network.steps if "QLinearConv" in s.operators)
    program = offload.programs[step.call.kernel, network.constants(step)]
    assert not any(isinstance(i, Host) for i in walk(program.body))


def test_what_stays_as_floats() -> None:
    """Weights that are no constants, strides that differ, and scales along the sums."""
    late = Case(1, (3, 3), (4, 4), (2, 2), 2).model()
    weights = next(t for t in late.graph.initializer if t.name == "w")
    late.graph.initializer.remove(weights)
    late.graph.input.append(helper.make_tensor_value_info("w", TensorProto.INT8, weights.dims))
    uneven = Case(1, (3, 3), (4, 4), (2, 2), 2).model()
    next(a for n in uneven.graph.node for a in n.attribute if a.name == "strides").ints[:] = [2, 1]
    for model in (late, uneven):
        assert "ConvTranspose" in {n.op_type for n in integer_form(model).graph.node}


def test_the_interpreter_agrees() -> None:
    case = Case(5, (4, 3), (4, 3), (3, 3), 2, pads=(1, 0, 0, 1))
    network = Network.interpreted(load(integer_form(case.model())), fusion="none")
    (got,) = network.reference({"x": case.x}).values()
    np.testing.assert_array_equal(got, case.result())
