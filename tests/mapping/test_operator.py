"""The operator view: nests found in kernels, index rows, what is refused."""

from __future__ import annotations

import pytest

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Var
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import bf16, f16, f32, i8, i32, u8
from tilewright.mapping import operator_of
from tilewright.mapping import operators as ops
from tilewright.mapping.operator import affine, widening
from tilewright.util.errors import MappingError


def test_conv2d_view():
    op = operator_of(ops.c2d(n=1, k=8, p=5, q=6, c=4, r=3, s=2, stride=2, dilation=3))
    assert [(i.name, i.extent, i.kind) for i in op.iterations] == [
        ("n", 1, "spatial"), ("k", 8, "spatial"), ("p", 5, "spatial"), ("q", 6, "spatial"),
        ("c", 4, "reduction"), ("r", 3, "reduction"), ("s", 2, "reduction"),
    ]  # fmt: skip
    image, weight = op.sources
    assert image.rows == ((1, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 1, 0, 0), (0, 0, 2, 0, 0, 3, 0), (0, 0, 0, 2, 0, 0, 3))
    assert [weight.uses(u) for u in range(7)] == [False, True, False, False, True, True, True]
    assert (op.reduce, op.combine, op.root, op.volume) == ("+", "*", "n", 8 * 5 * 6 * 4 * 3 * 2)


def _two_products() -> Kernel:
    x, y, z = (buffer(n, f32, (4, 4)) for n in "xyz")
    u, v = buffer("u", f32, (4,)), buffer("v", f32, (4,))

    def product(a: str, b: str, m, source, target):
        i, k = Var(a), Var(b)
        return st.loop(a, 0, 4, st.loop(b, 0, 4, st.store(target[i], m[i, k] * source[k], "+")))

    w = buffer("w", f32, (4,))
    return Kernel("two", (x, y, z, u, v, w), st.block(product("i", "k", x, u, v), product("i_1", "k_1", y, v, w)))


def test_nests_are_found_by_loop_or_by_output():
    kernel = _two_products()
    assert operator_of(kernel, "w").names == ("i_1", "k_1")
    assert operator_of(kernel, "i").output.name == "v"
    inner = operator_of(kernel, "k_1")  # the nest from k_1 inwards: i_1 is a constant for it
    assert inner.names == ("k_1",) and inner.output.rows == ()
    with pytest.raises(MappingError, match=r"has 2 nests to map") as e:
        operator_of(kernel)
    assert "i (writes v), i_1 (writes w)" in str(e.value)
    with pytest.raises(MappingError, match=r"no nest to map at 'nothing'"):
        operator_of(kernel, "nothing")


def test_imperfect_symbolic_and_scattered_nests_are_refused():
    a, c = buffer("a", f32, (4, 4)), buffer("c", f32, (8,))
    i, k, n = Var("i"), Var("k"), Var("n")
    add = st.store(c[i], a[i, k], "+")
    nest = st.loop("i", 0, 4, st.store(c[i], 0), st.loop("k", 0, 4, add))
    with pytest.raises(MappingError, match=r"loop i of f holds 2 statements: the nest is not perfect"):
        operator_of(Kernel("f", (a, c), st.block(nest)), "i")
    assert operator_of(Kernel("f", (a, c), st.block(nest))).names == ("k",)
    with pytest.raises(MappingError, match=r"loop k of f has symbolic extent n") as e:
        operator_of(Kernel("f", (a, c), st.block(st.loop("i", 0, 4, st.loop("k", 0, n, add))), sizes=(n,)))
    assert "specialize" in str(e.value)
    scatter = st.loop("i", 0, 4, st.loop("k", 0, 4, st.store(c[i // 2], a[i, k], "+")))
    with pytest.raises(MappingError, match=r"index 0 of c in f is i // 2: not affine"):
        operator_of(Kernel("f", (a, c), st.block(scatter)))
    with pytest.raises(MappingError, match=r"no nest to map"):
        operator_of(Kernel("f", (c,), st.block()))


def test_nests_whose_order_matters_are_refused():
    a, c, i, k = buffer("a", f32, (4,)), buffer("c", f32, (4,)), Var("i"), Var("k")
    feedback = st.loop("i", 0, 4, st.loop("k", 0, 4, st.store(c[i], c[k] * a[k], "+")))
    with pytest.raises(MappingError, match=r"writes c also reads it: its order matters"):
        operator_of(Kernel("f", (a, c), st.block(feedback)))
    written_out = st.loop("i", 0, 4, st.loop("k", 0, 4, st.store(c[i], a[k] + c[i])))
    assert operator_of(Kernel("f", (a, c), st.block(written_out))).reduce == "+"
    overwritten = st.loop("i", 0, 4, st.loop("k", 0, 4, st.store(c[i], a[k])))
    with pytest.raises(MappingError, match=r"f overwrites c in loop k"):
        operator_of(Kernel("f", (a, c), st.block(overwritten)))


def test_extent_between_symbolic_bounds_is_their_difference():
    a, c, o = buffer("a", f32, (64,)), buffer("c", f32, (64,)), Var("o")
    inner = st.loop("i", o * 16, o * 16 + 16, st.store(c[Var("i")], a[Var("i")] * a[Var("i")], "+"))
    op = operator_of(Kernel("f", (a, c), st.block(st.loop("o", 0, 4, inner))), "i")
    assert op.extents == (16,)


def test_rows_of_values_that_are_not_plain_loads():
    op = operator_of(ops.t2d(n=1, k=2, p=5, q=5, c=3, r=3, s=3))
    gathered = op.sources[0]
    assert gathered.name == "image"
    assert set(gathered.rows) == {(1, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 1, 0, 0), (0, 0, 1, 0, 0, -1, 0), (0, 0, 0, 1, 0, 0, -1)}
    triangle = operator_of(ops.scn(i=3, j=4)).sources[1]
    assert set(triangle.rows) == {(0, 1, 0), (0, 0, 1)}


def test_affine_forms():
    i, j = Var("i"), Var("j")
    assert affine(3 * i - (j + 2) * 4 + 7) == ({"i": 3, "j": -4}, -1)
    assert affine(i - i) == ({}, 0)
    assert affine(i * j) is None and affine(i // 2) is None


@pytest.mark.parametrize(
    ("source", "target", "exact"),
    [(u8, i32, True), (u8, i8, False), (i8, u8, False), (f16, f32, True), (f16, bf16, False), (bf16, f16, False), (bf16, f32, True),
     (i32, f32, False), (i8, f32, True), (f32, i32, False)],
)  # fmt: skip
def test_widening_keeps_every_value(source, target, exact):
    assert widening(source, target) is exact


def test_lossy_conversion_of_the_product_is_part_of_the_operation():
    a, b, c = buffer("a", i32, (4,)), buffer("b", i32, (4,)), buffer("c", i32, ())
    k = Var("k")

    def narrowed(dtype, op="+"):
        body = st.store(c[()], ex.cast(ex.cast(a[k] * b[k], dtype), i32), op)
        return operator_of(Kernel("f", (a, b, c), st.block(st.loop("k", 0, 4, body)))).narrowed

    assert narrowed(i32) is None  # wraps as the sum does
    assert narrowed(i8) == i8
    assert narrowed(i32, "max") == i32
