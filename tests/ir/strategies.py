"""Random well-formed kernels for property tests.

``kernels()`` covers every statement and expression form (for text round trips and structural
passes); ``runnable_kernels()`` only programs that run without error (for semantics: every index is
in bounds, nothing is undefined, no division by zero).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import Alloc, Block, Call, For, If, Kernel, LoopKind, Span, Stmt, While, Window, store
from tilewright.ir.types import DType

FLOATS = (ty.f32, ty.f32, ty.f64, ty.f16, ty.bf16)
INTEGERS = (ty.i8, ty.i32, ty.i64, ty.u8, ty.u64, ty.Int(5), ty.UInt(13), ty.boolean)
DTYPES = st.sampled_from((*FLOATS, *INTEGERS, ty.Fixed(16, 8), ty.UFixed(9, 3)))
EXTENT = st.integers(2, 6)


@dataclass
class Context:
    """What the program being generated has in scope."""

    draw: st.DrawFn
    runnable: bool
    buffers: list[Buffer] = field(default_factory=list)
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    sizes: list[Var] = field(default_factory=list)
    count: int = 0

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    # expressions

    def index(self, extent: Expr | None) -> Expr:
        """An index; in bounds of ``extent`` for runnable programs."""
        names = sorted(self.ranges)
        if not names or self.draw(st.integers(0, 5)) == 0:
            hi = int(extent.value) - 1 if isinstance(extent, ex.Const) else 1
            return ex.idx(self.draw(st.integers(0 if self.runnable else -2, hi)))
        e: Expr = Var(self.draw(st.sampled_from(names)))
        for _ in range(self.draw(st.integers(0, 2))):
            op = self.draw(st.sampled_from(["+", "-", "*", "//", "%", "min", "max"]))
            other = Var(self.draw(st.sampled_from(names))) if op not in ("//", "%") and self.draw(st.booleans()) else None
            e = ex.binary(op, e, other if other is not None else ex.idx(self.draw(st.integers(1, 4))))
        if self.runnable and extent is not None:
            e = e % int(extent.value) if isinstance(extent, ex.Const) else ex.idx(0)
        return e

    def literal(self, dtype: DType) -> Expr:
        if dtype.is_float:
            return ex.const(self.draw(st.floats(-4, 4, width=16)), dtype)
        if dtype.is_fixed:
            lo, hi = dtype.range
            return ex.const(self.draw(st.integers(lo, hi)) / 2**dtype.frac, dtype)
        lo, hi = dtype.range
        return ex.const(self.draw(st.integers(max(lo, -9), min(hi, 9))), dtype)

    def load(self, b: Buffer) -> Expr:
        return b[tuple(self.index(s) for s in b.shape)]

    def value(self, depth: int) -> Expr:
        """A typed expression."""
        choice = self.draw(st.integers(0, 9 if depth > 0 else 1))
        if choice <= 1 or not self.buffers:
            if choice == 0 or not self.buffers:
                return self.literal(self.draw(DTYPES))
            return self.load(self.draw(st.sampled_from(self.buffers)))
        a = self.value(depth - 1)
        if choice == 2:
            return self.converted(a, self.draw(DTYPES))
        if choice == 3:
            return ex.where(self.condition(depth - 1), a, self.value(depth - 1))
        if choice == 4 and a.dtype.is_float:
            # Of tanh every library has its own last digit, which a comparison or floor would magnify.
            return ex.intrinsic(self.draw(st.sampled_from(["sqrt", "floor", "abs", *(() if self.runnable else ("tanh",))])), a)
        if choice == 5 and a.dtype.is_float:
            return ex.intrinsic(self.draw(st.sampled_from(["copysign", "fmod"])), a, self.value(depth - 1))
        if choice == 6 and a.dtype.bits == 32 and a.dtype.kind in (ty.INT, ty.FLOAT):
            return ex.bitcast(a, ty.f32 if a.dtype.is_int else ty.i32)
        return self.binary(a, self.value(depth - 1))

    def converted(self, a: Expr, dtype: DType) -> Expr:
        """A cast; in runnable programs floats are first clamped to what the integer type holds."""
        if self.runnable and a.dtype.is_float and not dtype.is_float and dtype.kind != ty.BOOL:
            lo, hi = (max(min(int(v / 2**dtype.frac), 100), -100) for v in dtype.range)
            a = ex.where(ex.compare("==", a, a), ex.binary("min", ex.binary("max", a, float(lo)), float(hi)), 0.0)
        return ex.cast(a, dtype)

    def binary(self, a: Expr, b: Expr) -> Expr:
        ops = ["+", "-", "*", "min", "max"]
        if a.dtype.is_float or b.dtype.is_float:
            ops.append("/")
        elif not a.dtype.is_fixed and not b.dtype.is_fixed:
            ops += ["&", "|", "^"]
            if not self.runnable:
                ops += ["//", "%", "<<", ">>"]
        elif not self.runnable:
            ops.append("/")
        if a.dtype.bits + b.dtype.bits > 100:
            ops = ["min", "max"]
        return ex.binary(self.draw(st.sampled_from(ops)), a, b)

    def condition(self, depth: int) -> Expr:
        choice = self.draw(st.integers(0, 4 if depth > 0 else 1))
        if choice == 2:
            return ex.logical(self.draw(st.sampled_from(["and", "or"])), self.condition(depth - 1), self.condition(depth - 1))
        if choice == 3:
            return ex.Not(self.condition(depth - 1))
        op = self.draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
        if choice == 0 and self.ranges:
            return ex.compare(op, Var(self.draw(st.sampled_from(sorted(self.ranges)))), self.index(None))
        return ex.compare(op, self.value(max(depth - 1, 0)), self.value(max(depth - 1, 0)))

    # statements

    def block(self, depth: int) -> Block:
        visible = len(self.buffers)
        out: list[Stmt] = []
        for _ in range(self.draw(st.integers(1, 3))):
            out.extend(self.stmt(depth))
        del self.buffers[visible:]
        return Block(tuple(out))

    def stmt(self, depth: int) -> list[Stmt]:
        choice = self.draw(st.integers(0, 9))
        if depth > 0 and choice >= 4:
            if choice <= 7:
                return [self.loop(depth)]
            if choice == 8:
                orelse = self.block(depth - 1) if self.draw(st.booleans()) else None
                return [If(self.condition(1), self.block(depth - 1), orelse)]
            if not self.runnable:
                inner = self.block(depth - 1)
                return [While(self.condition(1), inner)] if self.draw(st.booleans()) else [inner]
        if choice == 3:
            return self.alloc()
        if choice == 2 and (call := self.call()) is not None:
            return [call]
        return [self.store()]

    def store(self) -> Stmt:
        b = self.draw(st.sampled_from(self.buffers))
        op = self.draw(st.sampled_from([None, None, "+", "*", "min", "max"]))
        target = b[tuple(self.index(s) for s in b.shape)]
        value = self.value(2)
        if value.dtype.is_float and not b.dtype.is_float:
            value = self.converted(value, b.dtype)
        return store(target, value, op)

    def alloc(self) -> list[Stmt]:
        scalar = self.runnable or self.draw(st.booleans())
        memory = self.draw(st.sampled_from(["dram", "dram", "reg"]))
        shape = () if scalar else (self.draw(EXTENT), self.draw(EXTENT))
        layout = "1/2 0 1" if shape and self.draw(st.booleans()) else None
        b = buffer(self.fresh("t"), self.draw(DTYPES), shape, memory, layout)
        out: list[Stmt] = [Alloc(b)]
        if scalar and (self.runnable or self.draw(st.booleans())):
            out.append(store(b[()], self.converted(self.value(1), b.dtype)))
        self.buffers.append(b)
        return out

    def loop(self, depth: int) -> Stmt:
        v = Var(self.fresh("i"))
        lo, hi = self.draw(st.integers(0, 2)), self.draw(st.integers(2, 5))
        low: Expr = ex.idx(lo)
        if self.ranges and self.draw(st.integers(0, 2)) == 0:
            low = Var(self.draw(st.sampled_from(sorted(self.ranges))))
        kinds = [LoopKind.SERIAL, LoopKind.UNROLL] if self.runnable else list(LoopKind)  # the others promise independence
        kind = self.draw(st.sampled_from(kinds))
        self.ranges[v.name] = (0, hi)
        body = self.block(depth - 1)
        del self.ranges[v.name]
        unit = "core" if kind is LoopKind.BIND else None
        return For(v, low, ex.idx(hi), body, kind, self.draw(st.integers(1, 3)), unit)

    def call(self) -> Stmt | None:
        vectors = [b for b in self.buffers if b.dtype == ty.f32 and b.shape and isinstance(b.shape[-1], ex.Const)]
        if not vectors:
            return None
        x, y = self.draw(st.sampled_from(vectors)), self.draw(st.sampled_from(vectors))
        n = min(int(x.shape[-1].value), int(y.shape[-1].value))  # type: ignore[attr-defined]
        return Call(SCALE, (ex.idx(n),), (self.row(x, n), self.row(y, n)))

    def row(self, b: Buffer, n: int) -> Window:
        return Window(b, (*(self.index(s) for s in b.shape[:-1]), Span(ex.idx(0), ex.idx(n))))


def _scale() -> Kernel:
    n, i = Var("N"), Var("i")
    x, y = buffer("x", ty.f32, (n,)), buffer("y", ty.f32, (n,))
    return Kernel("scale", (x, y), Block((For(i, ex.idx(0), n, Block((store(x[i], y[i] * 0.5),))),)), (n,), "test/scale")


#: The kernel that generated programs call: ``x[i] = y[i] * 0.5``.
SCALE = _scale()


@st.composite
def kernels(draw: st.DrawFn, runnable: bool = False) -> Kernel:
    """A random kernel ``k``; with ``runnable`` one that runs on any arguments without error."""
    c = Context(draw, runnable)
    if not runnable and draw(st.booleans()):
        c.sizes.append(Var("M"))
    args = []
    for _ in range(draw(st.integers(1, 3))):
        rank = draw(st.integers(0, 3))
        extents = [c.sizes[0] if c.sizes and draw(st.booleans()) else draw(EXTENT) for _ in range(rank)]
        layout = "1/2 0 1" if rank == 2 and draw(st.booleans()) else None
        args.append(buffer(c.fresh("a"), draw(DTYPES), tuple(extents), draw(st.sampled_from(["dram", "l1"])), layout))
    c.buffers = list(args)
    return Kernel("k", tuple(args), c.block(3), tuple(c.sizes), draw(st.sampled_from([None, "some.machine/op"])))


def runnable_kernels() -> st.SearchStrategy[Kernel]:
    """Random kernels that run on any arguments without error."""
    return kernels(runnable=True)
