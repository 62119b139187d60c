"""Mappings executed: pack, pad, instruction, unpack against the loop nest, bit for bit in integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as hs

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Var
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Call, Kernel
from tilewright.ir.types import f32, i8, i16, i32, i64, u8
from tilewright.mapping import find_mappings, operator_of, parse_mapping
from tilewright.mapping import operators as ops
from tilewright.util.errors import MappingError

INTS = (i32, i32, i32)
TINY = {
    "gmv": {"i": 5, "k": 6}, "gmm": {"i": 3, "j": 4, "k": 5}, "c1d": {"n": 2, "k": 3, "q": 5, "c": 3, "s": 2},
    "c2d": {"n": 2, "k": 4, "p": 3, "q": 2, "c": 3, "r": 2, "s": 3}, "dil": {"n": 2, "k": 2, "p": 3, "q": 2, "c": 2, "r": 2, "s": 3},
    "c3d": {"n": 2, "k": 2, "d": 2, "p": 3, "q": 2, "c": 2, "t": 2, "r": 2, "s": 2},
    "t2d": {"n": 1, "k": 2, "p": 5, "q": 4, "c": 3, "r": 3, "s": 2},
    "grp": {"n": 2, "g": 2, "k": 3, "p": 3, "q": 2, "c": 2, "r": 2, "s": 2},
    "dep": {"n": 2, "c": 3, "m": 2, "p": 3, "q": 2, "r": 2, "s": 3},
    "cap": {"n": 1, "k": 2, "p": 2, "q": 3, "i": 2, "j": 2, "c": 2, "r": 2, "s": 1, "l": 2},
    "bcv": {"n": 2, "k": 3, "p": 2, "q": 3, "c": 2, "r": 2, "s": 2}, "gfc": {"n": 3, "g": 2, "k": 4, "c": 5},
    "men": {"i": 5, "k": 6}, "var": {"i": 5, "k": 6}, "scn": {"i": 3, "j": 5},
}  # fmt: skip


def _calls(kernel: Kernel) -> list[Call]:
    return [s for s in st.walk(kernel.body) if isinstance(s, Call)]


def test_all_49_conv2d_mappings_reproduce_the_direct_convolution(shapes, run):
    kernel = ops.c2d(**TINY["c2d"], types=INTS)
    direct = run(kernel)["out"]
    found = find_mappings(kernel, shapes["mma"])
    assert len(found) == 49
    for m in found:
        lowered = m.lower()
        assert len(_calls(lowered)) == 1
        assert np.array_equal(run(lowered)["out"], direct), str(m)


@pytest.mark.parametrize("instr", ["mma", "gemv", "dot", "outer"])
@pytest.mark.parametrize("name", sorted(ops.OPERATORS))
def test_every_operator_executes_exactly_on_every_instruction(shapes, run, name, instr):
    kernel = ops.OPERATORS[name](**TINY[name], types=INTS)
    direct = run(kernel)["out"]
    assert np.any(direct)
    found = find_mappings(kernel, shapes[instr])
    for m in [found[0], found[len(found) // 2], found[-1]]:
        assert np.array_equal(run(m.lower())["out"], direct), str(m)


def test_exchanged_operands_permuted_fusion_and_axpy(shapes, run):
    kernel = ops.c2d(**TINY["c2d"], types=INTS)
    op = operator_of(kernel)
    direct = run(kernel)["out"]
    for instr, text in [
        ("mma", "i<-k j<-q*n*p k<-s*c [a=weight, b=image]"),
        ("mma", "i<-q*p j<-k k<-r*c*s"),
        ("axpy", "i<-k [a=image, b=weight]"),
        ("axpy", "i<-q*n [a=weight, b=image]"),
    ]:
        m = parse_mapping(op, shapes[instr], text)
        assert np.array_equal(run(m.lower())["out"], direct), text


def test_compound_index_instruction_executes_every_mapping(shapes, run):
    """Slots of `x[c, q + s]` are shared by several (q, s): the packed image is written where they meet."""
    kernel = ops.c2d(n=2, k=3, p=4, q=4, c=3, r=3, s=3, types=INTS)
    direct = run(kernel)["out"]
    found = find_mappings(kernel, shapes["row"])
    assert {"k<-k  q<-q  c<-c  s<-s", "k<-k  q<-p  c<-c  s<-r"} <= {str(m) for m in found}
    for m in found:
        assert np.array_equal(run(m.lower())["out"], direct), str(m)


@given(
    hs.tuples(*[hs.integers(1, 5)] * 7),
    hs.integers(1, 3),
    hs.integers(1, 2),
    hs.sampled_from(["mma", "gemv", "row"]),
    hs.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_any_mapping_of_any_convolution_executes_exactly(shapes, run, extents, stride, dilation, instr, number):
    kernel = ops.c2d(*extents, stride=stride, dilation=dilation, types=INTS)
    found = find_mappings(kernel, shapes[instr], orders="all", permuted=True)
    assume(found)  # a strided or dilated row does not slide as `q + s` does
    m = found[number % len(found)]
    assert np.array_equal(run(m.lower())["out"], run(kernel)["out"]), str(m)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_strided_convolution(shapes, run, stride):
    kernel = ops.c2d(n=1, k=3, p=3, q=4, c=2, r=3, s=3, stride=stride, types=INTS)
    direct = run(kernel)["out"]
    for m in find_mappings(kernel, shapes["mma"])[::6]:
        assert np.array_equal(run(m.lower())["out"], direct), str(m)


def test_guarded_loads_are_packed(shapes, run):
    """A convolution with zero padding written as a guarded load maps like any other."""
    p, r, c, k = (Var(x) for x in "prck")
    image, weight, out = (buffer(n, i32, s) for n, s in (("image", (3, 6)), ("weight", (2, 3, 3)), ("out", (2, 6))))
    y = p + r - 1
    inside = ex.logical("and", ex.compare(">=", y, 0), ex.compare("<", y, 6))
    value = ex.where(inside, image[c, y], ex.const(0, i32)) * weight[k, c, r]
    nest = st.loop("k", 0, 2, st.loop("p", 0, 6, st.loop("c", 0, 3, st.loop("r", 0, 3, st.store(out[k, p], ex.cast(value, i32), "+")))))
    kernel = Kernel("same", (image, weight, out), st.block(nest))
    direct = run(kernel)["out"]
    found = find_mappings(kernel, shapes["mma"])
    assert [str(m) for m in found] == ["i<-p  j<-k  k<-c", "i<-p  j<-k  k<-r", "i<-p  j<-k  k<-c*r"]
    for m in found:
        assert np.array_equal(run(m.lower())["out"], direct)


def test_loops_with_offsets_and_steps(instruction, run):
    i, k = Var("i"), Var("k")
    a, x, y = buffer("a", i32, (9, 8)), buffer("x", i32, (8,)), buffer("y", i32, (9,))
    nest = st.loop("i", 2, 9, st.loop("k", 1, 8, st.store(y[i], ex.cast(a[i, k] * x[k], i32), "+"), step=3), step=2)
    kernel = Kernel("strided", (a, x, y), st.block(nest))
    (m,) = find_mappings(kernel, instruction("gemv", {"i": 3, "k": 2}, "i", "i, k", "k"))
    assert m.op.extents == (4, 3)
    assert np.array_equal(run(m.lower())["y"], run(kernel)["y"])


def test_narrow_types_widen_into_the_instruction(instruction, run):
    kernel = ops.gmm(3, 4, 5, types=(u8, i8, i32))
    mma = instruction("mma", {"i": 2, "j": 2, "k": 2}, "i, j", "i, k", "k, j", types=(i16, i8, i64))
    (m,) = find_mappings(kernel, mma)
    lowered = m.lower()
    assert {b.name: b.dtype for b in st.allocated(lowered)} == {"out_packed": i64, "a_packed": i16, "b_packed": i8}
    assert np.array_equal(run(lowered)["out"], run(kernel)["out"])


def test_min_plus_products_map_but_refuse_padded_reductions(instruction, run):
    i, j, k = (Var(x) for x in "ijk")
    a, b, c = buffer("a", i32, (3, 4)), buffer("b", i32, (4, 5)), buffer("c", i32, (3, 5))
    body = st.store(c[i, j], ex.cast(a[i, k] + b[k, j], i32), "min")
    kernel = Kernel("paths", (a, b, c), st.block(st.loop("i", 0, 3, st.loop("j", 0, 5, st.loop("k", 0, 4, body)))))
    (exact,) = find_mappings(kernel, instruction("tropical", {"i": 2, "j": 2, "k": 2}, "i, j", "i, k", "k, j", op="min"))
    assert np.array_equal(run(exact.lower())["c"], run(kernel)["c"])
    (padded,) = find_mappings(kernel, instruction("tropical", {"i": 2, "j": 2, "k": 3}, "i, j", "i, k", "k, j", op="min"))
    with pytest.raises(MappingError, match=r"axis k would be padded from 4 to 6, and zeros change the result"):
        padded.lower()


def test_pooling_pads_with_the_neutral_element(run):
    """A single source is reduced as it is: padding must be neutral for max, below every negative value."""
    i, k, p, r = (Var(x) for x in "ikpr")
    tile, top = buffer("a", i32, (2, 4)), buffer("c", i32, (2,))
    unit = Kernel("rowmax", (top, tile), st.block(st.loop("i", 0, 2, st.loop("k", 0, 4, st.store(top[i], tile[i, k], "max")))))
    x, y = buffer("x", i16, (7,)), buffer("y", i32, (5,))
    kernel = Kernel("pool", (x, y), st.block(st.loop("p", 0, 5, st.loop("r", 0, 3, st.store(y[p], x[p + r] - 100, "max")))))
    (m,) = find_mappings(kernel, unit, orders="all")[:1]
    assert m.physical().padded_axes == (0, 1)
    arrays = {"x": np.arange(7, dtype=np.int16), "y": np.full(5, -200, np.int32)}
    expected = np.maximum.reduce([arrays["x"][d : d + 5] for d in range(3)]) - 100
    interpret(m.lower(), arrays)
    assert np.array_equal(arrays["y"], expected)


def test_everything_around_the_nest_stays(shapes):
    kernel = ops.men(5, 6, types=(f32, f32, f32))
    (m,) = find_mappings(kernel, _as_float(shapes["gemv"]))
    before, after = (list(map(str, k.body.stmts)) for k in (kernel, m.lower()))
    assert [s for s in before if s not in after] == [s for s in before if s.startswith("for i in")]


def _as_float(kernel: Kernel) -> Kernel:
    env = {b.name: b.with_(dtype=f32) for b in kernel.args}
    return kernel.with_(
        args=tuple(env.values()),
        body=st.replace_buffers(st.map_exprs(kernel.body, lambda e: ex.transform(e, lambda n: _floated(n, env))), env),
    )


def _floated(e, env):
    if isinstance(e, ex.Binary) and e.dtype.kind != "index":
        return ex.Load(env["a"], _indices(e.a)) * ex.Load(env["b"], _indices(e.b))
    return None


def _indices(e):
    return ex.loads(e)[0].indices


def test_lowering_refuses_invalid_mappings_and_foreign_kernels(shapes):
    op = operator_of(ops.c2d(**TINY["c2d"], types=INTS))
    with pytest.raises(MappingError, match=r"cannot be lowered: image would need two elements in slot \(i=0, k=0\)"):
        parse_mapping(op, shapes["mma"], "i<-n j<-p k<-c").lower()
    good = parse_mapping(op, shapes["mma"], "i<-n j<-k k<-c")
    with pytest.raises(MappingError, match=r"the nest at loop n of conv2d is not the one"):
        good.lower(ops.c2d(n=3, k=4, p=3, q=2, c=3, r=2, s=3, types=INTS))
