"""Resize and sampling on grids. Resizing is separable: one weighted gather per changed axis.

Where each output element reads, and with which weights, is computed here once; the kernels read
those tables (or, for whole-number nearest upsampling, a plain division of the index).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tilewright.graph.lowering import Lowering, operator
from tilewright.graph.model import Tensor
from tilewright.graph.operators.elementwise import clamp
from tilewright.ir import types as ty
from tilewright.ir.expr import Const, Expr, cast, compare, const, idx, intrinsic, logical, where


@dataclass(frozen=True, slots=True)
class _Axis:
    """How one axis is resized: extents, scale, and the region of interest in relative coordinates."""

    size: int
    out: int
    scale: float
    roi: tuple[float, float]


def _positions(op: Lowering, a: _Axis, transform: str) -> np.ndarray:
    """Position in the input of every output element of the axis."""
    o = np.arange(a.out, dtype=np.float64)
    width = a.scale * a.size
    match transform:
        case "asymmetric":
            return o / a.scale
        case "align_corners":
            return o * (a.size - 1) / (width - 1) if width != 1 else np.zeros(a.out)
        case "half_pixel":
            return (o + 0.5) / a.scale - 0.5
        case "pytorch_half_pixel":
            return (o + 0.5) / a.scale - 0.5 if width != 1 else np.full(a.out, -0.5)
        case "half_pixel_symmetric":
            return a.size / 2 * (1 - a.out / width) + (o + 0.5) / a.scale - 0.5
        case "tf_crop_and_resize":
            lo, hi = a.roi[0] * (a.size - 1), a.roi[1] * (a.size - 1)
            return lo + o * (hi - lo) / (width - 1) if width != 1 else np.full(a.out, (lo + hi) / 2)
    raise op.refuse(f"unknown coordinate_transformation_mode {transform!r}")


def cubic_weight(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel at ``distance`` pixels."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _nearest(op: Lowering, x: np.ndarray) -> np.ndarray:
    mode = op.attribute("nearest_mode", "floor" if op.opset < 11 else "round_prefer_floor")
    rounded: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda v: np.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
    }
    if mode not in rounded:
        raise op.refuse(f"unknown nearest_mode {mode!r}")
    return rounded[mode](x).astype(np.int64)


def _taps(op: Lowering, a: _Axis, mode: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Input indices [out, taps] (clamped to the axis) and weights [out, taps] of every output element."""
    if mode == "nearest":
        return np.clip(_nearest(op, x), 0, a.size - 1)[:, None], np.ones((a.out, 1))
    reach = 1 if mode == "linear" else 2
    shrink = min(a.scale, 1.0) if op.attribute("antialias", 0) else 1.0
    before = -(math.floor(-reach / shrink) + 1)
    base = np.floor(x).astype(np.int64)
    at = base[:, None] + np.arange(-before, before + 2)[None, :]
    distance = (at - x[:, None]) * shrink
    weights = np.clip(1 - np.abs(distance), 0, 1) if mode == "linear" else cubic_weight(distance, op.attribute("cubic_coeff_a", -0.75))
    if op.attribute("exclude_outside", 0):
        weights = np.where((at >= 0) & (at < a.size), weights, 0.0)
    return np.clip(at, 0, a.size - 1), weights / weights.sum(1, keepdims=True)


def resize(op: Lowering, x: Tensor, axes: dict[int, _Axis], mode: str, transform: str) -> Tensor:
    """``x`` with each axis of ``axes`` resampled."""
    positions = {d: _positions(op, a, transform) for d, a in axes.items()}
    tables = {d: _taps(op, a, mode, positions[d]) for d, a in axes.items()}
    out = _gather_nearest(op, x, axes, tables) if mode == "nearest" else x
    if mode != "nearest":
        for d, (at, weights) in tables.items():
            out = _resample_axis(op, out, d, at, weights)
    if transform != "tf_crop_and_resize":
        return out
    inside = {d: op.array((p >= 0) & (p <= axes[d].size - 1)) for d, p in positions.items()}
    fill = const(op.attribute("extrapolation_value", 0.0), x.dtype)

    def cropped(*i: Expr) -> Expr:
        within: Expr = Const(True, ty.boolean)
        for d, t in inside.items():
            within = logical("and", within, t.buffer[i[d]])
        return where(within, out[i], fill)

    return op.compute(out.shape, cropped, x.dtype)


