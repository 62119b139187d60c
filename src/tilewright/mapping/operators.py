"""The operators of the AMOS evaluation (ISCA 2022, table 5), as kernels.

Every function takes extents by iteration name, the sources' element types and the accumulator's,
and returns a kernel whose only reduction nest is the contraction; its loops carry the iteration
names of the literature. Data that the operator itself defines (ones, triangles, zero guards) is
made inside the kernel.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Kernel, Stmt
from tilewright.ir.types import DType, f32
from tilewright.mapping.operator import affine
from tilewright.util.errors import MappingError

#: Element types: two sources, accumulator.
Types: TypeAlias = tuple[DType, DType, DType]
FLOAT: Types = (f32, f32, f32)


def _vars(extents: Mapping[str, int]) -> list[Var]:
    return [Var(n) for n in extents]


def element(name: str, dtype: DType, indices: Sequence[ex.ExprLike], extents: Mapping[str, int]) -> Load:
    """A load from a new array just large enough for affine ``indices`` over ``extents``."""
    shape = []
    for i in indices:
        form = affine(ex.idx(i))
        if form is None:
            raise MappingError(f"index {i} of {name} is not affine: give the array a shape")
        shape.append(1 + form[1] + sum(c * (extents[v] - 1) for v, c in form[0].items() if c > 0))
    return buffer(name, dtype, tuple(shape))[tuple(indices)]


def _nest(extents: Mapping[str, int], body: Stmt) -> Stmt:
    for name, n in reversed(list(extents.items())):
        body = st.loop(name, 0, n, body)
    return body


def contraction(
    name: str, extents: Mapping[str, int], out: Load, a: Expr, b: Expr, *, before: Sequence[Stmt] = (), after: Sequence[Stmt] = ()
) -> Kernel:
    """``out = 0; out += a * b`` over ``extents``; ``before`` may declare arrays of the kernel's own."""
    own = {s.buffer.name for s in before if isinstance(s, Alloc)}
    spatial = {v for i in out.indices for v in ex.free_vars(i)}
    clear = {f"{n}_0": e for n, e in extents.items() if n in spatial}
    start = tuple(ex.substitute(i, {n: Var(f"{n}_0") for n in extents}) for i in out.indices)
    zero = _nest(clear, st.store(out.buffer[start], 0)) if clear else st.store(out.buffer[start], 0)
    product = ex.cast(a, out.dtype) * ex.cast(b, out.dtype)
    body = st.block(*before, zero, _nest(extents, st.store(out, product, "+")), *after)
    read: dict[str, Buffer] = {}
    for s in st.walk(body):
        for e in st.own_exprs(s):
            read |= {ld.buffer.name: ld.buffer for ld in ex.loads(e)}
    args = [b for n, b in read.items() if n not in own and n != out.buffer.name]
    return Kernel(name, (*args, out.buffer), body)


def gmv(i: int = 64, k: int = 64, types: Types = FLOAT) -> Kernel:
    """Matrix-vector product: out[i] += a[i, k] * x[k]."""
    e = {"i": i, "k": k}
    vi, vk = _vars(e)
    ta, tb, tc = types
    return contraction("gmv", e, element("out", tc, (vi,), e), element("a", ta, (vi, vk), e), element("x", tb, (vk,), e))


def gmm(i: int = 64, j: int = 64, k: int = 64, types: Types = FLOAT) -> Kernel:
    """Matrix product: out[i, j] += a[i, k] * b[k, j]."""
    e = {"i": i, "j": j, "k": k}
    vi, vj, vk = _vars(e)
    ta, tb, tc = types
    return contraction("gmm", e, element("out", tc, (vi, vj), e), element("a", ta, (vi, vk), e), element("b", tb, (vk, vj), e))


