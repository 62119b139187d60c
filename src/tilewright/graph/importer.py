"""ONNX models as tensor graphs.

Nodes are visited in order. A node whose operands are known is evaluated now; a node ONNX defines
by a function is replaced by the function's body; any other becomes one operation. All operators
that have no lowering are reported together, before anything else is done.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.graph import folding
from tilewright.graph.control import CONTROL_FLOW
from tilewright.graph.elements import storage_array, tensor_array
from tilewright.graph.functions import attribute_value, has_schema_body, node_attributes, schema_body
from tilewright.graph.loading import ModelSource, input_types, opset_versions, read_model
from tilewright.graph.lowering import Lowering, Names
from tilewright.graph.model import Graph, Operation, Tensor, Value
from tilewright.graph.operators import implementations
from tilewright.graph.opsets import domain_of, versions_of
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.types import DType
from tilewright.util.errors import ImportFailure, TilewrightError, UnsupportedOperator

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, NodeProto


def load(
    source: ModelSource,
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """Import an ONNX model (path, bytes or ModelProto) as a graph of static shapes.

    ``dims`` binds dynamic dimensions by name or by "input.position", ``shapes`` whole input
    shapes, ``constants`` inputs whose contents are fixed (and may decide shapes).
    Raises ImportFailure for unreadable models and unbound dimensions, UnsupportedOperator listing
    every operator without a lowering, StaticOperandRequired when data decides a shape.
    """
    model, folder = read_model(source)
    fixed = dict(constants or {})
    opsets = opset_versions(model)
    functions = {(f.domain, f.name): f for f in model.functions}
    _refuse_unsupported(model.graph, opsets, functions)
    importer = _Importer(functions, folder)
    return importer.run(model.graph, opsets, input_types(model.graph, dims or {}, shapes or {}), fixed)


def _refuse_unsupported(graph: GraphProto, opsets: Mapping[str, int], functions: Mapping[tuple[str, str], FunctionProto]) -> None:
    found: list[str] = []
    for node, versions in _all_nodes(graph, opsets, functions):
        domain = domain_of(node.domain)
        opset = versions.get(domain, 1)
        known = (domain, node.op_type) in implementations() or (domain, node.op_type) in functions
        if known or (not domain and node.op_type in CONTROL_FLOW) or has_schema_body(domain, node.op_type, opset):
            continue
        found.append(f"{domain + '::' if domain else ''}{node.op_type} (opset {opset}), node {node.name or '->'.join(node.output)!r}")
    if found:
        raise UnsupportedOperator(
            f"{len(found)} node(s) use operators that have no lowering:\n    " + "\n    ".join(dict.fromkeys(found)),
            hint=f"{len(implementations())} operators are supported (tilewright.graph.operators); add one as a decorated function there, "
            "or replace the node before export: nothing is handed to another runtime",
        )


def _all_nodes(
    graph: GraphProto, opsets: Mapping[str, int], functions: Mapping[tuple[str, str], FunctionProto]
) -> Iterator[tuple[NodeProto, Mapping[str, int]]]:
    """Nodes of the graph, its subgraphs and the model's functions, with the opsets that hold there."""
    for f in functions.values():
        own = versions_of(f.opset_import)
        yield from ((n, own) for n in f.node)
    for node in graph.node:
        yield node, opsets
        for a in node.attribute:
            for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                yield from _all_nodes(g, opsets, {})


@dataclass(slots=True)
class _Scope:
    """Where a node stands: visible tensors, opset versions, attributes of the enclosing function, uses of each name."""

    tensors: dict[str, Tensor]
    opsets: Mapping[str, int]
    attributes: Mapping[str, Any]
    uses: Counter[str]