def _gather_nearest(op: Lowering, x: Tensor, axes: dict[int, _Axis], tables: dict[int, tuple[np.ndarray, np.ndarray]]) -> Tensor:
    indices = {d: at[:, 0] for d, (at, _) in tables.items()}
    factors = {d: axes[d].out // axes[d].size if axes[d].size and axes[d].out % axes[d].size == 0 else 0 for d in axes}
    whole = {d: f for d, f in factors.items() if f and (indices[d] == np.arange(axes[d].out) // f).all()}
    loaded = {d: op.array(i) for d, i in indices.items() if d not in whole}

    def element(*i: Expr) -> Expr:
        at = list(i)
        for d in axes:
            at[d] = i[d] // whole[d] if d in whole else cast(loaded[d].buffer[i[d]], ty.index)
        return x[tuple(at)]

    return op.compute([axes[d].out if d in axes else s for d, s in enumerate(x.shape)], element, x.dtype)


def _resample_axis(op: Lowering, x: Tensor, d: int, at: np.ndarray, weights: np.ndarray) -> Tensor:
    where_from = op.array(at)
    kind = ty.f64 if x.dtype == ty.f64 else ty.f32
    weight = op.array(weights.astype(kind.to_numpy()))
    shape = [len(at) if k == d else s for k, s in enumerate(x.shape)]

    def term(*i: Expr) -> Expr:
        own, t = i[:-1], i[-1]
        source = cast(where_from.buffer[own[d], t], ty.index)
        return cast(x[tuple(source if k == d else e for k, e in enumerate(own))], kind) * weight.buffer[own[d], t]

    total = op.reduce(shape, [at.shape[1]], term, kind)
    return total if x.dtype == kind else op.compute(shape, lambda *i: total[i], x.dtype)


def _resized_axes(op: Lowering, x: Tensor, roi: Tensor | None, scales: Tensor | None, sizes: Tensor | None) -> dict[int, _Axis]:
    """The axes a Resize node changes, from scales or sizes."""
    along = [op.axis(a, x.rank) for a in op.attribute("axes") or range(x.rank)]
    regions = [float(v) for v in op.known(roi, "roi").reshape(-1)] if roi is not None and 0 not in roi.shape else []
    spans = [(regions[k], regions[k + len(along)]) for k in range(len(along))] if regions else [(0.0, 1.0)] * len(along)
    extents = [x.shape[d] for d in along]
    if scales is not None and 0 not in scales.shape:
        factors = [float(v) for v in op.known(scales, "scales").reshape(-1)]
        transform = op.attribute("coordinate_transformation_mode", "half_pixel")
        regioned = transform == "tf_crop_and_resize"
        outs = [math.floor(s * f * (hi - lo if regioned else 1.0)) for s, f, (lo, hi) in zip(extents, factors, spans, strict=True)]
    elif sizes is not None:
        outs = op.known_ints(sizes, "sizes") or []
        factors = [o / s for o, s in zip(outs, extents, strict=True)]
        policy = op.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(along)
            outs = [math.floor(s * factor + 0.5) for s in extents]
    else:
        raise op.refuse("it has neither scales nor sizes")
    made = {d: _Axis(s, o, f, r) for d, s, o, f, r in zip(along, extents, outs, factors, spans, strict=True)}
    return {d: a for d, a in made.items() if a.size != a.out or a.scale != 1.0 or a.roi != (0.0, 1.0)}


@operator("Resize")
def resize_node(op: Lowering, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
    if op.opset < 11:
        roi, scales = None, roi
    transform = op.attribute("coordinate_transformation_mode", "asymmetric" if op.opset < 11 else "half_pixel")
    axes = _resized_axes(op, x, roi if transform == "tf_crop_and_resize" else None, scales, sizes)
    return resize(op, x, axes, op.attribute("mode", "nearest"), transform)


@operator("Upsample")
def upsample(op: Lowering, x: Tensor, scales: Tensor | None = None) -> Tensor:
    factors = [float(v) for v in (op.known(scales, "scales") if scales is not None else op.attribute("scales"))]
    axes = {d: _Axis(s, math.floor(s * f), f, (0.0, 1.0)) for d, (s, f) in enumerate(zip(x.shape, factors, strict=True)) if f != 1.0}
    mode = op.attribute("mode", "nearest")
    return resize(op, x, axes, "linear" if mode in ("linear", "bilinear") else mode, "asymmetric")


# --- sampling where data says -----------------------------------------------------------------


def _inside(i: Expr, size: int, padding: str, corners: bool) -> Expr:
    """Pixel that stands in for index ``i`` outside the image."""
    if padding != "reflection":
        return clamp(i, 0, size - 1)
    period = max(2 * (size - 1), 1) if corners else 2 * size
    m = i % period
    return where(compare("<", m, size), m, (period if corners else period - 1) - m)


@operator("GridSample")
def grid_sample(op: Lowering, x: Tensor, grid: Tensor) -> Tensor:
    """Interpolation of [N, C, *D] at normalised positions [N, *out, n]: a sum over 1, 2 or 4 taps per axis."""
    mode = op.attribute("mode", "linear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    padding, corners = op.attribute("padding_mode", "zeros"), bool(op.attribute("align_corners", 0))
    n, spatial = x.rank - 2, x.shape[2:]
    sizes = op.array(np.asarray(spatial[::-1], np.float32))

    def position(*i: Expr) -> Expr:
        g, size = cast(grid[i], ty.f32), sizes.buffer[i[-1]]
        return (g + 1) * (size - 1) * 0.5 if corners else ((g + 1) * size - 1) * 0.5

    at = op.compute(grid.shape, position, ty.f32, "position")
    taps, first = {"nearest": (1, 0), "linear": (2, 0), "cubic": (4, -1)}[mode]
    out_shape = grid.shape[1:-1]

    def term(*i: Expr) -> Expr:
        b, c, o, t = i[0], i[1], i[2 : 2 + n], i[2 + n :]
        weight: Expr = Const(1.0, ty.f32)
        within: Expr = Const(True, ty.boolean)
        pixel = []
        for d in range(n):
            p = at.buffer[(b, *o, idx(n - 1 - d))]
            base = intrinsic("round" if mode == "nearest" else "floor", p)
            tap = cast(t[d] + first, ty.f32)
            if mode != "nearest":
                weight = weight * _kernel_weight(mode, p - (base + tap))
            whole = cast(clamp(base, -1e9, 1e9), ty.index) + t[d] + first
            if padding == "zeros":
                within = logical("and", within, logical("and", compare(">=", whole, 0), compare("<", whole, spatial[d])))
            pixel.append(_inside(whole, spatial[d], padding, corners))
        return where(within, cast(x[(b, c, *pixel)], ty.f32) * weight, Const(0.0, ty.f32))

    total = op.reduce([*x.shape[:2], *out_shape], [taps] * n, term, ty.f32)
    return total if x.dtype == ty.f32 else op.compute(total.shape, lambda *i: total[i], x.dtype)


def _kernel_weight(mode: str, distance: Expr) -> Expr:
    d = intrinsic("abs", distance)
    if mode == "linear":
        return 1 - d
    a = -0.75
    near = ((d * (a + 2)) - (a + 3)) * d * d + 1
    far = ((d * a - 5 * a) * d + 8 * a) * d - 4 * a
    return where(compare("<=", d, 1.0), near, far)


@operator("RoiAlign")
def roi_align(op: Lowering, x: Tensor, rois: Tensor, batches: Tensor) -> Tensor:
    """Bilinear samples inside the bins of each region, averaged (or their maximum)."""
    height, width = op.attribute("output_height", 1), op.attribute("output_width", 1)
    samples, scale = op.attribute("sampling_ratio", 0), op.attribute("spatial_scale", 1.0)
    if samples <= 0:
        raise op.refuse("sampling_ratio=0 makes the number of samples depend on data", hint="set a sampling_ratio")
    half = op.opset >= 16 and op.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    peak = op.attribute("mode", "avg") == "max"
    shift = 0.5 if half else 0.0
    extents = (x.shape[2], x.shape[3])

    def position(r: Expr, d: int, cell: Expr, bins: int, sample: Expr) -> Expr:
        lo = rois[r, idx(1 - d)] * scale - shift
        length = rois[r, idx(3 - d)] * scale - shift - lo
        length = length if half else where(compare("<", length, 1.0), Const(1.0, x.dtype), length)
        return lo + (cast(cell, ty.f32) + (cast(sample, ty.f32) + 0.5) / samples) * (length / bins)

    def corner(r: Expr, c: Expr, cell: tuple[Expr, Expr], sample: tuple[Expr, Expr], t: tuple[Expr, Expr]) -> Expr:
        weight: Expr = Const(1.0, ty.f32)
        within: Expr = Const(True, ty.boolean)
        pixel = []
        for d, bins in enumerate((height, width)):
            p = position(r, d, cell[d], bins, sample[d])
            within = logical("and", within, logical("and", compare(">=", p, -1.0), compare("<=", p, float(extents[d]))))
            p = clamp(p, 0.0, float(extents[d] - 1))
            base = intrinsic("floor", p)
            fraction = p - base
            weight = weight * where(compare("==", t[d], 0), 1 - fraction, fraction)
            pixel.append(clamp(cast(base, ty.index) + t[d], 0, extents[d] - 1))
        return where(within, x[(cast(batches[r], ty.index), c, *pixel)] * weight, Const(0.0, x.dtype))

    shape = [rois.shape[0], x.shape[1], height, width]
    if peak:
        # The maximum is taken over the weighted corners of all samples, as the operator defines it.
        return op.reduce(
            shape, [samples, samples, 2, 2], lambda *i: corner(i[0], i[1], (i[2], i[3]), (i[4], i[5]), (i[6], i[7])), x.dtype, "max"
        )
    total = op.reduce(shape, [samples, samples, 2, 2], lambda *i: corner(i[0], i[1], (i[2], i[3]), (i[4], i[5]), (i[6], i[7])), x.dtype)
    return op.compute(shape, lambda *i: total[i] * (1.0 / (samples * samples)), x.dtype)
