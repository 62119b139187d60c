"""trim and partition: the same results from fewer iterations, whatever stands behind; and what must not be left out is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.interpreter import interpret
from tilewright.ir.stmt import Kernel
from tilewright.ir.verify import verify
from tilewright.lang import parse
from tilewright.schedule import Schedule, replay
from tilewright.util.errors import ScheduleError


def in_blocks(blocks: int, block: int, keys: int, seen: str, values: str = "where({seen}, v[k_3], 0.0)") -> Kernel:
    """Rows in blocks: a maximum and a weighted sum of the keys that each row sees. ``seen`` is a condition on row ``i`` and key ``j``."""

    def where(i: str, j: str) -> str:
        return seen.replace("i", f"(b * {block} + {i})").replace("j", j)

    return parse(f"""
@kernel
def attend(x: f64[{blocks * block}, {keys}], v: f64[{keys}], y: f64[{blocks * block}], top: f64[{blocks * block}]):
    for b in range({blocks}):
        s = alloc(f64[{block}, {keys}])
        for r_0 in range({block}):
            for k_0 in range({keys}):
                s[r_0, k_0] = x[b * {block} + r_0, k_0] * 2.0
        p = alloc(f64[{block}, {keys}])
        for r_1 in range({block}):
            m = alloc(f64[1])
            m[0] = -inf
            for k_1 in range({keys}):
                m[0] = max(m[0], where({where("r_1", "k_1")}, s[r_1, k_1], -inf))
            for k_2 in range({keys}):
                p[r_1, k_2] = where({where("r_1", "k_2")}, s[r_1, k_2] - m[0] + 1.0, 0.0)
            top[b * {block} + r_1] = m[0]
        for r_3 in range({block}):
            y[b * {block} + r_3] = 0.0
            for k_3 in range({keys}):
                y[b * {block} + r_3] += p[r_3, k_3] * {values.format(seen=where("r_3", "k_3"))}
""")


def results(kernel: Kernel, poisoned: bool) -> tuple[np.ndarray, np.ndarray]:
    """What it computes from random numbers; the last key is NaN if ``poisoned``."""
    rng = np.random.default_rng(0)
    (rows, keys), n = kernel.arg("x").static_shape, kernel.arg("v").static_shape[0]
    x, v, y, top = rng.standard_normal((rows, keys)), rng.standard_normal(n), np.zeros(rows), np.zeros(rows)
    if poisoned:
        x[:, -1] = v[-1] = np.nan
    with np.errstate(invalid="ignore"):
        interpret(kernel, {"x": x, "v": v, "y": y, "top": top})
    return y, top


def iterations(s: st.Stmt, env: dict[str, int] | None = None) -> int:
    """How many stores are executed."""
    env = env or {}
    if isinstance(s, st.For):
        lo, hi = (int(ex.evaluate(e, env)) for e in (s.lo, s.hi))
        return sum(iterations(s.body, {**env, s.name: i}) for i in range(lo, hi))
    if isinstance(s, st.If) and not ex.evaluate(s.cond, env):
        return 0
    return isinstance(s, st.Store) + sum(iterations(t, env) for t in st.substmts(s))


SEEN = ("j <= i", "j < i + 3", "j // 4 < i // 4 + 1", "j // 3 < i // 6 * 2 + 2", "j * 2 < i + 5", "i >= j", "j <= i and j < 9")


@settings(max_examples=15, deadline=None)
@given(
    some.integers(1, 3), some.integers(1, 5), some.integers(1, 14), some.sampled_from(SEEN), some.booleans(), some.sampled_from([0, 3, 4])
)
def test_what_changes_nothing_is_left_out(blocks: int, block: int, keys: int, seen: str, poisoned: bool, split: int) -> None:
    kernel = in_blocks(blocks, block, keys, seen)
    sch = Schedule(kernel)
    if split and keys > split:
        for loop in ("k_0", "k_1", "k_2", "k_3"):
            _, inner, *tail = sch.apply("split", loop, split, "peel")
            for f in (inner, *tail):
                sch.unroll(f)
    before = sch.kernel
    shorter = sch.apply("trim")
    verify(sch.kernel)
    want, got = results(before, poisoned), results(sch.kernel, poisoned)
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a, b)
    assert iterations(sch.kernel.body) <= iterations(before.body) if shorter else sch.kernel == before
    for f in [f.name for f in st.loops(sch.kernel) if f.name.startswith(("k_1", "k_2", "k_3"))]:
        try:
            sch.partition(f)
        except ScheduleError:
            continue
    verify(sch.kernel)
    for a, b in zip(want, results(sch.kernel, poisoned), strict=True):
        np.testing.assert_array_equal(a, b)
    assert replay(kernel, sch.trace).kernel == sch.kernel


def test_half_of_a_triangle() -> None:
    kernel = in_blocks(8, 2, 16, "j <= i")
    sch = Schedule(kernel)
    assert set(sch.apply("trim")) == {"k_0", "k_1", "k_2", "k_3"}
    assert iterations(sch.kernel.body) / iterations(kernel.body) < 0.6
    assert sch.apply("trim") == (), "nothing is left to be found"


def test_zero_times_what_is_behind_stays() -> None:
    """Without a mask of its own a factor may be NaN, and zero times NaN is NaN."""
    kernel = in_blocks(2, 4, 8, "j <= i", values="v[k_3]")
    sch = Schedule(kernel)
    assert "k_3" not in sch.apply("trim")
    y, top = results(sch.kernel, poisoned=True)
    assert np.isnan(y).all() and not np.isnan(top[:7]).any()


def test_nests_that_cannot_be_shortened_stand_under_a_condition() -> None:
    kernel = in_blocks(4, 2, 8, "j <= i")
    sch = Schedule(kernel)
    for loop in ("k_0", "k_1", "k_2", "k_3"):
        sch.unroll(sch.apply("split", loop, 6, "peel")[-1])
    assert {f.name for f in st.loops(sch.kernel) if f.kind is st.LoopKind.UNROLL} <= set(sch.apply("trim"))
    for a, b in zip(results(kernel, True), results(sch.kernel, True), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(isinstance(s, st.If) for s in st.walk(sch.kernel.body)) >= 4


def test_conditions_are_not_repeated() -> None:
    """What a loop that became shorter needs is said once."""
    kernel = parse("""
