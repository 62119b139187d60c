"""Calling compiled networks: layouts, threads, repeated and concurrent calls, summaries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs

from tilewright.graph import compile, compile_graph, load
from tilewright.ir.buffer import Layout
from tilewright.util.errors import RuntimeFailure

RNG = np.random.default_rng(3)


def two_convolutions() -> ModelProto:
    def weight(name: str, *shape: int) -> object:
        return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"]),
        helper.make_node("Add", ["d", "r"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 9, 9]) for n, c in (("x", 3), ("y", 8))]
    initial = [weight("w", 8, 3, 3, 3), weight("b", 8), weight("v", 8, 8, 1, 1)]
    return helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], initial), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


MODEL = two_convolutions()


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, 9, 9)).astype(np.float32)


def expected(x: np.ndarray) -> np.ndarray:
    return onnxruntime_outputs(MODEL, {"x": x})["y"]


@pytest.mark.parametrize("layout", ["0 2 3 1", "0 1/4 2 3 1"])
def test_layout_of_an_activation_is_shared_by_producer_and_consumers(layout: str) -> None:
    graph = load(MODEL)
    (name,) = (n for n in graph.free_layouts() if n.startswith("relu"))
    chosen = graph.with_layouts({name: graph.buffers[name].with_(layout=Layout.parse(layout))})
    network = compile_graph(chosen, threads=1)
    assert [b.layout for s in network.steps for b, n in zip(s.call.kernel.args, s.call.arguments, strict=True) if n == name] == [
        Layout.parse(layout)
    ] * 2
    np.testing.assert_allclose(network({"x": image()})["y"], expected(image()), rtol=1e-4, atol=1e-4)


def test_ends_and_reshaped_values_keep_their_layout() -> None:
    free = load(MODEL).free_layouts()
    assert not {v.buffer.name for v in (*load(MODEL).inputs, *load(MODEL).outputs)} & set(free)


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_by_name_by_order_and_with_one_array(threads: int) -> None:
    network = compile(MODEL, threads=threads)
    x = image(1)
    reversed_copy = np.repeat(x, 2, axis=3)[..., ::-2][..., ::-1]
    results = [network({"x": x}), network([x]), network(x), network(np.asfortranarray(x)), network(x.astype(">f4")), network(reversed_copy)]
    for r in results:
        np.testing.assert_allclose(r["y"], expected(x), rtol=1e-4, atol=1e-4)
    assert len({r["y"].ctypes.data for r in results}) == len(results), "every call returns arrays of its own"


@pytest.mark.parametrize("value", [None, "abc", {}])
def test_inputs_that_hold_no_numbers_are_refused_by_name(value: object) -> None:
    with pytest.raises(RuntimeFailure, match="input 'x' is no array of numbers: ") as error:
        compile(MODEL)([value])  # type: ignore[list-item]
    assert "expected f32[1, 3, 9, 9]" in (error.value.hint or "")


def test_concurrent_calls_do_not_mix() -> None:
    network = compile(MODEL, threads=1)
    images = [image(k) for k in range(12)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: network(x)["y"], images))
    for x, y in zip(images, results, strict=True):
        np.testing.assert_allclose(y, expected(x), rtol=1e-4, atol=1e-4)


def test_summary_counts_arithmetic_and_measures() -> None:
    network = compile(MODEL, threads=1)
    network(image())
    first, second = network.summary(repeats=2)
    assert first.operators == "Conv+Relu"
    assert second.operators == "Conv+Add"
    multiply_adds = 8 * 9 * 9 * 3 * 3 * 3
    assert first.flops == 2 * multiply_adds + 2 * 8 * 9 * 9
    assert first.seconds is not None
    assert first.seconds > 0


def test_progress_is_reported() -> None:
    seen: list[tuple[int, int, str]] = []
    compile(MODEL, threads=1, progress=lambda done, total, name: seen.append((done, total, name)))
    assert [s[:2] for s in seen] == [(1, 2), (2, 2)]
