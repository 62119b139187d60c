"""Quantised models of floats as operators on integers: what is replaced, what stays, and that ONNX Runtime agrees."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs

from tilewright.graph import Network, load
from tilewright.graph.integers import integer_form
from tilewright.util.errors import ImportFailure

SCALES = {"x": 0.05, "w": 0.01, "b": float(np.float32(0.05) * np.float32(0.01)), "y": 0.1}


def model(kind: str, operands: tuple[str, ...] = ("x",), zero: int = 0, **attributes: object) -> ModelProto:
    """One operator on floats between conversions: ``x`` [3, 4] is the input, ``w`` [4, 4] and ``b`` [4] are constants."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {"w": rng.integers(-127, 128, (4, 4)).astype(np.int8), "b": rng.integers(-999, 999, 4).astype(np.int32)}
    for n, s in SCALES.items():
        arrays |= {f"{n}_scale": np.float32(s), f"{n}_zero": np.array(zero if n == "y" else 0, np.int32 if n == "b" else np.int8)}
    nodes = [helper.make_node("DequantizeLinear", [n, f"{n}_scale", f"{n}_zero"], [f"{n}_real"]) for n in operands]
    nodes.append(helper.make_node(kind, [f"{n}_real" for n in operands], ["y_real"], **attributes))
    nodes.append(helper.make_node("QuantizeLinear", ["y_real", "y_scale", "y_zero"], ["y"]))
    x, y = (helper.make_tensor_value_info(n, TensorProto.INT8, s) for n, s in (("x", (3, 4)), ("y", (3, 4))))
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def kinds(m: ModelProto) -> list[str]:
    return [n.op_type for n in m.graph.node]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (model("MatMul", ("x", "w")), "QLinearMatMul"),
        (model("MatMul", ("x", "w"), zero=3), "QLinearMatMul"),
        (model("Gemm", ("x", "w", "b"), transB=1), "QGemm"),
        (model("Gemm", ("x", "w")), "QGemm"),
    ],
    ids=["product", "zero point", "bias", "no bias"],
)
def test_products_become_integer_operators(source: ModelProto, kind: str) -> None:
    found = integer_form(source)
    assert kinds(found) == [kind]
    checker.check_model(found)
    inputs = {"x": np.random.default_rng(1).integers(-128, 128, (3, 4)).astype(np.int8)}
    got = Network.interpreted(load(found)).reference(inputs)["y"]
    for m in (source, found):
        np.testing.assert_array_equal(got, onnxruntime_outputs(m, inputs)["y"])
    assert got.std() > 5


@pytest.mark.parametrize("seed", [1, 2, 9])
def test_sums_of_two_scales_round_as_onnx_runtime(seed: int) -> None:
    """Every pair of int8 numbers: an FMA, or scaling the sum of two floats, gives other numbers for some scales."""
    rng = np.random.default_rng(seed)
    every = np.arange(-128, 128).astype(np.int8)
    inputs = {"a": np.repeat(every, 256), "b": np.tile(every, 256)}
    numbers = [(n, np.float32(rng.integers(1, 40) / 128 if seed % 2 else rng.uniform(0.01, 0.1))) for n in "aby"]
    shifts = rng.integers(-20, 20, 3).astype(np.int8) if seed > 2 else np.zeros(3, np.int8)
    source = float_pattern("Add", {n: a.shape for n, a in inputs.items()}, (1 << 16,), dict(numbers), dict(zip("aby", shifts, strict=True)))
    assert kinds(integer_form(source)) == ["QLinearAdd"]
    agree(source, inputs)


@pytest.mark.parametrize(("scale", "shift"), [(0.011, 0), (0.03, -9)])
def test_mean_of_an_image(scale: float, shift: int) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (2, 9, 7, 5)).astype(np.int8)
    zeros = {"a": np.int8(shift), "y": np.int8(-shift)}
    source = float_pattern("GlobalAveragePool", {"a": x.shape}, (2, 9, 1, 1), {"a": np.float32(0.05), "y": np.float32(scale)}, zeros)
    assert kinds(integer_form(source)) == ["QLinearGlobalAveragePool"]
    agree(source, {"a": x})


