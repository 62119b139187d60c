"""Random tensor programs as people write them: a contraction, convolution, pooling or row operation, and what follows it.

A program grows a pool of tensors: each step reads some of them and adds one. Outputs are chosen among all, so values
are read by several stages and written out in the middle. Values stay moderate and no step compares computed floats,
so that an accumulated rounding error never decides which branch is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from random import Random

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import Block, Kernel
from tilewright.ir.types import DType
from tilewright.lang import Tensor, build, compute, einsum, reduce_axis, tensor
from tilewright.lang import any as some
from tilewright.lang import max as largest
from tilewright.lang import min as smallest
from tilewright.lang import prod as product_of
from tilewright.lang import sum as total
from tilewright.schedule import Schedule
from tilewright.space.rules import rows as rows_rule
from tilewright.space.stages import stage_of

#: Extents below, at and above vector widths, and odd ones.
EXTENTS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 27, 31, 32, 33, 48, 49, 64, 65, 96, 130)
#: Iterations of one reduction, and elements of one tensor.
MOST_WORK, MOST_ELEMENTS = 400_000, 60_000
FLOATS = (ty.f32, ty.f32, ty.f32, ty.f64, ty.f16, ty.bf16)
INTEGERS = (ty.i32, ty.i8, ty.u8)


@dataclass(frozen=True)
class Program:
    """A kernel, the arguments known ahead of time, and the threads it is scheduled for."""

    kernel: Kernel
    constants: tuple[str, ...]
    threads: int


def shape_of(t: Tensor) -> tuple[int, ...]:
    """Static extents of a tensor."""
    return t.buffer.static_shape


def widened(e: Expr) -> Expr:
    """A small integer as i32, a narrow float as f32: what products accumulate in."""
    if e.dtype.is_float:
        return ex.cast(e, ty.f32) if e.dtype.bits < 32 else e
    return ex.cast(e, ty.i32)


class Generator:
    """One random program."""

    def __init__(self, seed: int):
        self.rng = Random(seed)
        self.inputs: list[Tensor] = []
        self.pool: list[Tensor] = []
        self.count = 0
        self.dtype: DType = ty.f32
        self.most_work = MOST_WORK if self.rng.random() < 0.97 else 10 * MOST_WORK

    def program(self) -> Program:
        rng = self.rng
        self.dtype = rng.choice(FLOATS if rng.random() < 0.75 else INTEGERS)
        self.add(rng.choice(STARTS)(self))
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 4))):
            if (step := rng.choice(STEPS)(self)) is not None:
                self.add(step)
        made = [t for t in self.pool if t not in self.inputs]
        outputs = [made[-1], *(t for t in made[:-1] if rng.random() < 0.15)]
        used = _sources(outputs)
        kernel = build("program", [t for t in self.inputs if t in used], outputs)
        constants = tuple(t.name for t in self.inputs if t in used and rng.random() < 0.3)
        if rng.random() < 0.1:
            kernel = _accumulating(kernel)
        return Program(self.laid_out(kernel), constants, rng.choice((1, 1, 2)))

    def laid_out(self, kernel: Kernel) -> Kernel:
        """``kernel`` as it may be written by hand: some arguments in another order, nests around several statements."""
        sch = Schedule(kernel)
        if self.rng.random() < 0.15:
            rows_rule.merge_rows(sch)
            if self.rng.random() < 0.5:
                rows_rule.localize_rows(sch)
        for b in kernel.args:
            if b.rank > 1 and self.rng.random() < 0.08:
                order = list(range(b.rank))
                self.rng.shuffle(order)
                sch.layout(b.name, " ".join(map(str, order)))
        return sch.kernel

    # material

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def add(self, t: Tensor) -> Tensor:
        if t not in self.pool:
            self.pool.append(t)
        return t

    def extent(self, most: int = 130) -> int:
        if self.rng.random() < 0.004:
            return 0
        return self.rng.choice([e for e in EXTENTS if e <= most])

    def extents(self, n: int, most: int | None = None) -> list[int]:
        """``n`` extents whose product is at most ``most`` (default: the work of one reduction)."""
        while True:
            out = [self.extent(130 if n < 5 else 17) for _ in range(n)]
            if prod(out) <= (most or self.most_work):
                return out

    def input(self, shape: tuple[int, ...] | list[int], dtype: DType | None = None) -> Tensor:
        t = tensor(self.fresh("x"), dtype or self.dtype, tuple(shape))
        self.inputs.append(t)
        return self.add(t)

    def operand(self, shape: tuple[int, ...] | list[int]) -> Tensor:
        """A tensor of this shape: a computed one, an input read elsewhere too, or a new input."""
        known = [t for t in self.pool if shape_of(t) == tuple(shape)]
        return self.rng.choice(known) if known and self.rng.random() < 0.6 else self.input(shape)

    def existing(self, least_rank: int = 1) -> Tensor | None:
        known = [t for t in self.pool if len(t.shape) >= least_rank and t not in self.inputs]
        return self.rng.choice(known[-2:]) if known else None

    def made(self, stem: str, shape: tuple[int, ...] | list[int], body: Callable[..., object], dtype: DType | None = None) -> Tensor | None:
        if prod(shape) > MOST_ELEMENTS:
            return None
        name = self.fresh(stem)
        axes = [f"{name}_{d}" for d in range(len(shape))]
        return compute(name, tuple(shape), body, axes=axes, dtype=dtype)

    def accumulator(self, t: Tensor) -> DType | None:
        """The type sums of integers are kept in (None: what the language chooses)."""
        return self.rng.choice((ty.i32, ty.i32, ty.i32, None)) if not t.dtype.is_float else None

    def axis(self, n: int) -> ex.Var:
        return reduce_axis(0, n, self.fresh("r"))


def _accumulating(kernel: Kernel) -> Kernel:
    """``kernel`` without the nests that start its output reductions: they add to what the caller passes."""
    outputs = {b.name for b in kernel.args}
    kept = [s for s in kernel.body.stmts if not ((stage := stage_of(s)).is_init and stage.output.name in outputs)]
    return kernel.with_(body=Block(tuple(kept)))


def _sources(tensors: list[Tensor]) -> set[Tensor]:
    seen: set[Tensor] = set()
    todo = list(tensors)
    while todo:
        t = todo.pop()
        if t not in seen:
            seen.add(t)
            todo += t.sources
    return seen


# --- programs start with ----------------------------------------------------------------------


def contraction(g: Generator) -> Tensor:
    """A sum of products over 2 to 5 loops, with operands in any order of dimensions, widened if narrow."""
    rng = g.rng
    letters = "abcde"[: rng.choice((2, 3, 3, 3, 3, 4, 4, 5))]
    extent = dict(zip(letters, g.extents(len(letters)), strict=True))
    free_left = [c for c in letters if rng.random() < 0.35] or [letters[0]]
    summed = [c for c in letters if c not in free_left and rng.random() < 0.45] or [c for c in letters if c not in free_left][:1]
    rest = [c for c in letters if c not in free_left and c not in summed]
    batch = [c for c in rest if rng.random() < 0.3]
    free_right = [c for c in rest if c not in batch]
    broadcast = set(batch) if rng.random() < 0.3 else set()
    terms = [[*batch, *free_left, *summed], [*(c for c in batch if c not in broadcast), *free_right, *summed]]
    out = [*batch, *free_left, *free_right]
    for t in (*terms, out):
        if rng.random() < 0.5:
            rng.shuffle(t)
    a, b = (g.operand([extent[c] for c in t]) for t in terms)
    spec = f"{''.join(terms[0])},{''.join(terms[1])}->{''.join(out)}"
    if prod(extent[c] for c in out) > MOST_ELEMENTS:
        return contraction(g)
    if rng.random() < 0.3:
        return einsum(spec, a, b, name=g.fresh("c"))
    axes = {c: reduce_axis(0, extent[c], g.fresh("k")) for c in summed}

    def body(*index: Var) -> object:
        at = {**dict(zip(out, index, strict=True)), **axes}
        value = widened(a[tuple(at[c] for c in terms[0])]) * widened(b[tuple(at[c] for c in terms[1])])
        return total(value, list(axes.values())) if axes else value

    name = g.fresh("c")
    return compute(name, tuple(extent[c] for c in out), body, axes=[f"{name}_{c}" for c in out], dtype=g.accumulator(a))


def matmul(g: Generator) -> Tensor:
    """A product of matrices, each possibly transposed, sometimes in batches."""
    rng = g.rng
    m, n, k = g.extents(3)
    batch = rng.choice(([], [], [], [g.extent(5)]))
    left, right = rng.choice(("ik", "ki")), rng.choice(("kj", "jk"))
    extent = {"i": m, "j": n, "k": k, "z": (batch or [1])[0]}
    z = "z" if batch else ""
    a, b = g.operand([extent[c] for c in z + left]), g.operand([extent[c] for c in z + right])
    axis = reduce_axis(0, k, g.fresh("k"))

    def body(*index: Var) -> object:
        at = dict(zip(z + "ij", index, strict=True)) | {"k": axis}
        return total(widened(a[tuple(at[c] for c in z + left)]) * widened(b[tuple(at[c] for c in z + right)]), axis)

    name = g.fresh("mm")
    return compute(name, (*batch, m, n), body, axes=[f"{name}_{c}" for c in z + "ij"], dtype=g.accumulator(a))


def convolution(g: Generator) -> Tensor:
    """1-D to 3-D, with stride, dilation, padding and groups, channels first or last."""
    rng = g.rng
    rank = rng.choice((1, 2, 2, 2, 3))
    while True:
        groups = rng.choice((1, 1, 1, 2, 3, 4, 16, 32))
        cin, cout = rng.choice((1, 1, 2, 3, 4, 8, 16)), rng.choice((1, 1, 2, 3, 8, 16, 17, 32))
        if groups > 4 and rng.random() < 0.8:
            cin = cout = 1
        window, stride, dilation = ([rng.choice(c) for _ in range(rank)] for c in ((1, 1, 2, 3, 3, 5, 7), (1, 1, 2, 3), (1, 1, 1, 2)))
        size = [rng.choice((3, 5, 7, 8, 11, 14, 17, 28, 33)[: 9 if rank < 3 else 5]) for _ in range(rank)]
        pad = rng.choice((0, 0, 1, 2))
        batch = rng.choice((1, 1, 2))
        reach = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
        out = [(s + 2 * pad - r) // t + 1 for s, r, t in zip(size, reach, stride, strict=True)]
        work = prod(out) * prod(window) * groups * cin * cout * batch
        if min(out) > 0 and work <= MOST_WORK and prod(out) * groups * cout * batch <= MOST_ELEMENTS:
            break
    last = rng.random() < 0.3
    x = g.operand([batch, *size, groups * cin] if last else [batch, groups * cin, *size])
    w = g.input([groups * cout, cin, *window] if not last or rng.random() < 0.5 else [groups * cout, *window, cin])
    w_last = shape_of(w) == (groups * cout, *window, cin) and last
    padded = x
    if pad:
        wide = [n + 2 * pad for n in size]
        padded = _padded(g, x, [batch, *wide, groups * cin] if last else [batch, groups * cin, *wide], pad, last)
    c, *taps = [g.axis(n) for n in (cin, *window)]

    def body(*index: Var) -> object:
        n, k, *at = (index[0], index[-1], *index[1:-1]) if last else index
        where = [p * t + r * d for p, t, r, d in zip(at, stride, taps, dilation, strict=True)]
        channel = (k // cout) * cin + c if groups > 1 else c
        left = padded[(n, *where, channel) if last else (n, channel, *where)]
        right = w[(k, *taps, c) if w_last else (k, c, *taps)]
        return total(widened(left) * widened(right), [c, *taps])

    name = g.fresh("conv")
    names = [f"{name}_{d}" for d in range(rank + 2)]
    shape = (batch, *out, groups * cout) if last else (batch, groups * cout, *out)
    return compute(name, shape, body, axes=names, dtype=g.accumulator(x))


def _padded(g: Generator, x: Tensor, shape: list[int], pad: int, last: bool) -> Tensor:
    first = 1 if last else 2
    spatial = range(first, first + len(shape) - 2)

    def body(*index: Var) -> Expr:
        inside = None
        for d in spatial:
            for test in (ex.compare(">=", index[d], pad), ex.compare("<", index[d], shape_of(x)[d] + pad)):
                inside = test if inside is None else ex.logical("and", inside, test)
        assert inside is not None
        return ex.where(inside, x[tuple(i - pad if d in spatial else i for d, i in enumerate(index))], ex.const(0, x.dtype))

    name = g.fresh("pad")
    return g.add(compute(name, tuple(shape), body, axes=[f"{name}_{d}" for d in range(len(shape))]))


def pooling(g: Generator) -> Tensor:
    """The largest or the mean element of windows."""
    rng = g.rng
    n, c, h, w = rng.choice((1, 2)), g.extent(33), rng.choice((6, 7, 14, 17, 28)), rng.choice((6, 7, 14, 17, 28))
    size, stride = rng.choice((2, 3)), rng.choice((1, 2, 3))
    x = g.operand([n, c, h, w])
    r, s = g.axis(size), g.axis(size)
    out = [n, c, (h - size) // stride + 1, (w - size) // stride + 1]
    mean = rng.random() < 0.5

    def body(b: Var, k: Var, p: Var, q: Var) -> object:
        e = x[b, k, p * stride + r, q * stride + s]
        return total(widened(e), [r, s]) if mean else largest(e, [r, s])

    name = g.fresh("pool")
    pooled = compute(name, tuple(out), body, axes=[f"{name}_{d}" for d in "nkpq"])
    if not mean or not pooled.dtype.is_float:
        return pooled
    g.add(pooled)
    scaled = g.made("mean", out, lambda *i: pooled[i] * (1.0 / size**2))
    assert scaled is not None
    return scaled


def reduction(g: Generator) -> Tensor:
    """A reduction of one tensor over any of its dimensions."""
    rng = g.rng
    known = g.existing()
    shape = shape_of(known) if known is not None and known.shape else tuple(g.extents(rng.choice((1, 2, 2, 3, 3, 4)), MOST_ELEMENTS))
    x = known if known is not None and known.shape else g.operand(shape)
    over = [d for d in range(len(shape)) if rng.random() < 0.5] or [rng.randrange(len(shape))]
    kept = [d for d in range(len(shape)) if d not in over]
    axes = {d: g.axis(shape[d]) for d in over}
    how = rng.choice((total, total, total, total, largest, largest, smallest, smallest, product_of))

    def body(*index: Var) -> object:
        at = {**dict(zip(kept, index, strict=True)), **axes}
        value = x[tuple(at[d] for d in range(len(shape)))]
        value = widened(value) if how is total else value
        return how(value * value if how is total and square else value, list(axes.values()))

    square = rng.random() < 0.3
    name = g.fresh("red")
    return compute(name, tuple(shape[d] for d in kept), body, axes=[f"{name}_{d}" for d in kept])


def rows(g: Generator) -> Tensor:
    """Softmax, normalisation or the position of the largest element, along the last dimension or another."""
    rng = g.rng
    known = g.existing()
    if known is None or not known.dtype.is_float:
        g.dtype = g.dtype if g.dtype.is_float else ty.f32
        known = g.input(g.extents(rng.choice((1, 2, 2, 3)), MOST_ELEMENTS))
    shape = shape_of(known)
    d = len(shape) - 1 if rng.random() < 0.75 else rng.randrange(len(shape))
    kind = rng.choice((_softmax, _softmax, _normalised, _position))
    return kind(g, known, shape, d)


def _along(g: Generator, stem: str, shape: tuple[int, ...], d: int, how: Callable[..., object], term: Callable[..., Expr]) -> Tensor:
    axis = g.axis(shape[d])
    name = g.fresh(stem)
    kept = shape[:d] + shape[d + 1 :]
    axes = [f"{name}_{n}" for n in range(len(kept))]
    return g.add(compute(name, kept, lambda *i: how(term(*i[:d], axis, *i[d:]), axis), axes=axes))


def _elements(g: Generator, stem: str, shape: tuple[int, ...], term: Callable[..., Expr]) -> Tensor:
    name = g.fresh(stem)
    return compute(name, shape, term, axes=[f"{name}_{n}" for n in range(len(shape))])


def _softmax(g: Generator, x: Tensor, shape: tuple[int, ...], d: int) -> Tensor:
    top = _along(g, "top", shape, d, largest, lambda *i: x[i])
    e = g.add(_elements(g, "exp", shape, lambda *i: ex.intrinsic("exp", x[i] - top[i[:d] + i[d + 1 :]])))
    s = _along(g, "sum", shape, d, total, lambda *i: e[i])
    return _elements(g, "soft", shape, lambda *i: e[i] / s[i[:d] + i[d + 1 :]])


def _normalised(g: Generator, x: Tensor, shape: tuple[int, ...], d: int) -> Tensor:
    n = max(shape[d], 1)
    mean = _along(g, "mean", shape, d, total, lambda *i: x[i] * (1.0 / n))
    square = _along(g, "var", shape, d, total, lambda *i: (x[i] - mean[i[:d] + i[d + 1 :]]) * (x[i] - mean[i[:d] + i[d + 1 :]]) * (1.0 / n))
    scale = g.input((shape[d],), x.dtype)

    def body(*i: Var) -> Expr:
        at = i[:d] + i[d + 1 :]
        # The bias bounds the effect of cancellation: rows of (nearly) equal elements leave nothing but rounding errors.
        return (x[i] - mean[at]) / ex.intrinsic("sqrt", square[at] + 1.0) * scale[i[d]] + 1.0

    return _elements(g, "norm", shape, body)


def _position(g: Generator, x: Tensor, shape: tuple[int, ...], d: int) -> Tensor:
    top = _along(g, "top", shape, d, largest, lambda *i: x[i])

    def at(*i: Var) -> Expr:
        return ex.where(ex.compare("==", x[i], top[i[:d] + i[d + 1 :]]), ex.cast(i[d], ty.i32), ex.const(shape[d], ty.i32))

    return _along(g, "arg", shape, d, smallest, at)


def grouped(g: Generator) -> Tensor:
    """Products in groups, stored side by side in one dimension: ``y[i, group * n + j]``."""
    groups, m, n, k = g.rng.choice((1, 2, 3, 8)), *g.extents(3, MOST_WORK // 8)
    a, b = g.operand([m, groups * k]), g.operand([groups * n, k])
    axis = g.axis(k)
    name = g.fresh("y")
    each = max(n, 1)

    def body(i: Var, j: Var) -> object:
        return total(widened(a[i, j // each * k + axis]) * widened(b[j, axis]), axis)

    return compute(name, (m, groups * n), body, axes=[f"{name}_i", f"{name}_j"], dtype=g.accumulator(a))


def flags(g: Generator) -> Tensor:
    """Which rows hold an element beyond a limit, and how many elements do."""
    rng = g.rng
    shape = g.extents(2, MOST_ELEMENTS)
    x = g.input(shape)
    limit = ex.const(0.25 if x.dtype.is_float else 3, x.dtype)
    mask = g.add(_elements(g, "mask", tuple(shape), lambda i, j: ex.compare(">", x[i, j], limit)))
    r = g.axis(shape[1])
    name = g.fresh("flag")
    if rng.random() < 0.5:
        found = compute(name, (shape[0],), lambda i: some(mask[i, r], r), axes=[f"{name}_i"])
    else:
        found = compute(name, (shape[0],), lambda i: total(ex.cast(mask[i, r], ty.i32), r), axes=[f"{name}_i"])
    g.pool.remove(mask)  # truth values are no numbers to compute with
    return found


def attention(g: Generator) -> Tensor:
    """matmul -> softmax -> matmul."""
    rng = g.rng
    g.dtype = g.dtype if g.dtype.is_float else ty.f32
    h, s, t, d = rng.choice((1, 2, 3)), g.extent(49), g.extent(65), g.extent(33)
    q, k, v = g.input([h, s, d]), g.input([h, t, d]), g.input([h, t, d])
    a = g.axis(d)
    scores = g.add(compute(g.fresh("qk"), (h, s, t), lambda z, i, j: total(q[z, i, a] * k[z, j, a], a), axes=["z", "i", "j"]))
    p = g.add(_softmax(g, scores, (h, s, t), 2))
    b = g.axis(t)
    return compute(g.fresh("pv"), (h, s, d), lambda z, i, j: total(p[z, i, b] * v[z, b, j], b), axes=["z2", "i2", "j2"])


# --- and continue with --------------------------------------------------------------------------


def elementwise(g: Generator) -> Tensor | None:
    """A chain of operations, with a residual or a broadcast operand."""
    rng = g.rng
    x = g.existing(0)
    if x is None:
        x = g.input(g.extents(rng.choice((1, 2, 3)), MOST_ELEMENTS))
    shape = shape_of(x)
    other = g.operand(shape) if rng.random() < 0.4 else None
    kept = [d for d in range(len(shape)) if rng.random() < 0.5]
    small = g.operand([shape[d] for d in kept]) if rng.random() < 0.5 else None
    result = rng.choice((None, None, None, ty.f32, ty.f64, ty.f16)) if x.dtype.is_float else rng.choice((None, None, ty.i32, ty.f32))

    def body(*i: Var) -> Expr:
        e: Expr = x[i]
        for operand in [other[i]] if other is not None else []:
            e = _same(e, operand, rng.choice(("+", "-", "*", "max", "min")))
        for operand in [small[tuple(i[d] for d in kept)]] if small is not None else []:
            e = _same(e, operand, rng.choice(("+", "+", "*", "max")))
        for _ in range(rng.choice((0, 1, 2))):
            e = _unary(rng, e)
        return ex.cast(e, result or (x.dtype if x.dtype.bits < 32 else ty.i32)) if result is not None or not e.dtype.is_float else e

    return g.made("e", shape, body)


def _same(a: Expr, b: Expr, op: str) -> Expr:
    """``a op b`` in the type of ``a``; floats never become integers."""
    if b.dtype.is_float and not a.dtype.is_float:
        a = ex.cast(a, b.dtype)
    return ex.cast(ex.binary(op, a, ex.cast(b, a.dtype)), a.dtype)


def _unary(rng: Random, e: Expr) -> Expr:
    if not e.dtype.is_float:
        one = ex.const(1, ty.i8)
        return rng.choice(
            (lambda: e + one, lambda: ex.binary("max", e, one), lambda: ex.binary("%", e, ex.const(7, e.dtype)), lambda: e * one)
        )()
    return rng.choice(
        (
            lambda: ex.binary("max", e, ex.const(0.0, e.dtype)),
            lambda: ex.intrinsic("tanh", e),
            lambda: ex.intrinsic("sigmoid", e),
            lambda: ex.intrinsic("abs", e),
            lambda: e * 0.5,
            lambda: ex.intrinsic("sqrt", ex.intrinsic("abs", e) + 1.0),
            lambda: e / (ex.intrinsic("abs", e) + 1.0),
            lambda: ex.intrinsic("erf", e),
        )
    )()


def transposed(g: Generator) -> Tensor | None:
    x = g.existing(2)
    if x is None:
        return None
    order = list(range(len(x.shape)))
    g.rng.shuffle(order)
    return g.made("t", [shape_of(x)[d] for d in order], lambda *i: x[tuple(i[order.index(d)] for d in range(len(order)))])


def sliced(g: Generator) -> Tensor | None:
    """Every s-th element from an offset, possibly backwards."""
    x = g.existing()
    if x is None or 0 in shape_of(x):
        return None
    rng = g.rng
    shape, parts = [], []
    for n in shape_of(x):
        start, step = rng.randrange(max(n // 2, 1)), rng.choice((1, 1, 1, 2, 3))
        count = max((n - start) // step, 1)
        backwards = rng.random() < 0.1
        shape.append(count)
        parts.append((start + (count - 1) * step, -step) if backwards else (start, step))
    return g.made("s", shape, lambda *i: x[tuple(v * step + start for v, (start, step) in zip(i, parts, strict=True))])


def concatenated(g: Generator) -> Tensor | None:
    x = g.existing()
    if x is None or 0 in shape_of(x):
        return None
    shape = shape_of(x)
    d = g.rng.randrange(len(shape))
    y = g.operand(shape)
    if y.dtype != x.dtype:
        y = g.input(shape, x.dtype)
    wide = [*shape[:d], 2 * shape[d], *shape[d + 1 :]]

    def body(*i: Var) -> Expr:
        second = tuple(v - shape[d] if n == d else v for n, v in enumerate(i))
        return ex.where(ex.compare("<", i[d], shape[d]), x[i], y[second])

    return g.made("cat", wide, body)


def gathered(g: Generator) -> Tensor | None:
    """Rows chosen by a table."""
    x = g.existing()
    if x is None or 0 in shape_of(x):
        return None
    d = g.rng.randrange(len(x.shape))
    n = g.rng.choice((1, 3, 8, 17, 33))
    table = g.input((n,), ty.i32)
    shape = [*shape_of(x)[:d], n, *shape_of(x)[d + 1 :]]
    taken = g.made("g", shape, lambda *i: x[tuple(ex.cast(table[v], ty.index) if k == d else v for k, v in enumerate(i))])
    if taken is None:
        g.inputs.remove(table)
    g.pool.remove(table)  # its elements are positions, no values to compute with
    return taken


def product(g: Generator) -> Tensor | None:
    """The last result times a new matrix, from the right."""
    x = g.existing(2)
    if x is None:
        return None
    *lead, k = shape_of(x)
    n = g.extent(65)
    if prod(lead) * k * n > MOST_WORK or prod(lead) * n > MOST_ELEMENTS:
        return None
    w = g.input((k, n), x.dtype if x.dtype.bits <= 64 else ty.f32)
    a = g.axis(k)
    name = g.fresh("mm")
    axes = [f"{name}_{d}" for d in range(len(lead) + 1)]
    return compute(name, (*lead, n), lambda *i: total(widened(x[(*i[:-1], a)]) * widened(w[a, i[-1]]), a), axes=axes)


STARTS = (
    contraction,
    contraction,
    matmul,
    matmul,
    matmul,
    convolution,
    convolution,
    convolution,
    pooling,
    reduction,
    rows,
    attention,
    grouped,
    flags,
)
STEPS = (
    elementwise,
    elementwise,
    elementwise,
    elementwise,
    transposed,
    sliced,
    concatenated,
    gathered,
    product,
    reduction,
    rows,
    contraction,
)
