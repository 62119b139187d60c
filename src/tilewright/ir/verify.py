"""Structural checks of kernels: run after every pass in tests, and before code generation."""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Bitcast, Cast, Compare, Const, Expr, Intrinsic, Load, Logical, Not, Var, Where
from tilewright.ir.stmt import REDUCTIONS, Alloc, Block, Call, For, If, Kernel, LoopKind, Span, Stmt, Store, While, Window
from tilewright.util.errors import IRTypeError


def verify(kernel: Kernel) -> None:
    """Raise IRTypeError (with the statement's location) unless ``kernel`` is well formed.

    Checked: names are unique and in scope, a buffer is the same object wherever it is named, ranks
    fit, indices and bounds have type index, conditions bool, every node has the type that the
    typing rules give it, calls fit the callee's signature. Not checked: bounds and definedness
    (the interpreter does).
    """
    _Verifier(kernel).run()


@dataclass
class _Verifier:
    kernel: Kernel
    names: set[str] = field(default_factory=set)
    variables: dict[str, Var] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)

    def run(self) -> None:
        k = self.kernel
        self.check_name(k.name)
        for v in k.sizes:
            self.declare(v.name)
            self.require(v.dtype == ty.index, f"size {v.name} has type {v.dtype}, not index")
            self.variables[v.name] = v
        for b in k.args:
            self.buffer(b)
        self.block(k.body)

    def error(self, message: str, hint: str | None = None) -> IRTypeError:
        return IRTypeError(f"{self.kernel.name}: {message}", hint=hint)

    def require(self, ok: bool, message: str, hint: str | None = None) -> None:
        if not ok:
            raise self.error(message, hint)

    def check_name(self, name: str) -> None:
        usable = name.isidentifier() and not keyword.iskeyword(name) and name not in ("inf", "nan")
        self.require(usable, f"{name!r} cannot be a name", "names are Python identifiers other than keywords, inf and nan")

    def declare(self, name: str) -> None:
        self.check_name(name)
        self.require(name not in self.names, f"name {name!r} is declared twice", "names of loops and buffers are unique in a kernel")
        self.names.add(name)

    def buffer(self, b: Buffer) -> None:
        self.declare(b.name)
        for d, s in enumerate(b.shape):
            self.index(s, f"extent {d} of {b.name}")
            self.require(not (isinstance(s, Const) and s.value < 0), f"extent {d} of {b.name} is negative: {s}")
        if b.layout is not None:
            b.layout.check(b.rank)
        self.buffers[b.name] = b

    # statements

    @contextmanager
    def blame(self, s: Stmt) -> Iterator[None]:
        """Errors raised inside say which statement they are about."""
        try:
            yield
        except IRTypeError as error:
            if error.location is None:
                error.location = getattr(s, "loc", None)
            if error.location is None and "\n  in `" not in error.message:
                error.message += f"\n  in `{_first_line(s)}`"
            raise

    def block(self, b: Block) -> None:
        before = dict(self.buffers)
        for s in b.stmts:
            with self.blame(s):
                self.stmt(s)
        self.buffers = before

    def stmt(self, s: Stmt) -> None:
        match s:
            case Block():
                self.block(s)
            case Store():
                self.store(s)
            case For():
                self.loop(s)
            case If():
                self.condition(s.cond)
                self.block(s.then)
                if s.orelse is not None:
                    self.block(s.orelse)
            case While():
                self.condition(s.cond)
                self.block(s.body)
            case Alloc():
                self.buffer(s.buffer)
            case Call():
                self.call(s)
            case _:
                self.require(False, f"{type(s).__name__} is not a statement of the program form")

    def store(self, s: Store) -> None:
        self.element(s.buffer, s.indices)
        self.expr(s.value)
        if s.op is not None:
            self.require(s.op in REDUCTIONS, f"{s.op}= is not a reduction", f"reductions: {', '.join(REDUCTIONS)}")
            ty.arithmetic_type(s.op, s.buffer.dtype, s.value.dtype)

    def loop(self, s: For) -> None:
        self.index(s.lo, f"lower bound of loop {s.name}")
        self.index(s.hi, f"upper bound of loop {s.name}")
        self.declare(s.name)
        self.require(s.var.dtype == ty.index, f"loop variable {s.name} has type {s.var.dtype}, not index")
        self.require(s.step >= 1, f"step {s.step} of loop {s.name} is not positive")
        bound = s.kind is LoopKind.BIND
        self.require(bound == (s.unit is not None), f"loop {s.name} of kind {s.kind.value} has unit {s.unit!r}", "bind loops name a unit")
        self.variables[s.name] = s.var
        self.block(s.body)
        del self.variables[s.name]

    def call(self, s: Call) -> None:
        k = s.kernel
        verify(k)
        self.require(len(s.sizes) == len(k.sizes), f"{k.name} takes {len(k.sizes)} sizes, got {len(s.sizes)}")
        self.require(len(s.args) == len(k.args), f"{k.name} takes {len(k.args)} arrays, got {len(s.args)}")
        for e in s.sizes:
            self.index(e, f"size passed to {k.name}")
        env = {v.name: e for v, e in zip(k.sizes, s.sizes, strict=True)}
        for w, p in zip(s.args, k.args, strict=True):
            self.window(w)
            name = w.buffer.name
            self.require(w.buffer.dtype == p.dtype, f"parameter {p.name} of {k.name} is {p.dtype}, {name} is {w.buffer.dtype}")
            self.require(len(w.spans) == p.rank, f"parameter {p.name} of {k.name} has {p.rank} dimensions, got {len(w.spans)} of {name}")
            for d, (extent, span) in enumerate(zip(p.shape, w.spans, strict=True)):
                want = ex.substitute(extent, env)
                fits = want == span.extent or not (isinstance(want, Const) and isinstance(span.extent, Const))
                if not fits:
                    raise self.error(f"dimension {d} of parameter {p.name} of {k.name} has {want} elements, {w} has {span.extent}")

    def window(self, w: Window) -> None:
        self.known(w.buffer)
        self.require(len(w.indices) == w.buffer.rank, f"{w.buffer.name} has {w.buffer.rank} dimensions, {len(w.indices)} are selected")
        for i in w.indices:
            if isinstance(i, Span):
                self.index(i.lo, f"start of a slice of {w.buffer.name}")
                self.index(i.extent, f"extent of a slice of {w.buffer.name}")
                self.require(i.step >= 1, f"step {i.step} of a slice of {w.buffer.name} is not positive")
            else:
                self.index(i, f"index of {w.buffer.name}")

    # expressions

    def known(self, b: Buffer) -> None:
        declared = self.buffers.get(b.name)
        if declared is None:
            raise self.error(f"buffer {b.name!r} is not in scope", f"in scope: {', '.join(self.buffers) or 'none'}")
        same = declared is b or declared == b
        self.require(same, f"buffer {b.name!r} differs from its declaration", "passes that change a buffer use replace_buffers")

    def element(self, b: Buffer, indices: tuple[Expr, ...]) -> None:
        self.known(b)
        self.require(len(indices) == b.rank, f"{b.name} has {b.rank} dimensions but is indexed with {len(indices)}")
        for d, i in enumerate(indices):
            self.index(i, f"index {d} of {b.name}")

    def index(self, e: Expr, what: str) -> None:
        self.expr(e)
        if e.dtype != ty.index:
            raise self.error(f"{what} is `{e}` of type {e.dtype}, not index", "convert it: index(x)")

    def condition(self, e: Expr) -> None:
        self.expr(e)
        if e.dtype != ty.boolean:
            raise self.error(f"condition `{e}` has type {e.dtype}, not bool")

    def expr(self, e: Expr) -> None:
        """Check ``e`` and everything below it."""
        if isinstance(e, Load):
            self.element(e.buffer, e.indices)
            return
        for c in ex.children(e):
            self.expr(c)
        match e:
            case Const():
                self.literal(e)
            case Var():
                known = self.variables.get(e.name)
                if known is None:
                    raise self.error(f"variable {e.name!r} is not in scope", f"in scope: {', '.join(self.variables) or 'none'}")
                self.require(known == e, f"variable {e.name!r} has type {e.dtype}, its declaration {known.dtype}")
            case Binary():
                self.typed(e, ty.arithmetic_type(e.op, e.a.dtype, e.b.dtype))
            case Compare():
                self.require(e.op in ex.COMPARISONS, f"{e.op!r} is not a comparison")
            case Logical() | Not():
                if any(c.dtype != ty.boolean for c in ex.children(e)):
                    raise self.error(f"operands of `{e}` are not all bool")
            case Where():
                if e.cond.dtype != ty.boolean or e.a.dtype != e.b.dtype:
                    raise self.error(f"`{e}` selects by {e.cond.dtype} from {e.a.dtype} and {e.b.dtype}", "build it with ex.where")
                self.typed(e, e.a.dtype)
            case Bitcast():
                self.require(e.a.dtype.bits == e.dtype.bits, f"bitcast of {e.a.dtype} to {e.dtype}: widths differ")
            case Intrinsic():
                self.intrinsic(e)
            case Cast():
                pass
            case _:
                self.require(False, f"{type(e).__name__} is not an expression of the program form")

    def typed(self, e: Expr, want: ty.DType) -> None:
        self.require(
            e.dtype == want, f"`{e}` is marked {e.dtype}, but its operands make it {want}", "build nodes with ex.binary and ex.where"
        )

    def intrinsic(self, e: Intrinsic) -> None:
        self.require(ex.INTRINSICS.get(e.name) == len(e.args), f"{e.name} with {len(e.args)} arguments is not a known function")
        if len({a.dtype for a in e.args}) != 1:
            raise self.error(f"arguments of `{e}` have different types", "build it with ex.intrinsic")
        if e.name in ex.PREDICATES:
            self.typed(e, ty.boolean)
        else:
            self.require(e.args[0].dtype.is_float or e.name == "abs", f"argument of {e.name} has type {e.args[0].dtype}, not a float")
            self.typed(e, e.args[0].dtype)

    def literal(self, e: Const) -> None:
        if e.dtype.is_float:
            self.require(isinstance(e.value, float), f"literal {e.value!r} of type {e.dtype} is not a float", "build it with ex.const")
        elif not e.dtype.is_fixed:
            lo, hi = e.dtype.range
            fits = isinstance(e.value, int) and lo <= e.value <= hi
            self.require(fits, f"literal {e.value!r} is not a value of {e.dtype}")


def _first_line(s: Stmt) -> str:
    return str(s).splitlines()[0]