def c1d(n: int = 1, k: int = 64, q: int = 56, c: int = 64, s: int = 3, stride: int = 1, types: Types = FLOAT) -> Kernel:
    """1-D convolution: out[n, k, q] += image[n, c, q*stride + s] * weight[k, c, s]."""
    e = {"n": n, "k": k, "q": q, "c": c, "s": s}
    vn, vk, vq, vc, vs = _vars(e)
    ta, tb, tc = types
    image = element("image", ta, (vn, vc, vq * stride + vs), e)
    return contraction("conv1d", e, element("out", tc, (vn, vk, vq), e), image, element("weight", tb, (vk, vc, vs), e))


def c2d(
    n: int = 1, k: int = 64, p: int = 56, q: int = 56, c: int = 64, r: int = 3, s: int = 3,
    stride: int = 1, dilation: int = 1, types: Types = FLOAT, name: str = "conv2d",
) -> Kernel:  # fmt: skip
    """2-D convolution: out[n, k, p, q] += image[n, c, p*stride + r*dilation, ..] * weight[k, c, r, s]."""
    e = {"n": n, "k": k, "p": p, "q": q, "c": c, "r": r, "s": s}
    vn, vk, vp, vq, vc, vr, vs = _vars(e)
    ta, tb, tc = types
    image = element("image", ta, (vn, vc, vp * stride + vr * dilation, vq * stride + vs * dilation), e)
    return contraction(name, e, element("out", tc, (vn, vk, vp, vq), e), image, element("weight", tb, (vk, vc, vr, vs), e))


def dil(n: int = 1, k: int = 64, p: int = 56, q: int = 56, c: int = 64, r: int = 3, s: int = 3, types: Types = FLOAT) -> Kernel:
    """Dilated 2-D convolution (dilation 2)."""
    return c2d(n, k, p, q, c, r, s, dilation=2, types=types, name="dilated_conv2d")


def c3d(
    n: int = 1, k: int = 64, d: int = 8, p: int = 28, q: int = 28, c: int = 64, t: int = 3, r: int = 3, s: int = 3,
    stride: int = 1, types: Types = FLOAT,
) -> Kernel:  # fmt: skip
    """3-D convolution over depth d, rows p and columns q."""
    e = {"n": n, "k": k, "d": d, "p": p, "q": q, "c": c, "t": t, "r": r, "s": s}
    vn, vk, vd, vp, vq, vc, vt, vr, vs = _vars(e)
    ta, tb, tc = types
    image = element("image", ta, (vn, vc, vd * stride + vt, vp * stride + vr, vq * stride + vs), e)
    return contraction("conv3d", e, element("out", tc, (vn, vk, vd, vp, vq), e), image, element("weight", tb, (vk, vc, vt, vr, vs), e))


