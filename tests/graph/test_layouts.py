"""Layouts of values between operations: every way computes the same, and "best" is what no single change improves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.cli.command import tilewright
from tests.graph.oracle import onnxruntime_outputs

from tilewright.graph import Network, load
from tilewright.graph.compiler import compile, prepare
from tilewright.graph.layout import Layouts, Way, arranged, choose_layouts
from tilewright.graph.layout_search import EQUAL, joined, least_estimated
from tilewright.graph.model import Graph
from tilewright.hw import Machine, load_machine
from tilewright.ir.buffer import Buffer
from tilewright.ir.stmt import Kernel
from tilewright.util.errors import SpaceError, TilewrightError


def residual(channels: int = 16, size: int = 10) -> ModelProto:
    """Three channels in, a 3x3 convolution, a pool, a block with a shortcut, a grouped convolution, means and a product."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": (channels, 3, 3, 3), "w1": (channels, channels, 3, 3), "w2": (channels, channels, 1, 1),
        "w3": (channels, 1, 3, 3), "w4": (channels, 5),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w1"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w2"], ["e"]),
        helper.make_node("Add", ["e", "p"], ["f"]),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("Conv", ["g", "w3"], ["h"], pads=[1] * 4, group=channels),
        helper.make_node("GlobalAveragePool", ["h"], ["m"]),
        helper.make_node("Flatten", ["m"], ["n"]),
        helper.make_node("MatMul", ["n", "w4"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array((rng.standard_normal(s) * 0.3).astype(np.float32), n) for n, s in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


X = np.random.default_rng(1).standard_normal((1, 3, 10, 10)).astype(np.float32)


@pytest.fixture(scope="module")
def avx512() -> Machine:
    return load_machine("x86.avx512")


def layouts_of(graph: Graph) -> set[str]:
    return {str(b.layout) for b in graph.buffers.values() if b.layout is not None}


@pytest.mark.parametrize("layouts", get_args(Layouts))
@pytest.mark.parametrize("channels", [16, 24])
def test_every_way_agrees_with_onnxruntime(layouts: Layouts, channels: int) -> None:
    model = residual(channels)
    network = compile(model, layouts=layouts, threads=1)
    np.testing.assert_allclose(network([X])["y"], onnxruntime_outputs(model, {"x": X})["y"], rtol=1e-4, atol=1e-5)


def test_what_each_way_stores(avx512: Machine) -> None:
    graph = load(residual())
    assert layouts_of(choose_layouts(graph, avx512, "plain")) == set()
    assert layouts_of(choose_layouts(graph, avx512, "channels-last")) == {"0 2 3 1"}
    assert layouts_of(choose_layouts(graph, avx512, "blocked")) == {"0 1/16 2 3 1"}
    assert layouts_of(choose_layouts(load(residual(24)), avx512, "blocked")) == {"0 2 3 1"}, "24 channels do not fill blocks of 16"
    assert choose_layouts(graph, load_machine("virtual.pointwise"), "blocked").buffers == graph.buffers, "nothing runs in lanes"


def test_blocks_reach_the_kernels() -> None:
    network = Network.interpreted(choose_layouts(load(residual()), load_machine("x86.avx2"), "blocked"))
    stored = [str(b.layout) for s in network.steps for b in s.call.kernel.args]
    assert "0 1/8 2 3 1" in stored
    np.testing.assert_allclose(network.reference([X])["y"], onnxruntime_outputs(residual(), {"x": X})["y"], rtol=1e-4, atol=1e-5)


def test_parts_are_joined_by_element_wise_operations(avx512: Machine) -> None:
    graph = load(residual())
    chosen = choose_layouts(graph, avx512)
    parts = joined(chosen, [n for n, b in chosen.buffers.items() if b.layout is not None])
    kinds = {tuple(sorted(n.rsplit("_", 1)[0] for n in p)) for p in parts}
    assert ("add", "conv", "maxpool", "relu") in kinds, "the sum of a block, what it adds, and its activation"
    assert ("conv", "relu") in kinds and sum(map(len, parts)) == len({n for p in parts for n in p})


def noise(kernel: Kernel, constants: frozenset[str]) -> float:
    """A price that says nothing about anything, but is always the same."""
    return 1.0 + sum(map(ord, str(kernel) + ",".join(sorted(constants)))) * 2654435761 % 1000 / 500


def least_mean(kernel: Kernel, _: frozenset[str]) -> float:
    """Blocks are worth it for kernels that read them and write them; converting costs."""
    found = {str(b.layout) for b in kernel.args if b.rank == 4 and b.static_shape[1] == 16 and b.name[0] != "w"}
    return {frozenset({"0 1/16 2 3 1"}): 1.0, frozenset({"0 2 3 1"}): 2.0, frozenset({"None"}): 3.0}.get(frozenset(found), 4.0)


def test_the_cheapest_layout_everywhere_is_found(avx512: Machine) -> None:
    graph = load(residual())
    values = [n for n, b in choose_layouts(graph, avx512).buffers.items() if b.layout is not None]
    assert {str(b.layout) for b in least_estimated(graph, values, avx512, 1, least_mean).values()} == {"0 1/16 2 3 1"}


@pytest.mark.parametrize(("refused", "chosen"), [("0 1/16 2 3 1", "0 2 3 1"), ("", "0 1/16 2 3 1")])
def test_what_no_rule_schedules_in_a_layout_is_not_preferred(avx512: Machine, refused: str, chosen: str) -> None:
    """Blocks are cheapest, but no rule takes them; and what no rule takes in any layout has no say."""

    def price(kernel: Kernel, constants: frozenset[str]) -> float:
        used = {str(b.layout) for b in kernel.args}
        if refused in used or "pool" in kernel.name:
            raise SpaceError("no rule has a schedule for it")
        return least_mean(kernel, constants)

    graph = load(residual())
    values = [n for n, b in choose_layouts(graph, avx512).buffers.items() if b.layout is not None]
    assert {str(b.layout) for b in least_estimated(graph, values, avx512, 1, price).values()} == {chosen}


def test_no_single_change_improves_the_choice(avx512: Machine) -> None:
    graph = load(residual())
    values = [n for n, b in choose_layouts(graph, avx512).buffers.items() if b.layout is not None]

    def total(buffers: Mapping[str, Buffer]) -> float:
        """All kernels of the network, priced independently of the search."""
        network = Network.interpreted(graph.with_layouts(dict(buffers)))
        return sum(noise(s.call.kernel, network.constants(s)) for s in network.steps)

    found = least_estimated(graph, values, avx512, 1, noise)
    parts = joined(graph, values)
    for part in parts:
        for way in get_args(Way):
            other = {**found, **{n: arranged(graph.buffers[n], way, avx512) for n in part}}
            assert total(other) >= total(found) * (1 - EQUAL), (part, way)
    for way in get_args(Way):
        assert total({n: arranged(graph.buffers[n], way, avx512) for n in values}) >= total(found) * (1 - EQUAL)


def test_equal_prices_leave_channels_last(avx512: Machine) -> None:
    graph = load(residual())
    values = [n for n, b in choose_layouts(graph, avx512).buffers.items() if b.layout is not None]
    assert {str(b.layout) for b in least_estimated(graph, values, avx512, 1, lambda *_: 1.0).values()} == {"0 2 3 1"}


def test_unknown_ways_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TilewrightError, match="unknown layouts 'rows'") as error:
        prepare(load(residual()), layouts="rows")  # type: ignore[arg-type]
    assert "channels-last" in str(error.value)
    path = tmp_path / "m.onnx"
    path.write_bytes(residual().SerializeToString())
    refused = tilewright("compile", str(path), "--layouts", "rows")
    assert refused.exit_code == 2 and "channels-last" in refused.output
    assert tilewright("run", str(path), "--layouts", "blocked", "--compare", "--threads", "1").exit_code == 0
