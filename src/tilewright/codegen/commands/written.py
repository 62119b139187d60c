"""Programs written out: every command with its numbers, and what it does to memories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import CodeType

from tilewright.codegen.commands.program import Branch, Command, Item, Let, Loop, Operand, Pointer, Tile, Word
from tilewright.hw import Instruction, Machine
from tilewright.ir import expr as ex
from tilewright.ir.expr import Const, Expr
from tilewright.ir.printer import expr_text

LOAD, COMPUTE, STORE = "load", "compute", "store"


class WrittenOut:
    """Commands of at most ``most`` with their numbers, for a machine and its ``known`` words."""

    def __init__(self, machine: Machine, known: Mapping[str, Word], most: int):
        self.machine, self.words, self.most = machine, known, most
        self.line_bytes = {m.name: m.line for m in machine.memories}
        #: Compiled expressions by identity, which the kept expression protects from reuse.
        self.codes: dict[int, tuple[Expr, CodeType]] = {}

    def commands(self, items: Sequence[Item], env: Mapping[str, int]) -> list[Command] | None:
        """What ``items`` issue, with numbers as operands; None when that is too much."""
        out: list[Command] = []
        return out if self._unroll(items, dict(env), out) else None

    def _unroll(self, items: Sequence[Item], env: dict[str, int], out: list[Command]) -> bool:
        for i in items:
            match i:
                case Command():
                    out.append(Command(i.word, tuple((n, self._operand(o, env)) for n, o in i.operands)))
                    if len(out) > self.most:
                        return False
                case Let():
                    env[i.var] = self._value(i.value, env)
                case Loop():
                    for n in range(self._value(i.lo, env), self._value(i.hi, env), i.step):
                        if not self._unroll(i.body, {**env, i.var: n}, out):
                            return False
                case Branch():
                    if not self._unroll(i.then if self._value(i.cond, env) else i.orelse, dict(env), out):
                        return False
        return True

    def _value(self, e: Expr, env: Mapping[str, int]) -> int:
        if isinstance(e, Const):
            return int(e.value)
        code = self.codes.get(id(e))
        if code is None:
            code = self.codes[id(e)] = e, compile(expr_text(e), "<operand>", "eval")
        return int(eval(code[1], {"index": int, "where": lambda c, a, b: a if c else b}, dict(env)))

    def _operand(self, o: Operand, env: Mapping[str, int]) -> Operand:
        match o:
            case Pointer():
                return replace(o, offset=ex.idx(self._value(o.offset, env)))
            case Tile():
                return Tile(o.memory, *(ex.idx(self._value(e, env)) for e in (o.row, o.rows, o.cols)))
        return ex.idx(self._value(o, env))

    def split(self, commands: Sequence[Command]) -> tuple[dict[str, Command], list[Command]] | None:
        """Setters by state, and the other commands; None where state changes on the way, or where an argument is loaded and stored."""
        setters: dict[str, Command] = {}
        work: list[Command] = []
        for c in commands:
            state = self.words[c.word].instruction.sets
            if state is None:
                work.append(c)
            elif setters.setdefault(state, c) != c or any(self.needs(w, state) for w in work if setters[state] is c):
                return None
        loaded, stored = (
            {o.base for c in work if self.kind(c) == k for _, o in c.operands if isinstance(o, Pointer)} for k in (LOAD, STORE)
        )
        return None if loaded & stored else (setters, work)

    def needs(self, c: Command, state: str) -> bool:
        """Whether a command works with what is set in ``state``."""
        return any(n.state == state for n in self.words[c.word].instruction.needs)

    def kind(self, c: Command) -> str:
        """Which controller runs a command: it brings data in, works inside, or takes results out."""
        instruction = self.words[c.word].instruction
        roles = {o.name: o.role for o in instruction.operands}
        outside = [roles[n] for n, o in c.operands if isinstance(o, Pointer)]
        inside = any(o.role == "in" and o.memory in self.line_bytes for o in instruction.operands)
        return STORE if any(r != "in" for r in outside) else LOAD if outside or not inside else COMPUTE

    def lines_of(self, i: Instruction, name: str, o: Tile, setters: Mapping[str, Command]) -> set[tuple[str, int]]:
        """The lines that operand ``name`` of an instruction takes, with what is set."""
        operand = i.operand(name)
        row, rows, cols = number(o.row), number(o.rows), number(o.cols)
        apart, step = self._distances(i, name, setters)
        blocks = range(-(-cols * operand.dtype.nbytes // self.line_bytes[o.memory]))
        return {(o.memory, row + block * apart + k * step) for block in blocks for k in range(rows)}

    def _distances(self, i: Instruction, name: str, setters: Mapping[str, Command]) -> tuple[int, int]:
        """Lines between the blocks of an operand side by side, and between its rows."""
        settings = {
            quantity: number(value)
            for need in i.needs
            if need.state in setters
            for field, quantity in need.values
            if isinstance(quantity, str)
            for n, value in setters[need.state].operands
            if n == field and isinstance(value, Const)
        }
        return settings.get(f"{name}.block_stride") or i.operand(name).shape[0], settings.get(f"{name}.stride") or 1

    def narrower(self, c: Command, blocks: int, setters: Mapping[str, Command]) -> list[Command]:
        """A move as several, of at most ``blocks`` lines side by side; unchanged if it is no wider."""
        i = self.words[c.word].instruction
        tile = next((n, o) for n, o in c.operands if isinstance(o, Tile))
        nbytes = i.operand(tile[0]).dtype.nbytes
        width = blocks * self.line_bytes[tile[1].memory] // nbytes
        cols, apart = number(tile[1].cols), self._distances(i, tile[0], setters)[0]
        out = []
        for at in range(0, cols, width):
            operands: list[tuple[str, Operand]] = []
            for n, o in c.operands:
                if isinstance(o, Tile):
                    row, more = number(o.row) + at // width * blocks * apart, min(width, cols - at)
                    operands.append((n, replace(o, row=ex.idx(row), cols=ex.idx(more))))
                elif isinstance(o, Pointer):
                    operands.append((n, replace(o, offset=ex.idx(number(o.offset) + at * i.operand(n).dtype.nbytes))))
                else:
                    operands.append((n, o))
            out.append(Command(c.word, tuple(operands)))
        return out


def number(e: Operand) -> int:
    """The value of an operand that is a number."""
    assert isinstance(e, Const)
    return int(e.value)
