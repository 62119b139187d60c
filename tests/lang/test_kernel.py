"""The kernel language: what it accepts, what it means, and what it refuses with which words."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import lang
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import For, LoopKind, Store, find_loop, loops, walk
from tilewright.ir.verify import verify
from tilewright.lang import alloc, bf16, bind, f32, grid, i32, kernel, meta, parallel, parse, unroll, vector
from tilewright.util.errors import IRTypeError, LanguageError

ROWS, COLS = 4, 6
L1 = "l1"
SHIFTS = (0, 1, 2)


@kernel
def scale(x: f32[COLS], by: f32):
    """Every element times ``by``."""
    for j in vector(COLS):
        x[j] = x[j] * by


@kernel
def everything(a: f32[ROWS, COLS] @ L1, b: f32[ROWS, COLS], n: i32):
    for i in parallel(ROWS):
        for j in range(i, COLS, 2):
            acc: f32 = 0
            for t in meta(SHIFTS):
                acc += a[i, min(j + t, COLS - 1)]
            if meta(COLS > 100):
                acc = -1.0
            b[i, j] = acc if j < COLS - 1 else 2 * acc
    for i, j in grid(ROWS, unroll(COLS)):
        part = alloc(f32[2], "reg")
        part[0] = b[i, j]
        part[1] = max(part[0], 0)
        b[i, j] = f32(i32(part[1]))
    k: i32 = 0
    while k < n and k < ROWS:
        scale(b[k, :], a[0, 0])
        k += 1


def test_a_decorated_function_runs_as_written() -> None:
    verify(everything)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((ROWS, COLS)).astype(np.float32) for _ in range(2))
    want = b.copy()
    for i in range(ROWS):
        for j in range(i, COLS, 2):
            acc = sum((a[i, min(j + t, COLS - 1)] for t in SHIFTS), np.float32(0))
            want[i, j] = acc if j < COLS - 1 else 2 * acc
    want = np.trunc(np.maximum(want, 0))
    want[:3] *= a[0, 0]
    interpret(everything, [a, b, np.array(3, np.int32)])
    np.testing.assert_allclose(b, want, rtol=1e-6)


def test_names_are_unique_and_locations_point_at_the_source() -> None:
    names = [f.name for f in loops(everything)]
    assert names == ["i", "j", "i_1", "j_1"]
    assert find_loop(everything, "i").kind is LoopKind.PARALLEL
    inner = find_loop(everything, "j_1")
    assert inner.loc is not None
    assert inner.loc.file.endswith("test_kernel.py")
    assert "grid(ROWS, unroll(COLS))" in inner.loc.text
    assert inner.kind is LoopKind.UNROLL


def test_the_text_form_equals_the_decorated_one() -> None:
    assert parse(str(everything), scale=scale) == everything


def test_factories_make_parametric_kernels() -> None:
    def make(n: int, t: ty.DType) -> object:
        @kernel
        def fill(a: t[n]):
            for i in range(n):
                a[i] = n

        return fill

    assert str(make(3, ty.f32)) != str(make(3, bf16))
    assert "range(7)" in str(make(7, ty.i8))


def test_symbolic_sizes_and_triangular_bounds() -> None:
    body = "    for i in range(N):\n        for j in range(i + 1, min(N, i + 3)):\n            a[i, j] = 1\n"
    k = parse(f'@kernel(params=("N",))\ndef tri(a: i32[N, N]):\n{body}')
    a = np.zeros((5, 5), np.int32)
    interpret(k, [a])
    np.testing.assert_array_equal(a, np.triu(np.ones((5, 5)), 1) - np.triu(np.ones((5, 5)), 3))


def test_minus_equals_is_a_reduction() -> None:
    k = parse("@kernel\ndef f(a: f32[4], s: f32):\n    for i in range(4):\n        s -= a[i]\n")
    assert [s.op for s in walk(k.body) if isinstance(s, Store)] == ["+"]
    s = np.array(10, np.float32)
    interpret(k, [np.arange(4, dtype=np.float32), s])
    assert s == 4


def test_max_of_itself_is_a_reduction() -> None:
    k = parse("@kernel\ndef f(a: i8[4], m: i8):\n    for i in range(4):\n        m = max(m, a[i])\n")
    assert [s.op for s in walk(k.body) if isinstance(s, Store)] == ["max"]


def test_bit_slices() -> None:
    k = parse("@kernel\ndef f(a: i16, lo: u8, bit: UInt(1)):\n    lo = a[4:12]\n    bit = a[15]\n")
    arrays = [np.array(-3000, np.int16), np.array(0, np.uint8), np.array(0, np.uint8)]
    interpret(k, arrays)
    assert (arrays[1], arrays[2]) == ((-3000 >> 4) & 0xFF, 1)


def test_bind_steps_and_layouts() -> None:
    text = '@kernel\ndef f(a: buffer(f32[8, 32], "l2", layout="1/16 0 1")):\n    for i in bind("core", 0, 8, 2):\n        a[i, 0] = 0.0\n'
    k = parse(text)
    assert str(k) == text.rstrip()
    assert (k.args[0].memory, str(k.args[0].layout)) == ("l2", "1/16 0 1")
    loop = find_loop(k, "i")
    assert isinstance(loop, For)
    assert (loop.unit, loop.step) == ("core", 2)


def test_size_arguments_are_inferred_from_windows() -> None:
    text = """
