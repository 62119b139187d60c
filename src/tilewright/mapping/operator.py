"""The operator view of a loop nest: iterations, and operands with affine index matrices.

Operators (what a program computes) and instructions (what hardware computes at once) are both
perfect nests around one store, so both are seen through this one view. Everything the matching
of AMOS (ISCA 2022, section 4) needs is here and nothing about buffers' contents is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Cast, Const, Expr, Load, Var
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Block, For, Kernel, Store
from tilewright.ir.types import DType
from tilewright.util.errors import MappingError

SPATIAL, REDUCTION = "spatial", "reduction"
#: Arithmetic that joins sources; its arguments may be exchanged and regrouped.
COMMUTATIVE = ("+", "*", "min", "max", "&", "|", "^")

Row = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Iteration:
    """A loop of the nest: ``kind`` is SPATIAL if the output's index moves with it, else REDUCTION."""

    name: str
    extent: int
    kind: str


@dataclass(frozen=True, slots=True)
class Operand:
    """One value the nest reads or writes.

    ``expr`` is the value itself: a load, or any expression of loads (a guarded load, a difference)
    that is formed while packing. ``rows`` has one row for each index that ``expr`` depends on, one
    column for each iteration of the operator: two iteration points with equal ``rows @ point``
    mean the same element. Constant offsets and loops outside the nest do not appear.
    """

    name: str
    dtype: DType
    expr: Expr
    rows: tuple[Row, ...]

    def uses(self, column: int) -> bool:
        """Whether the element changes with iteration number ``column``."""
        return any(r[column] for r in self.rows)


@dataclass(frozen=True, slots=True)
class Operator:
    """``output reduce= combine(sources)`` over a box of iterations.

    ``reduce`` is the store's reduction operator (None: plain assignment), ``combine`` the
    arithmetic between sources (None: one source), formed in ``precision`` and, if ``narrowed`` is
    set, converted to that type with loss before it is reduced. ``root`` names the outermost loop of
    the nest in ``kernel``.
    """

    name: str
    iterations: tuple[Iteration, ...]
    output: Operand
    sources: tuple[Operand, ...]
    reduce: str | None
    combine: str | None
    precision: DType
    narrowed: DType | None
    root: str
    kernel: Kernel = field(compare=False, repr=False)

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The output, then the sources in the order they are written."""
        return (self.output, *self.sources)

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple(i.extent for i in self.iterations)

    @property
    def volume(self) -> int:
        """Number of innermost evaluations."""
        return prod(self.extents)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(i.name for i in self.iterations)

    def column(self, name: str) -> int:
        """Column of iteration ``name`` in every operand's rows; MappingError if there is none."""
        if name not in self.names:
            raise MappingError(f"{self.name} has no iteration {name!r}", hint=f"its iterations: {', '.join(self.names)}")
        return self.names.index(name)

    def __str__(self) -> str:
        loops = {k: " ".join(f"{i.name}={i.extent}" for i in self.iterations if i.kind == k) for k in (SPATIAL, REDUCTION)}
        value = f" {self.combine} ".join(str(s.expr) for s in self.sources)
        return f"{self.name}({loops[SPATIAL]}; {loops[REDUCTION]}): {self.output.expr} {self.reduce or ''}= {value}"


def operator_of(kernel: Kernel, at: str | None = None) -> Operator:
    """The contraction nest of ``kernel`` found by a loop's or the output buffer's name.

    ``at`` is a loop of the nest (the nest starts there) or the buffer it writes; without it the
    kernel's only reduction nest (or its only nest) is taken. Raises MappingError if there is none,
    more than one, the nest is not perfect, extents are symbolic or the output index is not affine.
    """
    loops, target = _find_nest(kernel, at)
    spans = {f.name: _extent(kernel, f) for f in loops}
    names = tuple(spans)
    rows = _output_rows(kernel, target, names)
    iterations = tuple(Iteration(n, e, SPATIAL if any(r[c] for r in rows) else REDUCTION) for c, (n, e) in enumerate(spans.items()))
    _check_update(kernel, target, iterations)
    output = Operand(target.buffer.name, target.buffer.dtype, Load(target.buffer, target.indices), rows)
    narrowed, value = _narrowed(target)
    combine, leaves = _leaves(value)
    sources = _sources(leaves, names)
    return Operator(kernel.name, iterations, output, sources, target.op, combine, value.dtype, narrowed, loops[0].name, kernel)


