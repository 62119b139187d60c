"""The reference for large sizes: the interpreter's contract, with loops as NumPy operations.

A loop nest around one store runs as one contraction or one evaluation over its iteration grid when
no instance reads what another writes (checked on the actual indices); otherwise its outermost loop
runs in order and what is inside is tried again. Integers are exact. Float expressions are computed
in their own types; vectorised sums and products accumulate in f64 and are rounded to the element
type once per nest, so results are at least as accurate as the interpreter's, not bit-identical.
Undefined data is poisoned (NaN, smallest integer) but not reported: that is the interpreter's work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tilewright.ir import types as ty
from tilewright.ir.arguments import bind_arguments
from tilewright.ir.buffer import Buffer
from tilewright.ir.contract import LoopRange, contract
from tilewright.ir.expr import Expr, Load, evaluate, free_vars
from tilewright.ir.expr import loads as expr_loads
from tilewright.ir.grid import Grid, NotVectorizable, convert, storage, supported
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Alloc, Block, Call, For, If, Kernel, Span, Stmt, Store, While, Window, all_buffers, walk, written_buffers

#: Kernels with fewer statement instances than this run in the interpreter: it has no setup per nest.
_SMALL = 300_000
#: Points evaluated at once, so that temporaries stay within a few hundred MB.
_GRID_POINTS = 1 << 22

_REDUCE: dict[str, Any] = {
    "+": np.add,
    "*": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
}


def reference(kernel: Kernel, args: Mapping[str, np.ndarray] | Sequence[np.ndarray], sizes: Mapping[str, int] | None = None) -> None:
    """Run ``kernel`` on arrays, updating them in place: like :func:`interpret`, fast on large nests.

    What cannot be vectorised exactly (fixed point, integers wider than 64 bits) and programs that
    do something wrong run in the interpreter, which raises its own errors.
    """
    arrays, bound = bind_arguments(kernel, args, sizes)
    if _instances(kernel.body, dict(bound)) < _SMALL or not all(supported(b.dtype) for b in _every_buffer(kernel)):
        interpret(kernel, arrays, bound)
        return
    working = {b.name: _working(b, arrays[b.name]) for b in kernel.args}
    try:
        with np.errstate(all="ignore"):
            _Run(dict(working), dict(bound)).block(kernel.body)
    except NotVectorizable:
        interpret(kernel, arrays, bound)
        return
    for name in sorted(written_buffers(kernel.body)):
        if name in arrays:
            _write_back(kernel.arg(name), working[name], arrays[name])


def _every_buffer(k: Kernel) -> list[Buffer]:
    inner = [s.kernel for s in walk(k.body) if isinstance(s, Call)]
    return all_buffers(k) + [b for c in inner for b in _every_buffer(c)]


def _instances(s: Stmt, env: dict[str, int]) -> float:
    """Roughly how many statements run, taking outer loop variables at their middle."""
    match s:
        case Block():
            return sum(_instances(t, env) for t in s.stmts)
        case For():
            lo, hi = _estimate(s.lo, env), _estimate(s.hi, env)
            return max(0, -(-(hi - lo) // s.step)) * _instances(s.body, {**env, s.name: (lo + hi) // 2})
        case If():
            return max(_instances(s.then, env), _instances(s.orelse, env) if s.orelse else 0)
        case While():
            return 10 * _instances(s.body, env)
        case Call():
            inner = {v.name: _estimate(e, env) for v, e in zip(s.kernel.sizes, s.sizes, strict=True)}
            return _instances(s.kernel.body, inner)
    return 1


def _estimate(e: Expr, env: Mapping[str, int]) -> int:
    return 1 if expr_loads(e) else int(evaluate(e, env))


def _working(b: Buffer, array: np.ndarray) -> np.ndarray:
    if b.dtype.kind == ty.BFLOAT:
        return np.asarray(array.astype(np.uint32) << 16).view(np.float32)
    return np.array(array, dtype=storage(b.dtype), order="C")


def _write_back(b: Buffer, working: np.ndarray, array: np.ndarray) -> None:
    array[...] = (working.view(np.uint32) >> 16).astype(np.uint16) if b.dtype.kind == ty.BFLOAT else working.astype(array.dtype)


class _Run:
    """One activation of a kernel: arrays by buffer name, values of sizes and outer loop variables."""

    def __init__(self, arrays: dict[str, np.ndarray], env: dict[str, int]) -> None:
        self.arrays = arrays
        self.env = env

    def number(self, e: Expr) -> Any:
        return Grid(self.arrays, self.env).value(e)

    def block(self, b: Block) -> None:
        for s in b.stmts:
            self.stmt(s)

    def stmt(self, s: Stmt) -> None:
        match s:
            case Block():
                self.block(s)
            case Store():
                self.grid(s, [], [])
            case For():
                self.loop(s)
            case If():
                if self.number(s.cond):
                    self.block(s.then)
                elif s.orelse is not None:
                    self.block(s.orelse)
            case While():
                while self.number(s.cond):
                    self.block(s.body)
            case Alloc():
                self.alloc(s.buffer)
            case Call():
                self.call(s)
            case _:
                raise NotVectorizable

    def alloc(self, b: Buffer) -> None:
        poison = np.nan if b.dtype.is_float else b.dtype.range[0]
        self.arrays[b.name] = np.full([int(self.number(e)) for e in b.shape], poison, dtype=storage(b.dtype))

    def call(self, s: Call) -> None:
        sizes = {v.name: int(self.number(e)) for v, e in zip(s.kernel.sizes, s.sizes, strict=True)}
        arrays = {p.name: self.window(w) for w, p in zip(s.args, s.kernel.args, strict=True)}
        for p in s.kernel.args:
            if arrays[p.name].shape != tuple(int(evaluate(e, sizes)) for e in p.shape):
                raise NotVectorizable
        _Run(arrays, sizes).block(s.kernel.body)

    def window(self, w: Window) -> np.ndarray:
        array = self.arrays[w.buffer.name]
        cut, kept = [], []
        for i, n in zip(w.indices, array.shape, strict=True):
            lo, extent, step = (
                (int(self.number(i.lo)), int(self.number(i.extent)), i.step) if isinstance(i, Span) else (int(self.number(i)), 1, 1)
            )
            if extent < 1 or lo < 0 or lo + (extent - 1) * step >= n:
                raise NotVectorizable
            cut.append(slice(lo, lo + (extent - 1) * step + 1, step))
            kept.append(slice(None) if isinstance(i, Span) else 0)
        view = array[tuple(cut)]
        return view[(*kept, ...)]  # the ellipsis keeps a 0-d view a view

    # nests

    def loop(self, s: For) -> None:
        """The nest at ``s`` at once if possible, else ``s`` in order."""
        ranges, conditions, store = self.perfect_nest(s)
        if store is not None and self.vectorized(store, ranges, conditions):
            return
        for i in range(int(self.number(s.lo)), int(self.number(s.hi)), s.step):
            self.env[s.name] = i
            self.block(s.body)
        self.env.pop(s.name, None)

    def perfect_nest(self, s: For) -> tuple[list[LoopRange], list[Expr], Store | None]:
        """Loops with bounds that do not vary in the nest, conditions, and the one store below them."""
        ranges: list[LoopRange] = []
        conditions: list[Expr] = []
        inner: Stmt = s
        while True:
            match inner:
                case For():
                    if (
                        {r.name for r in ranges} & (free_vars(inner.lo) | free_vars(inner.hi))
                        or expr_loads(inner.lo)
                        or expr_loads(inner.hi)
                    ):
                        return ranges, conditions, None
                    lo, hi = int(self.number(inner.lo)), int(self.number(inner.hi))
                    ranges.append(LoopRange(inner.name, lo, max(0, -(-(hi - lo) // inner.step)), inner.step))
                    body = inner.body
                case If(orelse=None):
                    conditions.append(inner.cond)
                    body = inner.then
                case Store():
                    return ranges, conditions, inner
                case _:
                    return ranges, conditions, None
            if len(body.stmts) != 1:
                return ranges, conditions, None
            inner = body.stmts[0]

    def vectorized(self, s: Store, ranges: list[LoopRange], conditions: list[Expr]) -> bool:
        points = prod(r.extent for r in ranges)
        if points == 0:
            return True
        if not conditions and contract(s, ranges, self.arrays, self.env):
            return True
        return points <= _GRID_POINTS and self.grid(s, ranges, conditions)

    def grid(self, s: Store, ranges: list[LoopRange], conditions: list[Expr]) -> bool:
        """All instances at once, unless one reads what another writes; False then, and nothing is done."""
        shape = tuple(r.extent for r in ranges)
        env: dict[str, Any] = dict(self.env)
        for axis, r in enumerate(ranges):
            ones = [1] * len(ranges)
            ones[axis] = r.extent
            env[r.name] = (r.lo + r.step * np.arange(r.extent)).reshape(ones)
        grid = Grid(self.arrays, env)
        if any(ld.buffer.name == s.buffer.name for c in conditions for ld in expr_loads(c)) and ranges:
            return False
        mask: Any = None
        for c in conditions:
            here = grid.value(c, mask)
            mask = here if mask is None else mask & here
        target = self.arrays[s.buffer.name]
        at = grid.indices(s.buffer.name, s.indices, mask)
        own = [ld for ld in expr_loads(s.value) if ld.buffer.name == s.buffer.name]
        if ranges and own and not self.independent(s, own, grid, at, shape, mask):
            return False
        value = convert(grid.value(s.value, mask), s.value.dtype, s.buffer.dtype) if s.op is None else grid.value(s.value, mask)
        if s.op is None:
            self.assign(target, at, value, shape, mask)
        else:
            self.reduce(s, target, at, value, shape, mask)
        return True

    def independent(self, s: Store, own: list[Load], grid: Grid, at: tuple[Any, ...], shape: tuple[int, ...], mask: Any) -> bool:
        """Does no instance read an element of the target that another instance writes?"""
        target = self.arrays[s.buffer.name]
        if mask is not None:
            return False
        count = prod(shape)
        written = np.broadcast_to(_flat(target, at), shape).reshape(-1)
        writer = np.full(target.size, -1)
        writer[written] = np.arange(count)
        once = bool((writer[written] == np.arange(count)).all())
        for ld in own:
            read = np.broadcast_to(_flat(target, grid.indices(s.buffer.name, ld.indices)), shape).reshape(-1)
            conflict = writer[read] != -1
            if once:
                conflict &= writer[read] != np.arange(count)
            if conflict.any():
                return False
        return True

    @staticmethod
    def assign(target: np.ndarray, at: tuple[Any, ...], value: Any, shape: tuple[int, ...], mask: Any) -> None:
        """Stores in loop order: the last one to an element stays."""
        flat, values = np.broadcast_to(_flat(target, at), shape), np.broadcast_to(value, shape)
        if mask is not None:
            chosen = np.broadcast_to(mask, shape)
            flat, values = flat[chosen], values[chosen]
        target.flat[flat.reshape(-1)] = values.reshape(-1)

    @staticmethod
    def reduce(s: Store, target: np.ndarray, at: tuple[Any, ...], value: Any, shape: tuple[int, ...], mask: Any) -> None:
        """``op=`` at every point, accumulating in f64 or int64."""
        t, op = s.buffer.dtype, s.op or ""
        result = ty.arithmetic_type(op, t, s.value.dtype)
        floating = result.is_float
        if not t.is_float and floating:
            raise NotVectorizable  # each partial sum would be truncated
        wide: Any = np.float64 if floating else (np.bool_ if result.kind == ty.BOOL else np.int64)
        flat = np.broadcast_to(_flat(target, at), shape)
        values = np.broadcast_to(np.asarray(value, dtype=wide), shape)
        if mask is not None:
            chosen = np.broadcast_to(mask, shape)
            flat, values = flat[chosen], values[chosen]
        touched, where = np.unique(flat.reshape(-1), return_inverse=True)
        accumulator = target.reshape(-1)[touched].astype(wide)
        _REDUCE[op].at(accumulator, where, values.reshape(-1))
        kind = ty.f64 if floating else (ty.boolean if wide is np.bool_ else ty.i64)
        target.flat[touched] = convert(accumulator, kind, t)


def _flat(target: np.ndarray, at: tuple[Any, ...]) -> Any:
    """Row-major position of the elements at index arrays."""
    position: Any = np.int64(0)
    for i, n in zip(at, target.shape, strict=True):
        position = position * n + i
    return position