class _Importer:
    """Builds one graph; :meth:`run` is called once."""

    def __init__(self, functions: Mapping[tuple[str, str], FunctionProto], folder: str):
        self._functions = functions
        self._folder = folder
        self._names = Names()
        self._operations: dict[str, Operation] = {}  # by first output, in order
        self._buffers: dict[str, Buffer] = {}
        self._constants: dict[str, np.ndarray] = {}
        self._views: dict[str, str] = {}
        self._convolutions: dict[str, tuple[_Node, list[Tensor | None]]] = {}  # by output: for weight folding

    def run(
        self,
        graph: GraphProto,
        opsets: Mapping[str, int],
        inputs: Mapping[str, tuple[DType, tuple[int, ...]]],
        fixed: Mapping[str, np.ndarray],
    ) -> Graph:
        scope = _Scope({}, opsets, {}, _uses(graph.node, [v.name for v in graph.output]))
        self._initializers(graph, scope)
        values = []
        for name, (dtype, shape) in inputs.items():
            if name in fixed:
                scope.tensors[name] = self._fixed_input(name, fixed[name], dtype, shape)
                continue
            tensor = Tensor(buffer(self._names.fresh("x"), dtype, shape), sources=frozenset([name]))
            scope.tensors[name] = tensor
            self._buffers[tensor.name] = tensor.buffer
            values.append(Value(name, tensor.buffer))
        for name in fixed:
            if name not in inputs:
                raise ImportFailure(f"constants binds {name!r}, which is no input", hint=f"inputs: {', '.join(inputs) or 'none'}")
        for node in graph.node:
            self._node(node, scope)
        outputs = self._outputs([v.name for v in graph.output], scope, {v.buffer.name for v in values})
        return self._graph(graph.name or "network", values, outputs)

    def _fixed_input(self, name: str, array: np.ndarray, dtype: DType, shape: tuple[int, ...]) -> Tensor:
        stored, found = storage_array(np.asarray(array))
        if found != dtype or stored.shape != shape:
            raise ImportFailure(f"constant for input {name!r} is {found}{list(stored.shape)}, the model declares {dtype}{list(shape)}")
        return self._constant(stored, dtype)

    def _initializers(self, graph: GraphProto, scope: _Scope) -> None:
        for t in graph.initializer:
            scope.tensors[t.name] = self._constant(*storage_array(tensor_array(t, self._folder)))
        for s in graph.sparse_initializer:
            scope.tensors[s.values.name] = self._constant(*storage_array(_dense(s, self._folder)))

    def _constant(self, stored: np.ndarray, dtype: DType) -> Tensor:
        tensor = Tensor(buffer(self._names.fresh("w"), dtype, stored.shape), stored)
        self._buffers[tensor.name] = tensor.buffer
        self._constants[tensor.name] = stored
        return tensor

    # --- nodes ----------------------------------------------------------------------------

    def _node(self, proto: NodeProto, scope: _Scope) -> None:
        domain = domain_of(proto.domain)
        node = _Node(
            proto,
            domain,
            proto.op_type,
            proto.name or next((n for n in proto.output if n), proto.op_type),
            scope.opsets.get(domain, 1),
            node_attributes(proto, scope.attributes),
        )
        inputs = [self._operand(n, node, scope) for n in proto.input]
        while inputs and inputs[-1] is None:  # trailing optional operands left out
            inputs.pop()
        if domain == "" and node.kind in CONTROL_FLOW:
            results = self._control(node, inputs, scope)
        elif (key := (domain, node.kind)) in self._functions:
            results = self._call(self._functions[key], node, inputs, {})
        elif key in implementations():
            results = self._lower(implementations()[key], node, inputs, scope)
        elif (body := schema_body(proto, node.opset, inputs)) is not None:
            results = self._call(body[0], node, inputs, body[1])
        else:
            raise UnsupportedOperator(f"{node.kind} node {node.name!r} (opset {node.opset}) has no lowering for these operands")
        for name, tensor in zip(proto.output, results, strict=False):
            if name and tensor is not None:
                scope.tensors[name] = tensor

    def _operand(self, name: str, node: _Node, scope: _Scope) -> Tensor | None:
        if not name:
            return None
        if name not in scope.tensors:
            raise ImportFailure(f"{node.kind} node {node.name!r} reads {name!r}, which nothing before it produces")
        return scope.tensors[name]

    def _lower(self, f: Callable[..., Any], node: _Node, inputs: list[Tensor | None], scope: _Scope) -> list[Tensor | None]:
        if (folded := self._into_convolution(node, inputs, scope)) is not None:
            return [folded]
        op = Lowering(node.kind, node.name, node.opset, node.attributes, self._names, list(node.proto.output))
        try:
            inspect.signature(f).bind(op, *inputs)
        except TypeError:
            raise op.refuse(f"{len(inputs)} operands do not fit this operator") from None
        try:
            produced = f(op, *inputs)
        except ImportFailure:
            raise
        except TilewrightError as error:
            raise op.refuse(error.message, error.hint) from error
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            # Lowerings unpack shapes and attributes as the operator's definition promises them.
            shapes = ", ".join("-" if t is None else f"{t.dtype}{list(t.shape)}" for t in inputs)
            raise op.refuse(f"operands ({shapes}) or attributes are not what the operator requires: {error}") from error
        results = [op.array(r) if isinstance(r, np.ndarray) else r for r in (produced if isinstance(produced, tuple) else (produced,))]
        return self._record(op, results, inputs, node)

    def _record(self, op: Lowering, results: list[Tensor | None], inputs: Sequence[Tensor | None], node: _Node) -> list[Tensor | None]:
        """Enter what a lowering made into the graph, evaluated if all its operands are known."""
        for name, made_now in op.arrays.items():
            if made_now.value is not None:
                self._constants[name], self._buffers[name] = made_now.value, made_now.buffer
        operation = op.finish(results)
        for t in results:
            if t is not None:
                self._buffers[t.name] = t.buffer
        given = [t for t in inputs if t is not None]
        made = [t for t in results if t is not None]
        if operation.outputs and all(t.value is not None for t in given) and folding.worth_folding(made, given):
            known = folding.evaluate(operation, self._buffers, self._constants)
            return [self._constant(known[t.name], t.dtype) if t is not None and t.name in known else t for t in results]
        if operation.outputs:
            self._operations[operation.outputs[0]] = operation
            if op.kind == "Conv":
                self._convolutions[operation.outputs[0]] = (node, list(inputs))
        self._views.update(op.views)
        sources = frozenset().union(*(t.sources for t in given)) if given else frozenset()
        return [t if t is None or t.value is not None else replace(t, sources=sources) for t in results]

    def _into_convolution(self, node: _Node, inputs: list[Tensor | None], scope: _Scope) -> Tensor | None:
        """The result when ``node`` scales the only use of a convolution: it goes into the weights."""
        if not inputs or inputs[0] is None or inputs[0].name not in self._convolutions or any(t is None for t in inputs):
            return None
        x = inputs[0]
        if scope.uses[node.proto.input[0]] != 1:
            return None
        conv, operands = self._convolutions[x.name]
        weights, bias = operands[1], operands[2] if len(operands) > 2 else None
        if weights is None or weights.value is None or (bias is not None and bias.value is None):
            return None
        affine = folding.channel_affine(node.kind, node.attributes, x, [t for t in inputs[1:] if t is not None], node.opset)
        if affine is None:
            return None
        op = Lowering("Conv", conv.name, conv.opset, conv.attributes, self._names, list(node.proto.output))
        w, b = folding.scaled_conv(op, weights, bias, *affine)
        result = implementations()["", "Conv"](op, operands[0], w, b)
        del self._operations[x.name]
        return self._record(op, [result], [operands[0], w, b], conv)[0]

    # --- bodies ---------------------------------------------------------------------------

    def _call(self, f: FunctionProto, node: _Node, inputs: Sequence[Tensor | None], defaults: Mapping[str, Any]) -> list[Tensor | None]:
        """The results of a function body with the node's operands and attributes."""
        own = versions_of(f.opset_import)
        attributes = {**defaults, **{a.name: attribute_value(a) for a in f.attribute_proto}, **node.attributes}
        tensors = {formal: t for formal, t in zip(f.input, inputs, strict=False) if t is not None}
        scope = _Scope(tensors, own, attributes, _uses(f.node, f.output))
        absent = set(f.input) - tensors.keys()
        for inner in f.node:
            if absent & set(inner.input):  # optional operands of the function that were left out
                copy = type(inner)()
                copy.CopyFrom(inner)
                copy.input[:] = ["" if n in absent else n for n in inner.input]
                inner = copy
            self._node(inner, scope)
        return [scope.tensors.get(n) for n in f.output]

    def _control(self, node: _Node, inputs: Sequence[Tensor | None], scope: _Scope) -> list[Tensor | None]:
        """The results of an If, Loop or Scan, with bodies imported as often as they run."""
        op = Lowering(node.kind, node.name, node.opset, node.attributes, self._names, list(node.proto.output))

        def run(body: GraphProto, bound: Mapping[str, Tensor]) -> list[Tensor]:
            inner = _Scope({**scope.tensors, **bound}, scope.opsets, scope.attributes, _uses(body.node, [v.name for v in body.output]))
            for t in bound.values():
                if t.value is not None and t.name not in self._buffers:
                    self._constants[t.name], self._buffers[t.name] = t.value, t.buffer
            self._initializers(body, inner)
            for n in body.node:
                self._node(n, inner)
            return [inner.tensors[v.name] for v in body.output]

        def apply(f: Callable[[Lowering], Tensor], operands: Sequence[Tensor]) -> Tensor:
            step = Lowering(node.kind, node.name, node.opset, {}, self._names, [""])
            made = self._record(step, [f(step)], operands, node)[0]
            assert made is not None  # one result was given
            return made

        return list(CONTROL_FLOW[node.kind](op, inputs, run, apply))

    # --- result ---------------------------------------------------------------------------

    def _outputs(self, names: Sequence[str], scope: _Scope, inputs: set[str]) -> list[Value]:
        """Network outputs in memory of their own: inputs, constants and repeated values are copied."""
        out: list[Value] = []
        used: set[str] = set()
        for name in names:
            tensor = scope.tensors[name]
            storage = tensor.name
            while storage in self._views:
                storage = self._views[storage]
            if storage in inputs or storage in used or tensor.value is not None:
                op = Lowering("Copy", name, 1, {}, self._names, [name])
                source = tensor.buffer
                tensor = op.compute(tensor.shape, lambda *i, b=source: b[i], tensor.dtype, "copy")
                self._buffers[tensor.name] = tensor.buffer
                operation = op.finish([tensor])
                self._operations[tensor.name] = operation
            used.add(storage)
            out.append(Value(name, tensor.buffer))
        return out

    def _graph(self, name: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
        """The graph without operations, constants and views that no output needs."""
        producer = {n: op for op in self._operations.values() for n in op.outputs}
        needed: set[str] = set()
        pending = [v.buffer.name for v in outputs]
        while pending:
            n = pending.pop()
            if n in needed:
                continue
            needed.add(n)
            if n in self._views:
                pending.append(self._views[n])
            elif n in producer:
                pending.extend(producer[n].inputs)
                needed.update(producer[n].outputs)
        needed |= {v.buffer.name for v in inputs}
        return Graph(
            name,
            tuple(inputs),
            tuple(outputs),
            tuple(op for op in self._operations.values() if set(op.outputs) & needed),
            {n: b for n, b in self._buffers.items() if n in needed},
            {n: a for n, a in self._constants.items() if n in needed},
            {n: s for n, s in self._views.items() if n in needed},
        )


@dataclass(frozen=True, slots=True)
class _Node:
    """A node with its attributes resolved."""

    proto: NodeProto
    domain: str
    kind: str
    name: str
    opset: int
    attributes: dict[str, Any]


def _uses(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> Counter[str]:
    """How often each name is read, by nodes (subgraphs count twice: never fold across them) or as an output."""
    count = Counter(outputs)
    for n in nodes:
        count.update(n.input)
        for a in n.attribute:
            for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
                inner = _uses(g.node, [v.name for v in g.output])
                count.update({k: 2 * v for k, v in inner.items()})
    return count


def _dense(sparse: Any, folder: str) -> np.ndarray:
    """Contents of a sparse initializer as a dense array."""
    values, positions = tensor_array(sparse.values, folder), tensor_array(sparse.indices, folder)
    out = np.zeros(tuple(sparse.dims), values.dtype)
    where = tuple(positions.T) if positions.ndim == 2 else np.unravel_index(positions, out.shape)
    out[where] = values
    return out
