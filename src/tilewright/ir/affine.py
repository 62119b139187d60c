"""Affine views of programs: statement instances, iteration domains, accesses, execution order.

A :class:`Region` lists the statements of a program part. A statement is anything that touches
memory: stores, calls (one statement; their accesses are the callee's, seen through the windows)
and the conditions and bounds that read memory. Everything is exact for quasi-affine programs
(``+ - *`` by constants, ``//`` and ``%`` by positive constants, ``min``/``max``, comparisons and
their combinations, with symbolic sizes as parameters). What is not (indices or guards that depend
on data, products of variables) is left unconstrained: the views then contain every instance and
element that can occur and more, never fewer.

:class:`IslText` turns expressions into isl's notation; :func:`domain`, :func:`access_relation` and
:func:`schedule_map` give the isl objects.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Compare, Const, Expr, Load, Logical, Not, Var
from tilewright.ir.stmt import Alloc, Block, Call, For, If, Stmt, Store, While, own_exprs, substmts

if TYPE_CHECKING:
    import islpy as isl

#: A moment of execution: compared lexicographically; ints order siblings, expressions are loop iterations.
Time = tuple[int | Expr, ...]

READ, WRITE = "read", "write"


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of an iteration domain: lo <= var < hi in steps of ``step`` (hi None: a while loop)."""

    var: Var
    lo: Expr
    hi: Expr | None
    step: int = 1

    @property
    def name(self) -> str:
        return self.var.name


@dataclass(frozen=True, slots=True)
class Access:
    """Elements of ``buffer`` that one statement instance touches.

    ``op`` is "read", "write", or a reduction operator: an update whose instances commute.
    ``inner`` are the callee's loops for accesses made by a call, ``guards`` its conditions.
    """

    buffer: Buffer
    indices: tuple[Expr, ...]
    op: str
    inner: tuple[Dim, ...] = ()
    guards: tuple[Expr, ...] = ()

    @property
    def updates(self) -> bool:
        return self.op not in (READ, WRITE)


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A statement with its domain (``dims`` under ``guards``), its place in the order and its accesses."""

    node: Stmt
    dims: tuple[Dim, ...]
    guards: tuple[Expr, ...]
    time: Time
    accesses: tuple[Access, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """Statements of a program part in program order.

    ``around`` are the loops around the part. ``private`` maps each buffer allocated in the part to
    the loops around its declaration: every iteration of them has a buffer of its own.
    """

    statements: tuple[Statement, ...]
    around: frozenset[str]
    private: Mapping[str, frozenset[str]]


def region(node: Stmt, ancestors: Sequence[Stmt] = ()) -> Region:
    """The statements of ``node``; ``ancestors`` (outermost first) give the loops and guards around it."""
    dims: tuple[Dim, ...] = ()
    guards: tuple[Expr, ...] = ()
    for above, below in itertools.pairwise((*ancestors, node)):
        match above:
            case For():
                dims = (*dims, _dim(above))
            case While():
                dims = (*dims, _while_dim(dims))
            case If():
                guards = (*guards, above.cond if below is above.then else Not(above.cond))
    private: dict[str, frozenset[str]] = {}
    found = tuple(_collect(node, dims, guards, (1,), private))
    return Region(found, frozenset(d.name for d in dims), private)


def _dim(f: For) -> Dim:
    return Dim(f.var, f.lo, f.hi, f.step)


def _while_dim(dims: tuple[Dim, ...]) -> Dim:
    return Dim(Var(f"while@{len(dims)}"), ex.idx(0), None)


def _collect(
    s: Stmt, dims: tuple[Dim, ...], guards: tuple[Expr, ...], time: Time, private: dict[str, frozenset[str]]
) -> Iterator[Statement]:
    """Statements of ``s``. Static times count in steps of two, so that what a statement reads for its bounds or condition comes first."""
    match s:
        case Block():
            for n, t in enumerate(s.stmts):
                yield from _collect(t, dims, guards, (*time, 2 * n + 1), private)
            return
        case Alloc():
            private[s.buffer.name] = frozenset(d.name for d in dims)
            return
        case Store() | Call():
            accesses = tuple(_store_accesses(s) if isinstance(s, Store) else _call_accesses(s, 0))
            yield Statement(s, dims, guards, time, accesses)
            return
    reads = tuple(Access(ld.buffer, ld.indices, READ) for e in own_exprs(s) for ld in ex.loads(e))
    match s:
        case For():
            if reads:
                yield Statement(s, dims, guards, _earlier(time), reads)
            yield from _collect(s.body, (*dims, _dim(s)), guards, (*time, s.var), private)
        case While():
            dims = (*dims, w := _while_dim(dims))
            yield Statement(s, dims, guards, (*time, w.var, 0), reads)
            yield from _collect(s.body, dims, guards, (*time, w.var, 1), private)
        case If():
            if reads:
                yield Statement(s, dims, guards, (*time, 0), reads)
            for n, (branch, cond) in enumerate(zip(substmts(s), (s.cond, Not(s.cond)), strict=False), 1):
                yield from _collect(branch, dims, (*guards, cond), (*time, n), private)


def _earlier(time: Time) -> Time:
    """Just before the statement at ``time``, whose last component is its static position."""
    position = time[-1]
    return (*time[:-1], position - 1 if isinstance(position, int) else position)


def reassociable(s: Store) -> bool:
    """Whether instances of the reduction ``s`` may be executed in any order.

    Floating-point sums count as reassociable (the language says so). A narrowing of each partial
    result that is not a ring homomorphism does not: floats accumulated into integers, extrema of
    values wider than the element, products in fixed point.
    """
    to, value = s.buffer.dtype, s.value.dtype
    if s.op is None:
        return False
    if to.is_float:
        return True
    if value.is_float:
        return False
    if to.is_fixed or value.is_fixed:
        return s.op in ("+", "min", "max") and to == value
    if s.op in ("min", "max"):
        return value.range[0] >= to.range[0] and value.range[1] <= to.range[1]
    return True


def _store_accesses(s: Store) -> Iterator[Access]:
    for e in own_exprs(s):
        for ld in ex.loads(e):
            yield Access(ld.buffer, ld.indices, READ)
    if s.op is not None and reassociable(s):
        yield Access(s.buffer, s.indices, s.op)
        return
    if s.op is not None:
        yield Access(s.buffer, s.indices, READ)
    yield Access(s.buffer, s.indices, WRITE)


def _call_accesses(s: Call, depth: int) -> Iterator[Access]:
    """What a call reads and writes in the caller's buffers. Callee loops are named by depth: equal calls compare equal."""
    for e in own_exprs(s):
        for ld in ex.loads(e):
            yield Access(ld.buffer, ld.indices, READ)
    windows = {p.name: w for p, w in zip(s.kernel.args, s.args, strict=True)}
    sizes: dict[str, Expr] = {v.name: e for v, e in zip(s.kernel.sizes, s.sizes, strict=True)}
    for inner in region(s.kernel.body).statements:
        env = dict(sizes)
        dims = []
        for n, d in enumerate(inner.dims, depth):
            var = Var(f"@{n}")
            lo, hi = ex.substitute(d.lo, env), None if d.hi is None else ex.substitute(d.hi, env)
            dims.append(Dim(var, lo, hi, d.step))
            env[d.name] = var
        below = len(inner.dims) + depth
        guards = tuple(ex.substitute(g, env) for g in inner.guards)
        accesses = _call_accesses(inner.node, below) if isinstance(inner.node, Call) else inner.accesses
        for a in accesses:
            if (w := windows.get(a.buffer.name)) is None:
                continue  # allocated by the callee: nobody else sees it
            indices = w.element(tuple(ex.substitute(i, env) for i in a.indices))
            nested = tuple(replace(d, lo=ex.substitute(d.lo, env), hi=None if d.hi is None else ex.substitute(d.hi, env)) for d in a.inner)
            yield Access(w.buffer, indices, a.op, (*dims, *nested), (*guards, *(ex.substitute(g, env) for g in a.guards)))


