"""Reading a model: from a path, bytes or a ModelProto to a checked ModelProto and concrete input shapes."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from stat import S_ISDIR, S_ISFIFO, S_ISREG
from typing import IO, TYPE_CHECKING, SupportsIndex, Union

from tilewright.graph.elements import onnx_dtype
from tilewright.graph.opsets import versions_of
from tilewright.ir.types import DType
from tilewright.util.errors import ImportFailure

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

ModelSource = Union[str, "os.PathLike[str]", bytes, "ModelProto"]

#: Protocol buffers cannot exceed 2 GiB; larger models keep their weights in external files.
_LARGEST_FILE = (1 << 31) - 1
#: Largest tensor a model may ask for (elements): beyond it the shape is taken to be damaged.
LARGEST_TENSOR = 1 << 40


def read_model(source: ModelSource) -> tuple[ModelProto, str]:
    """The model and the folder its external data lies in ("" when it did not come from a file).

    Raises ImportFailure when it cannot be read, is no ONNX model, or holds no graph.
    """
    import onnx

    if isinstance(source, onnx.ModelProto):
        return _checked(source, "the ModelProto"), ""
    if isinstance(source, (bytes, bytearray)):
        return _checked(_parse(bytes(source), f"{len(source)} bytes"), "the bytes"), ""
    path = Path(source)
    try:
        data = _contents(path)
    except OSError as error:
        raise ImportFailure(f"cannot read model {path}: {error.strerror or error}") from error
    return _checked(_parse(data, str(path)), str(path)), str(path.parent)


def _contents(path: Path) -> bytes:
    """What a file or pipe holds; ImportFailure when that is more than a model, or it is a device, which may never end."""
    found = path.stat()
    pipe = S_ISFIFO(found.st_mode)
    if not (pipe or S_ISREG(found.st_mode) or S_ISDIR(found.st_mode)):
        raise ImportFailure(f"{path} is neither a file nor a pipe", hint="name an ONNX file")
    size, data = found.st_size, b""
    if size <= _LARGEST_FILE:
        with path.open("rb") as file:
            data = b"".join(_pieces(file)) if pipe else file.read()
        size = len(data)
    if size > _LARGEST_FILE:
        much = "more than" if pipe else f"{size} bytes, more than"
        raise ImportFailure(f"{path} has {much} an ONNX file can hold", hint="save it with external data")
    return data


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    """What a pipe gives, until it ends or is larger than a model."""
    size = 0
    while size <= _LARGEST_FILE and (piece := file.read(1 << 20)):
        size += len(piece)
        yield piece


def _parse(data: bytes, what: str) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if not data:
        raise ImportFailure(f"{what}: the file is empty")
    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ImportFailure(
            f"{what} is not an ONNX model or is corrupt or truncated: {error}", hint="export or download it again"
        ) from error


def _checked(model: ModelProto, what: str) -> ModelProto:
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ImportFailure(f"{what} holds no graph: it is not an ONNX model or was truncated", hint="export or download it again")
    if any(isinstance(text, bytes) for text in _texts(model)):
        raise ImportFailure(f"{what}: names that are not UTF-8 text: the file is damaged", hint="export or download it again")
    known: set[str] = {i.name for i in model.graph.input} | {t.name for t in model.graph.initializer}
    known |= {t.values.name for t in model.graph.sparse_initializer}
    for node in model.graph.node:
        for name in node.input:
            if name and name not in known:
                raise ImportFailure(
                    f"{what}: node {node.name or node.op_type!r} reads {name!r}, which nothing before it produces",
                    hint="the file is damaged, or its nodes are not in execution order",
                )
        known.update(node.output)
    for value in model.graph.output:
        if value.name not in known:
            raise ImportFailure(f"{what}: output {value.name!r} is produced by no node")
    return model


def _texts(model: ModelProto) -> Iterator[str | bytes]:
    """Names the importer reads; protocol buffers hand over damaged text as bytes."""
    yield from (o.domain for o in model.opset_import)
    yield from (t.name for t in model.graph.initializer)
    for value in (*model.graph.input, *model.graph.output):
        yield value.name
        yield from (d.dim_param for d in value.type.tensor_type.shape.dim)
    for node in model.graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        for a in node.attribute:
            yield from (a.name, a.ref_attr_name)


def opset_versions(model: ModelProto) -> dict[str, int]:
    """Operator set version by domain ("" is ONNX's own; a model must import it to use it)."""
    return versions_of(model.opset_import) or {"": 1}


def input_types(
    graph: GraphProto, dims: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[DType, tuple[int, ...]]]:
    """Element type and concrete shape of every graph input that is not an initializer.

    ``dims`` binds dynamic dimensions by their name ("batch") or position ("x.0"); ``shapes``
    gives whole shapes by input name. Raises ImportFailure naming all dimensions left unbound.
    """
    initial = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    inputs = [v for v in graph.input if v.name not in initial]
    for name in shapes:
        if name not in {v.name for v in inputs}:
            raise ImportFailure(f"shapes binds {name!r}, which is no input", hint=f"inputs: {', '.join(v.name for v in inputs) or 'none'}")
    unbound: list[str] = []
    out = {v.name: (_element_type(v), _shape(v, dims, shapes.get(v.name), unbound)) for v in inputs}
    if unbound:
        missing = list(dict.fromkeys(unbound))
        flags = " ".join(f"--dim {m}=N" for m in missing)
        raise ImportFailure(
            f"dynamic dimensions without a value: {', '.join(missing)}",
            hint=f"bind them: {flags}, or dims={{{', '.join(f'{m!r}: N' for m in missing)}}} from Python",
        )
    _refuse_unknown_dims(inputs, dims)
    return out


def _refuse_unknown_dims(inputs: Sequence[ValueInfoProto], dims: Mapping[str, int]) -> None:
    names = {d.dim_param for v in inputs for d in v.type.tensor_type.shape.dim if d.dim_param}
    names |= {f"{v.name}.{k}" for v in inputs for k, _ in enumerate(v.type.tensor_type.shape.dim)}
    for name, value in dims.items():
        if name not in names:
            raise ImportFailure(f"no input has a dimension {name!r}", hint=f"dimensions: {', '.join(sorted(names)) or 'none'}")
        _size(value, f"dimension {name}")


def _element_type(value: ValueInfoProto) -> DType:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ImportFailure(
            f"input {value.name!r} is a {(kind or 'value without type').removesuffix('_type')}", hint="only dense tensors are supported"
        )
    return onnx_dtype(value.type.tensor_type.elem_type, f"input {value.name!r}")


def _shape(value: ValueInfoProto, dims: Mapping[str, int], given: Sequence[int] | None, unbound: list[str]) -> tuple[int, ...]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        if given is None:
            raise ImportFailure(f"input {value.name!r} declares no shape", hint=f"give it: shapes={{{value.name!r}: (...)}}")
        return tuple(_size(s, f"dimension {k} of input {value.name!r}") for k, s in enumerate(given))
    if given is not None and len(given) != len(tensor.shape.dim):
        raise ImportFailure(f"input {value.name!r} has {len(tensor.shape.dim)} dimensions, but shape {list(given)} was given")
    out = []
    for k, d in enumerate(tensor.shape.dim):
        position = f"{value.name}.{k}"
        if d.HasField("dim_value"):
            bound = d.dim_value
            if given is not None and given[k] != bound:
                raise ImportFailure(f"dimension {k} of input {value.name!r} is {bound} in the model, not {given[k]}")
        elif given is not None:
            bound = given[k]
        elif (name := position if position in dims else d.dim_param) in dims:
            bound = dims[name]
        else:
            unbound.append(d.dim_param or position)
            continue
        out.append(_size(bound, f"dimension {k} of input {value.name!r}"))
    if not unbound and prod(out) > LARGEST_TENSOR:
        raise ImportFailure(f"input {value.name!r} has {prod(out)} elements: {out}", hint=f"arrays have at most {LARGEST_TENSOR}")
    return tuple(out)


def _size(given: SupportsIndex, what: str) -> int:
    """``given`` as an extent; ImportFailure names ``what`` when it is none."""
    try:
        size = operator.index(given)
    except TypeError:
        size = -1
    if not 0 <= size <= LARGEST_TENSOR:
        raise ImportFailure(f"{what} is {given!r}", hint=f"sizes are integers from 0 to {LARGEST_TENSOR}")
    return size
