from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.ir import expr as ex
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import FALSE, TRUE, Binary, Const, Expr, Load, Logical, Not, Var, Where, binary, compare, idx, logical
from tilewright.ir.simplify import bounds, simplify, simplify_expr
from tilewright.ir.stmt import Alloc, Call, For, If, Kernel, LoopKind, Span, Stmt, Store, Window, block, loop, loops, store, walk
from tilewright.ir.types import boolean, f32, i32, index
from tilewright.lang import parse

I, J, K, N = Var("i"), Var("j"), Var("k"), Var("n")
RANGES = {"i": (0, 9), "j": (0, 15), "k": (-3, 4)}


def value(e: Expr, env: dict[str, int]) -> int | bool:
    """Independent evaluation, short-circuiting as the language does."""
    match e:
        case Const():
            return e.value
        case Var():
            return env[e.name]
        case Logical():
            return (value(e.a, env) and value(e.b, env)) if e.op == "and" else (value(e.a, env) or value(e.b, env))
        case Not():
            return not value(e.a, env)
        case Where():
            return value(e.a if value(e.cond, env) else e.b, env)
    a, b = value(e.a, env), value(e.b, env)
    match e.op:
        case "min":
            return min(a, b)
        case "max":
            return max(a, b)
    return eval(f"a {e.op} b", {"a": a, "b": b})


