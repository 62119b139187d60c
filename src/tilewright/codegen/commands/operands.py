"""What a window of a buffer is to an instruction word: an address, extents, and the strides that state must hold."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.codegen.commands.placing import Place, line_elements
from tilewright.codegen.commands.program import Operand, Pointer, Tile
from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr, Var
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Window
from tilewright.schedule.region import largest_extent
from tilewright.util.errors import CodegenError


@dataclass(frozen=True, slots=True)
class Placed:
    """An operand, and its strides by name (``stride``, ``block_stride``, ``pitch``); a stride that nothing moves along is missing."""

    operand: Operand
    strides: dict[str, int]


def in_main_memory(scope: Simplifier, w: Window) -> Placed:
    """A window of an array of the program: its first byte, and bytes from row to row."""
    b = w.buffer
    flat, lanes = _flat(w, tuple(int(e.value) for e in b.physical_shape() if isinstance(e, ex.Const)))
    inner, _ = _inside(scope, w, lanes)
    address = inner.linear(flat)
    start, moving = _parts(address, lanes, w)
    if len(lanes) > 1 and moving[-1] not in (None, 1):
        raise CodegenError(f"{w}: consecutive elements of a row are {moving[-1]} apart in main memory", hint="rows are contiguous")
    strides = {"stride": moving[0] * b.dtype.nbytes} if len(lanes) > 1 and moving[0] is not None else {}
    return Placed(Pointer(b.name, scope.expr(scope.render(start.times(b.dtype.nbytes)))), strides)


def in_lines(scope: Simplifier, machine: Machine, w: Window, place: Place) -> Placed:
    """A window of at most three dimensions in a memory of lines: first line, rows, columns; lines from row to row, from block to block.

    Of three dimensions (an image: rows, pixels of a row, elements) the lines of an image follow each other, each row as many lines
    after the one before as ``pitch`` says. CodegenError unless each row is in lines of its own, from the start of a line on.
    """
    b = w.buffer
    if len(w.spans) > 3:
        raise CodegenError(f"{w} has {len(w.spans)} dimensions: an operand in {b.memory} has rows and columns, or rows of pixels")
    per_line = line_elements(machine, b)
    physical = [int(e.value) for e in b.physical_shape() if isinstance(e, ex.Const)]
    flat, lanes = _flat(w, (*physical[:-1], per_line))  # every row of the innermost dimension has lines to itself
    rows, cols = lanes[:-1], lanes[-1:]
    ends = [largest_extent(scope, ex.idx(0), s.extent) for s in w.spans]

    def along(lane: Var | None, step: int, count: int | None) -> tuple[Simplifier, Expr]:
        """The scope and the element for ``count`` steps of one lane, the others at 0."""
        ranges = {**scope.ranges, **({lane.name: (0, None if count is None else count - 1)} if lane is not None else {})}
        moved = {v.name: v * step if v is lane else ex.idx(0) for v in lanes}
        return Simplifier(ranges, list(scope.facts)), ex.substitute(flat, moved)

    def lines(lane: Var, step: int, count: int | None) -> int:
        inner, at = along(lane, step, count)
        _, (stride,) = _parts(inner.linear(at // per_line), [lane], w)
        return stride or 0

    for lane in cols:
        inner, at = along(lane, 1, min(per_line, ends[-1] or per_line))
        if inner.expr(at % per_line) != inner.expr(lane):
            raise CodegenError(f"{w}: its columns do not start at a line of {b.memory}", hint=f"tile by multiples of {per_line}")
    strides = {}
    for d, lane in enumerate(rows):
        inner, at = along(lane, 1, ends[d])
        if inner.expr(at % per_line) != ex.idx(0):
            raise CodegenError(f"{w}: its rows share lines of {b.memory}", hint=f"the last dimension of its layout has {per_line} elements")
        if len(rows) == 1 and ends[0] != 1:
            strides["stride"] = lines(lane, 1, ends[0])
    if len(rows) == 2:
        strides["pitch"] = lines(rows[0], 1, None)
        if (apart := lines(rows[1], 1, None)) != 1:
            raise CodegenError(f"{w}: neighbours in a row of pixels are {apart} lines of {b.memory} apart", hint="put them side by side")
    if cols and (ends[-1] is None or ends[-1] > per_line):
        strides["block_stride"] = lines(cols[0], per_line, None if ends[-1] is None else -(-ends[-1] // per_line))
    inner, first = along(None, 1, None)
    height = w.spans[len(rows) - 1].extent if rows else ex.idx(1)
    if len(rows) == 2:
        height = (w.spans[0].extent - 1) * strides["pitch"] + height
    width = w.spans[-1].extent if cols else ex.idx(1)
    return Placed(Tile(b.memory, scope.expr(place.base + first // per_line), scope.expr(height), scope.expr(width)), strides)


def _flat(w: Window, shape: tuple[int, ...]) -> tuple[Expr, list[Var]]:
    """The number of an element in memory order, over one lane for each span of the window."""
    lanes = [Var(f"lane {d}") for d in range(len(w.spans))]
    index = w.element(tuple(lanes))
    physical = w.buffer.layout.physical_index(index) if w.buffer.layout else index
    flat: Expr = ex.idx(0)
    for i, n in zip(physical, shape, strict=True):
        flat = flat * n + i
    return flat, lanes


def _inside(scope: Simplifier, w: Window, lanes: list[Var]) -> tuple[Simplifier, list[int | None]]:
    """A scope in which the lanes have their ranges, and the largest extent of each."""
    ends = [largest_extent(scope, ex.idx(0), s.extent) for s in w.spans]
    ranges = {v.name: (0, None if n is None else n - 1) for v, n in zip(lanes, ends, strict=True)}
    return Simplifier({**scope.ranges, **ranges}, list(scope.facts)), ends


def _parts(address: Linear, lanes: list[Var], w: Window) -> tuple[Linear, list[int | None]]:
    """The part of an address that no lane moves, and the step of each lane."""
    moving = [address.terms.get(v) for v in lanes]
    start = Linear({t: c for t, c in address.terms.items() if t not in lanes}, address.const)
    if any(ex.free_vars(t) & {v.name for v in lanes} for t in start.terms):
        raise CodegenError(f"{w}: its elements are not evenly spaced in memory", hint="index the array by the loops themselves")
    return start, moving
