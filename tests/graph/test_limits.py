"""Limits of integers after a saturating conversion: joined with those before it only where that changes no number."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.graph.oracle import onnxruntime_outputs

from tilewright.graph import compile
from tilewright.graph.limits import merged_limits
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Cast, Const, Expr
from tilewright.ir.types import DType


def limited(source: DType, lo: float, hi: float, target: DType, op: str, limit: int) -> Expr:
    clipped = ex.binary("min", ex.binary("max", ex.Var("v", source), Const(lo, source)), Const(hi, source))
    return ex.binary(op, Cast(clipped, target), Const(limit, target))


@pytest.mark.parametrize(("lo", "hi"), [(-1000, 1000), (-128, 1000), (-1000, 127), (-128, 127), (-5, 100)])
def test_a_network_whose_conversion_wraps_around_does_so(lo: int, hi: int) -> None:
    """Integers that int8 does not have wrap around in the conversion, and Relu sees what came of them."""
    bounds = [numpy_helper.from_array(np.array(n, np.int32), name) for name, n in (("lo", lo), ("hi", hi))]
    nodes = [
        helper.make_node("Clip", ["x", "lo", "hi"], ["c"]),
        helper.make_node("Cast", ["c"], ["n"], to=TensorProto.INT8),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    x, y = helper.make_tensor_value_info("x", TensorProto.INT32, [64]), helper.make_tensor_value_info("y", TensorProto.INT8, [64])
    graph = helper.make_graph(nodes, "g", [x], [y], bounds)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    inputs = {"x": np.linspace(-1200, 1200, 64).astype(np.int32)}
    network = compile(model, threads=1)
    np.testing.assert_array_equal(network(inputs)["y"], onnxruntime_outputs(model, inputs)["y"])
    assert len(network.steps) == 1, "one kernel, so the limits met"


@pytest.mark.parametrize("op", ["min", "max"])
@pytest.mark.parametrize(("source", "lo", "hi", "target", "limit"), [
    (ty.f32, -128.0, 127.0, ty.i8, 0), (ty.i32, -128, 127, ty.i8, 0), (ty.f32, 0.0, 255.0, ty.u8, 10),
    (ty.f64, -(2.0**31), 2.0**31 - 1, ty.i32, 7),
])  # fmt: skip
def test_limits_inside_what_the_integers_hold_are_joined(source: DType, lo: float, hi: float, target: DType, limit: int, op: str) -> None:
    found = merged_limits(limited(source, lo, hi, target, op, limit))
    assert isinstance(found, Cast)
    for v in (lo, limit - 1, limit, limit + 1, hi, lo - 5, hi + 5):
        env = {"v": v}
        assert ex.evaluate(found, env) == ex.evaluate(limited(source, lo, hi, target, op, limit), env)


@pytest.mark.parametrize(("source", "lo", "hi", "target", "limit"), [
    (ty.i32, -1000, 1000, ty.i8, 0), (ty.i32, -128, 1000, ty.i8, 0), (ty.f32, -1000.0, 127.0, ty.i8, 0), (ty.i32, -1, 100, ty.u8, 5),
    (ty.f32, -(2.0**31), 2.0**31 - 1, ty.i32, 0),  # in single precision the upper limit is 2**31, which i32 does not have
    (ty.f32, -(2.0**31), 2.0**30, ty.i32, 2**24 + 1),  # nor has single precision this number
    (ty.f32, -10.0, 10.0, ty.i8, 20),
])  # fmt: skip
def test_other_limits_stay(source: DType, lo: float, hi: float, target: DType, limit: int) -> None:
    e = limited(source, lo, hi, target, "max", limit)
    assert merged_limits(e) == e