def agree(source: ModelProto, inputs: dict[str, np.ndarray]) -> None:
    got = Network.interpreted(load(integer_form(source))).reference(inputs)["y"]
    np.testing.assert_array_equal(got, onnxruntime_outputs(source, inputs)["y"])
    assert got.std() > 5


def float_pattern(
    kind: str, shapes: dict[str, tuple[int, ...]], result: tuple[int, ...], scales: dict[str, np.float32], zeros: dict[str, np.int8]
) -> ModelProto:
    """``kind`` on the floats of int8 inputs of these ``shapes``; the result, ``y``, is quantised too."""
    constants = [numpy_helper.from_array(np.asarray(v), f"{n}_{what}") for what, d in (("s", scales), ("z", zeros)) for n, v in d.items()]
    nodes = [helper.make_node("DequantizeLinear", [n, f"{n}_s", f"{n}_z"], [f"{n}_real"]) for n in shapes]
    nodes.append(helper.make_node(kind, [f"{n}_real" for n in shapes], ["y_real"]))
    nodes.append(helper.make_node("QuantizeLinear", ["y_real", "y_s", "y_z"], ["y"]))
    given = [helper.make_tensor_value_info(n, TensorProto.INT8, s) for n, s in shapes.items()]
    y = helper.make_tensor_value_info("y", TensorProto.INT8, result)
    return helper.make_model(
        helper.make_graph(nodes, "g", given, [y], constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


def changed(m: ModelProto, name: str, value: np.ndarray) -> ModelProto:
    for t in m.graph.initializer:
        if t.name == name:
            t.CopyFrom(numpy_helper.from_array(value, name))
    return m


def test_choosing_elements_needs_no_floats_where_scales_agree() -> None:
    alike = changed(model("Relu"), "y_scale", np.array(0.05, np.float32))
    assert kinds(integer_form(alike)) == ["Relu"]
    assert "QuantizeLinear" in kinds(integer_form(model("Relu")))  # another scale
    shifted = changed(alike, "y_zero", np.array(2, np.int8))
    assert "QuantizeLinear" in kinds(integer_form(shifted))


def followed(after: tuple[NodeProto, ...], zero: int = 0, scale: float = 0.1, first: ModelProto | None = None) -> ModelProto:
    """A product, or ``first``, whose float result goes through ``after`` before it is quantised."""
    m = first or changed(model("MatMul", ("x", "w"), zero=zero), "y_scale", np.array(scale, np.float32))
    before = m.graph.node[:-1]
    names = [before[-1].output[0], *(f"after{n}" for n in range(len(after)))]
    for n, node in enumerate(after):
        node = helper.make_node(node.op_type, [names[n], *node.input], [names[n + 1]], **{a.name: a.f for a in node.attribute})
        m.graph.node.insert(len(before) + n, node)
    m.graph.node[-1].input[0] = names[-1]
    constants = {"least": np.array(-1, np.float32), "six": np.array(6, np.float32), "shape": np.array([3, 4])}
    constants |= {"ones": np.array([1], np.float32)}
    m.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    return m


RELU, CLIP = helper.make_node("Relu", [], []), helper.make_node("Clip", ["least", "six"], [])


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (followed((RELU,)), ["Relu"]),
        (followed((RELU,), zero=-128), []),  # what would be less than 0 saturates
        (followed((RELU,), zero=5), ["Clip"]),
        (followed((CLIP,)), ["Clip"]),
        (followed((helper.make_node("Clip", ["", "six"], []),)), ["Clip"]),
        (followed((helper.make_node("Clip", ["", "six"], []),), scale=0.04), []),  # 6 is more than 127 steps
        (followed((RELU, helper.make_node("Reshape", ["shape"], []), RELU)), ["Relu", "Reshape", "Relu"]),
    ],
)
def test_bounds_before_the_quantisation_are_bounds_of_integers(source: ModelProto, found: list[str]) -> None:
    after = integer_form(source)
    assert kinds(after)[1:] == found and kinds(after)[0].startswith("QLinear")
    inputs = {"x": np.random.default_rng(1).integers(-128, 128, (3, 4)).astype(np.int8)}
    got = Network.interpreted(load(after)).reference(inputs)["y"]
    np.testing.assert_array_equal(got, onnxruntime_outputs(after, inputs)["y"])
    assert np.abs(got.astype(int) - onnxruntime_outputs(source, inputs)["y"]).max() <= 1 and got.std() > 3


