"""Whole quantised networks on the cycle model of a 16 x 16 Gemmini, against the vendor library's heuristic.

    python -m benchmarks.gemmini_networks [--measured N] [--size PIXELS] [--verify] [--json FILE] [--markdown FILE] [--only TEXT]

A ResNet-18 (``examples/quantised_resnet.py``, random weights), a network of depthwise and 1 x 1 convolutions, and perceptrons with
batches of 1 and 64. For each distinct layer on the array the cycles of the best of N schedules, by commands or by runs of the loop
forms, and those of the default: ``default_conv`` for convolutions, ``default_depthwise`` for depthwise ones, ``default_ws`` for
products, with the layer's bias. These store before any pool. The library's residual sum is not
modelled: sums have no default. What the host computes has no cycles here; it is listed with the bytes of its arrays and its arithmetic
operations. ``--verify`` runs the network on the functional model too and compares it with the reference, bit for bit.
Schedules are kept in the build cache. Nothing is timed: the figures depend on the models alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from examples.quantised_resnet import Builder, resnet
from onnx import ModelProto, TensorProto, helper

from tilewright.codegen.commands import Command, walk
from tilewright.graph import load
from tilewright.graph.integers import integer_form
from tilewright.graph.kernels import arithmetic_operations
from tilewright.graph.network import Network, Step
from tilewright.graph.offloading import offloaded
from tilewright.graph.wide_groups import wide_groups
from tilewright.hw import load_machine
from tilewright.ir.stmt import Kernel, allocated
from tilewright.ir.types import i32
from tilewright.runtime.cache import build_cache
from tilewright.sim.gemmini import Configuration, isa, simulate
from tilewright.sim.gemmini.baseline import Gemm, default_ws
from tilewright.sim.gemmini.baseline_conv import Convolution, default_conv, default_depthwise
from tilewright.sim.gemmini.offload import Offload, Work

FORMS = ("loop_ws", "loop_conv_ws")
START = 0x8000_0000


@dataclass(frozen=True, slots=True)
class Layer:
    """A distinct kernel on the array, ``times`` in the network; ``default`` is 0 where there is none, ``form`` "" for commands."""

    network: str
    operators: str
    shape: str
    times: int
    macs: int
    ours: int
    default: int
    form: str


@dataclass(frozen=True, slots=True)
class HostKernel:
    """A distinct kernel that the host computes alone: why, and for one call the bytes of its arrays and its operations."""

    network: str
    operators: str
    times: int
    nbytes: int
    operations: int
    why: str


def perceptron(batch: int, widths: Sequence[int] = (784, 1024, 1024, 10)) -> ModelProto:
    """Dense layers with relu between them, as operators on floats between conversions."""
    b = Builder(qdq=True)
    x = b.quantised("image")
    for n, (depth, width) in enumerate(pairwise(widths)):
        x = b.dense(x, depth, width)
        x = b.same("Relu", x) if n < len(widths) - 2 else x
    y = b.real(x)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (batch, widths[0]))
    result = helper.make_tensor_value_info(y, TensorProto.FLOAT, (batch, widths[-1]))
    graph = helper.make_graph(b.nodes, "perceptron", [image], [result], b.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def separable(size: int, widths: Sequence[int] = (32, 64, 128, 256), blocks: int = 2) -> ModelProto:
    """A network as for phones: after a first convolution ``blocks`` of a depthwise and a 1 x 1 convolution for each width."""
    b = Builder(qdq=True)
    x, before = b.conv(b.quantised("image"), 3, widths[0], 3, 2), widths[0]
    for n, width in enumerate(widths):
        for k in range(blocks):
            x = b.conv(x, before, before, 3, 2 if n and not k else 1, group=before)
            x, before = b.conv(x, before, width, 1), width
    y = b.real(b.dense(b.same("Flatten", b.floats("GlobalAveragePool", x)), before, 1000))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, size, size))
    result = helper.make_tensor_value_info(y, TensorProto.FLOAT, (1, 1000))
    graph = helper.make_graph(b.nodes, "separable", [image], [result], b.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def convolution_of(kernel: Kernel) -> Convolution:
    """The sizes of a convolution of square windows whose padding is half a window, as in this network."""
    (batch, channels, rows, cols), (kernels, _, window, _) = (b.static_shape for b in kernel.args[:2])
    sums = next(b for b in allocated(kernel) if b.rank >= 4 and b.dtype == i32)  # what is stored may be a maximum of several
    out, padding = sums.static_shape[-2], window // 2
    stride = next(s for s in range(1, rows + 1) if (rows + 2 * padding - window) // s + 1 == out)
    return Convolution(batch, rows, cols, channels, kernels, window, stride, padding)


def places(kernel: Kernel) -> tuple[int, int, int, int]:
    """Where input, weights, result and bias of a layer begin; 0 where it has no bias."""
    biased = any(b.dtype == i32 for b in kernel.args)
    return START, START + (1 << 27), START + (2 << 27), START + (3 << 27) if biased else 0


def work(step: Step) -> tuple[str, int, Iterator[isa.Command] | None]:
    """Shape of a step's work, its multiplications, and the library's commands for it (None: it has no multiplications)."""
    kernel, c = step.call.kernel, Configuration.of(load_machine("gemmini"))
    if step.operators[0] == "QLinearConv":
        v = convolution_of(kernel)
        x, f, y, bias = places(kernel)
        text = f"{v.rows} x {v.cols} x {v.channels} to {v.kernels}, {v.window} x {v.window}" + (f" / {v.stride}" if v.stride > 1 else "")
        if kernel.args[1].static_shape[1] < v.channels:  # of as many groups as channels, until some were joined
            return f"{text}, depthwise", v.macs // v.channels, default_depthwise(c, v, x, f, y, bias)
        return text, v.macs, default_conv(c, v, x, f, y, bias)
    if step.operators[0] in ("QGemm", "QLinearMatMul"):
        (m, k), n = kernel.args[0].static_shape, kernel.args[-1].static_shape[1]
        a, b, y, bias = places(kernel)
        return f"{m} x {k} x {n}", m * k * n, default_ws(c, Gemm(m, n, k, a, b, y, bias=bias))
    return " x ".join(map(str, kernel.args[-1].static_shape)), 0, None


def measured(name: str, model: ModelProto, schedules: int, verify: bool) -> tuple[list[Layer], list[HostKernel]]:
    """The layers of a network, each distinct kernel once, in order."""
    machine = load_machine("gemmini")
    c = Configuration.of(machine)
    offload = Offload(machine, measured=schedules, forms=FORMS, store=build_cache())
    network = offloaded(load(wide_groups(integer_form(model), machine)), machine, offload.prepare)
    distinct: dict[Work, list[Step]] = {}
    for step in network.steps:
        distinct.setdefault((step.call.kernel, network.constants(step)), []).append(step)
    layers, host = [], []
    for (kernel, constants), steps in distinct.items():
        operators, program = " + ".join(steps[0].operators), offload.prepare(kernel, constants)
        if program is None:
            nbytes = sum(b.nbytes for b in kernel.args)
            host.append(HostKernel(name, operators, len(steps), nbytes, arithmetic_operations(kernel), offload.refused[kernel, constants]))
            continue
        shape, macs, vendor = work(steps[0])
        default = simulate(vendor, c).cycles if vendor is not None else 0
        words = {i.word.partition(".")[0] for i in walk(program.body) if isinstance(i, Command)}
        form = next((f for f in FORMS if f in words), "")
        layers.append(Layer(name, operators, shape, len(steps), macs, offload.cycles(kernel, constants), default, form))
        print(line(layers[-1]), flush=True)
    if verify:
        compare(network, offload)
    return layers, host


def compare(network: Network, offload: Offload) -> None:
    """The network on the functional model, against the reference."""
    value = network.graph.inputs[0]
    image = {value.name: np.random.default_rng(1).normal(0, 1, value.buffer.static_shape).astype(np.float32)}
    got = network.executed(image, offload)
    for name, want in network.reference(image).items():
        np.testing.assert_array_equal(got[name], want)
    print(f"{offload.searched} kernels searched; results are those of the reference", flush=True)


def line(r: Layer) -> str:
    ideal = f"{r.macs / 256 / r.ours:.1%}" if r.macs else "-"
    default, ratio = (f"{r.default:,}", f"{r.ours / r.default:.3f}") if r.default else ("-", "-")
    return f"| {r.network} | {r.operators} | {r.shape} | {r.times} | {r.ours:,} | {r.form or 'commands'} | {ideal} | {default} | {ratio} |"


HEAD = f"| network | layer | shape | times | ours | by | utilisation | default | ours/default |\n|{'---|' * 9}"
HOST_HEAD = f"| network | on the host | times | bytes | operations |\n|{'---|' * 5}"


def summary(layers: Sequence[Layer], host: Sequence[HostKernel]) -> Iterator[str]:
    """A line for each network."""
    for name in dict.fromkeys(r.network for r in layers):
        mine = [r for r in layers if r.network == name]
        ours = sum(r.times * r.ours for r in mine if r.default)
        default = sum(r.times * r.default for r in mine)
        sums = sum(r.times * r.ours for r in mine if not r.default)
        left = [h for h in host if h.network == name]
        nbytes, operations = sum(h.times * h.nbytes for h in left), sum(h.times * h.operations for h in left)
        also = f"; {sums:,} for residual sums" if sums else ""
        yield (
            f"{name}: {ours:,} cycles for layers that multiply, {default:,} by the default ({ours / default:.3f}){also}. "
            f"The host computes {sum(h.times for h in left)} kernels, on {nbytes:,} bytes with {operations:,} operations."
        )


def tables(layers: Sequence[Layer], host: Sequence[HostKernel]) -> str:
    lines = [f"| {h.network} | {h.operators} | {h.times} | {h.nbytes:,} | {h.operations:,} |" for h in host]
    return "\n".join([HEAD, *map(line, layers), "", HOST_HEAD, *lines, "", *(f"- {s}" for s in summary(layers, host))])


def insert(page: Path, text: str) -> None:
    """Replaces what is between the marks in a page."""
    old = page.read_text()
    start, end = old.index("<!-- networks -->"), old.index("<!-- end of networks -->")
    page.write_text(f"{old[:start]}<!-- networks -->\n{text}\n{old[end:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=int, default=4, help="schedules measured for each kernel")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--verify", action="store_true", help="also run the networks on the functional model")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--markdown", type=Path, help="put the tables into this page, in place of those there")
    parser.add_argument("--only", default="", help="only networks whose name contains this")
    options = parser.parse_args()
    makers = {
        f"ResNet-18, {options.size} x {options.size}": partial(resnet, options.size, (64, 128, 256, 512), 2, 1000, True),
        f"separable, {options.size} x {options.size}": partial(separable, options.size),
        "perceptron, batch 1": partial(perceptron, 1),
        "perceptron, batch 64": partial(perceptron, 64),
    }
    layers: list[Layer] = []
    host: list[HostKernel] = []
    print(HEAD)
    for name, make in makers.items():
        if options.only in name:
            mine, others = measured(name, make(), options.measured, options.verify)
            layers += mine
            host += others
    text = tables(layers, host)
    print(f"\n{text}")
    if options.json:
        options.json.write_text(json.dumps({"layers": [asdict(r) for r in layers], "host": [asdict(h) for h in host]}, indent=1) + "\n")
    if options.markdown:
        insert(options.markdown, text)


if __name__ == "__main__":
    main()