# --- finding the nest -------------------------------------------------------------------------


def _find_nest(kernel: Kernel, at: str | None) -> tuple[list[For], Store]:
    nests = [(path, _as_reduction(s)) for path, s in _stores(kernel.body, []) if path]
    if at is None:
        reductions = [n for n in nests if _reduces(*n)]
        chosen = reductions if len(reductions) == 1 else nests
    else:
        chosen = [n for n in nests if at in (f.name for f in n[0])][:1]  # with several the perfection check below refuses
        if not chosen:
            writers = [n for n in nests if n[1].buffer.name == at]
            chosen = [n for n in writers if _reduces(*n)] or writers
    if len(chosen) != 1:
        found = f"{len(chosen)} nests" if chosen else "no nest"
        where = f" at {at!r}" if at else ""
        known = ", ".join(f"{p[0].name} (writes {s.buffer.name})" for p, s in nests) or "none"
        raise MappingError(f"kernel {kernel.name} has {found} to map{where}", hint=f"name a loop or an output buffer; nests: {known}")
    path, store = chosen[0]
    inside = [f.name for f in path]
    start = inside.index(at) if at in inside else _outermost_perfect(path)
    for f in path[start:]:
        if len(f.body.stmts) != 1:
            raise MappingError(
                f"loop {f.name} of {kernel.name} holds {len(f.body.stmts)} statements: the nest is not perfect",
                hint="fission the loop so that the contraction stands alone",
            )
    return path[start:], store


def _as_reduction(s: Store) -> Store:
    """``c[i] = c[i] + x`` as the ``c[i] += x`` that it is; any other store unchanged."""
    value = s.value.a if isinstance(s.value, Cast) and s.value.dtype == s.buffer.dtype else s.value
    if s.op is None and isinstance(value, Binary) and value.op in st.REDUCTIONS:
        own = Load(s.buffer, s.indices)
        for old, new in ((value.a, value.b), (value.b, value.a)):
            if plain(old) == own:
                return replace(s, op=value.op, value=new)
    return s


def _check_update(kernel: Kernel, target: Store, iterations: tuple[Iteration, ...]) -> None:
    """The nest must be a function of other arrays, with every result either stored once or reduced."""
    name = target.buffer.name
    if any(ld.buffer.name == name for e in st.own_exprs(target) for ld in ex.loads(e)):
        raise MappingError(
            f"the nest of {kernel.name} that writes {name} also reads it: its order matters",
            hint="write the update as a reduction (+=, max, ...) or into another array",
        )
    repeated = [i.name for i in iterations if i.kind == REDUCTION]
    if target.op is None and repeated:
        raise MappingError(
            f"{kernel.name} overwrites {name} in loop {', '.join(repeated)}", hint="a reduction is written with +=, max, ..."
        )


def _reduces(path: Sequence[For], store: Store) -> bool:
    """Whether a loop of the nest folds into one element (``y[i] = max(y[i], 0)`` only updates)."""
    return store.op is not None and not {f.name for f in path} <= {v for i in store.indices for v in ex.free_vars(i)}


def _outermost_perfect(path: Sequence[For]) -> int:
    """First position from which every loop holds exactly one statement (the last loop if none does)."""
    start = len(path) - 1
    while start > 0 and len(path[start].body.stmts) == 1 and len(path[start - 1].body.stmts) == 1:
        start -= 1
    return start


def _stores(s: st.Stmt, path: list[For]) -> Iterator[tuple[list[For], Store]]:
    """Stores below ``s`` with the loops directly around them; a conditional breaks the nest."""
    match s:
        case Store():
            yield list(path), s
        case For():
            for t in s.body.stmts:
                yield from _stores(t, [*path, s])
        case Block():
            for t in s.stmts:
                yield from _stores(t, path)
        case _:
            for t in st.substmts(s):
                yield from _stores(t, [])


