"""What an operator's lowering is written with: tensors in, loop nests out.

A lowering is a plain function ``(op, *inputs) -> outputs`` marked with :func:`operator`. It calls
:meth:`Lowering.compute` (an element-wise or data-movement nest), :meth:`Lowering.reduce` (an
initialising nest and a reduction nest), :meth:`Lowering.view` (another shape of the same memory)
or returns an array that is known now. Shapes and types of the results follow from what it built:
there is no second shape inference to keep in step.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from tilewright.graph.elements import storage_array
from tilewright.graph.model import Operation, Tensor
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Const, Expr, ExprLike, Var, const, idx
from tilewright.ir.stmt import Block, For, Stmt, loop, store
from tilewright.ir.types import DType
from tilewright.util.errors import ImportFailure

Element = Callable[..., ExprLike]
Place = Callable[..., tuple[Expr, ...]]


class StaticOperandRequired(ImportFailure):
    """An operand that decides a shape is not known at compile time; ``sources`` are the graph inputs it comes from."""

    def __init__(self, message: str, sources: frozenset[str], *, hint: str | None = None):
        self.sources = sources
        super().__init__(message, hint=hint)


class Names:
    """Fresh names ``stem_N`` for the buffers and loops of one graph."""

    def __init__(self) -> None:
        self._numbers = count()

    def fresh(self, stem: str) -> str:
        """A name that begins with ``stem`` and was not given before."""
        return f"{stem}_{next(self._numbers)}"


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """What a lowering function says about itself: the ONNX operators it implements."""

    types: tuple[str, ...]
    domain: str


def operator(*types: str, domain: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a lowering function as the implementation of the ONNX operators ``types``."""

    def mark(f: Callable[..., Any]) -> Callable[..., Any]:
        f.operator_spec = OperatorSpec(types, domain)  # type: ignore[attr-defined]
        return f

    return mark


