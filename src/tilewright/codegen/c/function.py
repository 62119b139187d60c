"""A kernel as one C11 function."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce

from tilewright.codegen.c.expression import Expressions
from tilewright.codegen.c.prelude import Helper
from tilewright.codegen.c.scalars import storage
from tilewright.codegen.inline import inline_calls
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Const, Expr, Load, idx
from tilewright.ir.simplify import Simplifier, scope_of
from tilewright.ir.stmt import (
    Alloc,
    Block,
    For,
    If,
    Kernel,
    LoopKind,
    Stmt,
    Store,
    While,
    allocated,
    read_buffers,
    written_buffers,
)
from tilewright.ir.types import arithmetic_type
from tilewright.util.errors import CodegenError

#: Local arrays up to this many bytes are automatic variables.
AUTOMATIC_BYTES = 16 << 10
#: Names that C, its libraries or the generated helpers give a meaning.
_RESERVED = """
auto bool break case char const continue default do double else enum extern false float for goto if inline int long main register restrict
return short signed sizeof static struct switch true typedef union unsigned void volatile while NAN INFINITY NULL rocc
abs acos asin atan cbrt ceil cos cosh erf exp exp2 floor fma fmax fmin fmod free gamma hypot index j0 j1 jn log log2 malloc pow rint round
signgam sin sinh sqrt tan tanh trunc y0 y1 yn
"""
_KEYWORDS = frozenset(_RESERVED.split())


def emit_c(kernel: Kernel, *, symbol: str | None = None, openmp: bool = False, heap: bool = True) -> str:
    """A C11 file that defines ``void symbol(sizes..., arrays...)``: an ``int64_t`` for each size, a ``restrict`` pointer for each argument.

    Arrays are dense in row-major order, or in their layout's; f16 and bf16 elements are uint16_t, bool is bool, odd widths are
    stored in the next power of two. Calls become the bodies of their kernels. With ``openmp`` the outermost parallel loops get a
    pragma. Local arrays beyond 16 KB come from malloc, or are static when there is no ``heap``. Integers beyond 64 bits need
    __int128, beyond 128 bits _BitInt. Compile with ``-ffp-contract=off`` for results equal to the interpreter's to the bit.
    CodegenError names what C cannot express.
    """
    file = File(openmp, heap)
    text = file.function(kernel, symbol or kernel.name)
    return file.text([text])


@dataclass(slots=True)
class File:
    """What the functions of one C file share: the helpers they use and the headers they need."""

    openmp: bool = False
    heap: bool = True
    used: dict[str, Helper] = field(default_factory=dict)
    headers: set[str] = field(default_factory=lambda: {"stdint.h", "stddef.h", "stdbool.h"})

    def function(self, kernel: Kernel, name: str, prefix: str = "") -> str:
        """The definition of ``kernel`` as the C function ``name``."""
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise CodegenError(f"symbol {name!r} is not a C identifier", hint="pass symbol=")
        return prefix + _Function(inline_calls(kernel, lambda call: False), self).define(name)

    def text(self, definitions: Sequence[str]) -> str:
        """The file with these functions."""
        headers = "\n".join(f"#include <{h}>" for h in sorted(self.headers))
        return "\n\n".join(p for p in (headers, *(h.text for h in self.used.values()), *definitions) if p) + "\n"


def prototype(kernel: Kernel, name: str) -> str:
    """``void name(int64_t M, const float *restrict a, ...)``."""
    stored = written_buffers(kernel.body)
    sizes = [f"int64_t {identifier(v.name)}" for v in kernel.sizes]
    arrays = [f"{'' if b.name in stored else 'const '}{storage(b.dtype)} *restrict {identifier(b.name)}" for b in kernel.args]
    return f"void {name}({', '.join([*sizes, *arrays]) or 'void'})"


def identifier(name: str) -> str:
    """The C name of a buffer, loop or size."""
    taken = name in _KEYWORDS or name.startswith("tw_") or re.fullmatch(r"_+|_[A-Z].*|__.*|.*_t", name)
    if not name.isascii():
        name = "".join(c if c.isascii() else f"u{ord(c):x}" for c in name)
    return f"{name}_" if taken else name


@dataclass(slots=True)
class _Function:
    kernel: Kernel
    file: File
    expressions: Expressions = field(init=False)
    scope: Simplifier = field(init=False)
    lines: list[str] = field(default_factory=list)
    scalars: set[str] = field(init=False)
    depth: int = 1
    parallel: bool = False

    def __post_init__(self) -> None:
        self.scope = scope_of(self.kernel)
        self.scalars = {b.name for b in allocated(self.kernel) if not b.shape}
        self.expressions = Expressions(self.element, identifier, self.natural, self.file.used, self.file.headers)

    def natural(self, e: Expr) -> bool:
        return self.scope.nonneg(self.scope.linear(e))

    def define(self, name: str) -> str:
        k = self.kernel
        self.line(f"{prototype(k, name)} {{", 0)
        touched = read_buffers(k.body) | written_buffers(k.body)
        for b in k.args:
            if b.name not in touched:
                self.line(f"(void){identifier(b.name)};")
        for v in k.sizes:
            self.line(f"(void){identifier(v.name)};")
        self.statements(k.body)
        self.line("}", 0)
        return "\n".join(self.lines)

    def line(self, text: str, depth: int | None = None) -> None:
        self.lines.append("    " * (self.depth if depth is None else depth) + text)

    @contextmanager
    def indented(self, head: str) -> Iterator[None]:
        self.line(head + " {")
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    # statements

    def statements(self, b: Block) -> None:
        heap: list[str] = []
        for s in b.stmts:
            match s:
                case Alloc():
                    heap += self.alloc(s.buffer)
                case Block():
                    with self.indented(""):
                        self.statements(s)
                case _:
                    self.stmt(s)
        for name in reversed(heap):
            self.line(f"free({name});")

    def stmt(self, s: Stmt) -> None:
        text = self.expressions.text
        match s:
            case Store():
                self.store(s)
            case For():
                self.loop(s)
            case While():
                with self.indented(f"while ({text(s.cond)})"):
                    self.statements(s.body)
            case If():
                with self.indented(f"if ({text(s.cond)})"):
                    self.statements(s.then)
                if s.orelse is not None and s.orelse.stmts:
                    self.lines[-1] += " else {"
                    self.depth += 1
                    self.statements(s.orelse)
                    self.depth -= 1
                    self.line("}")
            case _:
                raise CodegenError(f"{type(s).__name__} is not a statement of the program form")

    def loop(self, s: For) -> None:
        name = identifier(s.name)
        outermost = s.kind is LoopKind.PARALLEL and not self.parallel
        if outermost and self.file.openmp:
            self.line("#pragma omp parallel for")
        was, self.parallel = self.parallel, self.parallel or outermost
        advance = f"++{name}" if s.step == 1 else f"{name} += {s.step}"
        note = "" if s.kind in (LoopKind.SERIAL, LoopKind.PARALLEL) else f"  // {s.kind.value}" + (f" {s.unit}" if s.unit else "")
        lo, hi = self.scope.linear(s.lo), self.scope.linear(s.hi)
        head = f"for (int64_t {name} = {self.index(s.lo)}; {name} < {self.index(s.hi)}; {advance})"
        with self.indented(head), self.scope.loop(s.var, lo, hi, s.step):
            self.lines[-1] += note
            self.statements(s.body)
        self.parallel = was

    def store(self, s: Store) -> None:
        target, dtype = Load(s.buffer, s.indices), s.buffer.dtype
        place = self.element(target)
        if s.op is None:
            self.line(f"{place} = {self.expressions.stored(s.value, dtype)};")
            return
        total = Binary(s.op, target, s.value, arithmetic_type(s.op, dtype, s.value.dtype))
        if total.dtype == dtype and dtype.is_float and dtype.bits > 16 and s.op in ("+", "*"):
            self.line(f"{place} {s.op}= {self.expressions.stored(s.value, dtype)};")
        else:
            self.line(f"{place} = {self.expressions.stored(total, dtype)};")

    # buffers

    def alloc(self, b: Buffer) -> list[str]:
        """Declares a local buffer; its name if it has to be freed."""
        name, element = identifier(b.name), storage(b.dtype)
        if not b.shape:
            self.line(f"{element} {name};")
            return []
        count = reduce(lambda x, y: x * y, b.physical_shape(), idx(1))
        if isinstance(count, Const) and (int(count.value) * b.dtype.nbytes <= AUTOMATIC_BYTES or not self.file.heap):
            where = "" if int(count.value) * b.dtype.nbytes <= AUTOMATIC_BYTES else "static "
            if where and self.parallel and self.file.openmp:
                raise CodegenError(
                    f"{b.name} is too large for a thread's stack and there is no heap", hint="allow one, or emit without openmp"
                )
            self.line(f"{where}_Alignas(64) {element} {name}[{max(int(count.value), 1)}];")
            return []
        if not self.file.heap:
            raise CodegenError(
                f"the extent of {b.name} is only known when the program runs and there is no heap", hint="specialize the kernel"
            )
        self.expressions.use("stdlib.h")
        allocate = self.expressions.use("tw_allocate")
        self.line(f"{element} *{name} = {allocate}(sizeof({element}) * (size_t)({self.index(count)}));")
        return [name]

    def element(self, load: Load) -> str:
        """The element of a buffer: a scalar by its name, others at their physical place."""
        b = load.buffer
        if b.name in self.scalars:
            return identifier(b.name)
        shape = b.physical_shape()
        indices = b.layout.physical_index(load.indices) if b.layout else load.indices
        place = reduce(lambda at, dim: at * dim[0] + dim[1], zip(shape, indices, strict=True), idx(0))
        return f"{identifier(b.name)}[{self.index(place)}]"

    def index(self, e: Expr) -> str:
        simple = self.scope.expr(e) if e.dtype.kind == ty.INDEX else e
        return self.expressions.text(simple)
