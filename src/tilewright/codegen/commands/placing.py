"""Where the buffers of a kernel are in memories of lines: a first line for each, by what is alive at the same time.

A buffer that is allocated anew in every iteration of a loop may get several places, used in turn, so that one can be filled while
another is in use.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.hw import Machine
from tilewright.hw.memory import SCRATCHPAD
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr
from tilewright.util.errors import CodegenError

_ZERO = ex.idx(0)


@dataclass(frozen=True, slots=True)
class Place:
    """``copies`` times ``lines`` lines from ``first`` on; copy number ``turn`` (an expression of the loops around) is in use."""

    first: int
    lines: int
    copies: int = 1
    turn: Expr = _ZERO

    @property
    def base(self) -> Expr:
        """First line of the copy in use."""
        return ex.idx(self.first) + self.turn * self.lines if self.copies > 1 else ex.idx(self.first)


def managed(machine: Machine) -> set[str]:
    """The memories that only transfers fill."""
    return {m.name for m in machine.memories if m.kind == SCRATCHPAD}


def line_elements(machine: Machine, b: Buffer) -> int:
    """Elements of ``b`` in a line of its memory; CodegenError when a line does not hold a whole number of them."""
    line = machine.memory(b.memory).line
    if line % b.dtype.nbytes:
        raise CodegenError(f"{b.name}: a line of {b.memory} has {line} bytes, which {b.dtype} does not divide")
    return line // b.dtype.nbytes


def lines_of(machine: Machine, b: Buffer) -> int:
    """Lines that ``b`` takes: its innermost physical dimension is at most a line, which every row starts anew."""
    per_line = line_elements(machine, b)
    shape = [int(e.value) if isinstance(e, ex.Const) else None for e in b.physical_shape()]
    if not shape or None in shape:
        raise CodegenError(f"{b.name} in {b.memory}: its shape {[str(e) for e in b.shape]} is not constant", hint="split by constants")
    if shape[-1] > per_line:  # type: ignore[operator]
        rank = b.rank - 1
        raise CodegenError(
            f"{b.name}: rows of {shape[-1]} elements are longer than a line of {b.memory} ({per_line})",
            hint=f'lay it out in blocks of a line, such as layout="{rank}/{per_line} {" ".join(map(str, range(b.rank)))}"',
        )
    lines = 1
    for n in shape[:-1]:
        lines *= n or 0
    return lines


@dataclass(frozen=True, slots=True)
class _Life:
    buffer: Buffer
    lines: int
    start: int
    end: int
    loops: tuple[st.For, ...]


def place(kernel: st.Kernel, machine: Machine) -> dict[str, Place]:
    """A place for every buffer in a managed memory. CodegenError names the buffers that do not fit together.

    Buffers of memories declared with ``buffers=2`` get two copies where all of them fit so.
    """
    lives = _lives(kernel, machine)
    out: dict[str, Place] = {}
    for name in sorted({life.buffer.memory for life in lives}):
        memory = machine.memory(name)
        capacity = (memory.bytes or 0) // memory.line
        mine = [life for life in lives if life.buffer.memory == name]
        copies = memory.buffers
        found = None
        while found is None and copies > 1:
            found = _fit(mine, copies, capacity)
            copies -= 1
        found = found or _fit(mine, 1, capacity)
        if found is None:
            sizes = ", ".join(f"{life.buffer.name} {life.lines}" for life in mine)
            raise CodegenError(
                f"kernel {kernel.name}: {name} has {capacity} lines, its buffers take {sizes}",
                hint="make the tiles copied to it smaller",
            )
        out |= found
    return out


def _fit(lives: list[_Life], copies: int, capacity: int) -> dict[str, Place] | None:
    """First fit, the largest first; None when it does not fit."""
    taken: list[tuple[_Life, int, int]] = []
    out = {}
    for life in sorted(lives, key=lambda x: -x.lines):
        count = copies if life.loops else 1
        # Copies of other iterations are alive as long as the outermost of the loops that repeat it.
        rivals = sorted((first, last) for other, first, last in taken if _overlap(life, other, copies))
        at = 0
        for first, last in rivals:
            if at + life.lines * count <= first:
                break
            at = max(at, last)
        if at + life.lines * count > capacity:
            return None
        taken.append((life, at, at + life.lines * count))
        out[life.buffer.name] = Place(at, life.lines, count, _turn(life.loops, count))
    return out


def _overlap(a: _Life, b: _Life, copies: int) -> bool:
    if copies > 1 and a.loops and b.loops and a.loops[0] is b.loops[0]:
        return True
    return a.start < b.end and b.start < a.end


def _turn(loops: tuple[st.For, ...], count: int) -> Expr:
    """The number of the iteration, over all loops around, modulo ``count``."""
    if count == 1:
        return ex.idx(0)
    number: Expr = ex.idx(0)
    for f in loops:
        number = number * f.extent + (f.var - f.lo) // f.step
    return number % count


def _lives(kernel: st.Kernel, machine: Machine) -> list[_Life]:
    """The buffers of managed memories, from their allocation to the end of the last statement beside it that uses them."""
    inside = managed(machine)
    out: list[_Life] = []

    def visit(s: st.Stmt, loops: tuple[st.For, ...], number: int) -> tuple[int, set[str]]:
        """The number after ``s``, and the buffers used in it."""
        used = set()
        if not isinstance(s, (st.Block, st.For, st.If, st.While)):
            return number + 1, st.read_buffers(s) | st.written_buffers(s)
        if isinstance(s, st.For):
            loops = (*loops, s)
        starts: dict[str, int] = {}
        ends: dict[str, int] = {}
        for child in st.substmts(s):
            first = number
            number, names = visit(child, loops, number)
            used |= names
            ends |= dict.fromkeys(names, number)
            if isinstance(child, st.Alloc) and child.buffer.memory in inside:
                starts[child.buffer.name] = first
        for b in (c.buffer for c in st.substmts(s) if isinstance(c, st.Alloc) and c.buffer.memory in inside):
            out.append(_Life(b, lines_of(machine, b), starts[b.name], ends.get(b.name, starts[b.name] + 1), loops))
        return number, used

    visit(kernel.body, (), 0)
    return out
