"""Statements and kernels: immutable trees.

Names of loops and buffers are unique within a kernel, so a name *is* the stable handle of a loop:
primitives that replace loop ``i`` say which new names took its place, and traces stay readable.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Const, Expr, Load, Var
from tilewright.util.errors import IRTypeError, Location

#: Reduction operators a store may carry. Their instances may be reassociated by schedules.
REDUCTIONS = ("+", "*", "min", "max", "&", "|", "^")


class Stmt:
    """Base of statement nodes; ``loc`` points at the user's source and does not affect equality."""

    __slots__ = ()

    def __str__(self) -> str:
        from tilewright.ir.printer import stmt_text

        return stmt_text(self)


class LoopKind(Enum):
    """How a loop's iterations are executed (BIND: on the machine unit named by ``For.unit``)."""

    SERIAL = "range"
    PARALLEL = "parallel"
    VECTOR = "vector"
    UNROLL = "unroll"
    BIND = "bind"


@dataclass(frozen=True, slots=True, repr=False)
class Block(Stmt):
    """Statements in order. An ``Alloc`` in it lives until its end."""

    stmts: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Store(Stmt):
    """``buffer[indices] = value``, or ``buffer[indices] op= value`` when ``op`` is a reduction.

    The value is converted to the element type on assignment. For a reduction the sum is formed
    in the exact result type of ``element op value`` and then narrowed.
    """

    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr
    op: str | None = None
    loc: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class For(Stmt):
    """``for var in kind(lo, hi, step)``: half-open, ``step`` a positive constant."""

    var: Var
    lo: Expr
    hi: Expr
    body: Block
    kind: LoopKind = LoopKind.SERIAL
    step: int = 1
    unit: str | None = None
    loc: Location | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        return self.var.name

    @property
    def extent(self) -> Expr:
        """Number of iterations (assuming lo <= hi)."""
        span = self.hi - self.lo
        return span if self.step == 1 else (span + (self.step - 1)) // self.step


@dataclass(frozen=True, slots=True, repr=False)
class If(Stmt):
    """Conditional statement (affine or data dependent)."""

    cond: Expr
    then: Block
    orelse: Block | None = None
    loc: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class While(Stmt):
    """Loop while ``cond`` holds."""

    cond: Expr
    body: Block
    loc: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class Alloc(Stmt):
    """Declares ``buffer`` until the end of the enclosing block. Its contents start undefined."""

    buffer: Buffer
    loc: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class Span:
    """An index range ``lo, lo+step, ...`` of ``extent`` elements inside a :class:`Window`."""

    lo: Expr
    extent: Expr
    step: int = 1


