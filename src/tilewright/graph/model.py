"""The tensor graph: typed values of static shape, and operations that carry their loop nests.

An :class:`Operation` is what one network node became: statement nests over buffers that the graph
owns. Everything later (fusion, layouts, memory planning) reads those nests, so no pass needs to
know operator names. A layout set on a buffer of the graph is seen by its producer and consumers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Const, Expr, const, idx, loads
from tilewright.ir.stmt import Stmt, own_exprs, walk, written_buffers
from tilewright.ir.types import DType


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value during lowering: its buffer, and its contents when they are known at compile time.

    ``sources`` are the graph inputs whose contents decide the value (empty for constants).
    """

    buffer: Buffer
    value: np.ndarray | None = field(default=None, compare=False)
    sources: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Name of its buffer."""
        return self.buffer.name

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.buffer.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents: known numbers."""
        return self.buffer.static_shape

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return self.buffer.rank

    def __getitem__(self, indices: Expr | int | tuple[Expr | int, ...]) -> Expr:
        """The element at ``indices``; known scalars become literals so that they cost no load."""
        if self.value is not None and self.value.size == 1 and (self.dtype.is_float or self.dtype.is_int) and self.dtype.bits >= 32:
            return literal(self.value, self.dtype)
        return self.buffer[indices]

    def at(self, indices: tuple[Expr, ...], shape: tuple[int, ...] | None = None) -> Expr:
        """The element that multidirectional (NumPy) broadcasting puts at ``indices`` of the result.

        With the ``shape`` of the result, dimensions of equal extent 1 keep their loop variable.
        """
        tail = indices[len(indices) - self.rank :]
        full = (0,) * self.rank if shape is None else shape[len(shape) - self.rank :]
        return self[tuple(i if s != 1 or f == 1 else idx(0) for i, s, f in zip(tail, self.shape, full, strict=True))]


def literal(value: np.ndarray, dtype: DType) -> Const:
    """The single element of ``value`` as a constant of ``dtype``."""
    return const(value.reshape(()).item(), dtype)


@dataclass(frozen=True, slots=True)
class Value:
    """A named input or output of the network and the buffer that holds it."""

    name: str
    buffer: Buffer


@dataclass(frozen=True, slots=True)
class Operation:
    """One lowered node: nests that write ``outputs`` (and ``temps``, private to the operation)."""

    kind: str
    name: str
    nests: tuple[Stmt, ...]
    outputs: tuple[str, ...]
    temps: tuple[Buffer, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Buffers of the graph that the nests read, in the order of their first load."""
        own = {b.name for b in self.temps} | set(self.outputs)
        loaded = (ld.buffer.name for n in self.nests for s in walk(n) for e in own_exprs(s) for ld in loads(e))
        return tuple(dict.fromkeys(n for n in loaded if n not in own))

    @property
    def writes(self) -> set[str]:
        """Buffers the nests store to."""
        return set().union(*(written_buffers(n) for n in self.nests)) if self.nests else set()


@dataclass(frozen=True, slots=True)
class Graph:
    """A network of static shapes in execution order.

    ``views`` maps a buffer to the buffer whose memory it shares under another shape (reshapes);
    ``constants`` holds the contents of buffers known at compile time, in storage form
    (bfloat16 as its bits in uint16).
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    buffers: Mapping[str, Buffer]
    constants: Mapping[str, np.ndarray]
    views: Mapping[str, str]

    def storage(self, name: str) -> str:
        """The buffer whose memory ``name`` occupies."""
        while name in self.views:
            name = self.views[name]
        return name

    def free_layouts(self) -> list[str]:
        """Buffers whose physical layout is the compiler's choice.

        Not inputs and outputs (the caller's arrays), not reshaped values (a view needs row-major
        order), not constants (each kernel packs them as it likes).
        """
        fixed = {v.buffer.name for v in (*self.inputs, *self.outputs)} | self.views.keys() | set(self.constants)
        fixed |= {self.storage(n) for n in fixed}
        return [n for n in self.buffers if n not in fixed]

    def with_layouts(self, layouts: Mapping[str, Buffer]) -> Graph:
        """The graph with some buffers replaced (same name, type and shape, another layout)."""
        return replace(self, buffers={**self.buffers, **layouts})

    def consumers(self) -> dict[str, list[int]]:
        """For each storage buffer, the positions of the operations that read it."""
        out: dict[str, list[int]] = {}
        for i, op in enumerate(self.operations):
            for name in dict.fromkeys(self.storage(n) for n in op.inputs):
                out.setdefault(name, []).append(i)
        return out