@kernel(params=("N",))
def zero(x: f32[N]):
    for i in range(N):
        x[i] = 0

@kernel
def f(a: f32[4, 10]):
    zero(a[1, 2:9])
"""
    a = np.ones((4, 10), np.float32)
    interpret(parse(text), [a])
    assert a.sum() == 33


REFUSED = [
    ("    return a", "kernels return nothing"),
    ("    for i in [1, 2]:\n        pass", "cannot iterate over"),
    ("    for i in enumerate(3):\n        pass", "cannot iterate over"),
    ("    x = 1.0", "declare a local scalar with its type: x: f32"),
    ("    a[i, 0] = 1.0", "name 'i' is not defined here"),
    ("    a[0] = 1.0", "a has 2 dimensions but is indexed with 1"),
    ("    a[0, 1.5] = 1.0", "is not an integer"),
    ("    a[0, 0] = b[0, 0] @ a[0, 0]", "write the loops of a matrix product"),
    ("    a[0, 0] = foo(1.0)", "'foo' is not defined"),
    ("    foo(a)", "'foo' is not a kernel or instruction"),
    ("    a[0, 0] = a", "array a is used as a value"),
    ("    a[0, 0:2] = 1.0", "cannot assign to a slice of a"),
    ("    for i in range(3):\n        for i in range(3):\n            pass", "'i' already means something here"),
    ("    for i in range(3):\n        pass\n    a[i, 0] = 1.0", "name 'i' is not defined here"),
    ("    for i in range(0, 8, 0):\n        pass", "step 0 is not positive"),
    ("    for i in range(4):\n        i = 3", "it is a loop variable or size"),
    ("    if a[0, 0]:\n        pass", "has type f32, not bool"),
    ("    if a[0, 0] is n:\n        pass", "only < <= > >= == != compare"),
    ("    import os", "is not a statement of the kernel language"),
    ("    a[0, 0] = 'x'", "is not an expression of the kernel language"),
    ("    a[0, 0] = n / n", "is ambiguous"),
    ("    a[0, 0] = n & 1.5", "only integers have bits"),
    ("    a[0, 0] = i8(300)", "300 is outside i8"),
    ("    t: f33", "name 'f33' is not defined"),
    ('    t = alloc(f32[4, 4], layout="0 1/3")', "has no innermost part"),
    ("    if meta(a[0, 0] > 1):\n        pass", "is not known at compile time"),
    ("    while a[0, 0] > 0:\n        pass\n    else:\n        pass", "loops have no else"),
    ("    a = b", "a has 2 dimensions"),
    ("    a[0, 0] = exp(1.0, 2.0)", "exp takes 1 arguments"),
    ("    a[0, 0] = n[30:40]", "are not within the 32 bits"),
    ("    a[0, 0] = 1 // 0", "constant 1 // 0"),
]


@pytest.mark.parametrize(("body", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_is_refused_says_why_and_where(body: str, message: str) -> None:
    with pytest.raises((LanguageError, IRTypeError)) as error:
        parse(f"@kernel\ndef f(a: f32[4, 4], b: f32[4, 4], n: i32):\n{body}\n")
    assert message in str(error.value)
    assert "<text>:" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(a: f32[4]):\n    pass", "needs the one decorator @kernel"),
        ("x = 1", "is not a kernel definition"),
        ("", "defines no kernel"),
        ("@kernel\ndef f(a:\n", "not Python syntax"),
        ("@kernel\ndef f(a):\n    pass", "parameter a has no type"),
        ("@kernel\ndef f(a: f32, a_: f32 = 3):\n    pass", "parameters are plain"),
        ("@kernel(speed=3)\ndef f(a: f32):\n    pass", "has no option 'speed'"),
        ('@kernel(params="MN")\ndef f(a: f32):\n    pass', "is not a tuple of names"),
        ("@kernel\ndef f(a: f32[M]):\n    pass", "name 'M' is not defined"),
        ("@kernel\ndef f(inf: f32):\n    pass", "'inf' cannot be a name"),
        ("@kernel\ndef f(a: f32[-3]):\n    pass", "dimension 0 of a is negative"),
    ],
)
def test_refused_definitions(text: str, message: str) -> None:
    with pytest.raises((LanguageError, IRTypeError), match=message):
        parse(text)


def test_calls_are_checked_against_the_signature() -> None:
    head = "@kernel\ndef g(x: f32[4], y: i8):\n    pass\n\n@kernel\ndef f(a: f32[4, 4], b: i8[4]):\n    "
    for call, message in [
        ("g(a[0, :])", "takes \\(x, y\\), got 1"),
        ("g(a[0, 0:3], b[0])", "dimension 0 of parameter x of g has 4 elements"),
        ("g(a, b[0])", "parameter x has 1 dimensions"),
        ("g(a[0, :], a[0, 0])", "parameter y is i8"),
        ("g(a[0, :], 3)", "is not an array or a part of one"),
    ]:
        with pytest.raises(LanguageError, match=message):
            parse(head + call)


def test_words_of_the_language_say_so_when_run() -> None:
    with pytest.raises(LanguageError, match="word of the kernel language"):
        bind("core", 3)
    assert all(getattr(lang, name) is not None for name in lang.__all__)


def test_expressions_beyond_pythons_nesting_are_refused_not_crashed() -> None:
    def sum_of(n: int) -> str:
        return f"@kernel\ndef f(a: f32[1]):\n    a[0] = {' + '.join(['a[0]'] * n)}\n"

    with pytest.raises(LanguageError, match="nested too deeply"):
        parse(sum_of(3000))
    a = np.ones(1, np.float32)
    interpret(parse(sum_of(80)), [a])
    assert a == 80
    with pytest.raises(IRTypeError, match="nested too deeply"):
        interpret(parse(sum_of(250)), [a])


def limited(x, least):  # type: ignore[no-untyped-def]
    return ex.binary("min", ex.binary("max", x, least), 7)


def test_python_functions_make_expressions() -> None:
    text = "@kernel\ndef f(a: i32[4], b: i32[4]):\n    for i in range(4):\n        b[i] = limited(a[i], -2) + 1\n"
    k = parse(text, limited=limited)
    assert "b[i] = min(max(a[i], -2), 7) + 1" in str(k) and parse(str(k)) == k
    b = np.zeros(4, np.int32)
    interpret(k, {"a": np.array([-9, 0, 5, 90], np.int32), "b": b})
    assert b.tolist() == [-1, 1, 6, 8]
    with pytest.raises(LanguageError, match="missing 1 required positional argument"):
        parse(text.replace(", -2", ""), limited=limited)
    with pytest.raises(LanguageError, match="returns NoneType, which is no expression"):
        parse(text, limited=lambda x, least: None)
