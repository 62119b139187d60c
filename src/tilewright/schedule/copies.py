"""Copy nests between a buffer and a tile of it, and where they are placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt, Store, loops, read_buffers, written_buffers
from tilewright.schedule.nest import Place, constant, fresh, loop_place, replace_stmt
from tilewright.schedule.region import Box
from tilewright.util.errors import ScheduleError

if TYPE_CHECKING:
    from tilewright.hw import Machine


@dataclass(frozen=True, slots=True)
class Tile:
    """A local ``buffer`` holding ``box`` of ``source``; its element 0 is element ``origin`` of the source."""

    source: Buffer
    buffer: Buffer
    box: Box
    origin: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """The statements that use a buffer in the block where its copies go."""

    place: Place
    stmts: tuple[Stmt, ...]
    first: int
    last: int

    @property
    def used(self) -> tuple[Stmt, ...]:
        return self.stmts[self.first : self.last + 1]


def body_using(kernel: Kernel, name: str, loop: str | None, primitive: str) -> Body:
    """The body of ``loop`` (None: of the kernel) and which of its statements use buffer ``name``."""
    place = loop_place(kernel, loop, primitive) if loop is not None else Place((), kernel.body)
    stmts = place.node.body.stmts if isinstance(place.node, For) else kernel.body.stmts
    using = [n for n, s in enumerate(stmts) if name in read_buffers(s) | written_buffers(s)]
    if not using:
        where = f"loop {loop}" if loop else f"kernel {kernel.name}"
        raise ScheduleError(f"{primitive} {name}: {where} does not use it", hint="name a loop around its uses")
    return Body(place, stmts, using[0], using[-1])


def buffer_in_scope(kernel: Kernel, name: str, body: Body, primitive: str) -> Buffer:
    """The buffer called ``name`` (declared outside ``body``: a copy of it inside would be pointless)."""
    visible = list(kernel.args)
    for s in (*body.place.ancestors, body.place.node):
        if isinstance(s, Block):
            visible += [t.buffer for t in s.stmts if isinstance(t, Alloc)]
    visible += [t.buffer for t in body.stmts if isinstance(t, Alloc)]
    for b in visible:
        if b.name == name:
            return b
    raise ScheduleError(
        f"{primitive}: no buffer {name!r} is visible there", hint=f"visible: {', '.join(sorted({b.name for b in visible}))}"
    )


def rounded(shape: Sequence[Expr], layout: Layout | None) -> tuple[Expr, ...]:
    """``shape`` rounded up to whole blocks of the layout."""
    largest = {d: max(b for dim, b in layout.dims if dim == d) for d, _ in layout.dims} if layout else {}
    out = []
    for d, s in enumerate(shape):
        m = largest.get(d, 1)
        n = constant(s)
        out.append(ex.idx(-(-n // m) * m) if n is not None else (s + (m - 1)) // m * m if m > 1 else s)
    return tuple(out)


def parse_layout(layout: str | None, rank: int) -> Layout | None:
    """The layout written as text, checked to cover ``rank`` dimensions (IRTypeError)."""
    if layout is None:
        return None
    out = Layout.parse(layout)
    out.check(rank)
    return out


def copy_in(scope: Simplifier, tile: Tile, taken: set[str], fill: bool = False) -> tuple[Stmt, tuple[str, ...]]:
    """The nest that fills the tile; with ``fill`` all of it, zero where the source has no element. Returns its loops."""
    names = _loop_names(tile, taken)
    if not fill:
        variables, index = _counters(scope, tile, names)
        inner: Stmt = Store(tile.buffer, _minus(index, tile.origin), Load(tile.source, index))
        return _nest(variables, inner)
    variables = [(Var(n), ex.idx(0), s) for n, s in zip(names, tile.buffer.shape, strict=True)]
    local = tuple(v for v, _, _ in variables)
    index = tuple(v + o for v, o in zip(local, tile.origin, strict=True))
    value: Expr = Load(tile.source, index)
    for d in reversed(range(len(index))):
        inside = ex.logical("and", ex.compare(">=", index[d], ex.idx(0)), ex.compare("<", index[d], tile.source.shape[d]))
        value = ex.Where(inside, value, ex.const(0, tile.source.dtype), tile.source.dtype)
    return _nest(variables, Store(tile.buffer, local, value))


def copy_out(scope: Simplifier, tile: Tile, taken: set[str]) -> tuple[Stmt, tuple[str, ...]]:
    """The nest that writes the box of the tile back to its source. Returns its loops."""
    variables, index = _counters(scope, tile, _loop_names(tile, taken, "out"))
    return _nest(variables, Store(tile.source, index, Load(tile.buffer, _minus(index, tile.origin))))


def _loop_names(tile: Tile, taken: set[str], mark: str = "") -> list[str]:
    return [fresh(taken, f"{tile.buffer.name}_{mark}{d}") for d in range(tile.source.rank)]


def _minus(index: tuple[Expr, ...], origin: tuple[Expr, ...]) -> tuple[Expr, ...]:
    return tuple(i - o for i, o in zip(index, origin, strict=True))


def _counters(scope: Simplifier, tile: Tile, names: list[str]) -> tuple[list[tuple[Var, Expr, Expr]], tuple[Expr, ...]]:
    """Loops from 0 over the box, and the source's index in them (a dimension of one element has no loop)."""
    variables, index = [], []
    for name, lo, hi in zip(names, tile.box.lo, tile.box.hi, strict=True):
        extent = scope.expr(hi - lo)
        if constant(extent) == 1:
            index.append(lo)
            continue
        variables.append((Var(name), ex.idx(0), extent))
        index.append(lo + Var(name))
    return variables, tuple(index)


def _nest(variables: list[tuple[Var, Expr, Expr]], inner: Stmt) -> tuple[Stmt, tuple[str, ...]]:
    for v, lo, hi in reversed(variables):
        inner = For(v, lo, hi, Block((inner,)))
    return inner, tuple(v.name for v, _, _ in variables)


def check_memory(machine: Machine | None, buffer: Buffer, primitive: str) -> None:
    """MachineError for a memory the machine lacks, ScheduleError for a buffer larger than its memory."""
    if machine is None:
        return
    memory = machine.memory(buffer.memory)
    fixed = all(constant(e) is not None for e in buffer.shape)
    capacity = memory.bytes
    if fixed and isinstance(capacity, int) and buffer.nbytes > capacity:
        raise ScheduleError(
            f"{primitive}: {buffer.name} takes {buffer.nbytes} bytes, {machine.name}'s memory {memory.name} has {capacity}",
            hint="cache at an inner loop, or split the loops into smaller tiles",
        )


def with_body(body: Body, stmts: Sequence[Stmt], scope: Simplifier, kernel: Kernel) -> Kernel:
    """``kernel`` with the body's statements replaced and simplified (no loop disappears from them by running once)."""
    new = Block(tuple(stmts))
    new = scope.block(new, frozenset(f.name for f in loops(new)))
    f = body.place.node
    if not isinstance(f, For):
        return kernel.with_(body=new)
    return replace_stmt(kernel, f, For(f.var, f.lo, f.hi, new, f.kind, f.step, f.unit, f.loc))