# --- isl's notation -------------------------------------------------------------------------


class IslText:
    """Expressions and conditions as isl text.

    ``env`` maps variables to isl names; a variable outside it is a symbolic size and gets a
    parameter name, collected in ``parameters`` (size name -> isl name). None stands for "not
    quasi-affine".
    """

    __slots__ = ("env", "parameters")

    def __init__(self, env: Mapping[str, str], parameters: dict[str, str] | None = None):
        self.env = env
        self.parameters = {} if parameters is None else parameters

    def expr(self, e: Expr) -> str | None:
        """``e`` in isl's notation, or None."""
        if e.dtype.kind != ty.INDEX:
            return None
        match e:
            case Const():
                return str(int(e.value))
            case Var():
                return self.env.get(e.name) or self.parameters.setdefault(e.name, f"p{len(self.parameters)}")
            case Binary():
                return self._binary(e)
        return None

    def _binary(self, e: Binary) -> str | None:
        a, b = self.expr(e.a), self.expr(e.b)
        if a is None or b is None:
            return None
        match e.op:
            case "+" | "-":
                return f"({a} {e.op} {b})"
            case "*" if isinstance(e.a, Const) or isinstance(e.b, Const):
                return f"({a} * {b})"
            case "//" | "%" if isinstance(e.b, Const) and e.b.value > 0:
                return f"floor(({a})/{b})" if e.op == "//" else f"(({a}) mod {b})"
            case "min" | "max":
                return f"{e.op}({a}, {b})"
        return None

    def condition(self, e: Expr, holds: bool = True) -> str | None:
        """``e`` (or its negation) as an isl formula that is true at least where it is; None: anywhere."""
        match e:
            case Const():
                return "true" if bool(e.value) == holds else "false"
            case Not():
                return self.condition(e.a, not holds)
            case Logical():
                a, b = self.condition(e.a, holds), self.condition(e.b, holds)
                if (e.op == "and") == holds:
                    return f"({a} and {b})" if a and b else a or b
                return f"({a} or {b})" if a and b else None
            case Compare():
                a, b = self.expr(e.a), self.expr(e.b)
                if a is None or b is None:
                    return None
                op = e.op if holds else _OPPOSITE[e.op]
                return f"{a} {_ISL_COMPARISON.get(op, op)} {b}"
        return None

    def domain(self, dims: Iterable[Dim], guards: Iterable[Expr]) -> list[str]:
        """Formulas that hold inside the loops ``dims`` under ``guards``."""
        out = []
        for d in dims:
            v = self.env[d.name]
            if (lo := self.expr(d.lo)) is not None:
                out.append(f"{v} >= {lo}")
                if d.step > 1:
                    out.append(f"({v} - {lo}) mod {d.step} = 0")
            if d.hi is not None and (hi := self.expr(d.hi)) is not None:
                out.append(f"{v} < {hi}")
        out.extend(c for g in guards if (c := self.condition(g)) is not None)
        return out


