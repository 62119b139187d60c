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
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Expr
from tilewright.util.errors import CodegenError

_ZERO = ex.idx(0)


@dataclass(frozen=True, slots=True)
class Place:
    """``copies`` times some lines, ``apart`` lines from the ``first`` line to that of the next copy; copy number ``turn`` (an
    expression of the loops around) is in use.

    ``around`` names the loops around its allocation, which make it anew.
    """

    first: int
    apart: int = 0
    copies: int = 1
    turn: Expr = _ZERO
    around: tuple[str, ...] = ()

    @property
    def base(self) -> Expr:
        """First line of the copy in use."""
        return ex.idx(self.first) + self.turn * self.apart if self.copies > 1 else ex.idx(self.first)


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


def in_blocks(kernel: st.Kernel, machine: Machine) -> st.Kernel:
    """``kernel`` with matrices laid out in blocks as tall as the moves that take several blocks at once: those are then next to each
    other, so that a move touches no lines of another, and stores that know no distance between blocks work. Meaning does not
    depend on layouts.
    """
    tall: dict[str, int] = {}
    main = machine.main_memory.name
    for t in machine.transfers:
        inside = {t.src, t.dst} & managed(machine)
        if t.instruction is not None and main in (t.src, t.dst):
            for o in t.instruction.operands:
                if o.memory in inside and len(o.shape) == 2 and o.shape[1] > machine.memory(o.memory).line // o.dtype.nbytes:
                    tall[o.memory] = o.shape[0]
    new = {}
    for b in st.allocated(kernel):
        if b.memory in tall and b.rank == 2:
            layout = Layout(((0, tall[b.memory]), (1, line_elements(machine, b)), (0, 1), (1, 1)))
            new[b.name] = b.with_(layout=layout)
    body = st.replace_buffers(kernel.body, new)
    assert isinstance(body, st.Block)
    return kernel.with_(body=body)


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
        found = next((f for n in range(memory.buffers, 0, -1) if (f := _fit(mine, n, capacity, memory.banks)) is not None), None)
        if found is None:
            sizes = ", ".join(f"{life.buffer.name} {life.lines}" for life in mine)
            raise CodegenError(
                f"kernel {kernel.name}: {name} has {capacity} lines, its buffers take {sizes}",
                hint="make the tiles copied to it smaller",
            )
        out |= found
    return out


@dataclass(frozen=True, slots=True)
class _Taken:
    life: _Life
    first: int
    last: int


def _fit(lives: list[_Life], copies: int, capacity: int, banks: int) -> dict[str, Place] | None:
    """The largest first, each where it shares the fewest banks with others, then as low as it can be; None when one does not fit."""
    bank = max(1, capacity // banks)
    taken: list[_Taken] = []
    out = {}
    for life in sorted(lives, key=lambda x: -x.lines):
        count = copies if life.loops else 1
        firsts: list[int] = []
        for _ in range(count):
            rivals = [t for t in taken if t.life is life or _overlap(life, t.life, copies)]
            free = [at for at in _starts(rivals, bank, capacity) if at + life.lines <= capacity and not _hit(rivals, at, life.lines)]
            # A third copy and on keeps the distance of the first two.
            if len(firsts) > 1:
                free = [at for at in free if at == firsts[-1] + firsts[1] - firsts[0]]
            if not free:
                return None
            firsts.append(min(free, key=lambda at: (_shared(life, rivals, at, bank), at)))
            taken.append(_Taken(life, firsts[-1], firsts[-1] + life.lines))
        apart = firsts[1] - firsts[0] if count > 1 else 0
        out[life.buffer.name] = Place(firsts[0], apart, count, _turn(life.loops, count), tuple(f.name for f in life.loops))
    return out


def _starts(rivals: list[_Taken], bank: int, capacity: int) -> set[int]:
    """Where a buffer might start: at a bank, or where another ends."""
    return {*range(0, capacity, bank), *(t.last for t in rivals)}


def _hit(rivals: list[_Taken], at: int, lines: int) -> bool:
    return any(at < t.last and t.first < at + lines for t in rivals)


def _shared(life: _Life, rivals: list[_Taken], at: int, bank: int) -> int:
    """How much of the traffic meets in one bank: twice for different buffers, which are read at once, once for another copy."""
    mine = {n // bank for n in (at, at + life.lines - 1)}
    return sum((1 if t.life is life else 2) for t in rivals if mine & set(range(t.first // bank, (t.last - 1) // bank + 1)))


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
