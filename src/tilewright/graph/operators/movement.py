"""Data movement: every element of the result is one element of an operand (or a fill value)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.ir import types as ty
from tilewright.ir.expr import Const, Expr, binary, cast, compare, const, idx, logical, where

# --- shapes: no data moves --------------------------------------------------------------------


@operator("Identity", "Dropout")
def identity(op: Lowering, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> tuple[Tensor, ...]:
    if training is not None and bool(op.known(training, "training_mode")) and (ratio is None or float(op.known(ratio, "ratio")) > 0):
        raise op.refuse("training mode is random and not supported", hint="export the model for inference")
    mask = [op.compute(x.shape, lambda *i: Const(True, ty.boolean), ty.boolean, "mask")] if len(op.outputs) > 1 and op.outputs[1] else []
    return (op.view(x, x.shape), *mask)


@operator("Reshape")
def reshape(op: Lowering, x: Tensor, shape: Tensor | None = None) -> Tensor:
    wanted = op.known_ints(shape, "shape") or []
    if not op.attribute("allowzero", 0):
        wanted = [x.shape[d] if s == 0 and d < x.rank else s for d, s in enumerate(wanted)]
    if -1 in wanted:
        rest = math.prod(s for s in wanted if s != -1)
        if wanted.count(-1) > 1 or rest == 0 or math.prod(x.shape) % rest:
            raise op.refuse(f"shape {wanted} cannot be completed for {list(x.shape)}")
        wanted[wanted.index(-1)] = math.prod(x.shape) // rest
    return op.view(x, wanted)


@operator("Flatten")
def flatten(op: Lowering, x: Tensor) -> Tensor:
    axis = op.attribute("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return op.view(x, [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])


@operator("Squeeze")
def squeeze(op: Lowering, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = op.known_ints(axes, "axes")
    drop = [op.axis(a, x.rank) for a in given] if given is not None else [d for d, s in enumerate(x.shape) if s == 1]
    return op.view(x, [s for d, s in enumerate(x.shape) if d not in drop])


@operator("Unsqueeze")
def unsqueeze(op: Lowering, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = op.known_ints(axes, "axes") or []
    rank = x.rank + len(given)
    new = {op.axis(a, rank) for a in given}
    old = iter(x.shape)
    return op.view(x, [1 if d in new else next(old) for d in range(rank)])


# --- permutations, slices, joins --------------------------------------------------------------


@operator("Transpose")
def transpose(op: Lowering, x: Tensor) -> Tensor:
    perm = op.attribute("perm") or list(range(x.rank))[::-1]
    moved = [x.shape[p] for p in perm]
    if [p for p in perm if x.shape[p] != 1] == [d for d, s in enumerate(x.shape) if s != 1]:
        return op.view(x, moved)
    return op.compute(moved, lambda *i: x[tuple(i[perm.index(d)] for d in range(x.rank))], x.dtype)


@operator("Concat")
def concat(op: Lowering, *xs: Tensor) -> Tensor:
    axis = op.axis(op.attribute("axis", 1), xs[0].rank)
    for x in xs:
        if any(a != b for d, (a, b) in enumerate(zip(x.shape, xs[0].shape, strict=True)) if d != axis):
            raise op.refuse(f"shapes {', '.join(str(list(t.shape)) for t in xs)} differ outside axis {axis}")
    out = op.tensor([sum(x.shape[d] for x in xs) if d == axis else s for d, s in enumerate(xs[0].shape)], xs[0].dtype)
    start = 0
    for x in xs:
        if math.prod(x.shape) or not math.prod(out.shape):  # every result is written somewhere
            op.assign(out, lambda *i, x=x: x[i], x.shape, at=lambda *i, o=start: tuple(e + o if d == axis else e for d, e in enumerate(i)))
        start += x.shape[axis]
    return out


@operator("Split")
def split(op: Lowering, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = op.axis(op.attribute("axis", 0), x.rank)
    number = op.attribute("num_outputs") or len(op.outputs)
    chunk = -(-x.shape[axis] // number)
    even = [min(chunk, x.shape[axis] - k * chunk) for k in range(number)]
    parts = op.known_ints(sizes, "split") or even
    if sum(parts) != x.shape[axis]:
        raise op.refuse(f"parts {parts} do not add up to extent {x.shape[axis]} of axis {axis}")
    out, start = [], 0
    for part in parts:
        shape = [part if d == axis else s for d, s in enumerate(x.shape)]
        out.append(op.compute(shape, lambda *i, o=start: x[tuple(e + o if d == axis else e for d, e in enumerate(i))], x.dtype))
        start += part
    return tuple(out)


@operator("Slice")
def slice_node(
    op: Lowering,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    lo, hi = op.known_ints(starts, "starts") or [], op.known_ints(ends, "ends") or []
    along = [op.axis(a, x.rank) for a in (op.known_ints(axes, "axes") or range(len(lo)))]
    step = op.known_ints(steps, "steps") or [1] * len(lo)
    ranges = [range(s) for s in x.shape]
    for d, a, b, s in zip(along, lo, hi, step, strict=True):
        if s == 0:
            raise op.refuse("step 0")
        ranges[d] = range(x.shape[d])[slice(a, b if s > 0 or b >= -x.shape[d] else None, s)]
    if all(r == range(n) for r, n in zip(ranges, x.shape, strict=True)):
        return op.view(x, x.shape)
    return op.compute([len(r) for r in ranges], lambda *i: x[tuple(e * r.step + r.start for e, r in zip(i, ranges, strict=True))], x.dtype)


@operator("Expand")
def expand(op: Lowering, x: Tensor, shape: Tensor) -> Tensor:
    wanted = op.known_ints(shape, "shape") or []
    full = [int(s) for s in np.broadcast_shapes(tuple(wanted), x.shape)]
    return op.view(x, full) if math.prod(full) == math.prod(x.shape) else op.compute(full, lambda *i: x.at(i), x.dtype)


@operator("Tile")
def tile(op: Lowering, x: Tensor, repeats: Tensor) -> Tensor:
    times = op.known_ints(repeats, "repeats") or []
    full = [s * t for s, t in zip(x.shape, times, strict=True)]
    return op.compute(full, lambda *i: x[tuple(e % s if t > 1 else e for e, s, t in zip(i, x.shape, times, strict=True))], x.dtype)


# --- padding and cropping ---------------------------------------------------------------------


@operator("Pad")
def pad(op: Lowering, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    given = op.known_ints(pads, "pads") or op.known_ints(None, "paddings") or [0] * (2 * x.rank)
    along = [op.axis(a, x.rank) for a in (op.known_ints(axes, "axes") if axes is not None else None) or range(x.rank)]
    begin, end = [0] * x.rank, [0] * x.rank
    for k, d in enumerate(along):
        begin[d], end[d] = given[k], given[k + len(along)]
    mode = op.attribute("mode", "constant")
    shape = [b + s + e for b, s, e in zip(begin, x.shape, end, strict=True)]
    fill = const(op.attribute("value", 0.0), x.dtype) if value is None else value[(idx(0),) * value.rank]

    def constant(*i: Expr) -> Expr:
        inside: Expr | None = None
        for d, e in enumerate(i):
            for bound in ([compare(">=", e, begin[d])] if begin[d] > 0 else []) + (
                [compare("<", e, begin[d] + x.shape[d])] if end[d] > 0 else []
            ):
                inside = bound if inside is None else logical("and", inside, bound)
        here = x[tuple(e - b for e, b in zip(i, begin, strict=True))]
        return here if inside is None else where(inside, here, cast(fill, x.dtype))

    def mirrored(*i: Expr) -> Expr:
        return x[tuple(_outside(mode, e - b, s) if b or n else e for e, b, n, s in zip(i, begin, end, x.shape, strict=True))]

    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise op.refuse(f"unknown mode {mode!r}")
    return op.compute(shape, constant if mode == "constant" else mirrored, x.dtype, "pad")


def _outside(mode: str, i: Expr, size: int) -> Expr:
    """Index inside [0, size) that ``mode`` reads for an ``i`` that may lie outside."""
    if mode == "edge":
        return binary("min", binary("max", i, 0), size - 1)
    if mode == "wrap":
        return i % size
    period = max(2 * (size - 1), 1)
    within = i % period
    return binary("min", within, idx(period) - within)


@operator("CenterCropPad")
def center_crop_pad(op: Lowering, x: Tensor, shape: Tensor) -> Tensor:
    wanted = op.known_ints(shape, "shape") or []
    along = [op.axis(a, x.rank) for a in op.attribute("axes") or range(x.rank)]
    full, shift = list(x.shape), [0] * x.rank
    for d, w in zip(along, wanted, strict=True):
        full[d] = w
        shift[d] = (x.shape[d] - w) // 2 if x.shape[d] > w else -((w - x.shape[d]) // 2)

    def element(*i: Expr) -> Expr:
        at = tuple(e + s for e, s in zip(i, shift, strict=True))
        inside: Expr = Const(True, ty.boolean)
        for d, e in enumerate(at):
            if full[d] > x.shape[d]:
                inside = logical("and", inside, logical("and", compare(">=", e, 0), compare("<", e, x.shape[d])))
        return where(inside, x[at], const(0, x.dtype))

    return op.compute(full, element, x.dtype)


@operator("Trilu")
def trilu(op: Lowering, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(op.known(k, "k").reshape(()))
    upper = op.attribute("upper", 1)

    def element(*i: Expr) -> Expr:
        keep = compare(">=" if upper else "<=", i[-1], i[-2] + diagonal)
        return where(keep, x[i], const(0, x.dtype))

    return op.compute(x.shape, element, x.dtype)


# --- blocks of channels and space -------------------------------------------------------------


@operator("DepthToSpace")
def depth_to_space(op: Lowering, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = op.attribute("blocksize")
    depth = c // (b * b)

    def element(n: Expr, c: Expr, p: Expr, q: Expr) -> Expr:
        block = (p % b) * b + q % b
        channel = block * depth + c if op.attribute("mode", "DCR") == "DCR" else c * (b * b) + block
        return x[n, channel, p // b, q // b]

    return op.compute([n, depth, h * b, w * b], element, x.dtype)


@operator("SpaceToDepth")
def space_to_depth(op: Lowering, x: Tensor) -> Tensor:
    n, channels, h, w = x.shape
    b = op.attribute("blocksize")

    def element(n: Expr, c: Expr, p: Expr, q: Expr) -> Expr:
        if op.attribute("mode", "DCR") == "CRD":
            block, channel = c % (b * b), c // (b * b)
        else:
            block, channel = c // channels, c % channels
        return x[n, channel, p * b + block // b, q * b + block % b]

    return op.compute([n, channels * b * b, h // b, w // b], element, x.dtype)


@operator("ReverseSequence")
def reverse_sequence(op: Lowering, x: Tensor, lengths: Tensor) -> Tensor:
    batch, time = op.attribute("batch_axis", 1), op.attribute("time_axis", 0)

    def element(*i: Expr) -> Expr:
        length = cast(lengths[i[batch]], ty.index)
        flipped = where(compare("<", i[time], length), length - 1 - i[time], i[time])
        return x[tuple(flipped if d == time else e for d, e in enumerate(i))]

    return op.compute(x.shape, element, x.dtype)


@operator("Col2Im")
def col_to_image(op: Lowering, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Columns [N, C*prod(block), L] add up into images [N, C, *image]; out-of-image parts are dropped."""
    size, kernel = op.known_ints(image, "image_shape") or [], op.known_ints(block, "block_shape") or []
    n = len(size)
    strides, dilations = op.attribute("strides") or [1] * n, op.attribute("dilations") or [1] * n
    pads = op.attribute("pads") or [0] * (2 * n)
    steps = [(s + pads[d] + pads[n + d] - dilations[d] * (kernel[d] - 1) - 1) // strides[d] + 1 for d, s in enumerate(size)]
    full_shape = [s + pads[d] + pads[n + d] for d, s in enumerate(size)]
    channels = x.shape[1] // math.prod(kernel)
    full = op.tensor([x.shape[0], channels, *full_shape], x.dtype, "full")
    op.assign(full, lambda *i: const(0, x.dtype))

    def value(*i: Expr) -> Expr:
        return x[(i[0], _mixed(i[1], i[2 : 2 + n], kernel), _mixed(idx(0), i[2 + n :], steps))]

    def place(*i: Expr) -> tuple[Expr, ...]:
        return (i[0], i[1], *(i[2 + n + d] * strides[d] + i[2 + d] * dilations[d] for d in range(n)))

    op.assign(full, value, [x.shape[0], channels, *kernel, *steps], at=place, op="+")
    return op.compute([x.shape[0], channels, *size], lambda *i: full[(i[0], i[1], *(i[2 + d] + pads[d] for d in range(n)))], x.dtype)


def _mixed(start: Expr, digits: Sequence[Expr], base: Sequence[int]) -> Expr:
    out = start
    for e, b in zip(digits, base, strict=True):
        out = out * b + e
    return out
