"""Tensor expressions: say what each element is, get the loops.

    a, b = tensor("a", f32, (64, 32)), tensor("b", f32, (32, 48))
    k = reduce_axis(0, 32, "k")
    c = compute("c", (64, 48), lambda i, j: sum(a[i, k] * b[k, j], k))
    gemm = build("gemm", [a, b], [c])

A reduction becomes two nests: ``c[i, j] = 0``, then ``c[i_1, j_1] += a[i_1, k] * b[k, j_1]``.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.expr import Expr, ExprLike, Load, Var
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt, store
from tilewright.ir.types import DType
from tilewright.lang.reductions import Reduction
from tilewright.lang.scope import Scope
from tilewright.util.errors import LanguageError


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An input (``body`` is None) or the result of :func:`compute`. Index it to read an element."""

    buffer: Buffer
    indices: tuple[Var, ...] = ()
    body: Expr | Reduction | None = None
    sources: tuple[Tensor, ...] = ()

    @property
    def name(self) -> str:
        return self.buffer.name

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype

    @property
    def shape(self) -> tuple[Expr, ...]:
        return self.buffer.shape

    def __getitem__(self, indices: ExprLike | tuple[ExprLike, ...]) -> Expr:
        """An element; raises IRTypeError when the number of indices does not fit."""
        load = self.buffer[indices]
        return TensorLoad(load.buffer, load.indices, self)


@dataclass(frozen=True, slots=True, repr=False)
class TensorLoad(Load):
    """An element that remembers its tensor, so that :func:`build` finds the producers."""

    tensor: Tensor | None = None


def size(name: str) -> Var:
    """A symbolic extent: it becomes a size parameter of the kernel."""
    return Var(name)


def tensor(name: str, dtype: DType, shape: Sequence[ExprLike] = ()) -> Tensor:
    """An input of ``shape`` (ints or :func:`size` expressions); shape () is a scalar."""
    return Tensor(buffer(name, dtype, tuple(shape)))


def compute(
    name: str, shape: Sequence[ExprLike], body: Callable[..., Any], axes: Sequence[str] | None = None, dtype: DType | None = None
) -> Tensor:
    """The tensor whose element at ``(i, j, ...)`` is ``body(i, j, ...)``, an expression or a reduction.

    ``axes`` names the loops (default: the parameters of ``body``). ``dtype``: default the type of
    the expression; integer sums default to i32 (i64 when the terms are wider than 32 bits).
    """
    names = list(axes) if axes is not None else _parameter_names(body, len(shape))
    if len(names) != len(shape):
        raise LanguageError(f"{name}: {len(shape)} dimensions but {len(names)} axes ({', '.join(names)})")
    indices = tuple(Var(n) for n in names)
    result = body(*indices)
    value = result.value if isinstance(result, Reduction) else ex.as_expr(result, dtype)
    if isinstance(result, Reduction):
        _check_axes(name, indices, result)
    element = dtype or (_sum_type(value.dtype) if isinstance(result, Reduction) and result.op in ("+", "*") else value.dtype)
    sources = tuple({id(n.tensor): n.tensor for n in ex.walk(value) if isinstance(n, TensorLoad) and n.tensor}.values())
    return Tensor(buffer(name, element, tuple(shape)), indices, result if isinstance(result, Reduction) else value, sources)


def _parameter_names(body: Callable[..., Any], rank: int) -> list[str]:
    parameters = list(inspect.signature(body).parameters.values())
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return [f"i{d}" for d in range(rank)]
    return [p.name for p in parameters]


def _check_axes(name: str, indices: tuple[Var, ...], r: Reduction) -> None:
    taken = [v.name for v in indices] + [a.name for a in r.axes]
    if len(set(taken)) != len(taken):
        raise LanguageError(f"{name}: axis names {', '.join(taken)} are not distinct", hint="give reduce_axis another name")


def _sum_type(t: DType) -> DType:
    if t.is_float or t.is_fixed or t.kind == ty.INDEX:
        return t
    return ty.i32 if t.bits <= 32 else ty.i64


# --- lowering ---------------------------------------------------------------------------------


def build(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Kernel:
    """The kernel that computes ``outputs`` from ``inputs`` (its arguments, in that order).

    Tensors in between become local arrays. Symbols in shapes become size parameters, in order of
    appearance. Raises LanguageError when an output depends on a tensor that is not an input.
    """
    scope = Scope({})
    ordered = _producers(name, inputs, outputs)
    arguments = [t.buffer for t in (*inputs, *outputs)]
    for b in [*arguments, *(t.buffer for t in ordered if t.buffer not in arguments)]:
        if scope.fresh(b.name) != b.name:
            raise LanguageError(f"{name}: two tensors are called {b.name!r}", hint="rename one of them")
    sizes = _sizes([*inputs, *ordered])
    for v in sizes:
        if scope.fresh(v.name) != v.name:
            raise LanguageError(f"{name}: {v.name!r} names both a size and a tensor", hint="rename one of them")
    body: list[Stmt] = []
    for t in ordered:
        if t not in outputs:
            body.append(Alloc(t.buffer))
        body.extend(_nests(t, scope))
    return Kernel(name, tuple(arguments), Block(tuple(body)), sizes)


def _producers(name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    """Computed tensors that the outputs need, producers first."""
    order: list[Tensor] = []

    def visit(t: Tensor) -> None:
        if t in inputs or t in order:
            return
        if t.body is None:
            raise LanguageError(
                f"{name}: tensor {t.name!r} is neither computed nor an input", hint=f"add it to inputs: build({name!r}, [...])"
            )
        for s in t.sources:
            visit(s)
        order.append(t)

    for t in outputs:
        visit(t)
    return order


def _sizes(tensors: Sequence[Tensor]) -> tuple[Var, ...]:
    found: dict[str, Var] = {}
    for t in tensors:
        extents = list(t.shape)
        if isinstance(t.body, Reduction):
            extents += itertools.chain.from_iterable((a.lo, a.hi) for a in t.body.axes)
        own = {v.name for v in t.indices}
        found |= {v.name: Var(v.name) for e in extents for v in ex.walk(e) if isinstance(v, Var) and v.name not in own}
    return tuple(found.values())


def _nests(t: Tensor, scope: Scope) -> Iterator[Stmt]:
    """The loops that compute ``t``."""
    spatial = [(v.name, ex.idx(0), s) for v, s in zip(t.indices, t.shape, strict=True)]
    if not isinstance(t.body, Reduction):
        yield from _nest(t, t.body, None, spatial, scope)  # type: ignore[arg-type]
        return
    r = t.body
    yield from _nest(t, ex.const(t.dtype.neutral(r.op), t.dtype), None, spatial, scope)
    yield from _nest(t, r.value, r.op, spatial + [(a.name, a.lo, a.hi) for a in r.axes], scope)


def _nest(t: Tensor, value: Expr, op: str | None, loops: list[tuple[str, Expr, Expr]], scope: Scope) -> tuple[Stmt, ...]:
    names = {n: Var(scope.fresh(n)) for n, _, _ in loops}

    def plain(e: Expr) -> Expr | None:
        if isinstance(e, TensorLoad):
            return Load(e.buffer, e.indices)
        return names.get(e.name) if isinstance(e, Var) else None

    target = t.buffer[tuple(names[v.name] for v in t.indices)]
    body: tuple[Stmt, ...] = (store(target, ex.transform(value, plain), op),)
    for n, lo, hi in reversed(loops):
        body = (For(names[n], ex.transform(lo, plain), ex.transform(hi, plain), Block(body)),)
    return body