@dataclass(frozen=True, slots=True, repr=False)
class Window:
    """A rectangular view of a buffer passed to a call: one index or :class:`Span` per dimension.

    The callee's parameter has one dimension for each Span, in order.
    """

    buffer: Buffer
    indices: tuple[Expr | Span, ...]

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(i for i in self.indices if isinstance(i, Span))

    def element(self, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """Indices in the caller's buffer of the callee's element ``index``."""
        it = iter(index)
        return tuple(s.lo + next(it) * s.step if isinstance(s, Span) else s for s in self.indices)

    def __str__(self) -> str:
        from tilewright.ir.printer import window_text

        return window_text(self)


@dataclass(frozen=True, slots=True, repr=False)
class Call(Stmt):
    """Call of another kernel, or of an instruction (a kernel whose ``instruction`` is set).

    Arguments are positional: a :class:`Window` for each buffer parameter, an index expression for
    each size parameter (sizes first, as in ``Kernel.sizes`` then ``Kernel.args``).
    """

    kernel: Kernel
    sizes: tuple[Expr, ...]
    args: tuple[Window, ...]
    loc: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class Kernel:
    """A program: size parameters, buffer arguments, body.

    ``sizes`` are symbolic extents bound when specialised or called. ``instruction`` names the
    machine instruction (``"x86.avx512/fma"``) of which the body is the semantics.
    """

    name: str
    args: tuple[Buffer, ...]
    body: Block
    sizes: tuple[Var, ...] = ()
    instruction: str | None = None
    loc: Location | None = field(default=None, compare=False)

    def __str__(self) -> str:
        from tilewright.ir.printer import kernel_text

        return kernel_text(self)

    def arg(self, name: str) -> Buffer:
        """The argument buffer called ``name``."""
        for b in self.args:
            if b.name == name:
                return b
        raise IRTypeError(f"kernel {self.name} has no argument {name!r}", hint=f"it has: {', '.join(b.name for b in self.args)}")

    def with_(self, **changes: object) -> Kernel:
        """A copy with fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]


# --- building -------------------------------------------------------------------------------


def block(*stmts: Stmt) -> Block:
    """A block of ``stmts`` with nested blocks that declare nothing flattened."""
    out: list[Stmt] = []
    for s in stmts:
        if isinstance(s, Block) and not any(isinstance(t, Alloc) for t in s.stmts):
            out.extend(s.stmts)
        else:
            out.append(s)
    return Block(tuple(out))


def store(target: Load, value: ex.ExprLike, op: str | None = None, loc: Location | None = None) -> Store:
    """``target (op)= value``; numbers take the element type.

    ``target = max(target, v)`` is the reduction "max" (and so for min): the text form has no other.
    """
    if op is not None and op not in REDUCTIONS:
        raise IRTypeError(f"{op}= is not a reduction", hint=f"reductions: {', '.join(REDUCTIONS)}")
    if op is None and isinstance(value, Binary) and value.op in ("min", "max") and value.a == target:
        op, value = value.op, value.b
    return Store(target.buffer, target.indices, ex.as_expr(value, target.buffer.dtype), op, loc)


def loop(name: str, lo: ex.ExprLike, hi: ex.ExprLike, *body: Stmt, kind: LoopKind = LoopKind.SERIAL, step: int = 1) -> For:
    """A loop over ``range(lo, hi, step)``."""
    return For(Var(name), ex.idx(lo), ex.idx(hi), block(*body), kind, step)


# --- walking --------------------------------------------------------------------------------


def substmts(s: Stmt) -> tuple[Stmt, ...]:
    """Direct sub-statements."""
    match s:
        case For() | While():
            return (s.body,)
        case Block():
            return s.stmts
        case If():
            return (s.then, s.orelse) if s.orelse else (s.then,)
    return ()


def walk(s: Stmt) -> Iterator[Stmt]:
    """All statements below ``s``, in program order, parents first."""
    left = [s]
    while left:
        s = left.pop()
        yield s
        if inside := substmts(s):
            left += inside[::-1]


def own_exprs(s: Stmt) -> tuple[Expr, ...]:
    """Expressions that belong to the statement itself (not to sub-statements)."""
    match s:
        case Store():
            return (*s.indices, s.value)
        case For():
            return (s.lo, s.hi)
        case If() | While():
            return (s.cond,)
        case Alloc():
            return s.buffer.shape
        case Call():
            return (*s.sizes, *(e for w in s.args for e in _window_exprs(w)))
    return ()


def _window_exprs(w: Window) -> Iterator[Expr]:
    for i in w.indices:
        if isinstance(i, Span):
            yield i.lo
            yield i.extent
        else:
            yield i


def map_stmts(s: Stmt, f: Callable[[Stmt], Stmt | tuple[Stmt, ...] | None]) -> Stmt:
    """Bottom-up rewrite. ``f`` returns a statement, a tuple to splice into the block, or None to keep."""
    new: Stmt
    match s:
        case Block():
            new = _map_block(s, f)
        case For() | While():
            body = _map_block(s.body, f)
            new = s if body is s.body else _with_body(s, body)
        case If():
            then = _map_block(s.then, f)
            orelse = _map_block(s.orelse, f) if s.orelse else None
            new = s if then is s.then and orelse is s.orelse else replace(s, then=then, orelse=orelse)
        case _:
            new = s
    out = f(new) if not isinstance(s, Block) else None
    if isinstance(out, tuple):
        return Block(out)
    return new if out is None else out


def _with_body(s: For | While, body: Block) -> Stmt:
    if isinstance(s, For):
        return For(s.var, s.lo, s.hi, body, s.kind, s.step, s.unit, s.loc)
    return While(s.cond, body, s.loc)


def _map_block(b: Block, f: Callable[[Stmt], Stmt | tuple[Stmt, ...] | None]) -> Block:
    out: list[Stmt] = []
    changed = False
    for s in b.stmts:
        r = map_stmts(s, f)
        changed = changed or r is not s
        if isinstance(r, Block) and not isinstance(s, Block):
            out.extend(r.stmts)
        else:
            out.append(r)
    return Block(tuple(out)) if changed else b


def map_exprs(s: Stmt, f: Callable[[Expr], Expr]) -> Stmt:
    """Apply ``f`` to every expression of ``s`` and below (whole expressions, not nodes)."""

    def window(w: Window) -> Window:
        return Window(w.buffer, tuple(Span(f(i.lo), f(i.extent), i.step) if isinstance(i, Span) else f(i) for i in w.indices))

    def one(t: Stmt) -> Stmt | None:
        match t:
            case Store():
                indices, value = tuple([f(i) for i in t.indices]), f(t.value)
                same = value is t.value and all(map(operator.is_, indices, t.indices))
                return None if same else Store(t.buffer, indices, value, t.op, t.loc)
            case For():
                lo, hi = f(t.lo), f(t.hi)
                return None if lo is t.lo and hi is t.hi else replace(t, lo=lo, hi=hi)
            case If() | While():
                return replace(t, cond=f(t.cond))
            case Call():
                return replace(t, sizes=tuple(f(e) for e in t.sizes), args=tuple(window(w) for w in t.args))
        return None

    return map_stmts(s, one)


def substitute(s: Stmt, env: Mapping[str, Expr]) -> Stmt:
    """``s`` with free variables replaced by name (loop variables of ``s`` must not be in ``env``)."""
    return map_exprs(s, lambda e: ex.substitute(e, env)) if env else s


def replace_buffers(s: Stmt, env: Mapping[str, Buffer]) -> Stmt:
    """``s`` with buffers replaced by name, in loads, stores, allocations and windows (same rank)."""

    def node(e: Expr) -> Expr | None:
        return Load(env[e.buffer.name], e.indices) if isinstance(e, Load) and e.buffer.name in env else None

    def stmt(t: Stmt) -> Stmt | None:
        match t:
            case Store() | Alloc() if t.buffer.name in env:
                return replace(t, buffer=env[t.buffer.name])
            case Call() if any(w.buffer.name in env for w in t.args):
                return replace(t, args=tuple(replace(w, buffer=env.get(w.buffer.name, w.buffer)) for w in t.args))
        return None

    return map_stmts(map_exprs(s, lambda e: ex.transform(e, node)), stmt)


def specialize(k: Kernel, **sizes: int) -> Kernel:
    """``k`` with size parameters bound to numbers (all or some of them)."""
    known = {v.name for v in k.sizes}
    for name, value in sizes.items():
        if name not in known:
            raise IRTypeError(f"kernel {k.name} has no size {name!r}", hint=f"sizes: {', '.join(sorted(known)) or 'none'}")
        if not isinstance(value, int) or value < 0:
            raise IRTypeError(f"size {name}={value!r} must be an int >= 0")
    env: dict[str, Expr] = {n: Const(v, ty.index) for n, v in sizes.items()}

    def shaped(b: Buffer) -> Buffer:
        return b.with_(shape=tuple(ex.substitute(e, env) for e in b.shape))

    body = substitute(k.body, env)
    buffers = {b.name: shaped(b) for b in all_buffers(k)}
    body = replace_buffers(body, buffers)
    return k.with_(args=tuple(buffers[b.name] for b in k.args), body=body, sizes=tuple(v for v in k.sizes if v.name not in env))


def allocated(k: Kernel) -> list[Buffer]:
    """Buffers declared inside the kernel, in program order."""
    return [s.buffer for s in walk(k.body) if isinstance(s, Alloc)]


def all_buffers(k: Kernel) -> list[Buffer]:
    """Arguments, then buffers declared inside."""
    return [*k.args, *allocated(k)]


def names(k: Kernel) -> set[str]:
    """Every name in use: loops, buffers, sizes."""
    return {f.name for f in loops(k)} | {b.name for b in all_buffers(k)} | {v.name for v in k.sizes}


def loops(k: Kernel | Stmt) -> list[For]:
    """All loops in program order, outer before inner."""
    return [s for s in walk(k.body if isinstance(k, Kernel) else k) if isinstance(s, For)]


def find_loop(k: Kernel, name: str) -> For:
    """The loop called ``name``."""
    for f in loops(k):
        if f.name == name:
            return f
    raise IRTypeError(f"kernel {k.name} has no loop {name!r}", hint=f"loops: {', '.join(f.name for f in loops(k))}")


def written_buffers(s: Stmt) -> set[str]:
    """Names of buffers stored to in ``s`` (calls: the arguments their kernel writes)."""
    out: set[str] = set()
    for t in walk(s):
        if isinstance(t, Store):
            out.add(t.buffer.name)
        elif isinstance(t, Call):
            inner = written_buffers(t.kernel.body)
            out |= {w.buffer.name for w, p in zip(t.args, t.kernel.args, strict=True) if p.name in inner}
    return out


def read_buffers(s: Stmt) -> set[str]:
    """Names of buffers whose previous contents ``s`` may read (reductions read their target)."""
    out: set[str] = set()
    for t in walk(s):
        out |= {ld.buffer.name for e in own_exprs(t) for ld in ex.loads(e)}
        if isinstance(t, Store) and t.op:
            out.add(t.buffer.name)
        elif isinstance(t, Call):
            inner = read_buffers(t.kernel.body)
            out |= {w.buffer.name for w, p in zip(t.args, t.kernel.args, strict=True) if p.name in inner}
    return out