def _extent(kernel: Kernel, f: For) -> int:
    span = f.extent
    if not isinstance(span, Const):
        lo, hi = affine(f.lo), affine(f.hi)
        if lo is None or hi is None or lo[0] != hi[0]:
            raise MappingError(f"loop {f.name} of {kernel.name} has symbolic extent {span}", hint="specialize the kernel: bind its sizes")
        return max(0, -(-(hi[1] - lo[1]) // f.step))
    return max(0, int(span.value))


# --- affine indices ---------------------------------------------------------------------------


def affine(e: Expr) -> tuple[dict[str, int], int] | None:
    """``e`` as (coefficient of each variable, constant), or None where it is not affine."""
    form = Simplifier().linear(e)
    terms = {a.name: c for a, c in form.terms.items() if isinstance(a, Var)}
    return (terms, form.const) if len(terms) == len(form.terms) else None


def _output_rows(kernel: Kernel, target: Store, names: tuple[str, ...]) -> tuple[Row, ...]:
    out: list[Row] = []
    for d, e in enumerate(target.indices):
        form = affine(e)
        if form is None:
            raise MappingError(
                f"index {d} of {target.buffer.name} in {kernel.name} is {e}: not affine in the loops",
                hint="only an affine output index can be placed in instruction slots",
            )
        out.append(tuple(form[0].get(n, 0) for n in names))
    return _distinct(out)


def _value_rows(e: Expr, names: tuple[str, ...]) -> Iterator[Row]:
    """Rows that together determine the value of ``e``: the largest affine indices in it.

    An index such as ``(p - r) // 2`` is determined by ``p - r``.
    """
    form = affine(e) if e.dtype.kind == ty.INDEX else None
    if form is not None:
        yield tuple(form[0].get(n, 0) for n in names)
        return
    for c in ex.children(e):
        yield from _value_rows(c, names)


def _distinct(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(dict.fromkeys(r for r in rows if any(r)))


# --- the value --------------------------------------------------------------------------------


def widening(source: DType, target: DType) -> bool:
    """Whether every value of ``source`` is a value of ``target`` (so converting changes nothing)."""
    if source == target:
        return True
    if source.is_float and target.is_float:
        mantissa = {("float", 16): 11, ("bfloat", 16): 8, ("float", 32): 24, ("float", 64): 53}
        wide = mantissa.get((target.kind, target.bits), 0) >= mantissa.get((source.kind, source.bits), 99)
        return wide and (source.bits < target.bits)
    if source.is_int and target.is_int:
        return target.range[0] <= source.range[0] and source.range[1] <= target.range[1]
    if source.is_int and target.is_float:
        digits = {16: 11, 32: 24, 64: 53}[target.bits] if target.kind == ty.FLOAT else 8
        return source.bits <= digits
    return False


def plain(e: Expr) -> Expr:
    """``e`` without conversions that cannot change its value."""
    while isinstance(e, Cast) and widening(e.a.dtype, e.dtype):
        e = e.a
    return e


def _narrowed(target: Store) -> tuple[DType | None, Expr]:
    """The lossy conversion between the arithmetic and the reduction (None: none that matters), and the arithmetic.

    Integer sums, products and bit operations wrap, so keeping only bits that the accumulator keeps
    anyway changes nothing.
    """
    top = plain(target.value)
    if not isinstance(top, Cast) or not isinstance(value := plain(top.a), Binary):
        return None, top
    have, kept, out = value.dtype, top.dtype, target.buffer.dtype
    wraps = target.op not in ("min", "max") and have.is_int and kept.is_int and out.is_int and kept.bits >= out.bits
    return (None if wraps else kept), value


def _leaves(value: Expr) -> tuple[str | None, list[Expr]]:
    """The arithmetic at the top of ``value`` and what it combines, left to right."""
    if not isinstance(value, Binary) or value.op not in COMMUTATIVE:
        return None, [value]

    def split(e: Expr) -> list[Expr]:
        e = plain(e)
        return [*split(e.a), *split(e.b)] if isinstance(e, Binary) and e.op == value.op else [e]

    return value.op, split(value)


def _sources(leaves: Sequence[Expr], names: tuple[str, ...]) -> tuple[Operand, ...]:
    out: list[Operand] = []
    for n, e in enumerate(leaves):
        read = ex.loads(e)
        name = read[0].buffer.name if read else f"value{n}"
        while any(o.name == name for o in out):
            name += "'"
        out.append(Operand(name, e.dtype, e, _distinct(list(_value_rows(e, names)))))
    return tuple(out)