class Lowering:
    """The node being lowered: its attributes, and the statements emitted for it so far."""

    def __init__(self, kind: str, name: str, opset: int, attributes: dict[str, Any], names: Names, outputs: Sequence[str]):
        self.kind, self.name, self.opset = kind, name, opset
        self.outputs = tuple(outputs)  # names of the results the model uses ("" where unused)
        self._attributes = attributes
        self._names = names
        self._blocks: list[list[Stmt]] = [[]]
        self._made: dict[str, Tensor] = {}
        self.views: dict[str, str] = {}
        self.arrays: dict[str, Tensor] = {}

    # --- what the node says ---------------------------------------------------------------

    def attribute(self, name: str, default: Any = None) -> Any:
        """Attribute ``name`` as a Python value (bytes decoded), or ``default``."""
        return self._attributes.get(name, default)

    def refuse(self, why: str, hint: str | None = None) -> ImportFailure:
        """An error about this node, to be raised by the caller."""
        return ImportFailure(f"{self.kind} node {self.name!r} (opset {self.opset}): {why}", hint=hint)

    def known(self, x: Tensor, what: str) -> np.ndarray:
        """Contents of operand ``x``, which must be known at compile time since they decide ``what``."""
        if x.value is None:
            raise StaticOperandRequired(
                f"{self.kind} node {self.name!r}: its {what} must be known at compile time but depends on input(s) "
                f"{', '.join(sorted(x.sources)) or '(data)'}",
                x.sources,
                hint="bind those inputs: compile(model, constants={name: array})",
            )
        return x.value

    def known_ints(self, x: Tensor | None, what: str, attribute: str | None = None) -> list[int] | None:
        """Integers that are an operand in newer opsets and an attribute in older ones; None if absent."""
        if x is not None:
            return [int(v) for v in self.known(x, what).reshape(-1)]
        value = self.attribute(attribute or what)
        return None if value is None else [int(v) for v in (value if isinstance(value, (list, tuple)) else [value])]

    def axis(self, value: int, rank: int) -> int:
        """``value`` as an axis of ``rank`` dimensions (negative counts from the end)."""
        if not -rank <= value < rank and not (rank == 0 and value in (0, -1)):
            raise self.refuse(f"axis {value} is outside the {rank} dimensions of its operand")
        return value + rank if value < 0 else value

    # --- nests ----------------------------------------------------------------------------

    def tensor(self, shape: Sequence[int], dtype: DType, stem: str | None = None) -> Tensor:
        """A new tensor that the following statements will write."""
        made = Tensor(buffer(self._names.fresh(stem or self.kind.lower()), dtype, tuple(int(s) for s in shape)))
        self._made[made.name] = made
        return made

    def emit(self, *stmts: Stmt) -> None:
        """Append statements to the node's program."""
        self._blocks[-1].extend(stmts)

    def indices(self, shape: Sequence[int], names: Sequence[str] | None = None, stem: str = "i") -> list[Var]:
        """Fresh loop variables, one for each extent."""
        stems = list(names) if names else [f"{stem}{d}" for d in range(len(shape))]
        return [Var(self._names.fresh(s)) for s in stems]

    def nest(self, shape: Sequence[int], iterators: Sequence[Var], *body: Stmt) -> Stmt:
        """``body`` inside loops over ``shape``, the first outermost."""
        stmts = body
        for extent, v in zip(reversed(shape), reversed(iterators), strict=True):
            stmts = (loop(v.name, 0, int(extent), *stmts),)
        return stmts[0] if len(stmts) == 1 else Block(stmts)

    def compute(self, shape: Sequence[int], f: Element, dtype: DType, stem: str | None = None) -> Tensor:
        """A tensor with element ``f(*indices)`` at every index; one perfect nest.

        Loops are named after the parameters of ``f`` (``i0, i1..`` for ``*args``).
        """
        out = self.tensor(shape, dtype, stem)
        self.assign(out, f)
        return out

    def assign(self, out: Tensor, f: Element, shape: Sequence[int] | None = None, at: Place | None = None, op: str | None = None) -> None:
        """``out[at(*i)] (op)= f(*i)`` over ``shape`` (by default: every element of ``out``)."""
        shape = out.shape if shape is None else shape
        iterators = self.indices(shape, parameter_names(f, len(shape)))
        target = at(*iterators) if at else tuple(iterators)
        self.emit(self.nest(shape, iterators, store(out.buffer[target], f(*iterators), op)))

    def reduce(
        self,
        shape: Sequence[int],
        over: Sequence[int],
        f: Element,
        dtype: DType,
        op: str = "+",
        stem: str | None = None,
        names: Sequence[str] | None = None,
    ) -> Tensor:
        """``out[i] = op over r of f(*i, *r)``: a nest that initialises and a nest that reduces.

        ``shape`` are the extents of the result, ``over`` those of the reduced axes; half-width
        floats accumulate in f32 and are rounded once at the end.
        """
        wide = ty.f32 if dtype.is_float and dtype.bits < 32 else dtype
        out = self.tensor(shape, wide, stem if wide == dtype else "acc")
        start = extreme(wide, op) if op in ("min", "max") else const(1 if op == "*" else 0, wide)
        named = (
            names
            or parameter_names(f, len(shape) + len(over))
            or [f"i{d}" for d in range(len(shape))] + [f"r{d}" for d in range(len(over))]
        )
        first = self.indices(shape, named[: len(shape)])
        self.emit(self.nest(shape, first, store(out.buffer[tuple(first)], start)))
        every = self.indices([*shape, *over], named)
        self.emit(self.nest([*shape, *over], every, store(out.buffer[tuple(every[: len(shape)])], f(*every), op)))
        return out if wide == dtype else self.compute(shape, lambda *i: out[i], dtype, stem)

    @contextmanager
    def sequential(self, extent: int, stem: str) -> Iterator[Expr]:
        """Statements emitted inside run once for each value of the yielded index, in order."""
        if extent == 1:
            yield idx(0)
            return
        self._blocks.append([])
        v = Var(self._names.fresh(stem))
        yield v
        body = self._blocks.pop()
        self.emit(For(v, idx(0), idx(extent), Block(tuple(body))))

    def view(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """``x`` under another shape of as many elements: no data moves."""
        shape = tuple(int(s) for s in shape)
        if math.prod(shape) != math.prod(x.shape):
            raise self.refuse(f"shape {list(shape)} does not hold the {math.prod(x.shape)} elements of {list(x.shape)}")
        if x.value is not None:
            return self.array(x.value.reshape(shape), x.dtype)
        if x.name in self._made and x.name not in self.views:
            return self.compute(shape, lambda *i: x[unravel(ravel(i, shape), x.shape)], x.dtype)
        out = self.tensor(shape, x.dtype, "view")
        self.views[out.name] = x.name
        return out

    def array(self, value: np.ndarray, dtype: DType | None = None) -> Tensor:
        """A tensor whose contents are known now (storage form when ``dtype`` is given)."""
        stored, found = (value, dtype) if dtype is not None else storage_array(value)
        made = Tensor(buffer(self._names.fresh("w"), found, stored.shape), stored)
        self.arrays[made.name] = made
        return made

    # --- result ---------------------------------------------------------------------------

    def finish(self, results: Sequence[Tensor | None]) -> Operation:
        """The operation made of everything emitted; what is not a result is private to it."""
        outputs = tuple(t.name for t in results if t is not None and t.value is None and t.name in self._made and t.name not in self.views)
        temps = tuple(t.buffer for t in self._made.values() if t.name not in outputs and t.name not in self.views)
        return Operation(self.kind, self.name, tuple(self._blocks[0]), outputs, temps)


def parameter_names(f: Element, number: int) -> list[str] | None:
    """Names of the parameters of ``f`` when there are exactly ``number`` positional ones."""
    parameters = list(inspect.signature(f).parameters.values())
    if len(parameters) == number and all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters):
        return [p.name for p in parameters]
    return None


def extreme(dtype: DType, op: str) -> Const:
    """The neutral element of ``min`` or ``max`` in ``dtype``."""
    if dtype.is_float:
        return const(math.inf if op == "min" else -math.inf, dtype)
    lo, hi = dtype.range
    return const(hi if op == "min" else lo, dtype)


def ravel(index: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """Row-major position of ``index`` in ``shape``."""
    out: Expr = idx(0)
    for i, s in zip(index, shape, strict=True):
        out = out * int(s) + i
    return out


def unravel(position: Expr, shape: Sequence[int]) -> tuple[Expr, ...]:
    """Index in ``shape`` of row-major ``position``."""
    out: list[Expr] = []
    stride = math.prod(shape)
    for d, s in enumerate(shape):
        stride = stride // int(s) if s else 0
        part = position // stride if stride else idx(0)
        out.append(part if d == 0 else part % int(s) if s else idx(0))
    return tuple(out)


def broadcast(op: Lowering, *tensors: Tensor) -> tuple[int, ...]:
    """The shape that NumPy broadcasting gives the operands."""
    try:
        return tuple(int(s) for s in np.broadcast_shapes(*(t.shape for t in tensors)))
    except ValueError:
        raise op.refuse(f"operand shapes {', '.join(str(list(t.shape)) for t in tensors)} do not broadcast") from None
