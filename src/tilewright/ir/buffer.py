"""Buffers: typed arrays with a place (memory) and a physical layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

from tilewright.ir.expr import Const, Expr, ExprLike, Load, idx
from tilewright.ir.types import DType
from tilewright.util.errors import IRTypeError

#: The memory of kernel arguments when nothing else is said.
MAIN_MEMORY = "dram"


@dataclass(frozen=True, slots=True)
class Layout:
    """Physical order of a buffer's elements, independent of its logical indices.

    ``dims`` lists the physical dimensions, outermost first, as (logical dimension, block): the
    physical coordinate is ``index[dimension] // block``, taken modulo the next coarser block of
    the same dimension over ``block``. A [K, N] panel packed by 16 columns is
    ``((1, 16), (0, 1), (1, 1))``: [ceil(N/16), K, 16]. Programs never see it: indices in the IR
    stay logical, and only code generation and cost models apply the layout.
    """

    dims: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return " ".join(f"{d}/{b}" if b > 1 else str(d) for d, b in self.dims)

    @staticmethod
    def parse(text: str) -> Layout:
        """The layout that ``str(layout)`` printed, e.g. ``"1/16 0 1"``."""
        dims = []
        for part in text.split():
            d, _, b = part.partition("/")
            if not d.isdigit() or (b and not b.isdigit()):
                raise IRTypeError(f"layout {text!r}: {part!r} is not DIM or DIM/BLOCK", hint='write like "1/16 0 1"')
            dims.append((int(d), int(b or 1)))
        return Layout(tuple(dims))

    def check(self, rank: int) -> None:
        """Raise IRTypeError unless every logical dimension is laid out exactly once."""
        for d in range(rank):
            blocks = [b for dim, b in self.dims if dim == d]
            if not blocks or blocks[-1] != 1:
                raise IRTypeError(f"layout '{self}': dimension {d} has no innermost part", hint=f"end it with a plain {d}")
            if any(x <= y or x % y for x, y in pairwise(blocks)):
                raise IRTypeError(f"layout '{self}': blocks {blocks} of dimension {d} must shrink and divide")
        if any(not 0 <= d < rank for d, _ in self.dims):
            raise IRTypeError(f"layout '{self}' names a dimension beyond rank {rank}")

    def physical_shape(self, shape: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """Extents of the physical dimensions, padding included."""
        return tuple((shape[d] + (b - 1)) // b if c is None else idx(c // b) for (d, b), c in self._coarser())

    def physical_index(self, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """Physical coordinates of the element with logical ``index``."""
        return tuple(index[d] // b if c is None else index[d] % c // b for (d, b), c in self._coarser())

    def _coarser(self) -> list[tuple[tuple[int, int], int | None]]:
        """Each physical dimension with the next coarser block of its logical dimension (None: outermost)."""
        last: dict[int, int] = {}
        out: list[tuple[tuple[int, int], int | None]] = []
        for d, b in self.dims:
            out.append(((d, b), last.get(d)))
            last[d] = b
        return out


@dataclass(frozen=True, slots=True)
class Buffer:
    """A typed array. Identified in a kernel by its unique ``name``; shape () is a scalar."""

    name: str
    dtype: DType
    shape: tuple[Expr, ...]
    memory: str = MAIN_MEMORY
    layout: Layout | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __getitem__(self, indices: ExprLike | tuple[ExprLike, ...]) -> Load:
        """A load; checks the number of indices."""
        ix = indices if isinstance(indices, tuple) else (indices,)
        if len(ix) != self.rank:
            raise IRTypeError(f"{self.name} has {self.rank} dimensions but is indexed with {len(ix)}")
        return Load(self, tuple(idx(i) for i in ix))

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints; IRTypeError if an extent is symbolic."""
        out = []
        for d, s in enumerate(self.shape):
            if not isinstance(s, Const):
                raise IRTypeError(f"dimension {d} of {self.name} is symbolic ({s})", hint="specialize the kernel: bind its sizes")
            out.append(int(s.value))
        return tuple(out)

    def physical_shape(self) -> tuple[Expr, ...]:
        """Extents in memory order, padding of the layout included."""
        return self.layout.physical_shape(self.shape) if self.layout else self.shape

    @property
    def nbytes(self) -> int:
        """Bytes it occupies (static shapes only)."""
        return prod(int(e.value) for e in self.physical_shape() if isinstance(e, Const)) * self.dtype.nbytes

    def with_(self, **changes: object) -> Buffer:
        """A copy with fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]


def buffer(name: str, dtype: DType, shape: tuple[ExprLike, ...], memory: str = MAIN_MEMORY, layout: Layout | str | None = None) -> Buffer:
    """A checked buffer: extents become index expressions, the layout must cover the rank."""
    lay = Layout.parse(layout) if isinstance(layout, str) else layout
    if lay:
        lay.check(len(shape))
    dims = tuple(idx(s) for s in shape)
    for d, s in enumerate(dims):
        if isinstance(s, Const) and s.value < 0:
            raise IRTypeError(f"dimension {d} of {name} is negative: {s.value}")
    return Buffer(name, dtype, dims, memory, lay)
