"""Block IR to kernels of the loop IR: over whole arrays where programs can be taken apart, else program by program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Compare, Const, Expr, Load, Logical, Var, Where
from tilewright.ir.outside import surely_outside
from tilewright.ir.simplify import Simplifier, bounds, simplify
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt, Store, While
from tilewright.ir.types import DType
from tilewright.ir.verify import verify
from tilewright.lang.block.continued import continued
from tilewright.lang.block.ir import Function
from tilewright.lang.block.lower import lower
from tilewright.lang.block.nests import Item, Loop, Nest, Program, statement
from tilewright.lang.block.programs import components, renumbered
from tilewright.lang.block.recurrences import two_passes
from tilewright.lang.block.source import BlockError
from tilewright.lang.block.unblock import Whole, unblocked
from tilewright.lang.block.views import elements, viewed


@dataclass(frozen=True, slots=True)
class Array:
    """What is known of an array argument: element type, shape, and strides in elements."""

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    #: Its elements, where a launch is compiled for them.
    contents: tuple[int, ...] | None = None

    @property
    def dense(self) -> bool:
        """Whether its elements fill a stretch of memory, in some order of its dimensions."""
        expected = 1
        for n, s in sorted(zip(self.shape, self.strides, strict=True), key=lambda x: x[1]):
            if n > 1 and s != expected:
                return False
            expected *= n
        return True

    @property
    def elements(self) -> int:
        return elements(self.shape, self.strides)


def kernel_of(function: Function, arrays: Sequence[Array | int | None], grid: Sequence[int], whole: bool = True) -> Kernel:
    """The kernel of all programs of ``grid``. ``arrays`` describe the arguments of ``function`` (None: a scalar; a number:
    the same array as that earlier argument, and no argument of the kernel).

    Without ``whole`` programs are not taken apart: what they store then takes little memory.
    Arguments appear in order as arrays of the shapes that the accesses show, or flat. BlockError where the program
    cannot be given one meaning (programs that race).
    """
    program = lower(function, [(a.dtype, a.elements) if isinstance(a, Array) else a for a in arrays], grid)
    body: list[Stmt] = []
    used = _Names({b.name for b in program.arguments} | set(program.locals))
    for n, part in enumerate(components(program)):
        part = renumbered(part, f"p{n}_" if n else "p")
        apart = unblocked(two_passes(continued(part))) if whole else None
        body += _whole_statements(apart, used) if apart is not None else _program_statements(part, used)
    body.sort(key=lambda s: not isinstance(s, Alloc))
    kernel = Kernel(function.name, program.arguments, st.block(*body), loc=function.loc)
    kernel = _shrunk(simplify(kernel, tighten=True))
    _check_inside(kernel)
    described = zip(program.arguments, (a for a in arrays if not isinstance(a, int)), strict=True)
    flat = {b.name: (a.elements, a.strides if a.dense else ()) for b, a in described if a is not None and a.elements > 1}
    kernel = simplify(viewed(kernel, flat), tighten=True)
    verify(kernel)
    return kernel


def _check_inside(kernel: Kernel) -> None:
    """BlockError for an access that surely leaves a (still flat) argument."""
    arguments = {b.name for b in kernel.args}
    for o in surely_outside(kernel):
        if o.buffer.name in arguments:
            what = f"{'stores' if o.stores else 'loads'} element {o.element} of {o.buffer.name}, which has {o.buffer.shape[o.dim]}"
            raise BlockError(f"a program {what}", hint="mask what is outside: mask=offsets < n", location=o.loc)


class _Names:
    """Loop names of a kernel, each once."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken

    def fresh(self, name: str) -> str:
        out, n = name, 0
        while out in self.taken:
            n += 1
            out = f"{name}_{n}"
        self.taken.add(out)
        return out


def _whole_statements(whole: Whole, names: _Names) -> list[Stmt]:
    out: list[Stmt] = [Alloc(b) for b in whole.locals.values()]
    for f in whole.nests:
        at = [n for i in f.nest.indices for n in f.loops if n in ex.free_vars(i)]
        order = list(dict.fromkeys([*at, *(n for n, _ in f.nest.axes if n in f.loops), *f.loops]))
        order.sort(key=lambda n: n not in at)  # what is reduced comes last
        new = {n: names.fresh(n) for n in order}
        env: dict[str, Expr] = {n: Var(m) for n, m in new.items()}
        nest = f.nest.mapped(lambda e, env=env: ex.substitute(e, env))  # type: ignore[misc]
        out.append(statement(replace(nest, axes=tuple((new[n], f.loops[n]) for n in order))))
    return out


def _program_statements(p: Program, names: _Names) -> list[Stmt]:
    """The programs one after the other, each with blocks of its own."""
    body: list[Stmt] = [Alloc(b) for b in p.locals.values()]
    body += [_item(i, names, {}) for i in p.items]
    out: Stmt = st.block(*body) if len(body) > 1 else body[0]
    env: dict[str, Expr] = {}
    for v, n in reversed(p.grid):
        new = names.fresh(v)
        env[v] = Var(new)
        out = For(Var(new), ex.idx(0), ex.idx(n), Block(out.stmts) if isinstance(out, Block) else st.block(out))
    return [st.substitute(out, env)]


