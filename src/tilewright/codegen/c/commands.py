"""A command program as C for the host of the accelerator: its loops, and a function for each instruction word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tilewright.codegen.c.custom import ISSUE, wrapper
from tilewright.codegen.c.expression import Expressions
from tilewright.codegen.c.function import File, identifier
from tilewright.codegen.c.scalars import storage
from tilewright.codegen.commands.program import (
    Branch,
    Command,
    Fence,
    Host,
    Item,
    Let,
    Loop,
    Pointer,
    Program,
    Word,
    given,
    walk,
    wanted,
    word_of,
    words,
)
from tilewright.hw import Machine
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import written_buffers
from tilewright.util.errors import CodegenError

FENCE = '#define fence() __asm__ volatile("fence" : : : "memory")'


def emit_commands(program: Program, machine: Machine, *, symbol: str | None = None) -> str:
    """A C11 file for RV64 that defines ``void symbol(arrays...)``: the program, its words as ``.insn``, its host kernels.

    Arrays are the program's arguments, as their layouts say, in main memory that the accelerator addresses as the host does; those of
    its own are static. CodegenError if the machine lacks a word, or a host kernel cannot be written without a heap.
    """
    known = words(machine)
    used = {i.word: word_of(known, i.word) for i in walk(program.body) if isinstance(i, Command)}
    file = File(heap=False)
    host: dict[str, str] = {}
    for i in walk(program.body):
        if isinstance(i, Host) and i.kernel.name not in host:
            host[i.kernel.name] = file.function(i.kernel, _host_name(program, i), "static ")
    functions = [wrapper(_name(program, w), word.encoding) for w, word in used.items()]
    body = _Body(program, known, file).define(symbol or program.name)
    return file.text([f"{ISSUE}\n{FENCE}", *host.values(), *functions, body])


def _name(program: Program, word: str) -> str:
    return re.sub(r"\W", "_", f"{program.machine}_{word}")


def _host_name(program: Program, i: Host) -> str:
    return f"{program.name}_{i.kernel.name}"


@dataclass(slots=True)
class _Body:
    """The function: variables that the program sets are declared at its top, as they live until its end."""

    program: Program
    words: dict[str, Word]
    file: File
    scope: Simplifier = field(init=False)
    expressions: Expressions = field(init=False)
    lines: list[str] = field(default_factory=list)
    depth: int = 0

    def __post_init__(self) -> None:
        self.scope = Simplifier(dict.fromkeys(_natural(self.program), (0, None)))
        self.expressions = Expressions(_no_element, identifier, self.natural, self.file.used, self.file.headers)

    def natural(self, e: Expr) -> bool:
        return self.scope.nonneg(self.scope.linear(e))

    def define(self, name: str) -> str:
        written = _written(self.program, self.words)
        args = (f"{'' if b.name in written else 'const '}{storage(b.dtype)} *{identifier(b.name)}" for b in self.program.args)
        with self.block(f"void {name}({', '.join(args) or 'void'})"):
            for b in self.program.temps:
                self.line(f"static _Alignas(64) {storage(b.dtype)} {identifier(b.name)}[{b.nbytes // b.dtype.nbytes}];")
            variables = dict.fromkeys(i.var for i in walk(self.program.body) if isinstance(i, Let))
            if variables:
                self.line(f"int64_t {', '.join(map(identifier, variables))};")
            self.items(self.program.body)
        return "\n".join(self.lines)

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(f"{head} {{")
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    def items(self, items: tuple[Item, ...]) -> None:
        for i in items:
            self.item(i)

    def item(self, i: Item) -> None:
        match i:
            case Command():
                self.command(i)
            case Loop():
                v, advance = identifier(i.var), f"++{identifier(i.var)}" if i.step == 1 else f"{identifier(i.var)} += {i.step}"
                lo, hi = self.scope.linear(i.lo), self.scope.linear(i.hi)
                head = f"for (int64_t {v} = {self.text(i.lo)}; {v} < {self.text(i.hi)}; {advance})"
                with self.block(head), self.scope.loop(Var(i.var), lo, hi, i.step):
                    self.items(i.body)
            case Branch():
                with self.block(f"if ({self.text(i.cond)})"):
                    self.items(i.then)
                if i.orelse:
                    self.lines.pop()
                    with self.block("} else"):
                        self.items(i.orelse)
            case Let():
                self.line(f"{identifier(i.var)} = {self.text(i.value)};")
            case Fence():
                self.line("fence();")
            case Host():
                self.line(f"{_host_name(self.program, i)}({', '.join([*map(self.text, i.sizes), *map(identifier, i.args)])});")
            case _:
                raise CodegenError(f"{type(i).__name__} is no item of a command program")

    def command(self, c: Command) -> None:
        values = wanted(c, self.words[c.word], given(c, self.address, self.text))
        self.line(f"{_name(self.program, c.word)}({', '.join(values)});")

    def address(self, p: Pointer) -> str:
        text = self.text(p.offset)
        return f"(uint64_t){identifier(p.base)}" + (f" + {text}" if text != "0" else "")

    def text(self, e: Expr) -> str:
        return self.expressions.text(self.scope.expr(e) if e.dtype.kind == ty.INDEX else e)


def _no_element(load: Load) -> str:
    raise CodegenError(f"{load}: a command program reads no arrays itself")


def _written(program: Program, known: dict[str, Word]) -> set[str]:
    """Arguments that words or host kernels write."""
    out: set[str] = set()
    for i in walk(program.body):
        match i:
            case Command():
                roles = {o.name: o.role for o in word_of(known, i.word).instruction.operands}
                out |= {o.base for name, o in i.operands if isinstance(o, Pointer) and roles.get(name) != "in"}
            case Host():
                stored = written_buffers(i.kernel.body)
                out |= {name for name, b in zip(i.args, i.kernel.args, strict=True) if b.name in stored}
    return out


def _natural(program: Program) -> set[str]:
    """Variables set by the program that are never negative: what they are set to is not, given that the others are not."""
    out = {i.var for i in walk(program.body) if isinstance(i, Let)}
    while failed := set(_negative(program.body, Simplifier(dict.fromkeys(out, (0, None))))) & out:
        out -= failed
    return out


def _negative(items: tuple[Item, ...], scope: Simplifier) -> Iterator[str]:
    for i in items:
        match i:
            case Let():
                if not scope.nonneg(scope.linear(i.value)):
                    yield i.var
            case Loop():
                with scope.loop(Var(i.var), scope.linear(i.lo), scope.linear(i.hi), i.step):
                    yield from _negative(i.body, scope)
            case Branch():
                yield from _negative(i.then, scope)
                yield from _negative(i.orelse, scope)