_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_ISL_COMPARISON = {"==": "="}


# --- isl objects ----------------------------------------------------------------------------


def domain(s: Statement) -> isl.Set:
    """The iterations of ``s``: a set over its loops, sizes being parameters (both under their own names)."""
    import islpy as isl

    text = _named(s.dims)
    body = text.domain(s.dims, s.guards)
    return _renamed(isl.Set(f"{_header(text)}{{ [{_tuple(s.dims)}] : {' and '.join(body) or 'true'} }}"), s.dims, text)


def access_relation(s: Statement, a: Access) -> isl.Map:
    """Iterations of ``s`` to the elements of ``a.buffer`` they touch."""
    import islpy as isl

    dims = (*s.dims, *a.inner)
    text = _named(dims)
    body = text.domain(dims, (*s.guards, *a.guards))
    out = [f"e{n}" for n in range(len(a.indices))]
    body += [f"{o} = {t}" for o, i in zip(out, a.indices, strict=True) if (t := text.expr(i)) is not None]
    formula = " and ".join(body) or "true"
    if a.inner:
        formula = f"exists ({', '.join(text.env[d.name] for d in a.inner)} : {formula})"
    relation = isl.Map(f"{_header(text)}{{ [{_tuple(s.dims)}] -> {a.buffer.name}[{', '.join(out)}] : {formula} }}")
    return _renamed(relation, s.dims, text)


def schedule_map(s: Statement, length: int) -> isl.Map:
    """Iterations of ``s`` to their time, padded with zeros to ``length`` dimensions (2d+1 form)."""
    import islpy as isl

    text = _named(s.dims)
    time = [str(t) if isinstance(t, int) else text.expr(t) or "0" for t in s.time]
    time += ["0"] * (length - len(time))
    body = text.domain(s.dims, s.guards)
    order = isl.Map(f"{_header(text)}{{ [{_tuple(s.dims)}] -> [{', '.join(time)}] : {' and '.join(body) or 'true'} }}")
    return _renamed(order, s.dims, text)


def is_exact(s: Statement, a: Access) -> bool:
    """Whether the domain of ``s`` and the access ``a`` are represented exactly."""
    dims = (*s.dims, *a.inner)
    text = _named(dims)
    exprs = [*a.indices, *(d.lo for d in dims), *(d.hi for d in dims if d.hi is not None)]
    guards = (*s.guards, *a.guards)
    return (
        all(d.hi is not None for d in dims)
        and all(text.expr(e) is not None for e in exprs)
        and all(text.condition(g) is not None and text.condition(g, False) is not None for g in guards)
    )


def _named(dims: Sequence[Dim]) -> IslText:
    return IslText({d.name: f"i{n}" for n, d in enumerate(dims)})


def _tuple(dims: Sequence[Dim]) -> str:
    return ", ".join(f"i{n}" for n in range(len(dims)))


def _renamed(views: Any, dims: Sequence[Dim], text: IslText) -> Any:
    """``views`` (a set, or a map from iterations) with the program's names instead of the safe ones used for parsing."""
    import islpy as isl

    kind = isl.dim_type.set if isinstance(views, isl.Set) else isl.dim_type.in_
    for n, d in enumerate(dims):
        views = views.set_dim_name(kind, n, d.name)
    for name, safe in text.parameters.items():
        views = views.set_dim_name(isl.dim_type.param, views.find_dim_by_name(isl.dim_type.param, safe), name)
    return views


def _header(text: IslText) -> str:
    return f"[{', '.join(text.parameters.values())}] -> " if text.parameters else ""


def reads_memory(e: Expr) -> bool:
    """Whether the value of ``e`` depends on the contents of a buffer."""
    return any(isinstance(n, Load) for n in ex.walk(e))
