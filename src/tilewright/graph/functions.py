"""Operators defined by other operators: bodies of model-local functions and of ONNX's own function operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto

    from tilewright.graph.model import Tensor


def attribute_value(a: AttributeProto) -> Any:
    """An attribute as a Python value: numbers, str, lists, TensorProto, GraphProto."""
    from onnx import helper

    value = helper.get_attribute_value(a)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)) or hasattr(value, "append"):
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
    return value


def node_attributes(node: NodeProto, outer: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a node; references to the attributes of the enclosing function are resolved in ``outer``."""
    out = {}
    for a in node.attribute:
        if not a.ref_attr_name:
            out[a.name] = attribute_value(a)
        elif outer.get(a.ref_attr_name) is not None:
            out[a.name] = outer[a.ref_attr_name]
    return out


def has_schema_body(domain: str, kind: str, opset: int) -> bool:
    """Whether ONNX defines this operator by a function body."""
    schema = _schema(domain, kind, opset)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def schema_body(node: NodeProto, opset: int, inputs: Sequence[Tensor | None]) -> tuple[FunctionProto, dict[str, Any]] | None:
    """ONNX's own body of the operator for these operand types, and the attributes it defaults to."""
    schema = _schema(node.domain, node.op_type, opset)
    if schema is None:
        return None
    body: bytes | None = None
    if schema.has_context_dependent_function:
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        if versions:
            types = [_type_proto(t).SerializeToString() for t in inputs]
            body = schema.get_context_dependent_function_with_opset_version(max(versions), node.SerializeToString(), types)
    if not body and schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= opset]
        body = schema.get_function_with_opset_version(max(versions)) if versions else None
    if not body:
        return None
    from onnx import FunctionProto

    function = FunctionProto()
    function.ParseFromString(body)
    defaults = {n: attribute_value(a.default_value) for n, a in schema.attributes.items() if a.default_value.name}
    return function, defaults


def _schema(domain: str, kind: str, opset: int) -> Any:
    from onnx import defs

    try:
        return defs.get_schema(kind, opset, domain)
    except defs.SchemaError:
        return None


def _type_proto(t: Tensor | None) -> TypeProto:
    from onnx import TypeProto, helper

    from tilewright.graph.elements import ONNX_TYPES

    if t is None:
        return TypeProto()
    number = next(n for n, d in ONNX_TYPES.items() if d == t.dtype)
    return helper.make_tensor_type_proto(number, t.shape)
