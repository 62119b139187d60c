"""Convolutions. Padding is a stage of its own, so that the inner loops carry no guards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.ir import types as ty
from tilewright.ir.expr import Const, Expr, ExprLike, cast, compare, const, idx, logical, where
from tilewright.ir.stmt import store
from tilewright.ir.types import DType

#: Loop names of the output positions and of the window, for 1, 2 and 3 spatial dimensions.
_OUT = {1: ("p",), 2: ("p", "q"), 3: ("o", "p", "q")}
_WINDOW = {1: ("r",), 2: ("r", "s"), 3: ("t", "r", "s")}


def position_names(n: int) -> tuple[str, ...]:
    """Loop names of ``n`` output positions."""
    return _OUT.get(n) or tuple(f"p{d}" for d in range(n))


def window_names(n: int) -> tuple[str, ...]:
    """Loop names of an ``n``-dimensional window."""
    return _WINDOW.get(n) or tuple(f"r{d}" for d in range(n))


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a sliding window: for each spatial dimension kernel, stride, dilation, padding and result extent."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    out: tuple[int, ...]

    def position(self, outer: Sequence[Expr], inner: Sequence[Expr]) -> tuple[Expr, ...]:
        """Index in the padded input of window element ``inner`` at output position ``outer``."""
        return tuple(o * s + i * d for o, i, s, d in zip(outer, inner, self.strides, self.dilations, strict=True))

    @property
    def padded(self) -> bool:
        return any(self.begin) or any(self.end)


def window(op: Lowering, spatial: Sequence[int], kernel: Sequence[int], ceil_mode: bool = False) -> Window:
    """The window a Conv or pooling node describes, with ``auto_pad`` resolved.

    With ``ceil_mode`` the end padding grows so that a last partial window fits, unless it would
    start in the padding.
    """
    n = len(spatial)
    if len(kernel) != n:
        raise op.refuse(f"kernel_shape {list(kernel)} does not fit {n} spatial dimensions")
    strides = op.attribute("strides") or [1] * n
    dilations = op.attribute("dilations") or [1] * n
    pads = op.attribute("pads") or [0] * (2 * n)
    auto = op.attribute("auto_pad", "NOTSET")
    begin, end, out = list(pads[:n]), list(pads[n:]), []
    for d, (size, k, s, dil) in enumerate(zip(spatial, kernel, strides, dilations, strict=True)):
        reach = dil * (k - 1) + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max((-(-size // s) - 1) * s + reach - size, 0)
            small, large = total // 2, total - total // 2
            begin[d], end[d] = (small, large) if auto == "SAME_UPPER" else (large, small)
        elif auto == "VALID":
            begin[d] = end[d] = 0
        room = size + begin[d] + end[d] - reach
        if room < 0:
            raise op.refuse(f"a window of {reach} does not fit spatial dimension {d} of extent {size} with padding {begin[d]}+{end[d]}")
        steps = -(-room // s) if ceil_mode else room // s
        if ceil_mode and steps * s >= size + begin[d]:
            steps -= 1
        end[d] += max(steps * s - room, 0)
        out.append(steps + 1)
    return Window(tuple(kernel), tuple(strides), tuple(dilations), tuple(begin), tuple(end), tuple(out))


def pad_spatial(
    op: Lowering,
    x: Tensor,
    begin: Sequence[int],
    end: Sequence[int],
    value: ExprLike,
    f: Callable[[Expr], Expr] = lambda v: v,
    dtype: DType | None = None,
) -> Tensor:
    """``f(x)`` with the trailing dimensions extended by ``value``."""
    dtype = dtype or x.dtype
    fixed = x.rank - len(begin)
    shape = [*x.shape[:fixed], *(b + s + e for s, b, e in zip(x.shape[fixed:], begin, end, strict=True))]

    def element(*i: Expr) -> Expr:
        inside: Expr | None = None
        at = list(i)
        for d, (b, e) in enumerate(zip(begin, end, strict=True), fixed):
            at[d] = i[d] - b
            for bound in ([compare(">=", i[d], b)] if b else []) + ([compare("<", i[d], b + x.shape[d])] if e else []):
                inside = bound if inside is None else logical("and", inside, bound)
        here = f(x[tuple(at)])
        return (
            here
            if inside is None
            else where(inside, cast(here, dtype), cast(value, dtype) if isinstance(value, Expr) else const(value, dtype))
        )

    return op.compute(shape, element, dtype, "pad")


def convolve(
    op: Lowering,
    x: Tensor,
    w: Tensor,
    group: int,
    dtype: DType,
    left: Callable[[Expr], Expr] = lambda v: v,
    right: Callable[..., Expr] = lambda v, k: v,
) -> Tensor:
    """Sum over channels and window of ``left(x) * right(w, k)``; x [N, C, *S], w [K, C/group, *R] -> [N, K, *P].

    ``left`` is applied while padding (padding elements are 0 after it); ``right`` also gets the
    output channel.
    """
    if x.rank < 3 or w.rank != x.rank:
        raise op.refuse(f"operands {list(x.shape)} and {list(w.shape)} are not [N, C, spatial..] and [K, C/group, window..]")
    if x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise op.refuse(f"{x.shape[1]} input and {w.shape[0]} output channels do not fit weights {list(w.shape)} with group={group}")
    g = window(op, x.shape[2:], op.attribute("kernel_shape") or w.shape[2:])
    transformed = left(x[(idx(0),) * x.rank]).dtype
    source, read = (x, left) if not g.padded else (pad_spatial(op, x, g.begin, g.end, 0, left, transformed), lambda v: v)
    n = len(g.out)
    each, depth = w.shape[0] // group, w.shape[1]
    if group == 1:

        def dense(*i: Expr) -> Expr:
            b, k, at, c, r = i[0], i[1], i[2 : 2 + n], i[2 + n], i[3 + n :]
            return read(source[(b, c, *g.position(at, r))]) * right(w[(k, c, *r)], k)

        names = ["n", "k", *position_names(n), "c", *window_names(n)]
        return op.reduce([x.shape[0], w.shape[0], *g.out], [depth, *g.kernel], dense, dtype, names=names)
    return _grouped(op, source, w, g, group, each, dtype, read, right)


def _grouped(
    op: Lowering,
    source: Tensor,
    w: Tensor,
    g: Window,
    group: int,
    each: int,
    dtype: DType,
    read: Callable[[Expr], Expr],
    right: Callable[..., Expr],
) -> Tensor:
    """Grouped convolution: accumulated as [N, group, K/group, *P], so that every index stays affine, then seen as [N, K, *P].

    With one output channel a group (depthwise) both are the same.
    """
    n, depth = len(g.out), w.shape[1]

    def product(b: Expr, gr: Expr, m: Expr, at: Sequence[Expr], inner: Sequence[Expr]) -> Expr:
        c, r = (idx(0), inner) if depth == 1 else (inner[0], inner[1:])
        k = gr if each == 1 else gr * each + m
        return read(source[(b, gr * depth + c, *g.position(at, r))]) * right(w[(k, c, *r)], k)

    over = [*([] if depth == 1 else [depth]), *g.kernel]
    inner_names = [*([] if depth == 1 else ["c"]), *window_names(n)]
    if each == 1:

        def depthwise(*i: Expr) -> Expr:
            return product(i[0], i[1], idx(0), i[2 : 2 + n], i[2 + n :])

        names = ["n", "g", *position_names(n), *inner_names]
        return op.reduce([source.shape[0], group, *g.out], over, depthwise, dtype, names=names)

    def grouped(*i: Expr) -> Expr:
        return product(i[0], i[1], i[2], i[3 : 3 + n], i[3 + n :])

    names = ["n", "g", "m", *position_names(n), *inner_names]
    acc = op.reduce([source.shape[0], group, each, *g.out], over, grouped, dtype, stem="groups", names=names)
    return op.compute([source.shape[0], w.shape[0], *g.out], lambda b, k, *at: acc[(b, k // each, k % each, *at)], dtype)


@operator("Conv")
def conv(op: Lowering, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    out = convolve(op, x, w, op.attribute("group", 1), x.dtype)
    return out if bias is None else op.compute(out.shape, lambda *i: out[i] + bias[i[1]], x.dtype)


@operator("ConvTranspose")
def conv_transpose(op: Lowering, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Every input element adds its scaled kernel to the full result, which is then cropped."""
    n, group = x.rank - 2, op.attribute("group", 1)
    kernel = op.attribute("kernel_shape") or list(w.shape[2:])
    strides, dilations = op.attribute("strides") or [1] * n, op.attribute("dilations") or [1] * n
    extra = op.attribute("output_padding") or [0] * n
    full = [(s - 1) * st + (k - 1) * d + 1 for s, k, st, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)]
    begin, out_shape = _transpose_geometry(op, x.shape[2:], full, strides, extra)
    each = w.shape[1]
    spread = op.tensor([x.shape[0], each * group, *full], x.dtype, "full")
    op.assign(spread, lambda *i: const(0, x.dtype))
    depth = x.shape[1] // group
    extents = [x.shape[0], group, each, *x.shape[2:], depth, *kernel]
    v = op.indices(extents, ["n", "g", "m", *position_names(n), "c", *window_names(n)])
    b, gr, m, at, c, r = v[0], v[1], v[2], v[3 : 3 + n], v[3 + n], v[4 + n :]
    place = tuple(p * s + q * d for p, q, s, d in zip(at, r, strides, dilations, strict=True))
    value = x[(b, gr * depth + c, *at)] * w[(gr * depth + c, m, *r)]
    op.emit(op.nest(extents, v, store(spread.buffer[(b, gr * each + m, *place)], value, "+")))

    def cropped(*i: Expr) -> Expr:
        inside: Expr | None = None
        for d in range(n):
            if out_shape[d] + begin[d] > full[d]:
                bound = compare("<", i[2 + d], full[d] - begin[d])
                inside = bound if inside is None else logical("and", inside, bound)
        value = spread[(i[0], i[1], *(i[2 + d] + begin[d] for d in range(n)))]
        value = value if inside is None else where(inside, value, Const(0.0, x.dtype))
        return value if bias is None else value + bias[i[1]]

    return op.compute([x.shape[0], each * group, *out_shape], cropped, x.dtype)


