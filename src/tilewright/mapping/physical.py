"""Physical mapping: tiles, padding, packed operands, and what they cost for concrete extents.

f_t = outer * I_t + inner with ceil(F_t / I_t) outer trips: every operand becomes a packed array
[unassigned iterations it moves with..., outer trips of its axes..., instruction tile...], with
zeros outside the operator's box.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING

from tilewright.ir.types import DType
from tilewright.mapping.operator import Operand
from tilewright.mapping.validity import pairs

if TYPE_CHECKING:
    from tilewright.mapping.mapping import Mapping


@dataclass(frozen=True, slots=True)
class PackedOperand:
    """One operand in instruction order: array ``(*loops, *trips, *tile)`` of ``dtype``.

    ``loops`` are columns of unassigned iterations and ``trips`` axis numbers that index it.
    ``memory`` is where the instruction wants a tile.
    """

    software: Operand
    hardware: Operand
    dtype: DType
    loops: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    tile: tuple[int, ...]
    memory: str

    @property
    def nbytes(self) -> int:
        """Bytes of the whole packed array."""
        return -(-prod(self.shape) * self.dtype.bits // 8)

    @property
    def tile_bytes(self) -> int:
        """Bytes one instruction touches."""
        return -(-prod(self.tile) * self.dtype.bits // 8)


@dataclass(frozen=True, slots=True)
class Placement:
    """A mapping with numbers: everything is exact for the operator's extents.

    ``tiles`` and ``trips`` are by axis: iterations one issue does, and issues along the axis.
    """

    mapping: Mapping
    tiles: tuple[int, ...]
    trips: tuple[int, ...]
    operands: tuple[PackedOperand, ...]

    @property
    def instructions(self) -> int:
        """Issues in all: trips of every axis and of the loops that stay outside."""
        return prod(self.trips) * prod(self.mapping.op.extents[u] for u in self.mapping.unassigned)

    @property
    def padded_work(self) -> Fraction:
        """Evaluations executed over evaluations wanted: 1 if nothing is padded."""
        return Fraction(self.instructions * prod(self.tiles), self.mapping.op.volume)

    @property
    def fits(self) -> bool:
        """Whether every fused extent fills the instruction's extent: feasible even for hardware that cannot pad."""
        fused = self.mapping.fused.values()
        return all(f >= i.extent for f, i in zip(fused, self.mapping.target.view.iterations, strict=True))

    @property
    def padded_axes(self) -> tuple[int, ...]:
        """Axes whose last trip does more than is wanted."""
        fused = self.mapping.fused.values()
        return tuple(t for t, f in enumerate(fused) if self.tiles[t] * self.trips[t] != f)

    @property
    def packing_bytes(self) -> int:
        """Bytes written into packed arrays: every source once, and the output's partial results."""
        return sum(o.nbytes for o in self.operands)

    @property
    def footprint(self) -> dict[str, int]:
        """Bytes one instruction holds in every memory, by the memory's name."""
        out: dict[str, int] = {}
        for o in self.operands:
            out[o.memory] = out.get(o.memory, 0) + o.tile_bytes
        return out


def place(m: Mapping) -> Placement:
    """The placement of ``m`` for its operator's extents."""
    axes = m.target.axes
    tiles = tuple(m.target.tile_extent(t, m.fused[t]) for t in axes)
    trips = tuple(-(-m.fused[t] // n) for t, n in zip(axes, tiles, strict=True))
    kernel = m.target.kernel_for(tiles)
    packed = []
    for soft, hard in pairs(m.op, m.target.view, m.binding):
        slot = kernel.arg(hard.name)
        loops = tuple(u for u in m.unassigned if soft.uses(u))
        used = tuple(t for t in range(len(axes)) if hard.uses(t))
        shape = (*(m.op.extents[u] for u in loops), *(trips[t] for t in used), *slot.static_shape)
        packed.append(PackedOperand(soft, hard, slot.dtype, loops, used, shape, slot.static_shape, slot.memory))
    return Placement(m, tiles, trips, tuple(packed))


def rank(mappings: Iterable[Mapping]) -> list[Mapping]:
    """Mappings of one operator (onto one or several instruction shapes), least real work first.

    Work is the padded volume, not the number of issues; ties go to fewer bytes packed.
    """

    def cost(m: Mapping) -> tuple[Fraction, int, int]:
        p = m.physical()
        return p.padded_work, p.packing_bytes, p.instructions

    return sorted(mappings, key=cost)


def feasible(mappings: Iterable[Mapping]) -> list[Mapping]:
    """Those that hardware without padding can take: every fused extent fills the instruction's extent."""
    return [m for m in mappings if m.physical().fits]
