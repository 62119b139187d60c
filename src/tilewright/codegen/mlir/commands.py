"""A command program in MLIR: its loops in scf, its words as operations of the machine's dialect."""

from __future__ import annotations

from dataclasses import dataclass, field

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
from tilewright.codegen.mlir.builder import INDEX, Builder, Value, memref
from tilewright.codegen.mlir.dialect import dialect_name, operation_name
from tilewright.codegen.mlir.expression import Expressions
from tilewright.codegen.mlir.function import emit_function
from tilewright.hw import Machine
from tilewright.ir.expr import Load
from tilewright.util.errors import CodegenError

_CELL = "memref<index>"


def emit_command_mlir(program: Program, machine: Machine) -> str:
    """A module with ``func.func @name(arguments: memref...)``; words are generic operations of the dialect of :func:`emit_irdl`.

    Addresses are pointers as index. Variables that the program sets are cells of their own. CodegenError if the machine lacks a word.
    """
    body = _Body(words(machine), dialect_name(machine.name))
    host = {i.kernel.name: i.kernel for i in walk(program.body) if isinstance(i, Host)}
    cells = dict.fromkeys(i.var for i in walk(program.body) if isinstance(i, Let))
    b = body.builder
    for name in cells:
        b.line(f"%{name}_cell = memref.alloca() : {_CELL}")
    for x in program.temps:
        b.line(f"%{x.name} = memref.alloc() : {memref(x)}")
    for x in program.arrays:
        body.pointers[x.name] = b.op(f"memref.extract_aligned_pointer_as_index %{x.name} : {memref(x)} -> index", INDEX)
    body.items(program.body)
    arguments = ", ".join(f"%{x.name}: {memref(x)}" for x in program.args)
    kernels = [emit_function(k, k.name, private=True) for k in host.values()]
    head = f"  func.func @{program.name}({arguments}) {{"
    return "\n".join(["module {", *kernels, head, *b.prelude(), *b.lines, "    return", "  }", "}"]) + "\n"


@dataclass(slots=True)
class _Body:
    words: dict[str, Word]
    dialect: str
    builder: Builder = field(default_factory=Builder)
    pointers: dict[str, Value] = field(default_factory=dict)
    loops: set[str] = field(default_factory=set)
    expressions: Expressions = field(init=False)

    def __post_init__(self) -> None:
        self.expressions = Expressions(self.builder, _no_element, self.variable)

    def variable(self, name: str) -> Value:
        if name in self.loops:
            return Value(f"%{name}", INDEX)
        return self.builder.op(f"memref.load %{name}_cell[] : {_CELL}", INDEX)

    def items(self, items: tuple[Item, ...]) -> None:
        for i in items:
            self.item(i)

    def item(self, i: Item) -> None:
        b, value = self.builder, self.expressions.value
        match i:
            case Command():
                self.command(i)
            case Loop():
                lo, hi, step = value(i.lo), value(i.hi), b.constant(i.step, INDEX)
                with b.region(f"scf.for %{i.var} = {lo} to {hi} step {step}"):
                    outer, self.loops = self.loops, self.loops | {i.var}
                    self.items(i.body)
                    self.loops = outer
            case Branch():
                with b.region(f"scf.if {value(i.cond)}"):
                    self.items(i.then)
                    if i.orelse:
                        b.depth -= 1
                        b.line("} else {")
                        b.depth += 1
                        self.items(i.orelse)
            case Let():
                b.line(f"memref.store {value(i.value)}, %{i.var}_cell[] : {_CELL}")
            case Fence():
                b.line(f'"{self.dialect}.fence"() : () -> ()')
            case Host():
                operands = [
                    *((str(value(s)), INDEX) for s in i.sizes),
                    *((f"%{n}", memref(x)) for n, x in zip(i.args, i.kernel.args, strict=True)),
                ]
                b.line(f"func.call @{i.kernel.name}({', '.join(o for o, _ in operands)}) : ({', '.join(t for _, t in operands)}) -> ()")
            case _:
                raise CodegenError(f"{type(i).__name__} is no item of a command program")

    def command(self, c: Command) -> None:
        word = word_of(self.words, c.word)
        values = wanted(c, word, given(c, self.address, self.expressions.value))
        names, types = ", ".join(map(str, values)), ", ".join(INDEX for _ in values)
        self.builder.line(f'"{self.dialect}.{operation_name(c.word)}"({names}) : ({types}) -> ()')

    def address(self, p: Pointer) -> Value:
        return self.builder.op(f"arith.addi {self.pointers[p.base]}, {self.expressions.value(p.offset)} : index", INDEX)


def _no_element(load: Load) -> Value:
    raise CodegenError(f"{load}: a command program reads no arrays itself")