def _item(item: Item, names: _Names, env: dict[str, Expr]) -> Stmt:
    if isinstance(item, Nest):
        new = {n: names.fresh(n) for n, _ in item.axes}
        inner = {**env, **{n: Var(m) for n, m in new.items()}}
        nest = item.mapped(lambda e: ex.substitute(e, inner))
        return statement(replace(nest, axes=tuple((new[n], e) for n, e in item.axes)))
    assert isinstance(item, Loop)
    if item.test is not None:
        return While(ex.substitute(item.test, env), st.block(*(_item(i, names, env) for i in item.body)))
    var = names.fresh(item.var)
    inside = {**env, item.var: Var(var)}
    return For(Var(var), ex.idx(0), ex.substitute(item.trips, env), st.block(*(_item(i, names, inside) for i in item.body)))


# --- what nobody reads ----------------------------------------------------------------------------


def _shrunk(kernel: Kernel) -> Kernel:
    """``kernel`` whose local arrays, and the loops that fill them, end where later nests stop reading."""
    local = {b.name: b for b in st.allocated(kernel) if b in [s.buffer for s in kernel.body.stmts if isinstance(s, Alloc)]}
    needed: dict[str, list[int]] = {n: [0] * b.rank for n, b in local.items()}
    out: list[Stmt] = []
    for s in reversed(kernel.body.stmts):
        if not isinstance(s, Alloc):
            s = _clamped(s, needed)
            for new in s.stmts if isinstance(s, Block) else (s,):
                _note_reads(new, needed, {})
        out.insert(0, s)
    small = {
        n: b.with_(shape=tuple(ex.idx(min(int(m), k)) for m, k in zip(b.static_shape, needed[n], strict=True))) for n, b in local.items()
    }
    gone = {n for n, b in small.items() if b.rank and 0 in b.static_shape}
    kept = [s for s in out if not (isinstance(s, Alloc) and s.buffer.name in gone)]
    body = st.replace_buffers(st.block(*kept), small)
    assert isinstance(body, Block)
    return simplify(kernel.with_(body=body), tighten=True)


def _clamped(s: Stmt, needed: dict[str, list[int]]) -> Stmt:
    """``s`` without the iterations that fill parts of local arrays which nobody reads."""
    limit: dict[str, int] = {}
    stores = [t for t in st.walk(s) if isinstance(t, Store)]
    if len(stores) == 1 and stores[0].buffer.name in needed:
        for i, n in zip(stores[0].indices, needed[stores[0].buffer.name], strict=True):
            if isinstance(i, Var):
                limit[i.name] = min(n, limit.get(i.name, n))

    def clamp(t: Stmt) -> Stmt | None:
        if isinstance(t, For) and t.name in limit:
            return replace(t, hi=ex.binary("min", t.hi, limit[t.name]))
        return None

    return Simplifier(tighten=True).stmt(st.map_stmts(s, clamp), frozenset()) if limit else s


def _note_reads(s: Stmt, needed: dict[str, list[int]], ranges: dict[str, tuple[int | None, int | None]]) -> None:
    if isinstance(s, For):
        lo, hi = bounds(s.lo, ranges)[0], bounds(s.hi, ranges)[1]
        ranges = {**ranges, s.name: (lo, None if hi is None else hi - 1)}
    for e in st.own_exprs(s):
        _note_loads(e, needed, ranges)
    if isinstance(s, Store):  # a loop that only a part of is needed was shortened already; other indices stay as they are
        _note(s.buffer, tuple(ex.idx(0) if isinstance(i, Var) else i for i in s.indices), needed, ranges)
    for t in st.substmts(s):
        _note_reads(t, needed, ranges)


def _note_loads(e: Expr, needed: dict[str, list[int]], ranges: dict[str, tuple[int | None, int | None]]) -> None:
    """What ``e`` reads; what a mask chooses is read where it does."""
    if isinstance(e, Load):
        _note(e.buffer, e.indices, needed, ranges)
    for n, c in enumerate(ex.children(e)):  # of a choice: the condition, what it chooses, what else there is
        _note_loads(c, needed, _below(e.cond, ranges) if isinstance(e, Where) and n == 1 else ranges)


def _below(cond: Expr, ranges: dict[str, tuple[int | None, int | None]]) -> dict[str, tuple[int | None, int | None]]:
    """``ranges`` where ``cond`` holds: upper bounds of single variables are made use of."""
    if isinstance(cond, Logical) and cond.op == "and":
        return _below(cond.b, _below(cond.a, ranges))
    if not isinstance(cond, Compare) or cond.op not in ("<", "<=") or ty.INDEX not in (cond.a.dtype.kind, cond.b.dtype.kind):
        return ranges
    match cond.a, cond.b:
        case Var(name=name), Const(value=limit) if name in ranges:
            lo, hi = ranges[name]
            last = int(limit) - (cond.op == "<")
            return {**ranges, name: (lo, last if hi is None else min(hi, last))}
    return ranges


def _note(b: Buffer, indices: Sequence[Expr], needed: dict[str, list[int]], ranges: dict[str, tuple[int | None, int | None]]) -> None:
    if b.name not in needed:
        return
    for d, (i, extent) in enumerate(zip(indices, b.shape, strict=True)):
        last = bounds(i, ranges)[1]
        whole = int(extent.value) if isinstance(extent, Const) else 0
        needed[b.name][d] = max(needed[b.name][d], whole if last is None else min(last + 1, whole))
