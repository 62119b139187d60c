"""A kernel as a func.func of scf, memref, arith and math operations, its contractions as linalg.generic if wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.codegen.inline import inline_calls
from tilewright.codegen.mlir.builder import INDEX, Builder, Value, element_type, memref
from tilewright.codegen.mlir.expression import Expressions
from tilewright.codegen.mlir.linalg import generic
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Const, Load
from tilewright.ir.simplify import Simplifier, scope_of
from tilewright.ir.stmt import Alloc, Block, For, If, Kernel, LoopKind, Stmt, Store, While
from tilewright.ir.types import arithmetic_type
from tilewright.util.errors import CodegenError


def emit_mlir(kernel: Kernel, *, symbol: str | None = None, linalg: bool = False) -> str:
    """A module with ``func.func @symbol(sizes: index..., arguments: memref...)``.

    Memrefs have the physical shape of their buffers; integers are signless and as wide as the program form makes them, stored in
    the next power of two. Calls become the bodies of their kernels, parallel loops scf.parallel. With ``linalg`` perfect affine
    nests of one store become linalg.generic. CodegenError names what these dialects cannot express exactly.
    """
    return "\n".join(["module {", emit_function(kernel, symbol or kernel.name, linalg=linalg), "}"]) + "\n"


def emit_function(kernel: Kernel, symbol: str, *, linalg: bool = False, private: bool = False) -> str:
    """The func.func alone, indented for a module."""
    kernel = inline_calls(kernel, lambda call: False)
    out = _Function(kernel, linalg)
    arguments = [f"%{v.name}: index" for v in kernel.sizes] + [f"%{b.name}: {memref(b)}" for b in kernel.args]
    for v in kernel.sizes:
        out.values[v.name] = Value(f"%{v.name}", INDEX)
    out.statements(kernel.body)
    head = f"  func.func {'private ' if private else ''}@{symbol}({', '.join(arguments)}) attributes {{llvm.emit_c_interface}} {{"
    return "\n".join([head, *out.builder.prelude(), *out.builder.lines, "    return", "  }"])


@dataclass(slots=True)
class _Function:
    kernel: Kernel
    linalg: bool
    builder: Builder = field(default_factory=Builder)
    values: dict[str, Value] = field(default_factory=dict)
    expressions: Expressions = field(init=False)
    scope: Simplifier = field(init=False)

    def __post_init__(self) -> None:
        self.scope = scope_of(self.kernel)
        self.expressions = Expressions(self.builder, self.load, self.values.__getitem__)

    def statements(self, b: Block) -> None:
        mine: list[Buffer] = []
        for s in b.stmts:
            if isinstance(s, Alloc):
                self.alloc(s.buffer)
                mine.append(s.buffer)
            else:
                self.stmt(s)
        for x in reversed(mine):
            self.builder.line(f"memref.dealloc %{x.name} : {memref(x)}")

    def alloc(self, b: Buffer) -> None:
        dynamic = [str(self.expressions.value(self.scope.expr(e))) for e in b.physical_shape() if not isinstance(e, Const)]
        self.builder.line(f"%{b.name} = memref.alloc({', '.join(dynamic)}) : {memref(b)}  // {b.memory}")

    def stmt(self, s: Stmt) -> None:
        b, value = self.builder, self.expressions.value
        match s:
            case Block():
                self.statements(s)
            case Store():
                self.store(s)
            case For():
                self.loop(s)
            case If():
                with b.region(f"scf.if {value(s.cond)}"):
                    self.statements(s.then)
                    if s.orelse is not None:
                        b.depth -= 1
                        b.line("} else {")
                        b.depth += 1
                        self.statements(s.orelse)
            case While():
                with b.region("scf.while : () -> ()", "} do {"):
                    b.line(f"scf.condition({value(s.cond)})")
                b.depth += 1
                self.statements(s.body)
                b.line("scf.yield")
                b.depth -= 1
                b.line("}")
            case _:
                raise CodegenError(f"{type(s).__name__} is not a statement of the program form")

    def loop(self, s: For) -> None:
        if self.linalg and generic(s, self.builder):
            return
        b, name = self.builder, f"%{s.name}"
        lo, hi = (self.expressions.value(self.scope.expr(e)) for e in (s.lo, s.hi))
        step = b.constant(s.step, INDEX)
        if s.kind is LoopKind.PARALLEL:
            head, tail = f"scf.parallel ({name}) = ({lo}) to ({hi}) step ({step})", "}"
        else:
            head, tail = f"scf.for {name} = {lo} to {hi} step {step}", "}"
            if s.kind is not LoopKind.SERIAL:
                tail += f"  // {s.kind.value} {s.name}"
        self.values[s.name] = Value(name, INDEX)
        with b.region(head, tail), self.scope.inside(s):
            self.statements(s.body)
            if s.kind is LoopKind.PARALLEL:
                b.line("scf.reduce")

    def store(self, s: Store) -> None:
        target = Load(s.buffer, s.indices)
        value = s.value
        if s.op is not None:
            value = Binary(s.op, target, value, arithmetic_type(s.op, target.dtype, value.dtype))
        x = self.expressions
        out = x.converted(x.value(value), value.dtype, s.buffer.dtype)
        self.builder.line(f"memref.store {x.stored(out, s.buffer.dtype)}, {self.place(target)} : {memref(s.buffer)}")

    def load(self, e: Load) -> Value:
        raw = self.builder.op(f"memref.load {self.place(e)} : {memref(e.buffer)}", element_type(e.dtype))
        return self.expressions.loaded(raw, e.dtype)

    def place(self, e: Load) -> str:
        b = e.buffer
        indices = b.layout.physical_index(e.indices) if b.layout else e.indices
        return f"%{b.name}[{', '.join(str(self.expressions.value(self.scope.expr(i))) for i in indices)}]"
