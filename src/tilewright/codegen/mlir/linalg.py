"""Perfect affine nests of one store as linalg.generic."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.codegen.mlir.builder import Builder, Value, element_type, memref
from tilewright.codegen.mlir.expression import Expressions, reads
from tilewright.ir import expr as ex
from tilewright.ir.expr import Binary, Const, Expr, Load, Var
from tilewright.ir.stmt import For, Store
from tilewright.ir.types import arithmetic_type


def generic(nest: For, builder: Builder) -> bool:
    """Emits ``nest`` as one linalg.generic; False (and nothing emitted) where linalg cannot say it.

    Wanted are loops from 0 by 1 to constants around one store, subscripts that are affine in them, an output subscripted by loops
    alone, every loop's extent equal to that of a dimension it subscripts, and a reduction for loops that the output lacks.
    """
    loops, store = _perfect(nest)
    if store is None:
        return False
    target = Load(store.buffer, store.indices)
    inputs = list(dict.fromkeys(reads(store.value)))
    accesses = [*inputs, target]
    order = {f.name: n for n, f in enumerate(loops)}
    if any(a.buffer.layout is not None for a in accesses) or not _is_whole(accesses, loops) or not _is_plain(target):
        return False
    if (
        any(v.name in order for v in _variables(store.value))
        or target in inputs
        or any(a.buffer.name == target.buffer.name for a in inputs)
    ):
        return False
    kept = {i.name for i in target.indices if isinstance(i, Var)}
    if store.op is None and kept != set(order):
        return False
    _emit(builder, loops, store, inputs, [_map(a, order) for a in accesses], [f.name in kept for f in loops])
    return True


def _perfect(nest: For) -> tuple[list[For], Store | None]:
    loops, inner = [nest], nest
    while len(inner.body.stmts) == 1 and isinstance(inner.body.stmts[0], For):
        inner = inner.body.stmts[0]
        loops.append(inner)
    ordinary = all(isinstance(f.lo, Const) and f.lo.value == 0 and isinstance(f.hi, Const) and f.step == 1 for f in loops)
    only = inner.body.stmts[0] if len(inner.body.stmts) == 1 else None
    return loops, only if ordinary and isinstance(only, Store) else None


def _is_whole(accesses: Sequence[Load], loops: Sequence[For]) -> bool:
    """Whether linalg infers these loops from the shapes: each subscripts a dimension of its extent, subscripts are affine and reach."""
    names = {f.name: int(f.hi.value) for f in loops if isinstance(f.hi, Const)}
    inferred: set[str] = set()
    for a in accesses:
        for i, extent in zip(a.indices, a.buffer.shape, strict=True):
            if not _affine(i, set(names)) or not isinstance(extent, Const):
                return False
            if isinstance(i, Var):
                if names[i.name] != extent.value:
                    return False
                inferred.add(i.name)
            elif ex.evaluate(i, {n: e - 1 for n, e in names.items()}) >= extent.value:
                return False
    return inferred == set(names)


def _affine(e: Expr, loops: set[str]) -> bool:
    match e:
        case Const():
            return True
        case Var():
            return e.name in loops
        case Binary(op="+"):
            return _affine(e.a, loops) and _affine(e.b, loops)
        case Binary(op="*"):
            return any(isinstance(x, Const) and x.value >= 0 for x in (e.a, e.b)) and _affine(e.a, loops) and _affine(e.b, loops)
    return False


def _is_plain(target: Load) -> bool:
    names = [i.name for i in target.indices if isinstance(i, Var)]
    return len(names) == len(target.indices) == len(set(names))


def _variables(e: Expr) -> list[Var]:
    """Loop variables used as values, outside of subscripts."""
    if isinstance(e, Var):
        return [e]
    return [] if isinstance(e, Load) else [v for c in ex.children(e) for v in _variables(c)]


def _map(a: Load, order: dict[str, int]) -> str:
    dims = ", ".join(f"d{n}" for n in order.values())
    return f"affine_map<({dims}) -> ({', '.join(_text(i, order) for i in a.indices)})>"


def _text(e: Expr, order: dict[str, int]) -> str:
    match e:
        case Const():
            return str(int(e.value))
        case Var():
            return f"d{order[e.name]}"
        case Binary(op="*") if isinstance(e.a, Const):
            return f"({_text(e.b, order)}) * {e.a.value}"
        case Binary():
            return f"({_text(e.a, order)}) {e.op} {_text(e.b, order)}"
    raise AssertionError(e)


def _emit(b: Builder, loops: Sequence[For], s: Store, inputs: Sequence[Load], maps: Sequence[str], parallel: Sequence[bool]) -> None:
    kinds = ", ".join('"parallel"' if p else '"reduction"' for p in parallel)
    b.line(f"linalg.generic {{  // {' '.join(f.name for f in loops)}")
    b.line(f"  indexing_maps = [{', '.join(maps)}],")
    b.line(f"  iterator_types = [{kinds}]")
    ins = f"ins({', '.join(f'%{a.buffer.name}' for a in inputs)} : {', '.join(memref(a.buffer) for a in inputs)}) " if inputs else ""
    b.line(f"}} {ins}outs(%{s.buffer.name} : {memref(s.buffer)}) {{")
    names = [b.fresh() for _ in (*inputs, s)]
    types = [element_type(a.dtype) for a in (*inputs, Load(s.buffer, s.indices))]
    b.line(f"^bb0({', '.join(f'{n}: {t}' for n, t in zip(names, types, strict=True))}):")
    b.depth += 1
    raw = {a: Value(n, t) for a, n, t in zip([*inputs, Load(s.buffer, s.indices)], names, types, strict=True)}
    x = Expressions(b, lambda e: x.loaded(raw[e], e.dtype), _no_variable)
    value, dtype = s.value, s.buffer.dtype
    if s.op is not None:
        value = Binary(s.op, Load(s.buffer, s.indices), value, arithmetic_type(s.op, dtype, value.dtype))
    out = x.stored(x.converted(x.value(value), value.dtype, dtype), dtype)
    b.line(f"linalg.yield {out} : {out.type}")
    b.depth -= 1
    b.line("}")


def _no_variable(name: str) -> Value:
    raise AssertionError(f"{name} is used as a value")  # generic() has refused such nests