def _transpose_geometry(
    op: Lowering, spatial: Sequence[int], full: Sequence[int], strides: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Elements cropped at the beginning, and the result's spatial extents."""
    n = len(spatial)
    auto, wanted = op.attribute("auto_pad", "NOTSET"), op.attribute("output_shape")
    pads = op.attribute("pads") or [0] * (2 * n)
    if wanted is None and auto in ("NOTSET", "VALID"):
        return list(pads[:n]), [f + e - pads[d] - pads[d + n] for d, (f, e) in enumerate(zip(full, extra, strict=True))]
    wanted = wanted[-n:] if wanted is not None else [s * st for s, st in zip(spatial, strides, strict=True)]
    begin = []
    for f, e, w in zip(full, extra, wanted, strict=True):
        total = max(f + e - w, 0)
        begin.append(total // 2 if auto != "SAME_LOWER" else total - total // 2)
    return begin, list(wanted)


@operator("ConvInteger")
def conv_integer(op: Lowering, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None) -> Tensor:
    def right(v: Expr, k: Expr) -> Expr:
        return v if w_zero is None else v - w_zero[(k,) if w_zero.rank and w_zero.shape[0] > 1 else (idx(0),) * w_zero.rank]

    def left(v: Expr) -> Expr:
        return v if x_zero is None else v - x_zero[(idx(0),) * x_zero.rank]

    return convolve(op, x, w, op.attribute("group", 1), ty.i32, left, right)
