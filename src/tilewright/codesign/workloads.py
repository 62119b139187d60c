"""What to design for: layers of known networks, of a JSON file, of an ONNX model."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.codesign.architectures import NETWORKS
from tilewright.codesign.layer import DIMS, Layer, unique
from tilewright.util.errors import SpaceError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

#: Fields of a layer in a file that are pairs (down, across), and the parameters they give.
_PAIRS = {"stride": ("SH", "SW"), "dilation": ("DH", "DW")}
_FIELDS = (*DIMS, *_PAIRS, "count", "name", "weights")
_EXAMPLE = '{"K": 64, "C": 32, "P": 56, "Q": 56, "R": 3, "S": 3, "stride": [1, 1], "count": 2}'


def workload(source: str | Path, dims: Mapping[str, int] | None = None) -> tuple[Layer, ...]:
    """Layers of a network by name (``resnet50``), of ``file.onnx``, of ``file.json`` or of one network in it (``file.json:unet``).

    Layers of one shape are one, with their counts added. ``dims`` binds sizes that an ONNX model leaves open, and nothing
    else. SpaceError when there is no such network or file, a layer is wrong, or there is nothing to bind.
    """
    text = str(source)
    if dims and not text.endswith(".onnx"):
        raise SpaceError(f"{text} has no open size {next(iter(dims))!r}", hint="sizes are bound in ONNX models only (--dim)")
    if text in NETWORKS:
        return unique(tuple(NETWORKS[text]()))
    path, _, member = text.partition(".json:")
    if text.endswith(".json") or member:
        return _from_json(Path(path + ".json" if member else text), member)
    if text.endswith(".onnx"):
        return unique(tuple(onnx_layers(text, dims or {})))
    raise SpaceError(f"there is no workload {text!r}", hint=f"known: {', '.join(NETWORKS)}; or a path ending in .json or .onnx")


def _from_json(path: Path, member: str) -> tuple[Layer, ...]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpaceError(f"cannot read the workload {path}: {error.strerror}", hint="give the path of a JSON file") from error
    except ValueError as error:
        raise SpaceError(f"{path} is not JSON: {error}", hint=f"write a list of layers such as {_EXAMPLE}") from error
    except RecursionError as error:
        raise SpaceError(f"{path} is nested too deeply", hint=f"write a list of layers such as {_EXAMPLE}") from error
    where = str(path)
    if isinstance(content, dict) and content and all(isinstance(v, list) for v in content.values()):
        if member not in content and (member or len(content) > 1):
            wanted = f"no network {member!r}" if member else f"{len(content)} networks"
            raise SpaceError(f"{path} has {wanted}", hint=f"name one as in {path}:{next(iter(content))}; it has {', '.join(content)}")
        name = member or next(iter(content))
        content, where = content[name], f"network {name!r} of {path}"
    elif member:
        raise SpaceError(f"{path} has no network {member!r}", hint="it is one list of layers: leave the name out")
    return unique(tuple(layers_of(content, where)))


def layers_of(content: Any, where: str = "the workload") -> list[Layer]:
    """Layers from JSON data: a list of objects with the sizes N K C P Q R S (those left out are 1), stride, dilation, count, name,
    and ``weights`` (false: both operands are computed).

    SpaceError names the layer and the field that is wrong.
    """
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise SpaceError(f"{where} is not a list of layers", hint=f"write objects such as {_EXAMPLE}")
    if not content:
        raise SpaceError(f"{where} has no layers", hint=f"write one object or more such as {_EXAMPLE}")
    return [_layer(x, f"layer {n} of {where}", n) for n, x in enumerate(content)]


def _layer(fields: Any, where: str, number: int) -> Layer:
    if not isinstance(fields, Mapping):
        raise SpaceError(f"{where} is {reprlib.repr(fields)}", hint=f"write an object such as {_EXAMPLE}")
    if unknown := [k for k in fields if k not in _FIELDS]:
        raise SpaceError(f"{where} has an unknown field {unknown[0]!r}", hint=f"fields are {', '.join(_FIELDS)}")
    if missing := [d for d in "KC" if d not in fields]:
        raise SpaceError(f"{where} lacks {missing[0]}", hint="K (outputs) and C (inputs) are needed; other sizes are 1 when left out")
    parameters: dict[str, Any] = {}
    for name, keys in _PAIRS.items():
        pair = fields.get(name, (1, 1))
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != len(keys):
            raise SpaceError(f"{where} has {name} {reprlib.repr(pair)}", hint="write two numbers, down and across")
        parameters |= dict(zip(keys, pair, strict=True))
    sizes = {d: fields[d] for d in DIMS if d in fields}
    for name, value in {**sizes, **parameters, "count": fields.get("count", 1)}.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31:
            hint = "sizes, strides, dilations and counts are whole numbers from 1 to 2147483647"
            raise SpaceError(f"{where} has {name} = {reprlib.repr(value)}", hint=hint)
    if not isinstance(weights := fields.get("weights", True), bool):
        raise SpaceError(f"{where} has weights = {reprlib.repr(weights)}", hint="true, or false where both operands are computed")
    return Layer(str(fields.get("name", f"layer{number}")), sizes, parameters, fields.get("count", 1), weights)


def onnx_layers(source: str | Path | ModelProto, dims: Mapping[str, int] | None = None) -> list[Layer]:
    """Convolutions and matrix products of an ONNX model, by node. A convolution of groups counts as that many layers.

    Products of batches with weights have the rows of all batches; of two computed operands each batch is a layer of its own.
    SpaceError when the model has none, or their sizes are 0 or not known; ImportFailure when it cannot be read.
    """
    import onnx

    from tilewright.graph.loading import input_types, read_model

    model, _ = read_model(source)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, 4)  # before, constants had to be inputs as well
    bound = input_types(model.graph, dims or {}, {})
    for value in copy.graph.input:
        if value.name in bound:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for extent in bound[value.name][1]:
                shape.dim.add().dim_value = extent
    graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    shapes = {v.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in v.type.tensor_type.shape.dim) for v in values}
    shapes |= {t.name: tuple(t.dims) for t in graph.initializer}
    known = {t.name for t in graph.initializer}
    for node in graph.node:
        if all(x in known for x in node.input):
            known.update(node.output)
    out = [x for number, node in enumerate(graph.node) if (x := _node_layer(node, number, shapes, known)) is not None]
    if not out:
        raise SpaceError("the model has no convolution and no matrix product", hint="Conv, Gemm and MatMul nodes are what is designed for")
    return out


def _sizes(node: str, value: str, shapes: Mapping[str, tuple[int | None, ...]]) -> tuple[int, ...]:
    """The sizes of a value of a node. SpaceError where one is 0 or not known."""
    sizes = shapes.get(value, ())
    if 0 in sizes:
        raise SpaceError(f"{value!r} of {node} has a size of 0: {sizes}", hint="there is nothing to compute: sizes are 1 or more")
    found = tuple(x for x in sizes if x is not None)
    if not sizes or len(found) < len(sizes):
        raise SpaceError(f"the sizes of {node} are not known", hint="bind open dimensions (--dim NAME=SIZE)")
    return found


def _node_layer(node: NodeProto, number: int, shapes: Mapping[str, tuple[int | None, ...]], known: set[str]) -> Layer | None:
    name = node.name or f"{node.op_type}{number}"
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    a, b, o = (_sizes(name, x, shapes) for x in (node.input[0], node.input[1], node.output[0]))
    flags = {x.name: x for x in node.attribute}
    if node.op_type == "Conv":
        if len(o) not in (3, 4):
            raise SpaceError(f"{name} is a convolution over {len(o) - 2} dimensions", hint="one or two are supported")

        def pair(attribute: str) -> tuple[int, int]:
            values = [int(v) for v in flags[attribute].ints] if attribute in flags else [1] * (len(o) - 2)
            return (values[0], values[1]) if len(values) == 2 else (values[0], 1)

        groups = int(flags["group"].i) if "group" in flags else 1
        (sh, sw), (dh, dw) = pair("strides"), pair("dilations")
        rows, columns = (o[2], o[3]) if len(o) == 4 else (o[2], 1)
        r, s = (b[2], b[3]) if len(b) == 4 else (b[2], 1)
        sizes = {"N": o[0], "K": o[1] // groups, "C": b[1], "P": rows, "Q": columns, "R": r, "S": s}
        return Layer(name, sizes, {"SH": sh, "SW": sw, "DH": dh, "DW": dw}, groups)
    if node.op_type == "Gemm":
        k = a[0] if "transA" in flags and flags["transA"].i else a[1]
        return Layer.gemm(name, o[0], o[1], k)
    rows = o[-2] if len(a) > 1 and len(o) > 1 else 1
    columns = o[-1] if len(b) > 1 else 1
    batches = 1
    for extent in o[: max(len(o) - 2, 0)]:
        batches *= extent
    if node.input[1] in known and len(b) <= 2:
        return Layer.gemm(name, batches * rows, columns, a[-1])
    return Layer.gemm(name, rows, columns, a[-1], count=batches, weights=False)
