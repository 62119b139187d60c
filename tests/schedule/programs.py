"""Programs for schedule tests: random affine kernels, and how results are compared.

Loops that run concurrently are also checked in reverse: an interpreter that runs them in order
would not notice a race, but exchanging every pair of iterations does.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.expr import Expr, Var
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Alloc, Block, For, If, Kernel, LoopKind, Stmt, map_stmts, store, substitute
from tilewright.lang import parse

CONCURRENT = (LoopKind.PARALLEL, LoopKind.VECTOR, LoopKind.BIND)


def kernel_of(text: str) -> Kernel:
    """The kernel whose definition (without decorator lines for constant sizes) is ``text``."""
    text = text.strip("\n")
    return parse(text if text.startswith("@") else "@kernel\n" + text)


def reversed_concurrency(kernel: Kernel) -> Kernel:
    """``kernel`` with the iterations of its concurrent loops in the opposite order."""

    def backwards(s: Stmt) -> Stmt | None:
        if not isinstance(s, For) or s.kind not in CONCURRENT:
            return None
        last = s.lo + (s.extent - 1) * s.step
        body = substitute(s.body, {s.name: s.lo + last - s.var})
        return replace(s, body=body)

    body = map_stmts(kernel.body, backwards)
    assert isinstance(body, Block)
    return kernel.with_(body=body)


def arguments(kernel: Kernel, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Fresh random arrays: well-conditioned floats, small integers."""
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for b in kernel.args:
        shape = tuple(int(ex.evaluate(e, sizes)) for e in b.shape)
        if b.dtype.is_float:
            data = rng.uniform(1.0, 2.0, shape) + (np.eye(*shape) * 8 if len(shape) == 2 and shape[0] == shape[1] else 0)
        else:
            data = rng.integers(*((0, 4) if b.dtype.bits < 16 else (-20, 20)), shape)
        out[b.name] = np.asarray(data).astype(b.dtype.to_numpy())
    return out


def run(kernel: Kernel, sizes: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Results of the interpreter on :func:`arguments`."""
    args = arguments(kernel, sizes, seed)
    interpret(kernel, args, sizes)
    return args


def assert_same(original: Kernel, scheduled: Kernel, sizes: dict[str, int] | None = None, seed: int = 0) -> None:
    """Both kernels compute the same arrays, whichever way concurrent loops run."""
    sizes = sizes or {}
    expected = run(original, sizes, seed)
    for candidate in (scheduled, reversed_concurrency(scheduled)):
        found = run(candidate, sizes, seed)
        for name, want in expected.items():
            if want.dtype.kind == "f":  # reassociated sums differ in the last bits
                same = np.allclose(found[name], want, rtol=0.1 * float(np.sqrt(np.finfo(want.dtype).eps)), equal_nan=True)
            else:
                same = np.array_equal(found[name], want)
            assert same, f"{name} differs\n{original}\n{candidate}"


# --- random kernels -----------------------------------------------------------------------------


class RandomKernel:
    """One random program: nests (perfect or not, triangular or not) of stores with affine indices."""

    EXTENT = 44

    def __init__(self, rng: Random):
        self.rng = rng
        self.count = 0
        self.symbolic = rng.random() < 0.25
        self.size = Var("N")
        wide: Expr = ex.idx(self.EXTENT)
        self.buffers = [buffer("A", ty.i32, (wide,)), buffer("B", ty.i32, (wide, wide)), buffer("C", ty.i32, (wide, wide))]

    def build(self) -> Kernel:
        body = self.block((), {}, 0)
        return Kernel("random", tuple(self.buffers), body, (self.size,) if self.symbolic else ())

    def block(self, dims: tuple[str, ...], ranges: dict[str, tuple[int, int]], depth: int) -> Block:
        rng = self.rng
        out: list[Stmt] = []
        local: list[Buffer] = []
        if dims and rng.random() < 0.15:
            self.count += 1
            t = buffer(f"t{self.count}", ty.i32, ())
            out += [Alloc(t), store(t[()], rng.randrange(5))]
            local.append(t)
        self.buffers += local
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
            if depth < 3 and (not dims or rng.random() < 0.65):
                out.append(self.loop(dims, ranges, depth))
            elif dims and rng.random() < 0.15:
                out.append(If(self.condition(dims), Block((self.store(dims, ranges),))))
            else:
                out.append(self.store(dims, ranges))
        self.buffers = [b for b in self.buffers if b not in local]
        return Block(tuple(out))

    def loop(self, dims: tuple[str, ...], ranges: dict[str, tuple[int, int]], depth: int) -> For:
        rng = self.rng
        self.count += 1
        name = f"i{self.count}"
        lo: Expr = ex.idx(rng.randrange(2))
        hi: Expr = ex.idx(rng.randrange(2, 6))
        if self.symbolic and rng.random() < 0.5:
            hi = self.size
        if dims and rng.random() < 0.25:
            other = Var(rng.choice(dims))
            lo, hi = rng.choice([(lo, other + 1), (other, hi), (other + 1, hi), (lo, ex.binary("min", other + 2, hi))])
        step = rng.choice((1, 1, 1, 1, 2))
        body = self.block((*dims, name), {**ranges, name: (0, 6)}, depth + 1)
        return For(Var(name), lo, hi, body, LoopKind.SERIAL, step)

    def index(self, dims: tuple[str, ...]) -> Expr:
        """In [0, EXTENT): every loop stays within [0, 6]."""
        rng = self.rng
        e: Expr = ex.idx(14)
        for name in rng.sample(dims, min(len(dims), rng.choice((0, 1, 1, 1, 2)))):
            e = e + Var(name) * rng.choice((1, 1, 1, 1, 2, -1)) if rng.random() < 0.9 else e + Var(name) // 2
        return e + rng.choice((-1, 0, 0, 0, 0, 1))

    def condition(self, dims: tuple[str, ...]) -> Expr:
        rng = self.rng
        a = Var(rng.choice(dims)) + Var(rng.choice(dims))
        if rng.random() < 0.3:
            return ex.compare("==", a % 2, rng.randrange(2))
        return ex.compare(rng.choice(("<", "<=", ">=", "!=")), a, rng.randrange(1, 8))

    def element(self, dims: tuple[str, ...]) -> ex.Load:
        b = self.rng.choice(self.buffers)
        return b[tuple(self.index(dims) for _ in b.shape)]

    def store(self, dims: tuple[str, ...], ranges: dict[str, tuple[int, int]]) -> Stmt:
        rng = self.rng
        value: Expr = self.element(dims)
        for _ in range(rng.choice((0, 1, 1))):
            value = ex.binary(rng.choice(("+", "-", "*", "max")), value, self.element(dims))
        if rng.random() < 0.3:
            value = ex.binary("+", value, ex.cast(Var(rng.choice(dims)), ty.i32))
        if rng.random() < 0.2:
            value = ex.where(self.condition(dims), value, ex.cast(self.element(dims), ty.i32))
        target = self.element(dims)
        op = rng.choice((None, None, "+", "+", "*", "max"))
        return store(target, ex.cast(value, ty.i32) if op == "max" else value, op)