def text(e: Expr) -> str:
    return str(e).replace(" ", "")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((I * 16 + J) // 16, I),
        ((I * 16 + J) % 16, J),
        ((I * 16 + J) // 8, I * 2 + J // 8),
        ((I * 4 + J // 4) // 4 * 4 + (I * 4 + J // 4) % 4, I * 4 + J // 4),
        (I * 16 + J - I * 16, J),
        (((I * 16 + J) // 4) // 4, I),
        (I * 32 // 64, I // 2),
        ((I * 32 + J) % 64, I % 2 * 32 + J),
        (binary("min", I, 20), I),
        (binary("max", I, 20), idx(20)),
        (binary("min", I, idx(5)) // 10, idx(0)),
        ((K + 3) // 8, idx(0)),
        (K % 8 % 4, K % 4),
        ((17 * I + J) // 16, I + (I + J) // 16),
        (compare("<", I * 16 + J, 160), TRUE),
        (compare("<", I * 16, 37), compare("<", I, 3)),
        (compare("==", I * 4 + J * 2, 7), FALSE),
        (compare(">=", K, 5), FALSE),
        (compare("!=", I + 100, J), TRUE),
        (logical("and", compare("<", I, 100), compare("<", J, 3)), compare("<", J, 3)),
        (logical("or", compare("<", I, 3), compare("<", I, 10)), TRUE),
        (Not(Not(compare("<", I, 3))), compare("<", I, 3)),
        (Where(compare("<", I, 5), binary("min", I, 5), I, index), I),
    ],
)
def test_known_forms(before: Expr, after: Expr) -> None:
    assert simplify_expr(before, RANGES) == simplify_expr(after, {}) or simplify_expr(before, RANGES) == after


def test_facts_prove_what_intervals_cannot() -> None:
    inside = compare("<", I * 16 + J, 37)
    guarded = Where(inside, binary("min", I * 16 + J, 36), idx(0), index)
    assert simplify_expr(guarded, RANGES) == Where(inside, I * 16 + J, idx(0), index)


def test_symbolic_sizes_are_not_assumed_positive_enough() -> None:
    assert simplify_expr(compare("<", I, N), {"n": (0, None), "i": (0, 9)}) == compare("<", I, N)
    assert simplify_expr(compare(">=", N + 1, 1), {"n": (0, None)}) == TRUE


def test_bounds() -> None:
    assert bounds(I * 2 - J, RANGES) == (-15, 18)
    assert bounds(N // 4 + 1, {"n": (0, None)}) == (1, None)
    assert bounds(binary("min", N, 7), {"n": (0, None)}) == (0, 7)
    assert bounds(K * K, RANGES) == (-12, 16)


def indices(depth: int) -> st.SearchStrategy[Expr]:
    leaf = st.sampled_from([I, J, K]) | st.integers(-20, 40).map(idx)
    if depth == 0:
        return leaf
    sub = indices(depth - 1)
    divisor = st.sampled_from([1, 2, 3, 4, 6, 8, 16]).map(idx)
    return (
        leaf
        | st.tuples(st.sampled_from("+-"), sub, sub).map(lambda t: binary(*t))
        | st.tuples(sub, st.sampled_from([-3, 2, 4, 5, 16]).map(idx)).map(lambda t: binary("*", *t))
        | st.tuples(sub, sub).map(lambda t: binary("*", *t))
        | st.tuples(st.sampled_from(["//", "%"]), sub, divisor).map(lambda t: binary(*t))
        | st.tuples(st.sampled_from(["min", "max"]), sub, sub).map(lambda t: binary(*t))
        | st.tuples(conditions(depth - 1), sub, sub).map(lambda t: Where(*t, index))
    )


def conditions(depth: int) -> st.SearchStrategy[Expr]:
    sub = indices(max(depth, 0))
    atom = st.tuples(st.sampled_from(ex.COMPARISONS), sub, sub).map(lambda t: compare(*t))
    if depth <= 0:
        return atom
    inner = conditions(depth - 1)
    return atom | st.tuples(st.sampled_from(["and", "or"]), inner, inner).map(lambda t: logical(*t)) | inner.map(Not)


def points(ranges: dict[str, tuple[int, int]]) -> list[dict[str, int]]:
    return [dict(zip(ranges, p, strict=True)) for p in itertools.product(*(range(a, b + 1) for a, b in ranges.values()))]


small = st.tuples(*(st.tuples(st.integers(-3, 3), st.integers(0, 4)).map(lambda t: (t[0], t[0] + t[1])) for _ in range(3)))


@settings(max_examples=300, deadline=None)
@given(e=st.one_of(indices(3), conditions(3)), r=small)
def test_equal_at_every_point(e: Expr, r: tuple[tuple[int, int], ...]) -> None:
    ranges = dict(zip("ijk", r, strict=True))
    new = simplify_expr(e, ranges)
    assert new.dtype == e.dtype
    low, high = bounds(e, ranges) if e.dtype == index else (None, None)
    for p in points(ranges):
        v = value(e, p)
        assert value(new, p) == v, f"{e} became {new} at {p}"
        assert low is None or low <= v
        assert high is None or v <= high


def kernel(*body: Stmt) -> Kernel:
    return Kernel("k", (X,), block(*body))


X = buffer("x", f32, (160,))


def test_guards_and_one_trip_loops_disappear() -> None:
    body = If(compare("<", I * 16 + J, 160), block(store(X[I * 16 + J], 1.0)))
    k = kernel(loop("i", 0, 10, loop("o", 2, 3, loop("j", 0, 16, body))))
    out = simplify(k)
    assert [f.name for f in loops(out)] == ["i", "j"]
    assert not any(isinstance(s, If) for s in walk(out.body))
    assert [f.name for f in loops(simplify(k, keep=frozenset({"o"})))] == ["i", "o", "j"]


def test_tail_bound_makes_the_guard_dead() -> None:
    guard = If(compare("<", I * 16 + J, 37), block(store(X[I * 16 + J], 1.0)))
    k = kernel(loop("i", 0, 3, loop("j", 0, binary("min", 16, 37 - I * 16), guard)))
    assert not any(isinstance(s, If) for s in walk(simplify(k).body))


def test_a_guard_that_can_fail_stays() -> None:
    guard = If(compare("<", I * 16 + J, 37), block(store(X[I * 16 + J], 1.0)))
    k = kernel(loop("i", 0, 3, loop("j", 0, 16, guard)))
    assert simplify(k) == k


def test_empty_loops_and_contradicting_guards_disappear() -> None:
    k = kernel(loop("i", 3, 3, store(X[I], 1.0)), loop("j", 0, 4, If(compare(">", J, 7), block(store(X[J], 1.0)), block(store(X[J], 2.0)))))
    assert simplify(k) == kernel(loop("j", 0, 4, store(X[J], 2.0)))


def test_bound_loops_stay() -> None:
    k = kernel(For(I, idx(0), idx(1), block(store(X[I], 1.0)), LoopKind.BIND, unit="core"))
    assert [(f.name, f.unit) for f in loops(simplify(k))] == [("i", "core")]


def test_guards_become_loop_bounds_on_request() -> None:
    both = logical("and", compare("<", I * 16 + J, 37), logical("and", compare(">=", J, 2), compare("<", I, N)))
    k = Kernel("k", (X,), block(loop("i", 0, 3, loop("j", 0, 16, If(both, block(store(X[I * 16 + J], 1.0)))))), (N,))
    assert simplify(k).body == k.body
    inner = loop("j", 2, binary("min", 37 - I * 16, 16), store(X[I * 16 + J], 1.0))
    assert simplify(k, tighten=True).body == block(loop("i", 0, binary("min", N, 3), inner))


def test_bounds_of_lanes_stay() -> None:
    k = kernel(loop("j", 0, 16, If(compare("<", J, 5), block(store(X[J], 1.0))), kind=LoopKind.VECTOR))
    assert simplify(k, tighten=True) == k


def test_a_trip_count_read_from_memory_is_not_substituted() -> None:
    n = buffer("m", i32, (1,))
    first = ex.cast(n[0], index)
    k = Kernel("k", (X, n), block(loop("i", first, first + 1, store(n[0], 5), store(X[I], 1.0))))
    assert [f.name for f in loops(simplify(k))] == ["i"]


def test_data_dependent_guards_are_not_facts() -> None:
    n = buffer("m", i32, (1,))
    cond = compare("<", ex.cast(n[0], index), 3)
    k = Kernel("k", (X, n), block(If(cond, block(store(n[0], 9), If(cond, block(store(X[0], 1.0)))))))
    assert simplify(k) == k


def test_windows_and_allocations_are_simplified() -> None:
    t = buffer("t", f32, (I * 16 + 16 - I * 16,))
    callee = Kernel("f", (buffer("p", f32, (16,)),), block(store(buffer("p", f32, (16,))[0], 0.0)))
    call = Call(callee, (), (Window(t, (Span(I - I, idx(16)),)),))
    out = simplify(kernel(loop("i", 0, 4, Alloc(t), call, store(X[I], Load(t, (I - I,))))))
    new = buffer("t", f32, (16,))
    assert [s.buffer for s in walk(out.body) if isinstance(s, Alloc)] == [new]
    assert [s.args[0] for s in walk(out.body) if isinstance(s, Call)] == [Window(new, (Span(idx(0), idx(16)),))]
    assert [s.value for s in walk(out.body) if isinstance(s, Store)] == [new[0]]


def test_floats_are_left_alone() -> None:
    e = X[I] * 0.0 + X[I] - X[I]
    assert simplify_expr(e, RANGES) == e
    nan_aware = Not(compare("<", X[I], 1.0))
    assert simplify_expr(nan_aware, RANGES) == nan_aware
    assert nan_aware.dtype == boolean


def test_a_large_nest_is_simplified_in_milliseconds() -> None:
    names = [f"l{d}" for d in range(10)]
    at: Expr = idx(0)
    for d in names:
        at = at * 2 + Var(d)
    body: Stmt = block(*(store(X[(at // 16 * 16 + at % 16) % 160], X[at % 160 // 2]) for _ in range(10)))
    for d in reversed(names):
        body = loop(d, 0, 2, body)
    k = kernel(body)
    best = min(_seconds(k) for _ in range(5))
    assert best < 0.1


def _seconds(k: Kernel) -> float:
    start = time.perf_counter()
    simplify(k)
    return time.perf_counter() - start


def test_index_division_by_a_variable_is_kept() -> None:
    e = Binary("//", I * 4, J + 1, index)
    assert simplify_expr(e, RANGES) == e


def test_values_are_bounded_once_on_each_side() -> None:
    kernel = parse("""
@kernel
def bounded(x: i32[8], y: i8[8], z: f32[8]):
    for i in range(8):
        y[i] = i8(min(max(max(x[i], i32(0)), i32(-128)), i32(127)))
        z[i] = max(max(z[i], 0.0), 1.0)
""")
    text = str(simplify(kernel))
    assert "i8(min(max(x[i], i32(0)), i32(127)))" in text
    assert "z[i] = max(z[i], 1.0)" in text