@kernel
def block(x: f64[8, 8], y: f64[8]):
    for b in range(8):
        p = alloc(f64[15])
        for j in range(15):
            p[j] = 0.0
        for i in range(8):
            for k in range(8):
                p[7 - i + k] = x[i, k]
        for r in range(8):
            y[b] += where(r <= b, p[r], 0.0)
""")
    sch = Schedule(kernel)
    while sch.apply("trim"):
        assert len(sch.trace) < 5
    conditions = [
        (str(s.cond), str(t.cond)) for s in st.walk(sch.kernel.body) if isinstance(s, st.If) for t in s.then.stmts if isinstance(t, st.If)
    ]
    assert all(outer != inner for outer, inner in conditions)
    x, y = np.random.default_rng(0).standard_normal((8, 8)), np.zeros(8)
    want, got = y.copy(), y.copy()
    interpret(kernel, {"x": x, "y": want})
    interpret(sch.kernel, {"x": x, "y": got})
    np.testing.assert_array_equal(got, want)


def test_what_is_read_elsewhere_is_computed() -> None:
    kernel = parse("""
@kernel
def kept(x: f32[8, 8], y: f32[8], z: f32[8, 8]):
    for b in range(8):
        p = alloc(f32[8])
        for k in range(8):
            p[k] = where(k <= b, x[b, k], 0.0)
        y[b] = 0.0
        for k_1 in range(8):
            y[b] += p[k_1]
        for k_2 in range(8):
            z[b, k_2] = p[k_2]
""")
    sch = Schedule(kernel)
    assert sch.apply("trim") == ("k_1",)


def test_places_that_memory_tells_may_change() -> None:
    """The same expression for where is stored and where is read, but another value: what is zero behind one is not behind the other."""
    kernel = parse("""
@kernel
def moved(x: f64[16], offset: i32[2], y: f64[2]):
    p = alloc(f64[32])
    at = alloc(i32[1])
    for t in range(2):
        at[0] = offset[t]
        for j in range(16):
            p[index(at[0]) + j] = where(j < 4, x[j], 0.0)
        at[0] = 0
        y[t] = 0.0
        for k in range(16):
            y[t] += p[index(at[0]) + k]
""")
    sch = Schedule(kernel)
    sch.trim()
    x, offset = np.arange(1.0, 17.0), np.array([0, 8], np.int32)
    want, got = np.zeros(2), np.zeros(2)
    for k, y in ((kernel, want), (sch.kernel, got)):
        interpret(k, {"x": x, "offset": offset, "y": y})
    np.testing.assert_array_equal(want, [10, 20])
    np.testing.assert_array_equal(got, want)


def test_what_both_ways_of_a_choice_read_is_computed() -> None:
    """Expressions may be shared: the same load under a condition and where that does not hold."""
    kernel = parse("""
@kernel
def shared(x: f64[8], y: f64[4]):
    for t in range(4):
        p = alloc(f64[8])
        for j in range(8):
            p[j] = where(j < 8 - t, x[j], 0.0)
        for k in range(8):
            y[t] += where(t > 100, p[k], p[k])
""")
    load = next(e.a for s in st.walk(kernel.body) for o in st.own_exprs(s) for e in ex.walk(o) if isinstance(e, ex.Where) and e.a == e.b)
    share = st.map_exprs(kernel.body, lambda e: ex.transform(e, lambda n: load if n == load else None))
    assert isinstance(share, st.Block)
    sch = Schedule(kernel.with_(body=share))
    sch.trim()
    x, y = np.arange(1.0, 9.0), np.zeros(4)
    interpret(sch.kernel, {"x": x, "y": y})
    np.testing.assert_array_equal(y, [x[: 8 - t].sum() for t in range(4)])


def test_a_cut_that_memory_tells_is_refused() -> None:
    """What the first part stores would move where the second one begins."""
    kernel = parse("""
@kernel
def grows(x: f64[32, 32], n: i32[1], y: f64[32]):
    for i in range(16):
        for j in range(index(n[0])):
            y[i] += where(i + j < 12, x[i, j], 1.0)
        n[0] = n[0] + 1
""")
    with pytest.raises(ScheduleError, match="no condition in it is known to hold up to some iteration"):
        Schedule(kernel).partition("i")


def test_the_first_part_asks_nothing() -> None:
    kernel = in_blocks(4, 4, 16, "j <= i")
    sch = Schedule(kernel)
    first, rest = sch.partition("k_2")
    assert "where" not in str(st.find_loop(sch.kernel, first)) and "where" in str(st.find_loop(sch.kernel, rest))


@pytest.mark.parametrize("loop", ["k_0", "b", "r_1"])
def test_a_loop_without_such_a_condition_is_refused(loop: str) -> None:
    with pytest.raises(ScheduleError, match=f"partition {loop}: no condition in it is known to hold up to some iteration"):
        Schedule(in_blocks(4, 4, 16, "j <= i")).partition(loop)