def t2d(
    n: int = 1, k: int = 64, p: int = 56, q: int = 56, c: int = 64, r: int = 3, s: int = 3, stride: int = 2, types: Types = FLOAT
) -> Kernel:
    """Transposed 2-D convolution: each output gathers the image elements whose stride lands on it."""
    e = {"n": n, "k": k, "p": p, "q": q, "c": c, "r": r, "s": s}
    vn, vk, vp, vq, vc, vr, vs = _vars(e)
    ta, tb, tc = types
    rows, columns = ((x - 1) // stride + 1 for x in (p, q))
    y, x = vp - vr, vq - vs
    lands = [ex.compare(">=", y, 0), ex.compare(">=", x, 0), ex.compare("==", y % stride, 0), ex.compare("==", x % stride, 0)]
    here = lands[0]
    for condition in lands[1:]:
        here = ex.logical("and", here, condition)
    image = buffer("image", ta, (n, c, rows, columns))[vn, vc, y // stride, x // stride]
    gathered = ex.where(here, image, ex.const(0, ta))
    return contraction(
        "transposed_conv2d", e, element("out", tc, (vn, vk, vp, vq), e), gathered, element("weight", tb, (vk, vc, vr, vs), e)
    )


def grp(n: int = 1, g: int = 4, k: int = 16, p: int = 56, q: int = 56, c: int = 16, r: int = 3, s: int = 3, types: Types = FLOAT) -> Kernel:
    """Grouped 2-D convolution: group g has its own k filters over its own c channels."""
    e = {"n": n, "g": g, "k": k, "p": p, "q": q, "c": c, "r": r, "s": s}
    vn, vg, vk, vp, vq, vc, vr, vs = _vars(e)
    ta, tb, tc = types
    image = element("image", ta, (vn, vg, vc, vp + vr, vq + vs), e)
    return contraction(
        "grouped_conv2d", e, element("out", tc, (vn, vg, vk, vp, vq), e), image, element("weight", tb, (vg, vk, vc, vr, vs), e)
    )


def dep(
    n: int = 1, c: int = 64, m: int = 1, p: int = 56, q: int = 56, r: int = 3, s: int = 3, stride: int = 1, types: Types = FLOAT
) -> Kernel:
    """Depthwise 2-D convolution with channel multiplier m."""
    e = {"n": n, "c": c, "m": m, "p": p, "q": q, "r": r, "s": s}
    vn, vc, vm, vp, vq, vr, vs = _vars(e)
    ta, tb, tc = types
    image = element("image", ta, (vn, vc, vp * stride + vr, vq * stride + vs), e)
    return contraction(
        "depthwise_conv2d", e, element("out", tc, (vn, vc, vm, vp, vq), e), image, element("weight", tb, (vc, vm, vr, vs), e)
    )


def cap(
    n: int = 1, k: int = 16, p: int = 14, q: int = 14, i: int = 4, j: int = 4, c: int = 16, r: int = 3, s: int = 3, l: int = 4,
    types: Types = FLOAT,
) -> Kernel:  # fmt: skip
    """Capsule 2-D convolution: every element is an i x l or l x j matrix and they are multiplied."""
    e = {"n": n, "k": k, "p": p, "q": q, "i": i, "j": j, "c": c, "r": r, "s": s, "l": l}
    vn, vk, vp, vq, vi, vj, vc, vr, vs, vl = _vars(e)
    ta, tb, tc = types
    image = element("image", ta, (vn, vc, vp + vr, vq + vs, vi, vl), e)
    weight = element("weight", tb, (vk, vc, vr, vs, vl, vj), e)
    return contraction("capsule_conv2d", e, element("out", tc, (vn, vk, vp, vq, vi, vj), e), image, weight)


def bcv(n: int = 4, k: int = 64, p: int = 56, q: int = 56, c: int = 64, r: int = 3, s: int = 3, types: Types = FLOAT) -> Kernel:
    """2-D convolution with weights of its own for every image of the batch."""
    e = {"n": n, "k": k, "p": p, "q": q, "c": c, "r": r, "s": s}
    vn, vk, vp, vq, vc, vr, vs = _vars(e)
    ta, tb, tc = types
    image = element("image", ta, (vn, vc, vp + vr, vq + vs), e)
    return contraction("batched_conv2d", e, element("out", tc, (vn, vk, vp, vq), e), image, element("weight", tb, (vn, vk, vc, vr, vs), e))


def gfc(n: int = 16, g: int = 4, k: int = 64, c: int = 64, types: Types = FLOAT) -> Kernel:
    """Grouped fully connected layer: out[n, g, k] += a[n, g, c] * weight[g, k, c]."""
    e = {"n": n, "g": g, "k": k, "c": c}
    vn, vg, vk, vc = _vars(e)
    ta, tb, tc = types
    a, weight = element("a", ta, (vn, vg, vc), e), element("weight", tb, (vg, vk, vc), e)
    return contraction("grouped_fc", e, element("out", tc, (vn, vg, vk), e), a, weight)


def men(i: int = 64, k: int = 64, types: Types = FLOAT) -> Kernel:
    """Row means: the product with a vector of ones, divided by its length."""
    return _moment("mean", i, k, types, lambda x, row: [])


def var(i: int = 64, k: int = 64, types: Types = FLOAT) -> Kernel:
    """Row variances about given means: squared differences times ones, divided by their number."""
    return _moment("variance", i, k, types, _squares)


def scn(i: int = 64, j: int = 64, types: Types = FLOAT) -> Kernel:
    """Row prefix sums: the product with an upper triangle of ones, out[i, j] += x[i, k] * (k <= j)."""
    e = {"i": i, "j": j, "k": j}
    vi, vj, vk = _vars(e)
    ta, tb, tc = types
    triangle = ex.where(ex.compare("<=", vk, vj), ex.const(1, tb), ex.const(0, tb))
    return contraction("scan", e, element("out", tc, (vi, vj), e), element("x", ta, (vi, vk), e), triangle)


def _squares(x: Load, row: Mapping[str, int]) -> list[Stmt]:
    """Fills ``x`` with squared differences of ``data`` and ``means``."""
    vi, vk = (Var(f"{n}_1") for n in row)
    data, means = buffer("data", x.dtype, x.buffer.shape), buffer("means", x.dtype, x.buffer.shape[:1])
    difference = data[vi, vk] - means[vi]
    square = st.store(x.buffer[vi, vk], difference * difference)
    return [Alloc(x.buffer), _nest({f"{n}_1": extent for n, extent in row.items()}, square)]


def _moment(name: str, i: int, k: int, types: Types, fill: Callable[[Load, Mapping[str, int]], list[Stmt]]) -> Kernel:
    e = {"i": i, "k": k}
    vi, vk = _vars(e)
    ta, tb, tc = types
    x, ones, out = element("x", ta, (vi, vk), e), element("ones", tb, (vk,), e), element("out", tc, (vi,), e)
    fill_ones = st.loop("k_2", 0, k, st.store(ones.buffer[Var("k_2")], 1))
    total = out.buffer[Var("i_2")]
    mean = total / k if tc.is_float else ex.cast(total // k, tc)
    divide = st.loop("i_2", 0, i, st.store(total, mean))
    return contraction(name, e, out, x, ones, before=[*fill(x, e), Alloc(ones.buffer), fill_ones], after=[divide])


#: The fifteen operators by the name AMOS gives them.
OPERATORS: Mapping[str, Callable[..., Kernel]] = {
    "gmv": gmv, "gmm": gmm, "c1d": c1d, "c2d": c2d, "c3d": c3d, "t2d": t2d, "grp": grp, "dil": dil, "dep": dep, "cap": cap,
    "bcv": bcv, "gfc": gfc, "men": men, "var": var, "scn": scn,
}  # fmt: skip
#: What people call them.
ALIASES: Mapping[str, str] = {
    "matvec": "gmv", "gemv": "gmv", "matmul": "gmm", "gemm": "gmm", "conv1d": "c1d", "conv2d": "c2d", "conv3d": "c3d",
    "transposed": "t2d", "grouped": "grp", "dilated": "dil", "depthwise": "dep", "capsule": "cap", "mean": "men",
    "variance": "var", "scan": "scn",
}  # fmt: skip


def build_operator(name: str, types: Types = FLOAT, **extents: int) -> Kernel:
    """The operator called ``name`` (an AMOS name or an alias) with extents by iteration name.

    Raises MappingError for an unknown name or extent.
    """
    short = ALIASES.get(name, name)
    if short not in OPERATORS:
        raise MappingError(f"unknown operator {name!r}", hint=f"known: {', '.join([*OPERATORS, *ALIASES])}")
    build = OPERATORS[short]
    known = [p for p in inspect.signature(build).parameters if p not in ("types", "name")]
    for key, value in extents.items():
        if key not in known:
            raise MappingError(f"operator {name} has no extent {key!r}", hint=f"it has: {', '.join(known)}")
        if value < 1:
            raise MappingError(f"extent {key}={value} of operator {name} must be at least 1")
    return build(types=types, **extents)