def test_a_residual_sum_is_rectified_as_integers() -> None:
    rng = np.random.default_rng(5)
    scales = {"a": np.float32(0.05), "b": np.float32(0.03), "y": np.float32(0.06)}
    m = followed((RELU,), first=float_pattern("Add", {"a": (40,), "b": (40,)}, (40,), scales, dict.fromkeys("aby", np.int8(0))))
    assert kinds(integer_form(m)) == ["QLinearAdd", "Relu"]
    agree(m, {n: rng.integers(-128, 128, 40).astype(np.int8) for n in "ab"})


def test_a_bound_may_be_a_vector_of_one_element() -> None:
    """The runtime takes such models, though a bound has no dimensions by the standard."""
    m = followed((helper.make_node("Clip", ["", "ones"], []),))
    after, inputs = integer_form(m), {"x": np.random.default_rng(1).integers(-128, 128, (3, 4)).astype(np.int8)}
    assert kinds(after) == ["QLinearMatMul", "Clip"]
    got = Network.interpreted(load(after)).reference(inputs)["y"]
    assert got.max() == 10 and np.abs(got.astype(int) - onnxruntime_outputs(m, inputs)["y"]).max() <= 1


def test_before_version_12_integers_have_no_clip() -> None:
    """Its bounds were attributes then."""
    clipped, rectified = followed((helper.make_node("Clip", [], [], min=-1.0, max=6.0),)), followed((RELU,))
    for m in (clipped, rectified):
        m.opset_import[0].version = 10
    assert kinds(integer_form(clipped)) == kinds(clipped) and kinds(integer_form(rectified)) == ["QLinearMatMul", "Relu"]
    inputs = {"x": np.random.default_rng(1).integers(-128, 128, (3, 4)).astype(np.int8)}
    got = Network.interpreted(load(integer_form(clipped))).reference(inputs)["y"]
    assert got.min() == -10 and got.max() == 60


def test_what_else_is_done_to_a_result_stays() -> None:
    shared = followed((RELU,))
    shared.graph.node.insert(3, helper.make_node("Exp", [shared.graph.node[2].output[0]], ["more"]))
    shared.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, (3, 4)))
    unknown = followed((helper.make_node("Clip", ["bound"], []),))
    unknown.graph.input.append(helper.make_tensor_value_info("bound", TensorProto.FLOAT, ()))
    for m in (shared, unknown, followed((RELU, helper.make_node("Exp", [], [])))):
        assert kinds(integer_form(m)) == kinds(m)


def test_what_is_no_pattern_stays() -> None:
    seen = model("MatMul", ("x", "w"))
    seen.graph.output.append(helper.make_tensor_value_info("y_real", TensorProto.FLOAT, (3, 4)))
    other_units = changed(model("Gemm", ("x", "w", "b")), "b_scale", np.array(0.01, np.float32))
    for m in (seen, other_units, model("Gemm", ("x", "w", "b"), beta=2.0), model("Exp")):
        assert kinds(integer_form(m)) == kinds(m)


def test_products_that_are_scaled_are_refused() -> None:
    with pytest.raises(ImportFailure, match=r"alpha is 2.0"):
        load(integer_form(model("Gemm", ("x", "w"), alpha=2.0)))
